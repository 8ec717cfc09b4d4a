"""The pretend API: is it the documented one, and does it tell the story that it promises?"""

import asyncio
import base64
import json
import math
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from thousandeyes_sdk.administrative.api.account_groups_api import AccountGroupsApi
from thousandeyes_sdk.core import ApiClient, Configuration
from thousandeyes_sdk.endpoint_agents.api.endpoint_agents_api import EndpointAgentsApi
from thousandeyes_sdk.endpoint_agents.models import ExpandEndpointAgentOptions
from thousandeyes_sdk.endpoint_test_results.api.real_user_endpoint_test_results_api import (
    RealUserEndpointTestResultsApi,
)
from thousandeyes_sdk.endpoint_test_results.models import (
    RealUserEndpointTestResultRequestFilter,
    RealUserEndpointTestResultsRequest,
)

from exporter.simulator import Simulator, World, describe_faults, parse_faults
from exporter.simulator.faults import FAULTS, ODD
from exporter.simulator.world import OFFICES, SLOW_OFFICE, Session

NOW = datetime(2026, 11, 18, 14, 32, 30, tzinfo=UTC).timestamp()
"""A Wednesday afternoon, in the minutes in which the ailing site ails."""
V7_SESSIONS = "/v7/endpoint/test-results/real-user-tests/filter"
V7_NETWORKS = "/v7/endpoint/test-results/real-user-tests/networks/filter"
V7_AGENTS = "/v7/endpoint/agents"
V7_GROUPS = "/v7/account-groups"
V6_SESSIONS = "/v6/endpoint-data/user-sessions.json"
V6_NETWORKS = "/v6/endpoint-data/user-sessions/network.json"
V6_AGENTS = "/v6/endpoint-agents.json"
V6_GROUPS = "/v6/account-groups.json"
RECORDS = {
    V7_SESSIONS: "results",
    V7_NETWORKS: "results",
    V7_AGENTS: "agents",
    V6_SESSIONS: "userSessions",
    V6_NETWORKS: "networkSessions",
    V6_AGENTS: "endpointAgents",
}
BEARER = {"Authorization": "Bearer demo"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"demo@example.com:demo").decode()}


class Clock:
    """A clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Client:
    """Asks one simulator, and reads every answer to its end."""

    def __init__(self, http: aiohttp.ClientSession, url: str, simulator: Simulator, clock: Clock) -> None:
        self.http, self.url, self.simulator, self.clock = http, url, simulator, clock

    async def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> aiohttp.ClientResponse:
        method = method or ("POST" if "/v7/" in path and "/filter" in path else "GET")
        fields = {**BEARER, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = path if path.startswith("http") else self.url + path
        data = json.dumps(body) if body is not None and not isinstance(body, bytes) else body
        if data is not None:
            fields = {"Content-Type": "application/json", **fields}
        async with self.http.request(method, url, data=data, headers=fields, allow_redirects=False) as response:
            await response.read()
            return response

    async def records(self, path: str, query: str = "", body: Any = None) -> list[dict[str, Any]]:
        """Read all pages of a listing, each by the link of the one before."""
        found, url = [], path + query
        while url:
            response = await self.ask(url, body)
            assert response.status == 200, await response.text()
            payload = await response.json(content_type=None)
            found += payload[RECORDS[path]]
            url = payload["pages"].get("next") if "pages" in payload else payload["_links"].get("next", {}).get("href")
        return found


@asynccontextmanager
async def running(world: World, faults: Iterable[str] = (), **options: Any) -> AsyncIterator[Client]:
    clock = Clock()
    simulator = Simulator(world, clock=clock, faults=parse_faults(faults), **options)
    url = await simulator.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(http, url, simulator, clock)
    finally:
        await simulator.stop()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running(World(agents=60), page_size=100) as client:
        yield client


def visits(world: World, aid: int = 1001, seconds: int = 900, now: float = NOW) -> list[Session]:
    return list(world.sessions(aid, now - seconds, now, now))


def measured(sessions: Iterable[Session]) -> list[Session]:
    return [s for s in sessions if s.measured]


def listed(sessions: Iterable[Session]) -> list[Session]:
    return [s for s in sessions if s.listed]


def iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text_date(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S")


# The world.


def test_the_same_world_is_told_twice_and_in_any_order() -> None:
    forward, backward = World(seed=7), World(seed=7)
    ends = range(int(NOW) - 3600, int(NOW), 600)
    late = [list(backward.sessions(1001, end - 599, end, NOW)) for end in reversed(ends)]
    assert [list(forward.sessions(1001, end - 599, end, NOW)) for end in ends] == late[::-1]
    assert visits(World(seed=8)) != visits(World(seed=7))


def test_a_range_holds_what_its_parts_hold_and_both_its_ends() -> None:
    world = World(agents=60)
    whole = visits(world)
    middle = whole[len(whole) // 2].date
    start = NOW - 900
    parts = [*world.sessions(1001, start, middle - 1, NOW), *world.sessions(1001, middle, middle, NOW)]
    parts += world.sessions(1001, middle + 1, NOW, NOW)
    assert parts == whole
    assert [s.date for s in whole] == sorted(s.date for s in whole)
    assert all(s.date == middle for s in world.sessions(1001, middle, middle, NOW))


def test_ids_are_unique_and_rounds_start_on_the_minute() -> None:
    sessions = visits(World(account_groups=2), aid=1002, seconds=3600)
    assert len({s.id for s in sessions}) == len(sessions)
    for session in sessions:
        aid, round_id, random = session.id.split(":")
        assert (aid, round_id, len(random)) == ("01002", str(session.round_id), 8)
        assert session.round_id % 60 == 0
        assert 0 <= session.date - session.round_id < 60


def test_a_session_appears_when_it_is_committed_some_minutes_late() -> None:
    world = World(agents=100)
    final = [s for r in range(int(NOW) // 60 * 60 - 840, int(NOW), 60) for s in world.round(1001, r)]
    delays = [s.committed - s.date for s in final]
    assert 1 <= min(delays) <= statistics.median(delays) <= 3 < max(delays) <= 240
    for now in (NOW - 300, NOW - 60.5, NOW):
        seen = {s.id for s in world.sessions(1001, NOW - 3600, NOW + 3600, now)}
        assert {s.id for s in final if s.committed <= now} <= seen
        assert not {s.id for s in final if s.committed > now} & seen


def test_pages_are_counted_while_a_session_is_young() -> None:
    world = World()
    long = next(s for s in world.round(1001, int(NOW) // 60 * 60 - 60) if s.pages >= 4 and s.committed < s.date + 10)
    counts = [
        next(s.pages for s in world.sessions(1001, long.date, long.date, long.date + age) if s.id == long.id)
        for age in (10, 60, 90, 120, 600)
    ]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-2:] == [long.pages, long.pages]


@pytest.mark.parametrize("day", range(7))
def test_something_happens_at_every_hour_of_every_day(day: int) -> None:
    world = World()
    for hour in range(0, 24, 3):
        now = NOW + day * 86400 + hour * 3600
        assert 600 <= len(visits(world, now=now)) <= 2500


def test_people_visit_more_sites_in_the_hours_of_work_where_they_live() -> None:
    world = World(agents=48)
    london = [s for s in visits(world, seconds=86400) if s.agent.office.code == "LON"]
    by_hour = statistics.multimode(s.date // 3600 % 24 for s in london)
    assert by_hour[0] in {9, 10, 11, 13, 14, 15, 16}


def test_the_number_of_sessions_a_minute_can_be_forced() -> None:
    world = World(agents=7, sessions_per_minute=123)
    assert {len(world.round(1001, 60 * n)) for n in range(10)} == {123}


def test_an_agent_that_vanishes_leaves_the_others_as_they_were() -> None:
    world = World(agents=60)
    everything = visits(world)
    gone, leaving = everything[0].agent_id, everything[-1].agent_id
    assert gone != leaving
    others = world.without([gone]).vanishing({leaving: NOW - 300})
    expected = [s for s in everything if s.agent_id != gone and (s.agent_id != leaving or s.date <= NOW - 300)]
    assert visits(others) == expected
    assert {a.id for a in world.agents_of(1001, NOW)} - {a.id for a in others.agents_of(1001, NOW)} == {gone, leaving}
    assert leaving in {a.id for a in others.agents_of(1001, NOW - 400)}


def test_agents_are_dealt_out_to_account_groups() -> None:
    world = World(agents=50, account_groups=12)
    assert [group.aid for group in world.groups] == list(range(1001, 1013))
    assert len({group.name for group in world.groups}) == 12
    assert sum(len(world.agents_of(group.aid, NOW)) for group in world.groups) == 50
    for group in world.groups:
        assert {s.agent.aid for s in visits(world, aid=group.aid)} == {group.aid}


def test_a_world_can_not_be_empty() -> None:
    with pytest.raises(ValueError, match="at least one"):
        World(agents=0)


def latency(sessions: Iterable[Session]) -> float:
    return statistics.median(s.destination.latency for s in sessions if s.destination and s.destination.latency)


def test_one_site_ails_for_twenty_minutes_of_each_hour() -> None:
    world = World()
    ailing = next(site for site in world.websites if site.ailing)
    ill = [s for s in measured(visits(world, seconds=600)) if s.agent.office != SLOW_OFFICE]
    well = [s for s in measured(visits(world, seconds=600, now=NOW + 1200)) if s.agent.office != SLOW_OFFICE]
    here, there = [s for s in ill if s.site == ailing], [s for s in ill if s.site != ailing]
    assert latency(here) > 4 * latency(there)
    assert latency(s for s in well if s.site == ailing) < 2 * latency(there)
    for value in (lambda s: s.destination.loss, lambda s: s.destination.jitter, lambda s: 1 - s.experience_score):
        mean = [
            statistics.fmean(
                value(s) for s in sessions if s.destination and s.destination.jitter and s.experience_score
            )
            for sessions in (here, there)
        ]
        assert mean[0] > 3 * mean[1]


def test_one_office_is_slow_whatever_its_people_visit() -> None:
    sessions = visits(World())
    slow = [s for s in sessions if s.agent.office == SLOW_OFFICE]
    for office in OFFICES:
        if office != SLOW_OFFICE:
            assert latency(slow) > 3 * latency(s for s in sessions if s.agent.office == office)


def test_one_laptop_is_tired() -> None:
    sessions = visits(World(), seconds=3600)
    tired = [s for s in sessions if s.agent.tired]
    assert len({s.agent_id for s in tired}) == 1
    assert all(s.system.cpu and 0.85 < s.system.cpu.min <= s.system.cpu.max <= 1 for s in tired)
    assert all(s.system.memory.mean > 0.95 * s.system.memory_total for s in tired)
    scores = [s.experience_score for s in sessions if s.experience_score and not s.agent.tired]
    assert max(s.experience_score for s in tired if s.experience_score) < statistics.median(scores)


def test_one_person_has_bad_wifi_and_loss_comes_in_steps_of_ten_percent() -> None:
    sessions = [s for s in visits(World(), seconds=3600) if s.destination and s.destination.loss is not None]
    bad = [s for s in sessions if s.agent.bad_wifi]
    assert len({s.agent_id for s in bad}) == 1
    assert {s.place.connection for s in bad} == {"wireless"}
    loss = [[s.destination.loss for s in group if s.destination] for group in (bad, sessions)]
    assert statistics.fmean(loss[0]) > 5 * statistics.fmean(loss[1])
    assert {value % 10 for value in loss[1]} == {0}


def test_the_vpn_costs_time_and_the_proxy_stands_in_one_office() -> None:
    sessions = visits(World(), seconds=3600)
    fast = [s for s in sessions if s.agent.office != SLOW_OFFICE and not s.site.ailing]
    assert latency(s for s in fast if s.vpn) > 1.5 * latency(s for s in fast if not s.vpn)
    assert 0 < len([s for s in sessions if s.vpn]) < len(sessions) / 2
    assert {s.agent.office.code for s in sessions if s.proxy} == {"BER"}


def test_what_real_agents_leave_out_is_left_out() -> None:
    sessions = visits(World(agents=1000))
    share = {
        "no network session": sum(not s.measured for s in sessions),
        "no user session": sum(not s.listed for s in sessions),
        "no score": sum(s.experience_score is None for s in sessions),
        "no cpu": sum(s.system.cpu is None for s in sessions),
        "no destination": sum(s.destination is None for s in sessions),
        "a silent one": sum(s.destination is not None and s.destination.latency is None for s in sessions),
    }
    assert 0.01 < share.pop("no network session") / len(sessions) < 0.03
    assert 0.002 < share.pop("no user session") / len(sessions) < 0.01
    assert all(0.01 < number / len(sessions) < 0.2 for number in share.values()), share
    assert all(s.listed or s.measured for s in sessions)


def test_samples_are_in_order_and_one_minute_of_an_agent_shares_its_periods() -> None:
    sessions = visits(World(), seconds=1800)
    for samples in (s for session in sessions for s in (session.system.cpu, session.system.memory) if s):
        assert 0 <= samples.min <= samples.median <= samples.max
        assert samples.min <= samples.mean <= samples.max
        assert samples.std_dev <= samples.max - samples.min
    together: dict[tuple[str, int], set[tuple[int, int]]] = {}
    counts: dict[tuple[str, int], int] = {}
    for session in sessions:
        key = session.agent_id, session.round_id
        together.setdefault(key, set()).add((session.system.start_ms, session.system.end_ms))
        counts[key] = counts.get(key, 0) + 1
    shared = [len(periods) for key, periods in together.items() if counts[key] > 1]
    assert 1 in shared
    assert 2 in shared


def test_v6_numbers_are_the_same_under_two_names() -> None:
    legs = [s.destination for s in visits(World()) if s.destination and s.destination.latency]
    assert all(leg.avg_rtt == leg.latency and leg.mean_dev_rtt == leg.jitter for leg in legs)
    assert all(leg.max_rtt > leg.latency for leg in legs)
    assert any(leg.max_rtt % 1 for leg in legs)


# Version 7.


async def test_all_pages_of_v7_hold_every_session_once(client: Client) -> None:
    expected = visits(client.simulator.world)
    sessions = await client.records(V7_SESSIONS, "?window=15m", {})
    networks = await client.records(V7_NETWORKS, "?window=15m", {})
    assert len(sessions) > 300
    assert [s["id"] for s in sessions] == [s.id for s in listed(expected)]
    assert [s["id"] for s in networks] == [s.id for s in measured(expected)]
    shown = json.dumps(sessions + networks)
    assert "null" not in shown
    assert "axRtt" not in shown


async def test_pages_may_be_smaller_than_a_round_and_a_filter_may_thin_them(client: Client) -> None:
    client.simulator.page_size = 3
    expected = [s for s in listed(visits(client.simulator.world, seconds=200)) if s.agent.hardware.platform == "mac"]
    body = {"searchFilters": {"platform": ["mac"]}}
    assert [s["id"] for s in await client.records(V7_SESSIONS, "?window=200", body)] == [s.id for s in expected]
    assert len(client.simulator.requests) == math.ceil(len(expected) / 3) > 4


async def test_pages_do_not_move_while_time_goes_on(client: Client) -> None:
    expected = [s.id for s in listed(visits(client.simulator.world))]
    found, url = [], V7_SESSIONS + "?window=15m"
    while url:
        payload = await (await client.ask(url, method="POST")).json()
        found += [s["id"] for s in payload["results"]]
        url = payload["_links"].get("next", {}).get("href")
        client.clock.now += 50
    assert found == expected


@pytest.mark.parametrize("path", [V7_SESSIONS, V6_SESSIONS])
async def test_a_full_last_page_has_no_next(path: str) -> None:
    world = World(agents=20)
    async with running(world, page_size=len(listed(visits(world)))) as client:
        payload = await (await client.ask(path + "?window=15m")).json()
        assert len(payload[RECORDS[path]]) == client.simulator.page_size
        assert "next" not in payload.get("_links", payload.get("pages"))


async def test_a_range_is_echoed_only_to_who_asked_for_one(client: Client) -> None:
    asked = await (await client.ask(f"{V7_SESSIONS}?startDate={iso(NOW - 600)}&endDate={iso(NOW - 300)}", {})).json()
    assert (asked["startDate"], asked["endDate"]) == (iso(NOW - 600), iso(NOW - 300))
    assert asked["results"][0]["date"] >= iso(NOW - 600)
    unasked = await (await client.ask(V7_SESSIONS, {})).json()
    assert unasked.keys() == {"results", "_links"}


async def test_without_a_range_networks_are_of_the_last_round_and_sessions_of_all_recent_ones(client: Client) -> None:
    assert {s["roundId"] for s in await client.records(V7_NETWORKS)} == {int(NOW) // 60 * 60 - 60}
    rounds = {s["roundId"] for s in await client.records(V7_SESSIONS)}
    assert max(rounds) - min(rounds) > 3000
    for path in (V6_SESSIONS, V6_NETWORKS):
        assert {s["roundId"] for s in await client.records(path)} == {int(NOW) // 60 * 60 - 60}


async def test_a_range_without_an_end_ends_now_and_nothing_is_older_than_a_month(client: Client) -> None:
    found = await client.records(V7_SESSIONS, f"?startDate={iso(NOW - 300)}")
    assert [s["id"] for s in found] == [s.id for s in listed(visits(client.simulator.world, seconds=300))]
    first = await (await client.ask(V7_SESSIONS + "?window=52w")).json()
    assert first["results"][0]["date"][:10] == "2026-10-19"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("window=15m&startDate=2026-11-18T14:00:00Z", "window"),
        ("endDate=2026-11-18T14:00:00Z", "without startDate"),
        ("startDate=yesterday", "Invalid date"),
        ("window=15x", "Invalid window"),
        ("cursor=garbage", "Failed to deserialize"),
        ("cursor=eyJhIjoxfQ", "Failed to deserialize"),
        ("cursor=WzFd", "Failed to deserialize"),
        ("cursor=%C3%A4", "Failed to deserialize"),
    ],
)
async def test_v7_refuses_a_range_that_makes_no_sense(client: Client, query: str, words: str) -> None:
    response = await client.ask(f"{V7_SESSIONS}?{query}", {})
    problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["status"], problem["instance"]) == (400, 400, V7_SESSIONS)
    assert words in problem["detail"]


async def test_an_unknown_parameter_is_ignored(client: Client) -> None:
    assert (await client.ask(V7_SESSIONS + "?startdate=nonsense&bogus=1", {})).status == 200


async def test_content_types_are_those_that_were_seen_live(client: Client) -> None:
    assert (await client.ask(V7_SESSIONS)).headers["Content-Type"] == "application/json"
    for path in (V7_AGENTS, V7_GROUPS):
        assert (await client.ask(path)).headers["Content-Type"] == "application/hal+json;charset=UTF-8"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        ({}, 200),
        ({"searchFilters": {}}, 200),
        ({"searchFilters": [{"key": "domain", "values": ["example.com"]}]}, 400),
        ({"searchFilters": {"colour": ["red"]}}, 400),
        ({"searchFilters": {"domain": "example.com"}}, 400),
        ({"searchFilters": {"domain": [1]}}, 400),
        ([], 400),
        (b"{", 400),
    ],
)
async def test_v7_filters_are_an_object_of_lists(client: Client, body: Any, status: int) -> None:
    assert (await client.ask(V7_SESSIONS, body)).status == status


async def test_v7_wants_a_json_body_to_be_called_one(client: Client) -> None:
    assert (await client.ask(V7_SESSIONS, b"{}", Content_Type="text/plain")).status == 415


def one_of_each(sessions: list[Session]) -> dict[str, Callable[[Session], Any]]:
    return {
        "agentId": lambda s: s.agent_id,
        "bssid": lambda s: s.place.bssid,
        "connection": lambda s: s.place.connection,
        "destinationIp": lambda s: s.site.address,
        "domain": lambda s: s.site.domain,
        "gateway": lambda s: s.place.gateway,
        "location": lambda s: s.agent.office.location,
        "networkId": lambda s: s.place.id,
        "nicDriverVersion": lambda s: s.agent.hardware.nic_driver_version,
        "nicModel": lambda s: s.agent.hardware.nic_model,
        "platform": lambda s: s.agent.hardware.platform,
        "proxyTarget": lambda s: s.proxy and s.proxy.target,
        "ssid": lambda s: s.place.ssid,
        "trigger": lambda s: s.trigger,
        "visitedSite": lambda s: s.visited_site,
        "vpnTarget": lambda s: s.vpn and s.vpn.target,
    }


async def test_every_documented_filter_works_in_both_versions(client: Client) -> None:
    expected = visits(client.simulator.world)
    for key, value in one_of_each(expected).items():
        wanted = next(value(s) for s in expected if value(s))
        ids = [s.id for s in listed(expected) if value(s) == wanted]
        assert 0 < len(ids) <= len(expected)
        v7 = await client.records(V7_SESSIONS, "?window=15m", {"searchFilters": {key: [wanted, "other"]}})
        assert [s["id"] for s in v7] == ids, key
        body = json.dumps({"searchFilters": [{"key": key, "values": [wanted]}]}).encode()
        response = await client.ask(V6_SESSIONS + "?window=15m", body, method="POST")
        assert [s["userSessionId"] for s in (await response.json())["userSessions"]] == ids[:100], key


async def test_filters_of_two_keys_must_both_hold(client: Client) -> None:
    some = next(s for s in listed(visits(client.simulator.world)) if s.agent.hardware.platform == "mac")
    filters = {"visitedSite": [some.visited_site, "nowhere.example.com"], "platform": ["mac"]}
    found = {s["id"] for s in await client.records(V7_SESSIONS, "?window=15m", {"searchFilters": filters})}
    expected = visits(client.simulator.world)
    assert found == {s.id for s in listed(expected) if s.site == some.site and s.agent.hardware.platform == "mac"}
    nothing = {"searchFilters": {"visitedSite": ["nowhere.example.com"]}}
    assert await client.records(V7_SESSIONS, "?window=15m", nothing) == []


async def test_v6_takes_its_own_spelling_of_kinds_and_refuses_the_filters_of_v7(client: Client) -> None:
    body = {"searchFilters": [{"key": "connection", "values": ["Ethernet"]}, {"key": "platform", "values": ["Mac"]}]}
    response = await client.ask(V6_SESSIONS + "?window=15m", body, method="POST")
    expected = listed(visits(client.simulator.world))
    expected = [s for s in expected if s.place.connection == "ethernet" and s.agent.hardware.platform == "mac"]
    assert [s["userSessionId"] for s in (await response.json())["userSessions"]] == [s.id for s in expected]
    for wrong in ({"searchFilters": {"domain": ["example.com"]}}, {"searchFilters": ["domain"]}, [], b"{"):
        response = await client.ask(V6_SESSIONS, wrong, method="POST")
        assert response.status == 400
        assert "errorMessage" in await response.json()


async def test_agents_come_in_pages_of_the_size_that_was_asked_for(client: Client) -> None:
    for query in ("", "?max=7"):
        found = await client.records(V7_AGENTS, query)
        assert [a["id"] for a in found] == [a.id for a in client.simulator.world.people]
    page = await (await client.ask(V7_AGENTS + "?max=7")).json(content_type=None)
    assert (len(page["agents"]), page["totalAgents"]) == (7, 60)
    for query in ("?max=0", "?max=many", "?cursor=garbage", "?cursor=WyJhIl0"):
        assert (await client.ask(V7_AGENTS + query)).status == 400


async def test_agents_tell_who_uses_them_only_when_asked(client: Client) -> None:
    plain, *_ = await client.records(V7_AGENTS)
    assert not plain.keys() & {"clients", "aid", "targetVersion"}
    expanded, *_ = await client.records(V7_AGENTS, "?expand=clients&expand=targetVersion")
    assert expanded["clients"][0]["userProfile"]["userName"]
    assert expanded["targetVersion"]
    person = client.simulator.world.people[5]
    for query in (f"?agentName={person.name}", f"?computerName={person.computer_name}"):
        assert person.id in [a["id"] for a in await client.records(V7_AGENTS, query)]
        assert len(await client.records(V7_AGENTS, query)) < 10


async def test_one_agent_can_be_asked_for(client: Client) -> None:
    person = client.simulator.world.people[3]
    response = await client.ask(f"{V7_AGENTS}/{person.id}")
    assert (await response.json(content_type=None))["computerName"] == person.computer_name
    assert (await client.ask(f"{V7_AGENTS}/nobody")).status == 404


async def test_a_vanished_agent_is_listed_only_among_the_deleted(client: Client) -> None:
    gone = client.simulator.world.people[0].id
    client.simulator.world = client.simulator.world.vanishing({gone: NOW - 1000})
    assert gone not in [a["id"] for a in await client.records(V7_AGENTS)]
    found = {a["id"]: a for a in await client.records(V7_AGENTS, "?includeDeleted=true")}
    assert found[gone]["deleted"]
    assert iso(NOW - 1060) <= found[gone]["lastSeen"] <= iso(NOW - 1000)
    assert iso(NOW - 60) <= next(a["lastSeen"] for i, a in found.items() if i != gone) <= iso(NOW)
    assert (await client.ask(f"{V7_AGENTS}/{gone}")).status == 404


async def test_account_groups_separate_agents_and_sessions() -> None:
    world = World(agents=40, account_groups=3)
    async with running(world) as client:
        groups = (await (await client.ask(V7_GROUPS)).json(content_type=None))["accountGroups"]
        assert [g["aid"] for g in groups] == ["1001", "1002", "1003"]
        assert [g["isCurrentAccountGroup"] for g in groups] == [True, False, False]
        v6_groups = (await (await client.ask(V6_GROUPS)).json())["accountGroups"]
        assert [(g["aid"], g["default"]) for g in v6_groups] == [(1001, 1), (1002, 0), (1003, 0)]
        for aid in (1001, 1002, 1003):
            ids = [s.id for s in listed(visits(world, aid=aid))]
            assert [s["id"] for s in await client.records(V7_SESSIONS, f"?window=15m&aid={aid}")] == ids
            assert [s["userSessionId"] for s in await client.records(V6_SESSIONS, f"?window=15m&aid={aid}")] == ids
            assert len(await client.records(V7_AGENTS, f"?aid={aid}")) == len(world.agents_of(aid, NOW))
        assert len(await client.records(V7_AGENTS)) < 40
        everyone = await client.records(V7_AGENTS, "?useAllPermittedAids=true&max=15")
        assert {a["id"]: a["aid"] for a in everyone} == {a.id: str(a.aid) for a in world.people}
        assert (await client.ask(V7_SESSIONS + "?aid=99")).status == 403
        assert (await client.ask(V6_SESSIONS + "?aid=99")).status == 400


# Version 6.


async def test_both_versions_show_the_same_sessions(client: Client) -> None:
    for old, new in ((V6_SESSIONS, V7_SESSIONS), (V6_NETWORKS, V7_NETWORKS)):
        v6, v7 = await client.records(old, "?window=15m"), await client.records(new, "?window=15m")
        assert [s["userSessionId"] for s in v6] == [s["id"] for s in v7]
        for ours, theirs in zip(v6, v7, strict=True):
            assert ours.get("systemMetrics") == theirs.get("systemMetrics")
            assert datetime.fromisoformat(ours["date"] + "Z") == datetime.fromisoformat(theirs["date"])
            assert {k: v for k, v in ours.items() if k not in {"date", "committed", "destination"}}.items() >= {
                k: theirs[k] for k in ("agentId", "roundId", *({"visitedSite", "experienceScore"} & theirs.keys()))
            }.items()
            assert ours.get("destination", {}).items() >= theirs.get("destination", {}).items()


async def test_v6_has_every_documented_field(client: Client) -> None:
    session = (await client.records(V6_SESSIONS, "?window=15m"))[0]
    assert session.keys() - {"experienceScore"} == {
        "userSessionId", "agentId", "roundId", "date", "committed", "sourceAddr", "orgName", "visitedSite", "protocol",
        "port", "numberOfPages", "permalink",
    }  # fmt: skip
    network = max(await client.records(V6_NETWORKS, "?window=15m"), key=lambda s: len(json.dumps(s)))
    assert network.keys() == {"userSessionId", "agentId", "roundId", "date", "destination", "systemMetrics"}
    destination = {"latency", "loss", "jitter", "avgRtt", "maxRtt", "meanDevRtt", "target"}
    assert network["destination"].keys() == destination
    assert network["systemMetrics"].keys() == {
        "startTimeMs", "endTimeMs", "cpuUtilization", "physicalMemoryUsedBytes", "physicalMemoryTotalBytes",
    }  # fmt: skip


async def test_v6_fixes_the_range_of_a_window_in_its_links(client: Client) -> None:
    first = await (await client.ask(V6_SESSIONS + "?window=15m")).json()
    assert (first["from"], first["to"]) == (text_date(NOW - 900), text_date(NOW))
    assert first["pages"]["current"] == 1
    assert "window" not in first["pages"]["next"]
    assert "from=2026-11-18+14%3A17%3A30" in first["pages"]["next"]
    client.clock.now += 100
    second = await (await client.ask(first["pages"]["next"])).json()
    assert (second["from"], second["to"], second["pages"]["current"]) == (first["from"], first["to"], 2)


async def test_v6_takes_times_with_a_t_or_a_space_and_bodies_or_none(client: Client) -> None:
    expected = [s.id for s in listed(client.simulator.world.sessions(1001, NOW - 60, NOW - 30, NOW))]
    for start, end in ((iso(NOW - 60)[:-1], iso(NOW - 30)[:-1]), (text_date(NOW - 60), text_date(NOW - 30))):
        for method, path in (("GET", V6_SESSIONS), ("POST", V6_SESSIONS.removesuffix(".json"))):
            response = await client.ask(f"{path}?from={start}&to={end}", method=method)
            assert [s["userSessionId"] for s in (await response.json())["userSessions"]] == expected
    assert (await client.ask(V6_SESSIONS + "?to=2026-11-18T14:00:00")).status == 400


async def test_v6_agents_are_the_same_people(client: Client) -> None:
    client.simulator.page_size = 7
    ours, theirs = await client.records(V6_AGENTS), await client.records(V7_AGENTS)
    assert [(a["agentId"], a["agentName"], a["totalMemory"]) for a in ours] == [
        (a["id"], a["name"], a["totalMemory"]) for a in theirs
    ]


@pytest.mark.parametrize(
    ("path", "headers", "xml"),
    [
        ("/v6/endpoint-data/user-sessions.xml", {}, True),
        ("/v6/endpoint-data/user-sessions?format=xml", {}, True),
        ("/v6/endpoint-data/user-sessions", {"Accept": "application/xml"}, True),
        ("/v6/endpoint-data/user-sessions", {"Accept": "application/json, application/xml"}, False),
        (V6_SESSIONS + "?format=xml", {"Accept": "application/xml"}, False),
        ("/v6/endpoint-data/user-sessions", {}, False),
    ],
)
async def test_v6_writes_xml_on_request(client: Client, path: str, headers: dict[str, str], xml: bool) -> None:
    response = await client.ask(path, **headers)
    assert response.content_type == ("application/xml" if xml else "application/json")
    assert ("<userSessions><userSessionId>" in await response.text()) == xml


# The way there: credentials, limits, paths, headers.


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (V7_SESSIONS, BEARER, 200),
        (V7_SESSIONS, BASIC, 401),
        (V7_SESSIONS, {"Authorization": "Bearer other"}, 401),
        (V6_SESSIONS, BEARER, 200),
        (V6_SESSIONS, BASIC, 200),
        (V6_SESSIONS, {"Authorization": "Basic ZGVtbzpkZW1v"}, 401),
    ],
)
async def test_v7_wants_a_bearer_token_and_v6_takes_both(
    client: Client, path: str, headers: dict[str, str], status: int
) -> None:
    assert (await client.ask(path, **headers)).status == status
    record = client.simulator.requests[-1]
    assert (record.scheme, record.path, record.status) == (headers["Authorization"].split()[0], path, status)


async def test_a_wrong_token_and_a_missing_one_are_told_apart(client: Client) -> None:
    wrong = await client.ask(V7_SESSIONS, Authorization="Bearer other")
    assert await wrong.json() == {"error": "invalid_token", "error_description": "Invalid access token"}
    missing = await client.ask(V7_SESSIONS, Authorization="")
    assert (await missing.json())["errorMessage"].startswith("401 Not Authorized\n")


async def test_an_address_that_fails_120_times_in_an_hour_is_shut_out(client: Client) -> None:
    for _ in range(120):
        assert (await client.ask(V7_SESSIONS, Authorization="Bearer other")).status == 401
    assert (await client.ask(V7_SESSIONS)).status == 429
    client.clock.now += 3601
    assert (await client.ask(V7_SESSIONS)).status == 200


async def test_the_rate_limit_is_a_minute_of_the_clock_for_everybody() -> None:
    async with running(World(agents=5, account_groups=2), rate_limit=3) as client:
        client.clock.now = NOW // 60 * 60 + 10
        paths = (V7_SESSIONS, V6_AGENTS, V7_GROUPS + "?aid=1002", V7_SESSIONS)
        replies = [await client.ask(path) for path in paths]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        limits = [int(reply.headers["X-Organization-Rate-Limit-Limit"]) for reply in replies]
        remaining = [int(reply.headers["X-Organization-Rate-Limit-Remaining"]) for reply in replies]
        assert (limits, remaining) == ([3, 3, 3, 3], [2, 1, 0, 0])
        assert {reply.headers["X-Organization-Rate-Limit-Reset"] for reply in replies} == {
            str(int(NOW // 60 * 60) + 60)
        }
        assert replies[3].content_type == "application/problem+json"
        assert "Retry-After" not in replies[3].headers
        client.clock.now += 49
        assert (await client.ask(V6_SESSIONS)).status == 429
        client.clock.now += 1
        assert (await client.ask(V7_SESSIONS)).status == 200


async def test_every_reply_tells_the_time_of_the_clock(client: Client) -> None:
    for path in (V7_SESSIONS, V6_GROUPS, "/v7/nothing"):
        response = await client.ask(path)
        assert response.headers.getall("Date") == ["Wed, 18 Nov 2026 14:32:30 GMT"]
        assert parsedate_to_datetime(response.headers["Date"]).timestamp() == NOW


async def test_what_is_not_there_is_an_empty_404_and_a_wrong_method_a_405(client: Client) -> None:
    for path in ("/v7/endpoint/nothing", V7_AGENTS + ".json", "/v6/nothing", "/"):
        response = await client.ask(path)
        assert (response.status, await response.text()) == (404, "")
    for path, method in ((V7_SESSIONS, "GET"), (V7_NETWORKS, "GET"), (V7_AGENTS, "POST"), (V6_AGENTS, "DELETE")):
        response = await client.ask(path, method=method)
        assert (response.status, (await response.json())["path"]) == (405, path)


async def test_a_reply_is_compressed_for_who_can_read_it_and_if_it_is_worth_it(client: Client) -> None:
    assert (await client.ask(V7_SESSIONS)).headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in (await client.ask(V7_SESSIONS, Accept_Encoding="identity")).headers
    assert "Content-Encoding" not in (await client.ask(V7_GROUPS)).headers


async def test_requests_are_kept_for_tests_to_look_at(client: Client) -> None:
    await client.ask(V7_SESSIONS + "?window=1m", {"searchFilters": {}})
    seen = client.simulator.requests[-1]
    assert (seen.time, seen.method, seen.path, seen.query) == (NOW, "POST", V7_SESSIONS, "window=1m")
    assert (seen.body, seen.status, seen.scheme) == (b'{"searchFilters": {}}', 200, "Bearer")
    assert client.simulator.counts == {(V7_SESSIONS, 200): 1}


async def test_it_starts_again_after_it_has_stopped_and_listens_on_ipv6() -> None:
    simulator = Simulator(World(agents=1))
    for host, prefix in (("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")):
        url = await simulator.start(host, 0)
        assert url.startswith(prefix)
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            assert response.status == 401
        await simulator.stop()
    await simulator.stop()


# The faults.

Check = Callable[[Client], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def answers(
    status: int,
    kind: str = "",
    text: str = "",
    headers: dict[str, str] | None = None,
    lacks: Iterable[str] = (),
) -> Check:
    async def check(client: Client) -> None:
        for path in (V7_SESSIONS, V6_NETWORKS):
            response = await client.ask(path)
            assert response.status == status
            assert response.content_type == kind or not kind
            assert text in await response.text()
            assert (headers or {}).items() <= dict(response.headers).items()
            assert not set(lacks) & response.headers.keys()

    return check


RATES = ("X-Organization-Rate-Limit-Limit", "X-Organization-Rate-Limit-Remaining", "X-Organization-Rate-Limit-Reset")
CHECKS |= {
    "unauthorized": answers(401, "application/json", "invalid_token"),
    "forbidden": answers(403, "application/problem+json", "Insufficient"),
    "not_found": answers(404),
    "rate_limited": answers(429, "application/problem+json", headers={RATES[1]: "0", RATES[2]: "1795012380"}),
    "rate_limited_bare": answers(429, lacks=[*RATES, "Retry-After"]),
    "server_error": answers(500, "application/json", "Internal Server Error"),
    "bad_gateway": answers(502, "text/html", "Bad Gateway"),
    "maintenance": answers(503, "text/plain", "Please bear with us"),
    "redirect": answers(301, headers={"Location": "/v7/elsewhere"}),
    "html": answers(200, "text/html", "sign in"),
    "xml": answers(200, "application/xml", "<?xml"),
    "not_json": answers(200, "application/json", "oops"),
    "no_rate_headers": answers(200, "application/json", lacks=RATES),
    "no_date": answers(200, "application/json", lacks=["Date"]),
}


def checks(name: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


@checks("forbidden_agents")
async def only_the_agents_are_forbidden(client: Client) -> None:
    for path in (V7_AGENTS, V6_AGENTS):
        assert (await client.ask(path)).status == 403
    for path in (V7_SESSIONS, V6_NETWORKS, V7_GROUPS):
        assert (await client.ask(path)).status == 200


@checks("forbidden_group")
async def only_the_last_group_is_forbidden(client: Client) -> None:
    assert (await client.ask(V7_SESSIONS + "?aid=1001")).status == 200
    assert (await client.ask(V7_SESSIONS + "?aid=1002")).status == 403
    assert (await client.ask(V6_SESSIONS + "?aid=1002")).status == 403


@checks("slow")
async def it_takes_its_time(client: Client) -> None:
    started = asyncio.get_running_loop().time()
    assert (await client.ask(V7_GROUPS)).status == 200
    assert asyncio.get_running_loop().time() - started == pytest.approx(5, abs=0.5)


@checks("hang")
async def it_never_answers(client: Client) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.ask(V7_GROUPS), 0.3)
    assert len(client.simulator.requests) == 1
    waiting = asyncio.create_task(client.ask(V7_GROUPS))
    await asyncio.sleep(0.1)
    await client.simulator.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting


@checks("reset")
async def the_headers_come_and_then_a_reset(client: Client) -> None:
    async with client.http.post(client.url + V7_SESSIONS, headers=BEARER) as response:
        assert response.status == 200
        with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
            await response.read()


@checks("truncated")
async def half_of_the_body_comes(client: Client) -> None:
    headers = {**BEARER, "Accept-Encoding": "identity"}
    async with client.http.post(client.url + V7_SESSIONS, headers=headers) as response:
        beginning = await response.content.readexactly(20)
        assert beginning.startswith(b'{"results":[')
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@checks("bad_gzip")
async def the_body_is_not_gzip(client: Client) -> None:
    session = aiohttp.ClientSession(auto_decompress=False)
    async with session as http, http.post(client.url + V7_SESSIONS, headers=BEARER) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert (await response.read()).startswith(b'{"results":[')


@checks("empty")
async def all_lists_are_empty(client: Client) -> None:
    for path in RECORDS:
        assert await client.records(path) == []


@checks("no_networks")
async def only_the_networks_are_empty(client: Client) -> None:
    for path in (V7_NETWORKS, V6_NETWORKS):
        assert await client.records(path) == []
    for path in (V7_SESSIONS, V6_SESSIONS, V7_AGENTS):
        assert await client.records(path)


@checks("duplicate_records")
async def the_first_record_comes_twice(client: Client) -> None:
    for path in RECORDS:
        found = (await (await client.ask(path)).json(content_type=None))[RECORDS[path]]
        assert found[0] == found[-1]
        assert len(found) > 1


@checks("bad_records")
async def a_fourth_of_the_records_is_damaged(client: Client) -> None:
    ids: list[Any] = []
    good = {s.id: s for s in visits(client.simulator.world, seconds=3600)}
    for path in (V7_SESSIONS, V7_NETWORKS, V6_SESSIONS):
        found = await client.records(path, "?window=15m")
        kept = [s for s in found if s.get("id", s.get("userSessionId")) in good]
        assert 0.7 * len(found) < len(kept) < len(found)
        ids += [s.get("agentId") for s in found]
    assert {type(each) for each in ids} == {str, int, type(None)}
    rounds = {type(s["roundId"]) for s in await client.records(V7_SESSIONS, "?window=15m")}
    assert rounds == {int, str}
    assert len(await client.records(V7_AGENTS)) == len(client.simulator.world.agents_of(1001, NOW))


@checks("odd_labels")
async def names_are_odd(client: Client) -> None:
    raw = await (await client.ask(V7_SESSIONS)).text()
    assert "\\ud800" in raw
    assert {s["visitedSite"] for s in json.loads(raw)["results"]} >= set(ODD)
    agents = json.loads(await (await client.ask(V7_AGENTS)).text())["agents"]
    assert {a["name"] for a in agents} >= set(ODD)


@checks("null_fields")
async def some_fields_are_null(client: Client) -> None:
    for path in (V7_SESSIONS, V7_NETWORKS, V6_NETWORKS, V7_AGENTS):
        found = await client.records(path)
        nulls = {key for s in found for key, value in s.items() if value is None}
        assert nulls
        assert not nulls & {"id", "userSessionId", "agentId", "roundId"}
    networks = await client.records(V7_NETWORKS, "?window=15m")
    assert any((s.get("destination") or {}).get("latency", 1) is None for s in networks)


@checks("floats")
async def integers_are_floats(client: Client) -> None:
    for path in (V7_SESSIONS, V7_NETWORKS, V6_NETWORKS):
        raw = await (await client.ask(path + "?window=15m")).text()
        numbers: list[str] = []
        json.loads(raw, parse_int=numbers.append)
        assert numbers in ([], ["1"])
        assert '"roundId":1795' in raw


@checks("next_loop")
async def the_page_leads_to_itself(client: Client) -> None:
    for path in (V7_SESSIONS, V6_NETWORKS, V7_AGENTS):
        links, ids = await follow(client, path, 3)
        assert links[0] == links[1] == links[2]
        assert ids[0] == ids[1] == ids[2] != []
    groups = await (await client.ask(V7_GROUPS)).json(content_type=None)
    assert "next" not in groups["_links"]


@checks("next_endless")
async def there_is_always_another_page(client: Client) -> None:
    for path in (V7_SESSIONS, V6_NETWORKS, V7_AGENTS):
        links, ids = await follow(client, path, 5)
        assert len(set(links)) == 5
        assert ids[0] == ids[4] != []


async def follow(client: Client, path: str, pages: int) -> tuple[list[str], list[list[Any]]]:
    links, ids, url = [], [], path
    for _ in range(pages):
        payload = await (await client.ask(url)).json(content_type=None)
        ids.append([s.get("id", s.get("userSessionId")) for s in payload[RECORDS[path]]])
        url = payload["pages"]["next"] if "pages" in payload else payload["_links"]["next"]["href"]
        links.append(url)
    return links, ids


@checks("next_other_host")
async def the_next_page_is_elsewhere(client: Client) -> None:
    for path in (V7_SESSIONS, V6_SESSIONS):
        (link,), _ = await follow(client, path, 1)
        assert link.startswith(f"https://api.example.net{path}?")


@checks("next_other_path")
async def the_next_page_is_another_listing(client: Client) -> None:
    for path in (V7_SESSIONS, V6_SESSIONS):
        (link,), _ = await follow(client, path, 1)
        assert link.startswith(client.url + "/v7/credentials?")


@checks("next_null")
async def the_next_page_is_null(client: Client) -> None:
    assert (await (await client.ask(V7_SESSIONS)).json())["_links"]["next"] is None
    assert (await (await client.ask(V6_SESSIONS)).json())["pages"]["next"] is None


@checks("masked")
async def numbers_stand_for_names(client: Client) -> None:
    for path in (V7_SESSIONS, V6_SESSIONS):
        assert all(s["visitedSite"].isdigit() for s in await client.records(path))
    for path, name in ((V7_AGENTS, "name"), (V6_AGENTS, "agentName")):
        assert all(a[name].isdigit() and a["computerName"].isdigit() for a in await client.records(path))


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_does_what_its_name_says(name: str) -> None:
    world = World(agents=100, account_groups=2)
    async with running(world, [name]) as client:
        await CHECKS[name](client)


async def test_a_share_strikes_some_requests_and_the_same_ones_each_time() -> None:
    outcomes = []
    for _ in range(2):
        async with running(World(agents=1), ["server_error=0.3"]) as client:
            outcomes.append([(await client.ask(V7_GROUPS)).status for _ in range(100)])
    assert outcomes[0] == outcomes[1]
    assert 15 < outcomes[0].count(500) < 45
    assert set(outcomes[0]) == {200, 500}


@pytest.mark.parametrize(
    ("spec", "struck"),
    [
        ("forbidden@10m+5m", {600, 899}),
        ("forbidden@10m", {600, 899, 900, 86400}),
        ("forbidden@14:30-14:35", {0, 60, 86400}),
        ("forbidden@23:59-14:33", {0, 86400}),
        ("forbidden=1@1d+1s", {86400}),
    ],
)
async def test_a_schedule_says_when_a_fault_strikes(spec: str, struck: set[int]) -> None:
    async with running(World(agents=1), [spec]) as client:
        for seconds in (0, 60, 599, 600, 899, 900, 86400):
            client.clock.now = NOW + seconds
            assert ((await client.ask(V7_GROUPS)).status == 403) == (seconds in struck), seconds


async def test_faults_can_be_changed_while_it_runs_and_act_together() -> None:
    async with running(World(agents=1), ["no_date", "rate_limited"]) as client:
        response = await client.ask(V7_GROUPS)
        assert response.status == 429
        assert "Date" not in response.headers
        client.simulator.faults = ()
        assert (await client.ask(V7_GROUPS)).status == 200


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("server_eror", "did you mean server_error"),
        ("zzz", "there are unauthorized"),
        ("server error", "expected NAME"),
        ("slow=0", "share '0'"),
        ("slow=2", "share '2'"),
        ("slow=some", "share 'some'"),
        ("slow@soon", "schedule 'soon'"),
        ("slow@24:30-25:00", "schedule"),
        ("slow@10:00-10:00", "schedule"),
    ],
)
def test_a_fault_that_can_not_be_understood_is_named(spec: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_faults(["hang", spec])


def test_the_help_lists_every_fault() -> None:
    text = describe_faults()
    assert all(f"\n{name} " in text and fault.help in text for name, fault in FAULTS.items())
    assert CHECKS.keys() == FAULTS.keys()


# The vendor's own client, whose models are strict.


@asynccontextmanager
async def vendor(world: World, **options: Any) -> AsyncIterator[tuple[Client, ApiClient]]:
    async with running(world, **options) as client:
        yield client, ApiClient(Configuration(host=f"{client.url}/v7", access_token="demo"))


async def test_the_vendors_client_reads_all_sessions() -> None:
    world = World(agents=60)
    expected = visits(world)
    start, end = datetime.fromtimestamp(NOW - 900, UTC), datetime.fromtimestamp(NOW, UTC)
    async with vendor(world, page_size=100) as (client, sdk):
        api = RealUserEndpointTestResultsApi(sdk)
        pages = api.filter_real_user_tests_results_paginated(start_date=start, end_date=end)
        found = await asyncio.to_thread(lambda: list(pages))
        assert len(client.simulator.requests) > 3
    for ours, theirs in zip(listed(expected), found, strict=True):
        assert not theirs.model_extra
        assert (theirs.id, theirs.agent_id, theirs.round_id) == (ours.id, ours.agent_id, ours.round_id)
        assert (theirs.var_date.timestamp(), theirs.committed.timestamp()) == (ours.date, ours.committed)
        assert (theirs.visited_site, theirs.protocol, theirs.port) == (ours.site.host, ours.protocol, ours.site.port)
        assert (theirs.experience_score, theirs.number_of_pages) == (ours.experience_score, ours.pages)
        assert (theirs.source_address, theirs.organization_name) == (ours.place.public_ip, ours.place.organization)
        assert theirs.page_id == ours.page_id


async def test_the_vendors_client_reads_all_network_sessions() -> None:
    world = World(agents=60)
    expected = [s for s in measured(visits(world)) if s.agent.hardware.platform == "mac"]
    filters = RealUserEndpointTestResultRequestFilter(platform=["mac"])
    async with vendor(world, page_size=50) as (client, sdk):
        pages = RealUserEndpointTestResultsApi(sdk).filter_real_user_tests_network_results_paginated(
            window="15m",
            real_user_endpoint_test_results_request=RealUserEndpointTestResultsRequest(search_filters=filters),
        )
        found = await asyncio.to_thread(lambda: list(pages))
        assert len(client.simulator.requests) > 2
    for ours, theirs in zip(expected, found, strict=True):
        assert not theirs.model_extra
        assert (theirs.id, theirs.var_date.timestamp()) == (ours.id, ours.date)
        for leg in ("destination", "vpn", "proxy"):
            mine, its = getattr(ours, leg), getattr(theirs, leg)
            assert (mine is None) == (its is None)
            for field in ("target", "latency", "jitter", "loss") if mine else ():
                assert getattr(its, field) == getattr(mine, field)
        system = theirs.system_metrics
        assert (system.start_time_ms, system.end_time_ms) == (ours.system.start_ms, ours.system.end_ms)
        assert system.physical_memory_total_bytes == ours.system.memory_total
        pairs = ((ours.system.cpu, system.cpu_utilization), (ours.system.memory, system.physical_memory_used_bytes))
        for mine, its in pairs:
            assert (mine is None) == (its is None)
            for field in ("min", "max", "mean", "median", "std_dev", "count") if mine else ():
                assert getattr(its, field) == getattr(mine, field)


async def test_the_vendors_client_reads_all_agents_and_account_groups() -> None:
    world = World(agents=60, account_groups=3)
    async with vendor(world) as (_, sdk):
        pages = EndpointAgentsApi(sdk).get_endpoint_agents_paginated(
            max=7, expand=[ExpandEndpointAgentOptions.CLIENTS], use_all_permitted_aids=True
        )
        found = await asyncio.to_thread(lambda: list(pages))
        one = await asyncio.to_thread(EndpointAgentsApi(sdk).get_endpoint_agent, world.people[0].id)
        groups = await asyncio.to_thread(AccountGroupsApi(sdk).get_account_groups)
    for ours, theirs in zip(world.people, found, strict=True):
        assert not theirs.model_extra
        assert (theirs.id, theirs.aid, theirs.name) == (ours.id, str(ours.aid), ours.name)
        assert (theirs.platform.value, theirs.license_type.value) == (ours.hardware.platform, ours.license_type)
        assert theirs.location.location_name == ours.office.location
        assert theirs.created_at.timestamp() == ours.created_at
        assert NOW - 60 < theirs.last_seen.timestamp() <= NOW
        assert theirs.clients[0].user_profile.user_name == ours.user_name
    assert one.id == world.people[0].id
    assert [(g.aid, g.account_group_name) for g in groups.account_groups] == [
        (str(g.aid), g.name) for g in world.groups
    ]
    assert [g.is_default_account_group for g in groups.account_groups] == [True, False, False]
