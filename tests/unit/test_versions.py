"""Both API versions: the examples of their documentation, and their requests."""

import pytest
from api_records import ROUND, payload, published

from exporter.account_group import AccountGroup
from exporter.sources.agents import Agent, AgentsSource
from exporter.thousandeyes.api import VERSIONS
from exporter.thousandeyes.schema import decode

V6_AGENT, V7_AGENT = "3fde6422-f119-40e1-ae32-d08a1243c038", "861b7557-cd57-4bbb-b648-00bddf88ef49"


def test_v6_publishes_the_printed_sessions_with_their_exact_values():
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


V6 = [
    Agent(
        *("5d0764ac-7e42-4ec8-a0d4-39fc53edccba", "test-agent-1", "", "0.191.0"),
        *("Microsoft Windows 10 Enterprise", "London, England, UK", 1582243003.0),
        vpn="CiscoAnyConnect",
    ),
    AccountGroup("59", "Demo - Example User", current=False),
]
V7 = [
    Agent(
        *(V7_AGENT, "Office Printer", "mac", "0.123.4", "Version 10.15.2 (Build 19C57)", "London"),
        *(1653608236.0, 0.41, "wireless", -36.0, 0.0, "Virgin Media Limited", "cisco-anyconnect"),
        failures=("dns_failure",),
    ),
    AccountGroup("1234", "Account A", current=True),
]


@pytest.mark.parametrize(("version", "expected"), [("v6", V6), ("v7", V7)])
def test_examples_of_agents_and_account_groups_are_decoded(version, expected):
    listings = *AgentsSource.listings[version], VERSIONS[version].ACCOUNT_GROUPS
    for name, listing, record in zip(
        ("endpoint-agents", "account-groups"), listings, expected, strict=True
    ):
        page = decode(payload(f"{version}/{name}.json"), listing)
        assert set(map(repr, page.records)) == {repr(record)}  # NaN != NaN
        assert bool(page.next_link) == (name == "endpoint-agents")


def test_requests_have_an_explicit_range_and_search_filters():
    start, end, search = "2017-03-26T11:58:00", "2017-03-26T12:13:00", {"platform": ["mac"]}
    v6, v7 = {"from": start, "to": end}, {"startDate": f"{start}Z", "endDate": f"{end}Z"}
    filters = {"searchFilters": [{"key": "platform", "values": ["mac"]}]}
    for version, filters_, expected in (
        ("v6", {}, (v6, None)),
        ("v6", search, (v6, filters)),
        ("v7", {}, (v7, {})),
        ("v7", search, (v7, {"searchFilters": search})),
    ):
        assert VERSIONS[version].parameters(ROUND, ROUND + 900, filters_) == expected
