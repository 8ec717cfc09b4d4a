"""The simulated API follows the documented rules of both versions, and its faults have effects.

What its records contain is verified by the vendor's SDK (v7), and by the published values (both).
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import aiohttp
import pytest
from api_faults import FAULTS, NO_EXPAND
from fake_clock import fake_time

from exporter.simulator import Fault, Simulator, World, parse_faults
from exporter.simulator.api import SESSION_FILTERS as FILTERS

NOW = 1_795_012_350
"""2026-11-18 14:32:30 UTC, a Wednesday."""
USERS = "/v7/endpoint/test-results/real-user-tests/filter"
NETWORKS = "/v7/endpoint/test-results/real-user-tests/networks/filter"
PROBES = "/v7/endpoint/test-results/local-networks/topologies/filter"
START, END = "2026-11-18T14:17:30", "2026-11-18T14:32:30"
V7, V7_NETWORKS, V7_PROBES = (
    f"{each}?startDate={START}Z&endDate={END}Z" for each in (USERS, NETWORKS, PROBES)
)
V6 = f"/v6/endpoint-data/user-sessions.json?from={START}&to={END}"
V7_AGENTS, V6_AGENTS = "/v7/endpoint/agents", "/v6/endpoint-agents.json"
V7_GROUPS, V6_GROUPS = "/v7/account-groups", "/v6/account-groups.json"
BEARER, BASIC = "Bearer demo", f"Basic {b64encode(b'demo@example.com:demo').decode()}"


class Client:
    """Sends requests to a simulator, whose clock shows `now`."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world, self.now = world, NOW
        self.simulator = Simulator(world, clock=lambda: self.now, **options)

    async def send(self, path: str, body: Any = None, token: str = BEARER) -> Any:
        """Return the response, with its decoded body as `payload`."""
        data = body and json.dumps(body)
        headers = {"Authorization": token, "Content-Type": "application/json"}
        request = self.http.post if "/filter" in path or body else self.http.get
        async with request(path, data=data, headers=headers, allow_redirects=False) as response:
            content = await response.read()
            response.payload = json.loads(content) if "json" in response.content_type else content
            return response

    async def records(self, path: str, filters: Any = None) -> list[dict[str, Any]]:
        """Return the records of all pages of a listing, the first at `NOW`, others later."""
        self.now, found, link = NOW, [], path
        while link:
            payload = (await self.send(link, filters and {"searchFilters": filters})).payload
            found += next(value for value in payload.values() if isinstance(value, list))
            link = payload.get("pages", payload.get("_links")).get("next")
            link = link["href"] if isinstance(link, dict) else link
            self.now += 50
        return found

    async def ids(self, path: str, filters: Any = None) -> list[str]:
        return [r.get("id", r.get("userSessionId")) for r in await self.records(path, filters)]


@asynccontextmanager
async def running(world: World | None = None, **options: Any) -> AsyncIterator[Client]:
    client = Client(world or World(agents=60), **{"page_size": 100, **options})
    async with aiohttp.ClientSession(await client.simulator.start()) as client.http:
        yield client
    await client.simulator.stop()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running() as client:
        yield client


async def test_time_ranges(client: Client) -> None:
    sessions = client.world.sessions(1001, NOW - 60, NOW - 30, NOW)
    expected = [s.id for s in sessions if s.listed]
    for path, echoed in (
        (f"{USERS}?startDate=2026-11-18T14:31:30Z&endDate=2026-11-18T14:32:00Z", "startDate"),
        ("/v6/endpoint-data/user-sessions?from=2026-11-18 14:31:30&to=2026-11-18T14:32:00", "from"),
    ):
        assert await client.ids(path) == expected
        assert (await client.send(path)).payload[echoed][10:].strip(" TZ") == "14:31:30"


@pytest.mark.parametrize(
    ("path", "body", "token", "status"),
    [
        (V7, None, BEARER, 200),
        (V7, None, BASIC, 401),
        (V7, None, "Bearer other", 401),
        (V6, None, BASIC, 200),
        (V6, None, "Basic ZGVtbzpkZW1v", 401),
        (USERS, None, BEARER, 400),
        (f"{USERS}?startDate=yesterday", None, BEARER, 400),
        (f"{USERS}?cursor=garbage", None, BEARER, 400),
        (f"{V7}&aid=99", None, BEARER, 403),
        (f"{V6}&aid=99", None, BEARER, 400),
        (V7, {"searchFilters": {"color": ["red"]}}, BEARER, 400),
        (V7, {"searchFilters": [{"key": "domain", "values": ["example.com"]}]}, BEARER, 400),
        (V6, {"searchFilters": {"domain": ["example.com"]}}, BEARER, 400),
        (f"{PROBES}?startDate=2026-11-18T02:32:30Z", None, BEARER, 200),
        (f"{PROBES}?startDate=2026-11-18T02:32:29Z", None, BEARER, 400),
        (V7_PROBES, {"searchFilters": {"visitedSite": ["mail.example.com"]}}, BEARER, 400),
        ("/v7/nothing", None, BEARER, 404),
        (V7_AGENTS, {"a": 1}, BEARER, 405),
    ],
)
async def test_errors(client: Client, path: str, body: Any, token: str, status: int) -> None:
    response = await client.send(path, body, token)
    assert response.status == client.simulator.requests[-1].status == status
    if status in {400, 401, 403}:
        simple = "v6" in path or status == 401
        assert response.payload.keys() >= ({"errorMessage"} if simple else {"title"})


@pytest.mark.parametrize("key", FILTERS)
async def test_filters(client: Client, key: str) -> None:
    sessions = [s for s in client.world.sessions(1001, NOW - 900, NOW, NOW) if s.listed]
    value = next(filter(None, map(FILTERS[key], sessions)))
    sites = {s.site.host for s in sessions if s.site.address != "198.18.0.0"}
    filters = {"visitedSite": [*sites], key: [value, "other"]}
    expected = [s.id for s in sessions if all(FILTERS[k](s) in filters[k] for k in filters)]
    assert await client.ids(V7, filters) == expected
    listed = [{"key": key, "values": values} for key, values in filters.items()]
    assert await client.ids(V6, listed) == expected


async def test_local_networks_by_type(client: Client) -> None:
    probes = [p for p in client.world.probes(1001, NOW - 900, NOW, NOW) if p.type in {"dns", "vpn"}]
    found = await client.records(V7_PROBES, {"type": ["dns", "vpn"]})
    assert [(r["agentId"], r["type"]) for r in found] == [(p.agent.id, p.type) for p in probes]


async def test_headers_and_the_rate_limit_of_a_minute() -> None:
    async with running(World(account_groups=2), rate_limit=3) as client:
        client.now = NOW - 20
        found = [await client.send(path) for path in (V7, V6, f"{V7_GROUPS}?aid=1002", V7)]
        assert [response.status for response in found] == [200, 200, 200, 429]
        for response, remaining in zip(found, "2100", strict=True):
            assert response.headers["X-Organization-Rate-Limit-Remaining"] == remaining
            assert response.headers["X-Organization-Rate-Limit-Reset"] == str(NOW + 30)
            assert response.headers.getall("Date") == ["Wed, 18 Nov 2026 14:32:10 GMT"]
        assert found[0].headers["Content-Encoding"] == "gzip"
        assert found[2].headers["Content-Type"] == "application/hal+json;charset=UTF-8"
        client.now += 50
        assert (await client.send(V7)).status == 200


async def outcomes(client: Client) -> list[Any]:
    """Return statuses, names of headers and bodies of several requests, or exceptions."""
    found: list[Any] = []
    agents, groups = f"{V7_AGENTS}?expand=clients", f"{V7_GROUPS}?aid=1002"
    for path in (V7, V7_NETWORKS, V6_AGENTS, agents, groups):
        try:
            async with asyncio.timeout(3):
                response = await client.send(path)
                headers = sorted(response.headers), response.headers["Date"]
                found.append((response.status, headers, str(response.payload)))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            found.append(repr(error))
    return found


@pytest.mark.parametrize("fault", [*FAULTS.values(), NO_EXPAND], ids=attrgetter("name"))
@fake_time
async def test_each_fault_changes_responses(fault: Fault) -> None:
    async with running(World(account_groups=2)) as client:
        normal = await outcomes(client)
        client.simulator.faults = (fault,)
        assert await outcomes(client) != normal
        client.simulator.faults = ()
        assert await outcomes(client) == normal


@pytest.mark.parametrize(
    ("spec", "active"),
    [
        ("maintenance@10m+5m", {600, 899}),
        ("maintenance@10m", {600, 899, 900, 86400}),
        ("maintenance@14:30-14:35", {0, 60, 86400}),
        ("maintenance@23:59-14:33", {0, 86400}),
        ("maintenance=1@1d+1s", {86400}),
        ("maintenance=0.3", {600, 899, 86400}),  # always the same requests
    ],
)
async def test_schedules_and_shares_of_faults(spec: str, active: set[int]) -> None:
    async with running(faults=parse_faults([spec])) as client:
        failed = set()
        for elapsed in (0, 60, 599, 600, 899, 900, 86400):
            client.now = NOW + elapsed
            if (await client.send(V7_GROUPS)).status == 503:
                failed.add(elapsed)
        assert failed == active


@pytest.mark.parametrize("spec", ["server_eror", "server error", "slow=0", "slow=2", "slow@soon"])
def test_invalid_faults_are_rejected(spec: str) -> None:
    with pytest.raises(ValueError, match=spec):
        parse_faults(["hang", spec])
