"""The rate limiter: requests in any 60 seconds, pauses imposed by the API, and deadlines."""

import asyncio
from bisect import bisect_left
from contextlib import suppress
from itertools import pairwise

import pytest
from fake_clock import START, WALL_START, fake_clock, fake_time
from hypothesis import given
from hypothesis import strategies as st

from exporter.clock import ApiClock
from exporter.metrics.self_metrics import OrganizationLimits
from exporter.thousandeyes.rate_limit import WINDOW_SECONDS, RateLimiter

NAMES = [f"X-Organization-Rate-Limit-{name}" for name in ("Limit", "Remaining", "Reset")]


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


def most_in_a_minute(times: list[float]) -> int:
    ordered = sorted(times)
    ends = [bisect_left(ordered, time + WINDOW_SECONDS - 1e-6) for time in ordered]
    return max(end - start for start, end in enumerate(ends))


@given(st.integers(2, 20), st.data())
@fake_time
async def test_the_limit_holds_in_any_minute_and_lower_priorities_never_delay_polls(share, data):
    shared, loop = limiter(share), asyncio.get_running_loop()
    needed, latency = data.draw(st.integers(1, share)), data.draw(st.sampled_from([0.0, 0.3, 2.0]))
    delays, sent, others_sent = list[float](), list[float](), list[float]()

    async def other(priority: int, pause: float) -> None:
        while True:
            await wait_time(shared, priority)
            others_sent.append(loop.time())
            await asyncio.sleep(pause)

    async def polls(count: int) -> None:
        for _ in range(count):
            start = loop.time()
            for _ in range(needed):
                delays.append(await wait_time(shared))
                sent.append(loop.time())
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
    assert most_in_a_minute(sent + others_sent) <= share
    if others and needed < share:
        assert 0 < most_in_a_minute(others_sent) <= share - needed  # what is left is used


@fake_time
async def test_waiting_requests_are_sent_in_the_order_of_their_priority():
    shared, loop, sent = limiter(2), asyncio.get_running_loop(), list[tuple[int, float]]()

    async def send(priority: int) -> None:
        await wait_time(shared, priority)
        sent.append((priority, round(loop.time() - START)))

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
    assert not shared.waiting(2), "one that waited in the last minute counts"


@pytest.mark.parametrize(("seconds", "free"), [(179, 3), (181, 9), (281, 10)])
@fake_time
async def test_the_largest_need_of_higher_priorities_in_three_minutes_is_reserved(seconds, free):
    shared = limiter(10)
    for priority in (0, 0, 0, 0, 1, 1, 1):
        assert await wait_time(shared, priority) == 0
    await asyncio.sleep(100)
    await wait_time(shared)
    await asyncio.sleep(seconds - 100)
    assert [await wait_time(shared, 2) for _ in range(free)] == [0] * free
    assert await wait_time(shared, 2) == pytest.approx(WINDOW_SECONDS)
    assert shared.sent_last_minute() == 1


@pytest.mark.parametrize(("limit", "end"), [(50.0, 105.0), (200.0, 200.0), (None, None)])
@fake_time
async def test_waiting_extends_the_deadline(limit, end):
    shared, start = limiter(1), asyncio.get_running_loop().time()
    async with asyncio.timeout(limit) as deadline:
        await shared.acquire(deadline)
        assert deadline.when() == (limit and start + limit)
        await shared.acquire(deadline)
        assert deadline.when() == (end and pytest.approx(start + end))


@fake_time
async def test_an_expired_deadline_cannot_be_extended():
    shared, deadline = limiter(1), asyncio.timeout(0)
    with suppress(TimeoutError):
        async with deadline:
            await asyncio.sleep(1)
    for _ in range(2):
        await shared.acquire(deadline)
    assert shared.sent_last_minute() == 1


@fake_time
async def test_limits_are_those_of_the_last_response_with_valid_headers():
    shared = limiter()
    for values in (("1", "2", "3"), ("", "0.0", "1e999"), ("garbage", "-1", "NaN")):
        shared.observe(200, dict(zip(NAMES, values, strict=True)))
    assert shared.limits == OrganizationLimits(remaining=0)


SOON, LATE = WALL_START + 30, WALL_START + 1e12
# status; Retry-After, limit, remaining, reset; seconds until the next request
PAUSES = [
    (200, ("", 240, 25, SOON), 0), (200, ("", 240, 24, SOON), 30), (503, ("", 240, 0, SOON), 30),
    (200, ("", 240, 0, 0), 1), (200, ("", 240, 0, LATE), 90), (200, ("", 240, 0, "soon"), 60),
    (200, ("", 0, 0, SOON), 0), (200, ("", "garbage", 0, SOON), 0), (429, ("7", "", "", ""), 7),
    (429, ("Wed, 18 Nov 2026 14:32:50 GMT", "", "", ""), 20), (429, ("7", "", "", SOON), 30),
    (429, ("40", "", "", SOON), 40), (429, ("Wed, 18 Nov 2026 14:33:15 GMT", "", "", SOON), 45),
    (429, ("", "", "", ""), 60), (429, ("soon", "", "", "NaN"), 60), (429, ("-5", "", "", -5), 60),
    (429, ("0", "", "", 0), 1), (429, (1e12, "", "", ""), 90),
]  # fmt: skip


@pytest.mark.parametrize(("status", "values", "wait"), PAUSES)
@fake_time
async def test_pauses_after_a_429_and_when_a_tenth_of_the_limit_remains(status, values, wait):
    shared = limiter()
    shared.observe(status, dict(zip(["Retry-After", *NAMES], map(str, values), strict=True)))
    assert shared.paused_for() == pytest.approx(wait)
    assert await wait_time(shared) == pytest.approx(wait)
    assert shared.paused_for() == 0


@fake_time
async def test_after_a_pause_one_request_probes_until_the_api_accepts_requests():
    shared, loop, sent = limiter(), asyncio.get_running_loop(), list[float]()

    async def client() -> None:
        await wait_time(shared)
        sent.append(loop.time() - START)
        await asyncio.sleep(0.2)
        shared.observe(429 if sent[-1] < 300 else 200, {"Retry-After": "60"})

    shared.observe(429, {"Retry-After": "60"})
    shared.observe(200, {})  # the response to a request from before the pause
    await asyncio.gather(*(client() for _ in range(20)))
    assert all(later - earlier > 59.9 for earlier, later in pairwise(sent[:5]))
    assert 300 <= sent[4] < sent[5] - 0.99
    assert [await wait_time(shared) for _ in range(3)] == [0, 0, 0]
