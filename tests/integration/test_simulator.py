"""The simulated API follows the documented rules of both versions, and its faults their schedule.

What its records contain is verified by the vendor's SDK (v7), and by the published values (both).
"""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from exporter.simulator import Simulator, World, parse_faults
from exporter.simulator.api import SESSION_FILTERS as FILTERS

NOW = 1_795_012_350
"""2026-11-18 14:32:30 UTC, a Wednesday."""
V6 = "/v6/endpoint-data/user-sessions.json"
V7 = "/v7/endpoint/test-results/real-user-tests/filter"
PROBES = "/v7/endpoint/test-results/local-networks/topologies/filter"
RANGES = {
    V6: "from=2026-11-18 14:31:30&to=2026-11-18T14:32:00",
    V7: "startDate=2026-11-18T14:31:30Z&endDate=2026-11-18T14:32:00Z",
}
BEARER, BASIC = "Bearer demo", f"Basic {b64encode(b'demo@example.com:demo').decode()}"


class Client:
    """Sends requests to a simulator, whose clock shows `now`."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world, self.now = world, NOW
        self.simulator = Simulator(world, clock=lambda: self.now, **options)

    async def send(self, path: str, body: Any = None, token: str = BEARER) -> Any:
        """Return the response, with its decoded body as `payload`."""
        method = "POST" if "filter" in path or body else "GET"
        async with self.http.request(
            method, path, data=json.dumps(body or {}), headers={"Authorization": token}
        ) as response:
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


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Client]:
    client = Client(World(agents=60, account_groups=2), page_size=5, **options)
    async with aiohttp.ClientSession(await client.simulator.start()) as client.http:
        yield client
    await client.simulator.stop()


@pytest.mark.parametrize("path", RANGES)
async def test_a_time_range_and_all_search_filters(path: str) -> None:
    async with running() as client:
        sessions = [s for s in client.world.sessions(1002, NOW - 60, NOW - 30, NOW) if s.listed]
        for key, field in FILTERS.items():
            values = [next(filter(None, map(field, sessions)), "none"), "other"]
            filters = [{"key": key, "values": values}] if path == V6 else {key: values}
            for body, expected in (
                (None, sessions),
                (filters, [s for s in sessions if field(s) in values]),
            ):
                found = await client.records(f"{path}?{RANGES[path]}&aid=1002", body)
                ids = [r.get("id", r.get("userSessionId")) for r in found]
                assert ids == [s.id for s in expected]


@pytest.mark.parametrize(
    ("path", "body", "token", "status"),
    [
        (f"{V7}?{RANGES[V7]}", None, BASIC, 401),
        (f"{V7}?{RANGES[V7]}", None, "Bearer other", 401),
        (f"{V6}?{RANGES[V6]}", None, BASIC, 200),
        (f"{V6}?{RANGES[V6]}", None, "Basic ZGVtbzpkZW1v", 401),
        (V7, None, BEARER, 400),
        (f"{V7}?startDate=yesterday", None, BEARER, 400),
        (f"{V7}?cursor=garbage", None, BEARER, 400),
        (f"{V7}?{RANGES[V7]}&aid=99", None, BEARER, 403),
        (f"{V6}?{RANGES[V6]}&aid=99", None, BEARER, 400),
        (f"{V7}?{RANGES[V7]}", {"searchFilters": {"color": ["red"]}}, BEARER, 400),
        (f"{V7}?{RANGES[V7]}", {"searchFilters": [{"key": "domain"}]}, BEARER, 400),
        (f"{V6}?{RANGES[V6]}", {"searchFilters": {"domain": ["example.com"]}}, BEARER, 400),
        (f"{PROBES}?startDate=2026-11-18T02:32:30Z", None, BEARER, 200),
        (f"{PROBES}?startDate=2026-11-18T02:32:29Z", None, BEARER, 400),
        ("/v7/nothing", None, BEARER, 404),
    ],
)
async def test_errors(path: str, body: Any, token: str, status: int) -> None:
    async with running() as client:
        response = await client.send(path, body, token)
        assert response.status == status
        if status in {400, 401, 403}:
            simple = "v6" in path or status == 401
            assert response.payload.keys() >= ({"errorMessage"} if simple else {"title"})


async def test_headers_and_the_rate_limit_of_a_minute() -> None:
    async with running(rate_limit=3) as client:
        client.now = NOW - 20
        paths = (f"{V7}?{RANGES[V7]}", f"{V6}?{RANGES[V6]}", "/v7/account-groups", V7)
        found = [await client.send(path) for path in paths]
        assert [response.status for response in found] == [200, 200, 200, 429]
        for response, remaining in zip(found, "2100", strict=True):
            assert response.headers["X-Organization-Rate-Limit-Remaining"] == remaining
            assert response.headers["X-Organization-Rate-Limit-Reset"] == str(NOW + 30)
            assert response.headers.getall("Date") == ["Wed, 18 Nov 2026 14:32:10 GMT"]
        assert found[0].headers["Content-Encoding"] == "gzip"
        client.now += 50
        assert (await client.send("/v7/account-groups")).status == 200


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
            if (await client.send("/v6/account-groups")).status == 503:
                failed.add(elapsed)
        assert failed == active


@pytest.mark.parametrize("spec", ["server_eror", "server error", "slow=0", "slow=2", "slow@soon"])
def test_invalid_faults_are_rejected(spec: str) -> None:
    with pytest.raises(ValueError, match=spec):
        parse_faults(["hang", spec])
