"""Both API versions: the examples of their documentation, and their requests."""

from typing import Any

import pytest
from api_records import ROUND, payload, published

from exporter.account_group import AccountGroup
from exporter.sources.agents import Agent, AgentsSource
from exporter.thousandeyes.api import VERSIONS, Version
from exporter.thousandeyes.schema import decode

V6_AGENT, V7_AGENT = "3fde6422-f119-40e1-ae32-d08a1243c038", "861b7557-cd57-4bbb-b648-00bddf88ef49"


def test_v6_publishes_the_printed_sessions_with_their_exact_values() -> None:
    common = {
        "loss_ratio": 0, "sessions": 1, "round_timestamp_seconds": ROUND,
        "cpu_utilization_ratio": 0.38931831001805056, "cpu_samples": 10,
        "cpu_utilization_min_ratio": 0.30859375, "cpu_utilization_max_ratio": 0.5625,
        "cpu_utilization_median_ratio": 0.353515625,
        "cpu_utilization_stddev_ratio": 0.08389194281742307,
        "memory_used_bytes": 12819145821.09091, "memory_samples": 11,
        "memory_used_min_bytes": 12805128192, "memory_used_max_bytes": 12825530368,
        "memory_used_median_bytes": 12818219008, "memory_used_stddev_bytes": 5741124.05691331,
        "memory_size_bytes": 17069891584,
    }  # fmt: skip
    bare = {"latency_seconds": 0.15, "jitter_seconds": 0.046, "pages": 1}
    www = {"latency_seconds": 0.024, "jitter_seconds": 0.036, "pages": 2}
    assert published("v6", "v6/user-sessions.json", "v6/network-sessions.json") == {
        (V6_AGENT, "thousandeyes.com", "http"): common | bare,
        (V6_AGENT, "www.thousandeyes.com", "https"): common | www,
    }


def test_v7_publishes_the_sessions_of_the_description_with_their_exact_values() -> None:
    assert published("v7", "v7/real-user-tests.json", "v7/real-user-tests-networks.json") == {
        (V7_AGENT, "www.thousandeyes.com", "https"): {
            **{f"{leg}latency_seconds": 0.15 for leg in ("", "vpn_", "proxy_")},
            **{f"{leg}jitter_seconds": 0.046 for leg in ("", "vpn_", "proxy_")},
            **{f"{leg}loss_ratio": 0.001 for leg in ("", "vpn_", "proxy_")},
            "cpu_utilization_ratio": 0.55, "cpu_samples": 150,
            "cpu_utilization_min_ratio": 0.22, "cpu_utilization_max_ratio": 0.75,
            "cpu_utilization_median_ratio": 0.61, "cpu_utilization_stddev_ratio": 0.01,
            "memory_used_bytes": 1.77, "memory_samples": 155,
            "memory_used_min_bytes": 1.2, "memory_used_max_bytes": 2.5,
            "memory_used_median_bytes": 1.85, "memory_used_stddev_bytes": 0.25,
            "memory_size_bytes": 1024, "experience_score": 0.5, "pages": 2,
            "sessions": 1,  # both examples have the same id
            "round_timestamp_seconds": 1_384_309_800,
        }
    }  # fmt: skip


AGENTS = {
    "v6": [Agent(
        *("5d0764ac-7e42-4ec8-a0d4-39fc53edccba", "test-agent-1", "", "0.191.0"),
        *("Microsoft Windows 10 Enterprise", "London, England, UK", 1582243003.0),
        vpn="CiscoAnyConnect",
    )],
    "v7": [Agent(
        *(V7_AGENT, "Office Printer", "mac", "0.123.4", "Version 10.15.2 (Build 19C57)", "London"),
        *(1653608236.0, 0.41, "wireless", -36.0, 0.0, "Virgin Media Limited", "cisco-anyconnect"),
        ("dns_failure",),
    )] * 2,
}  # fmt: skip
GROUPS = {
    "v6": [AccountGroup("59", "Demo - Example User", current=False)],
    "v7": [AccountGroup("1234", "Account A", current=True)] * 2,
}


@pytest.mark.parametrize("version", VERSIONS)
def test_examples_of_agents_and_account_groups_are_decoded(version: Version) -> None:
    (listing,) = AgentsSource.listings[version]
    agents = decode(payload(f"{version}/endpoint-agents.json"), listing)
    assert repr(agents.records) == repr(AGENTS[version])  # NaN != NaN
    assert agents.next_link
    assert agents.next_link.startswith("https://api.thousandeyes.com/")
    groups = decode(payload(f"{version}/account-groups.json"), VERSIONS[version].ACCOUNT_GROUPS)
    assert groups.records == GROUPS[version]


def test_agents_and_account_groups_need_only_an_id() -> None:
    body = b'{"endpointAgents": [{"agentId": "1", "lastSeen": "?", "location": null}, {}]}'
    agents = decode(body, AgentsSource.listings["v6"][0])
    assert repr(agents.records) == repr([Agent("1")])
    assert agents.rejected == {"bad_time": 1, "missing_field": 1}
    body = b'{"accountGroups": [{"aid": "1"}, {"aid": ""}, {"accountGroupName": "x"}]}'
    groups = decode(body, VERSIONS["v7"].ACCOUNT_GROUPS)
    assert (groups.records, groups.rejected) == ([AccountGroup("1")], {"missing_field": 2})


SEARCH = {"platform": ["mac", "windows"], "domain": ["a.b"]}
V6_SEARCH = [{"key": key, "values": values} for key, values in SEARCH.items()]
V6_RANGE = {"from": "2017-03-26T11:58:00", "to": "2017-03-26T12:13:00"}
V7_RANGE = {"startDate": "2017-03-26T11:58:00Z", "endDate": "2017-03-26T12:13:00Z"}


def test_requests_have_an_explicit_range_and_search_filters() -> None:
    cases: list[tuple[Version, Any, dict[str, str], Any]] = [
        ("v6", {}, V6_RANGE, None), ("v6", SEARCH, V6_RANGE, {"searchFilters": V6_SEARCH}),
        ("v7", {}, V7_RANGE, {}), ("v7", SEARCH, V7_RANGE, {"searchFilters": SEARCH}),
    ]  # fmt: skip
    for version, search, query, body in cases:
        assert VERSIONS[version].parameters(ROUND, ROUND + 900, search) == (query, body)
