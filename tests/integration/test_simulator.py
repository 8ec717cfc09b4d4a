"""The simulated API follows the documented rules of both versions, and its faults their schedule.

What its pages contain is verified by the vendor's SDK (v7), and by the published values (both).
"""

import json
from base64 import b64encode
from contextlib import asynccontextmanager

import aiohttp
import pytest

from exporter.simulator import Simulator, World, parse_faults
from exporter.simulator.api import SESSION_FILTERS as FILTERS

NOW = 1_795_012_350  # 2026-11-18 14:32:30 UTC, a Wednesday
WORLD = World(agents=60, account_groups=2)
SESSIONS = [each for each in WORLD.sessions(1002, NOW - 60, NOW - 30, NOW) if each.listed]
V6 = "/v6/endpoint-data/user-sessions?aid=1002&from=2026-11-18 14:31:30&to=2026-11-18T14:32:00"
FILTER = "/v7/endpoint/test-results/real-user-tests/filter"
V7 = f"{FILTER}?aid=1002&startDate=2026-11-18T14:31:30Z&endDate=2026-11-18T14:32:00Z"
PROBES = "/v7/endpoint/test-results/local-networks/topologies/filter"
BEARER, BASIC = "Bearer demo", f"Basic {b64encode(b'demo@example.com:demo').decode()}"


@asynccontextmanager
async def running(**options):
    """Run a simulator; also yields a function that returns a response and its decoded body."""
    simulator = Simulator(WORLD, clock=lambda: NOW, **options)

    async def send(path, body=None, token=BEARER):
        method, headers = "POST" if "/filter" in path or body else "GET", {"Authorization": token}
        async with http.request(method, path, json=body or {}, headers=headers) as response:
            content = await response.read()
            return response, json.loads(content) if "json" in response.content_type else None

    async with aiohttp.ClientSession(await simulator.start()) as http:
        yield simulator, send
    await simulator.stop()


@pytest.mark.parametrize(
    ("path", "records", "id_"), [(V6, "userSessions", "userSessionId"), (V7, "results", "id")]
)
async def test_a_time_range_and_all_search_filters(path, records, id_):
    async with running() as (_, send):
        _, everything = await send(path)
        assert [each[id_] for each in everything[records]] == [each.id for each in SESSIONS]
        for key, field in FILTERS.items():
            values = [next(filter(None, map(field, SESSIONS)), "none"), "other"]
            filters = [{"key": key, "values": values}] if path == V6 else {key: values}
            _, found = await send(path, {"searchFilters": filters})
            expected = [each.id for each in SESSIONS if field(each) in values]
            assert [each[id_] for each in found[records]] == expected


@pytest.mark.parametrize(
    ("path", "body", "token", "status"),
    [
        (V7, None, BASIC, 401),
        (V6, None, BASIC, 200),
        (V6, None, "Basic ZGVtbzpkZW1v", 401),
        (FILTER, None, BEARER, 400),
        (f"{FILTER}?cursor=garbage", None, BEARER, 400),
        (V7.replace("1002", "99"), None, BEARER, 403),
        (V6.replace("1002", "99"), None, BEARER, 400),
        (V7, {"searchFilters": {"color": ["red"]}}, BEARER, 400),
        (f"{PROBES}?startDate=2026-11-18T02:32:29Z", None, BEARER, 400),
        ("/v7/nothing", None, BEARER, 404),
    ],
)
async def test_errors(path, body, token, status):
    async with running() as (_, send):
        response, payload = await send(path, body, token)
        assert response.status == status
        if status in {400, 401, 403}:
            simple = "v6" in path or status == 401
            assert payload.keys() >= ({"errorMessage"} if simple else {"title"})


async def test_headers_and_the_rate_limit_of_a_minute():
    async with running(rate_limit=3) as (simulator, send):
        found = [(await send(path))[0] for path in (V7, V6, V6, V7)]
        assert [response.status for response in found] == [200, 200, 200, 429]
        for response, remaining in zip(found, "2100", strict=True):
            assert response.headers["X-Organization-Rate-Limit-Remaining"] == remaining
            assert response.headers["X-Organization-Rate-Limit-Reset"] == str(NOW + 30)
            assert response.headers.getall("Date") == ["Wed, 18 Nov 2026 14:32:30 GMT"]
        assert found[0].headers["Content-Encoding"] == "gzip"
        simulator.clock = lambda: NOW + 30
        assert (await send(V6))[0].status == 200


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
async def test_schedules_and_shares_of_faults(spec, active):
    async with running(faults=parse_faults([spec])) as (simulator, send):
        for elapsed in (0, 60, 599, 600, 899, 900, 86400):
            simulator.clock = lambda: NOW + elapsed  # noqa: B023
            assert (await send(V6))[0].status == (503 if elapsed in active else 200)


@pytest.mark.parametrize("spec", ["server_eror", "server error", "slow=0", "slow=2", "slow@soon"])
def test_invalid_faults_are_rejected(spec):
    with pytest.raises(ValueError, match=spec):
        parse_faults(["hang", spec])
