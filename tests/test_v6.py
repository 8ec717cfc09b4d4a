"""Version 6: what its documentation shows arrives with exactly the values that stand there."""

import json
import math
from collections import Counter

import pytest
from making import joined
from wires import measured, page, payload, record, shape

from exporter.aggregate import aggregate
from exporter.api import v6
from exporter.api.wire import decode
from exporter.model import AccountGroup, Agent, Key, Sessions
from exporter.selection import Selection

AGENT = "3fde6422-f119-40e1-ae32-d08a1243c038"
ROUND = 1_490_529_480
PRINTED = ("user-sessions", "network-sessions")


def samples(user_page: bytes, network_page: bytes) -> dict[tuple[str, str, str], dict[str, float]]:
    """Take pages the whole way from bytes to what is published: key → short name of the family → value."""
    sessions = Sessions(decode(user_page, v6.USERS).records, decode(network_page, v6.NETWORKS).records, Counter())
    taken = Selection().take(sessions, ROUND + 120)
    rows = aggregate(joined(taken.users, taken.networks))
    return {
        key: {short: column[row] for short, column in rows.columns.items() if not math.isnan(column[row])}
        for row, key in enumerate(rows.keys)
    }


def test_the_sessions_of_the_documentation_are_published_as_they_stand_there() -> None:
    system = {
        "cpu_utilization_min_ratio": 0.30859375,
        "cpu_utilization_max_ratio": 0.5625,
        "cpu_utilization_ratio": 0.38931831001805056,
        "cpu_utilization_median_ratio": 0.353515625,
        "cpu_utilization_stddev_ratio": 0.08389194281742307,
        "cpu_samples": 10,
        "memory_used_min_bytes": 12805128192,
        "memory_used_max_bytes": 12825530368,
        "memory_used_bytes": 12819145821.09091,
        "memory_used_median_bytes": 12818219008,
        "memory_used_stddev_bytes": 5741124.05691331,
        "memory_samples": 11,
        "memory_size_bytes": 17069891584,
    }
    both = {"loss_ratio": 0, "sessions": 1, "round_timestamp_seconds": ROUND}
    published = samples(payload("v6/user-sessions.json"), payload("v6/network-sessions.json"))
    bare = {"latency_seconds": 0.15, "jitter_seconds": 0.046, "pages": 1}
    www = {"latency_seconds": 0.024, "jitter_seconds": 0.036, "pages": 2}
    assert published == {
        Key(AGENT, "thousandeyes.com", "http"): both | bare | system,
        Key(AGENT, "www.thousandeyes.com", "https"): both | www | system,
    }


def test_what_the_documentation_says_of_each_session_is_kept() -> None:
    users = decode(payload("v6/user-sessions.json"), v6.USERS)
    assert [(user.id, user.round, user.commit_delay) for user in users.records] == [
        ("07625:1490529480:aVDViw0i", ROUND, 2.0),
        ("07625:1490529480:h3qJQTpl", ROUND, 3.0),
    ]
    assert (users.next, users.rejected.total()) == (None, 0)
    networks = decode(payload("v6/network-sessions.json"), v6.NETWORKS)
    assert [network.id for network in networks.records] == [user.id for user in users.records]
    assert measured(networks.records[0])["systemMetrics.startTimeMs"] == 1581508857.327


@pytest.mark.parametrize("name", PRINTED)
def test_the_repaired_bodies_differ_in_brackets_and_commas_only(name: str) -> None:
    def bare(text: str) -> list[str]:
        return [line.strip(" ,[]{}") for line in text.splitlines() if line.strip(" ,[]{}.")]

    printed = [line for line in bare(payload(f"v6/{name}.printed.txt").decode()) if "webSessions" not in line]
    repaired = bare(payload(f"v6/{name}.json").decode())
    assert [_number(line) for line in printed] == [_number(line) for line in repaired]


def _number(line: str) -> tuple[str, object]:
    name, _, value = line.partition(": ")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def test_a_ranged_answer_repeats_its_range() -> None:
    found = decode(payload("v6/user-sessions.filtered.json"), v6.USERS)
    assert [(user.key, user.commit_delay, measured(user)) for user in found.records] == [
        (Key("236e6f18-9637-4a2f-b15f-7aa6a29c9fce", "success.thousandeyes.com", "https"), 2.0, {"numberOfPages": 3}),
        (Key("236e6f18-9637-4a2f-b15f-7aa6a29c9fce", "app.thousandeyes.com", "https"), 1.0, {"numberOfPages": 1}),
    ]


def test_the_example_of_an_agent() -> None:
    found = decode(payload("v6/endpoint-agents.json"), v6.AGENTS)
    assert found.records == [
        Agent(
            id="5d0764ac-7e42-4ec8-a0d4-39fc53edccba",
            name="test-agent-1",
            version="0.191.0",
            os_version="Microsoft Windows 10 Enterprise",
            location="London, England, UK",
            last_seen=1582243003.0,
        )
    ]
    assert found.next == "https://api.thousandeyes.com/v6/endpoint-agents?pageId=cd9cf945-f66f-4945-b5fe-f7a9a2a97896"


def test_the_example_of_an_account_group() -> None:
    assert decode(payload("v6/account-groups.json"), v6.ACCOUNT_GROUPS).records == [
        AccountGroup("59", "Demo - Example User", current=False)
    ]


def test_an_agent_that_says_little_is_an_agent() -> None:
    (agent,) = decode(
        b'{"endpointAgents": [{"agentId": "1", "lastSeen": "?", "location": null}, {}]}', v6.AGENTS
    ).records
    assert (agent.id, agent.name, agent.location, math.isnan(agent.last_seen)) == ("1", "", "", True)


def test_listings_are_asked_by_get_with_an_explicit_range() -> None:
    for request, path in (
        (v6.user_sessions("59", 1490529480, 1490530380, {}), "/v6/endpoint-data/user-sessions.json"),
        (v6.network_sessions("59", 1490529480, 1490530380, {}), "/v6/endpoint-data/user-sessions/network.json"),
    ):
        assert (request.method, request.path, request.body) == ("GET", path, None)
        assert request.query == {"aid": "59", "from": "2017-03-26T11:58:00", "to": "2017-03-26T12:13:00"}


def test_a_search_is_posted_as_keys_and_values() -> None:
    request = v6.user_sessions("", 0, 60, {"connection": ["Wireless"], "domain": ["a.example", "b.example"]})
    assert (request.method, request.query) == ("POST", {"from": "1970-01-01T00:00:00", "to": "1970-01-01T00:01:00"})
    assert json.loads(request.body or b"") == {
        "searchFilters": [
            {"key": "connection", "values": ["Wireless"]},
            {"key": "domain", "values": ["a.example", "b.example"]},
        ]
    }


def test_agents_and_account_groups_are_asked_by_get() -> None:
    assert (v6.agents("59").path, v6.agents("59").query) == ("/v6/endpoint-agents.json", {"aid": "59"})
    assert (v6.account_groups().path, v6.account_groups().query) == ("/v6/account-groups.json", {})


def test_round_trip_times_are_of_this_version() -> None:
    (network,) = page("v6", "networks", record("v6", "networks")).records
    assert measured(network)["destination.maxRtt"] == 0.1525
    assert shape("v6", "networks").results == "networkSessions"
