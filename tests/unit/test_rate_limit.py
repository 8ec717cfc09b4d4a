"""The rate limiter: requests in any 60 seconds, pauses imposed by the API, and deadlines."""

import asyncio
from bisect import bisect_left
from contextlib import suppress
from itertools import pairwise

import pytest
from fake_clock import WALL_START, fake_clock, fake_time
from hypothesis import given
from hypothesis import strategies as st

from exporter.clock import ApiClock
from exporter.metrics.self_metrics import OrganizationLimits
from exporter.thousandeyes.rate_limit import WINDOW_SECONDS, RateLimiter

LIMIT, REMAINING, RESET = (
    f"X-Organization-Rate-Limit-{name}" for name in ("Limit", "Remaining", "Reset")
)
GOOD = {LIMIT: "240", REMAINING: "200", RESET: str(WALL_START + 30)}


def limiter(requests_per_minute: int = 120) -> RateLimiter:
    """Make a rate limiter that knows the API's time; a request may take 45 seconds."""
    api_clock = ApiClock(fake_clock(skew=3600))
    api_clock.observe("Wed, 18 Nov 2026 14:32:30 GMT")
    return RateLimiter(requests_per_minute, api_clock, 45.0, 180.0)


async def wait_time(limiter: RateLimiter, priority: int = 0) -> float:
    """Return for how many seconds one request waits."""
    start = asyncio.get_running_loop().time()
    async with asyncio.timeout(None) as deadline:
        await limiter.acquire(deadline, priority)
    return asyncio.get_running_loop().time() - start


@given(
    st.integers(1, 10),
    st.lists(st.tuples(st.floats(0, 200), st.integers(1, 6)), min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(0, 300), st.floats(1, 90)), max_size=3),
)
@fake_time
async def test_never_exceeds_the_limit_in_any_minute_and_respects_pauses(
    share: int, clients: list[tuple[float, int]], pauses: list[tuple[float, float]]
) -> None:
    shared, loop = limiter(share), asyncio.get_running_loop()
    sent, paused = list[float](), list[tuple[float, float]]()

    async def client(start: float, requests: int) -> None:
        await asyncio.sleep(start)
        for _ in range(requests):
            await wait_time(shared)
            sent.append(loop.time())

    async def pause(at: float, seconds: float) -> None:
        await asyncio.sleep(at)
        shared.observe(429, {"Retry-After": str(seconds)})
        paused.append((loop.time(), loop.time() + seconds))

    await asyncio.gather(*(client(*each) for each in clients), *(pause(*each) for each in pauses))
    assert len(sent) == sum(requests for _, requests in clients)
    ordered = sorted(sent)
    windows = (bisect_left(ordered, t + WINDOW_SECONDS - 1e-6) - n for n, t in enumerate(ordered))
    assert max(windows) <= share
    assert not [t for t in sent for start, end in paused if start + 1e-6 < t < end - 1e-6]


@fake_time
async def test_sends_at_once_within_the_limit_and_then_waits_for_the_window() -> None:
    shared = limiter(3)
    assert [await wait_time(shared) for _ in range(4)] == [0, 0, 0, pytest.approx(WINDOW_SECONDS)]
    assert shared.sent_last_minute() == 1


@given(st.integers(2, 20), st.data())
@fake_time
async def test_polls_are_never_delayed_by_requests_of_lower_priorities(
    share: int, data: st.DataObject
) -> None:
    shared, loop = limiter(share), asyncio.get_running_loop()
    needed, latency = data.draw(st.integers(1, share)), data.draw(st.sampled_from([0.0, 0.3, 2.0]))
    delays, sent = list[float](), list[float]()

    async def other(priority: int, pause: float) -> None:
        while True:
            await wait_time(shared, priority)
            sent.append(loop.time())
            await asyncio.sleep(pause)

    async def polls(count: int) -> None:
        for _ in range(count):
            start = loop.time()
            for _ in range(needed):
                delays.append(await wait_time(shared))
                await asyncio.sleep(latency)
            await asyncio.sleep(start + WINDOW_SECONDS - loop.time())

    await polls(1)
    other_tasks = st.tuples(st.integers(1, 2), st.sampled_from([0.1, 7]))
    others = data.draw(st.lists(other_tasks, max_size=3))
    tasks = [asyncio.create_task(other(*each)) for each in others]
    await polls(6)
    for task in tasks:
        task.cancel()
    assert max(delays) == pytest.approx(0, abs=1e-6)
    if others and needed < share:
        windows = (bisect_left(sent, t + WINDOW_SECONDS - 1e-6) - n for n, t in enumerate(sent))
        assert 0 < max(windows) <= share - needed  # what is left is used


@fake_time
async def test_waiting_requests_are_sent_in_the_order_of_their_priority() -> None:
    shared, loop = limiter(2), asyncio.get_running_loop()
    start, sent = loop.time(), list[tuple[int, float]]()

    async def send(priority: int) -> None:
        await wait_time(shared, priority)
        sent.append((priority, round(loop.time() - start)))

    await send(1)
    await asyncio.sleep(30)
    await send(1)
    tasks = [asyncio.create_task(send(priority)) for priority in (2, 1, 0)]
    await asyncio.sleep(0)
    assert [shared.waiting(priority) for priority in range(4)] == [True, True, True, False]
    await asyncio.gather(*tasks)
    assert sent[2:4] == [(0, 60), (1, 90)]
    assert [shared.waiting(priority) for priority in range(3)] == [False, False, True]
    await asyncio.sleep(WINDOW_SECONDS)
    assert not any(map(shared.waiting, range(3))), "one that waited in the last minute counts"


@fake_time
async def test_the_largest_recent_need_of_higher_priorities_is_reserved() -> None:
    shared = limiter(10)
    for priority in (0, 0, 0, 0, 1, 1, 1):
        assert await wait_time(shared, priority) == 0
    assert [shared._available(priority) for priority in range(3)] == [10, 6, 3]
    await asyncio.sleep(170)
    await wait_time(shared)
    assert [shared._available(priority) for priority in range(3)] == [10, 6, 3]
    await asyncio.sleep(11)
    assert [shared._available(priority) for priority in range(3)] == [10, 9, 9]
    await asyncio.sleep(170)
    assert shared._available(2) == 10


@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize(("limit", "end"), [(50.0, 105.0), (200.0, 200.0), (None, None)])
@fake_time
async def test_waiting_extends_the_deadline(
    limit: float | None, end: float | None, priority: int
) -> None:
    shared, start = limiter(1), asyncio.get_running_loop().time()
    async with asyncio.timeout(limit) as deadline:
        await shared.acquire(deadline, priority)
        assert deadline.when() == (limit and start + limit)
        await shared.acquire(deadline, priority)
        assert deadline.when() == (end and pytest.approx(start + end))


@fake_time
async def test_an_expired_deadline_is_not_extended() -> None:
    shared = limiter(1)
    await wait_time(shared)
    with suppress(TimeoutError):
        async with asyncio.timeout(0) as deadline:
            await asyncio.sleep(1)
    expired = deadline.when()
    await shared.acquire(deadline)
    assert deadline.when() == expired


@fake_time
async def test_limits_are_those_of_the_last_response_with_valid_headers() -> None:
    for headers, expected in (
        (GOOD, OrganizationLimits(240, 200, WALL_START + 30)),
        ({LIMIT: "600", REMAINING: "lots", RESET: ""}, OrganizationLimits(limit=600)),
        ({LIMIT: "-1", REMAINING: "599", RESET: "NaN"}, OrganizationLimits(remaining=599)),
        ({RESET: "1e999", REMAINING: "0.0"}, OrganizationLimits(remaining=0)),
        ({LIMIT: "garbage"}, OrganizationLimits(1, 2, 3)),
        ({}, OrganizationLimits(1, 2, 3)),
    ):
        shared = limiter()
        shared.observe(200, {LIMIT: "1", REMAINING: "2", RESET: "3"})
        shared.observe(200, headers)
        assert shared.limits == expected


SOON, LATE = WALL_START + 30, WALL_START + 1e12
# status, Retry-After, limit, remaining, reset: seconds until the next request
PAUSES: list[tuple[int, object, object, object, object, float]] = [
    (200, None, 240, 25, SOON, 0), (200, None, 240, 24, SOON, 30), (503, None, 240, 0, SOON, 30),
    (200, None, 240, 0, SOON - 60, 1), (200, None, 240, 0, 0, 1), (200, None, 240, 0, LATE, 90),
    (200, None, 240, 0, "soon", 60), (200, None, 0, 0, SOON, 0), (200, None, "garbage", 0, SOON, 0),
    (429, "7", None, None, None, 7), (429, "Wed, 18 Nov 2026 14:32:50 GMT", None, None, None, 20),
    (429, None, None, None, SOON, 30), (429, "7", None, None, SOON, 30),
    (429, "40", None, None, SOON, 40), (429, "Wed, 18 Nov 2026 14:33:15 GMT", None, None, SOON, 45),
    (429, None, None, None, None, 60), (429, "soon", None, None, "NaN", 60),
    (429, "-5", None, None, "-5", 60), (429, "1e999", None, None, None, 60),
    (429, "0", None, None, "0", 1), (429, "Tue, 17 Nov 2026 14:32:30 GMT", None, None, 0, 1),
    (429, "1000000000000", None, None, None, 90), (429, None, None, None, WALL_START * 1000, 90),
]  # fmt: skip


@pytest.mark.parametrize(("status", "retry", "limit", "remaining", "reset", "wait"), PAUSES)
@fake_time
async def test_pauses_after_a_429_and_when_a_tenth_of_the_limit_remains(
    status: int, retry: object, limit: object, remaining: object, reset: object, wait: float
) -> None:
    shared = limiter()
    headers = {"Retry-After": retry, LIMIT: limit, REMAINING: remaining, RESET: reset}
    shared.observe(status, {name: str(v) for name, v in headers.items() if v is not None})
    assert shared.paused_for() == pytest.approx(wait)
    assert await wait_time(shared) == pytest.approx(wait)
    assert shared.paused_for() == 0


@fake_time
async def test_after_a_pause_one_request_probes_until_the_api_accepts_requests() -> None:
    shared, loop = limiter(), asyncio.get_running_loop()
    start, sent = loop.time(), list[float]()

    async def client() -> None:
        await wait_time(shared)
        sent.append(loop.time() - start)
        await asyncio.sleep(0.2)
        shared.observe(429 if sent[-1] < 300 else 200, {"Retry-After": "60"})

    shared.observe(429, {"Retry-After": "60"})
    await asyncio.gather(*(client() for _ in range(20)))
    assert all(later - earlier > 59.9 for earlier, later in pairwise(sent[:5]))
    assert 300 <= sent[4] < sent[5] - 0.99
    assert len(sent) == 20
    assert [await wait_time(shared) for _ in range(3)] == [0, 0, 0]


@fake_time
async def test_a_response_to_a_request_from_before_the_pause_does_not_end_it() -> None:
    shared = limiter()
    shared.observe(429, {"Retry-After": "10"})
    shared.observe(200, GOOD)
    times = await asyncio.gather(*(wait_time(shared) for _ in range(3)))
    assert times == pytest.approx([10, 11, 12])
