"""Version 7: the examples of its description arrive with exactly the values that stand there."""

import json
import math

from making import joined
from wires import measured, page, payload, record

from exporter.aggregate import aggregate
from exporter.api import v7
from exporter.api.wire import decode
from exporter.model import AccountGroup, Agent, Key

AGENT = "861b7557-cd57-4bbb-b648-00bddf88ef49"
ROUND = 1_384_309_800
LINK = "https://api.thousandeyes.com/v7/link/to/resource/id"


def test_the_sessions_of_the_description_are_published_as_they_stand_there() -> None:
    users = decode(payload("v7/real-user-tests.json"), v7.USERS)
    networks = decode(payload("v7/real-user-tests-networks.json"), v7.NETWORKS)
    assert (users.next, networks.next) == (LINK, LINK)
    assert not users.rejected + networks.rejected
    rows = aggregate(joined(users.records, networks.records))
    assert rows.keys == [Key(AGENT, "www.thousandeyes.com", "https")]
    assert {short: column[0] for short, column in rows.columns.items() if not math.isnan(column[0])} == {
        **{f"{leg}latency_seconds": 0.15 for leg in ("", "vpn_", "proxy_")},
        **{f"{leg}jitter_seconds": 0.046 for leg in ("", "vpn_", "proxy_")},
        **{f"{leg}loss_ratio": 0.001 for leg in ("", "vpn_", "proxy_")},
        "cpu_utilization_min_ratio": 0.22,
        "cpu_utilization_max_ratio": 0.75,
        "cpu_utilization_ratio": 0.55,
        "cpu_utilization_median_ratio": 0.61,
        "cpu_utilization_stddev_ratio": 0.01,
        "cpu_samples": 150,
        "memory_used_min_bytes": 1.2,
        "memory_used_max_bytes": 2.5,
        "memory_used_bytes": 1.77,
        "memory_used_median_bytes": 1.85,
        "memory_used_stddev_bytes": 0.25,
        "memory_samples": 155,
        "memory_size_bytes": 1024,
        "experience_score": 0.5,
        "pages": 2,
        "sessions": 1,
        "round_timestamp_seconds": ROUND,
    }, "both of its sessions have one id, so they are one"


def test_the_example_of_an_agent() -> None:
    found = decode(payload("v7/endpoint-agents.json"), v7.AGENTS)
    agent = Agent(AGENT, "Office Printer", "mac", "0.123.4", "Version 10.15.2 (Build 19C57)", "London", 1653608236.0)
    assert found.records == [agent, agent]
    assert found.next == LINK


def test_the_example_of_an_account_group() -> None:
    found = decode(payload("v7/account-groups.json"), v7.ACCOUNT_GROUPS)
    assert found.records == [AccountGroup("1234", "Account A", current=True)] * 2
    assert found.next is None


def test_an_account_group_may_leave_out_which_one_is_current() -> None:
    groups = decode(b'{"accountGroups": [{"aid": "1"}, {"aid": ""}, {"accountGroupName": "x"}]}', v7.ACCOUNT_GROUPS)
    assert groups.records == [AccountGroup("1")]


def test_times_of_any_zone_are_the_same_times() -> None:
    session = record("v7", "users") | {"date": "2017-03-22T13:58:42+02:00", "committed": "2017-03-22T11:58:43.5Z"}
    (user,) = page("v7", "users", session).records
    assert user.commit_delay == 1.5


def test_listings_are_posted_with_an_explicit_range() -> None:
    for request, path in (
        (v7.user_sessions("59", ROUND, ROUND + 900, {}), "/v7/endpoint/test-results/real-user-tests/filter"),
        (
            v7.network_sessions("59", ROUND, ROUND + 900, {}),
            "/v7/endpoint/test-results/real-user-tests/networks/filter",
        ),
    ):
        assert (request.method, request.path, request.body) == ("POST", path, b"{}")
        assert request.query == {"aid": "59", "startDate": "2013-11-13T02:30:00Z", "endDate": "2013-11-13T02:45:00Z"}


def test_a_search_is_one_object() -> None:
    request = v7.network_sessions("", 0, 60, {"platform": ["mac", "windows"]})
    assert "aid" not in request.query
    assert json.loads(request.body or b"") == {"searchFilters": {"platform": ["mac", "windows"]}}


def test_agents_and_account_groups_are_asked_by_get() -> None:
    assert (v7.agents("59").method, v7.agents("59").path, v7.agents("59").query) == (
        "GET",
        "/v7/endpoint/agents",
        {"aid": "59"},
    )
    assert (v7.account_groups().path, v7.account_groups().query) == ("/v7/account-groups", {})


def test_vpn_and_proxy_are_legs_of_their_own() -> None:
    whole = record("v7", "networks") | {"vpn": {"loss": 50, "target": "0.0.0.0"}, "proxy": None}  # noqa: S104  as sent
    (network,) = page("v7", "networks", whole).records
    assert {name: value for name, value in measured(network).items() if name.startswith(("vpn", "proxy"))} == {
        "vpn.loss": 0.5
    }
