"""The budget: never more than our share in any minute, first come first served, and what a reply says of the limit."""

import asyncio
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import START, Instant, Virtual, settle

from exporter.api.budget import LONGEST, PROBE, WINDOW, Budget, RateLimit, Retries
from exporter.clock import ApiClock

LIMIT = "X-Organization-Rate-Limit-Limit"
REMAINING = "X-Organization-Rate-Limit-Remaining"
RESET = "X-Organization-Rate-Limit-Reset"
GOOD = {LIMIT: "240", REMAINING: "200", RESET: str(START + 30)}


def budget(virtual: Virtual, per_minute: int = 120) -> Budget:
    api_clock = ApiClock(virtual.clock)
    api_clock.observe("Wed, 18 Nov 2026 14:32:30 GMT")
    return Budget(per_minute, virtual.clock, api_clock)


def most_in_a_window(times: list[float]) -> int:
    """Return how many times fall into the fullest 60 seconds."""
    return max(bisect_left(times, start + WINDOW) - first for first, start in enumerate(times))


# Our share.


@settings(deadline=None)
@given(
    st.integers(1, 10),
    st.lists(st.tuples(st.floats(0, 200), st.integers(1, 6)), min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 90)), max_size=3),
)
def test_no_minute_sees_more_than_our_share(
    share: int, groups: list[tuple[float, int]], blocks: list[tuple[float, float]]
) -> None:
    """Account groups begin at some time and ask one after another; now and then a reply blocks."""

    async def scenario() -> tuple[list[float], list[tuple[float, float]]]:
        virtual = Virtual()
        shared, sent, blocked = budget(virtual, share), list[float](), list[tuple[float, float]]()

        async def group(begin: float, requests: int) -> None:
            await virtual.sleep(begin)
            for _ in range(requests):
                await shared.take()
                sent.append(virtual.now)

        async def reply(at: float, seconds: float) -> None:
            await virtual.sleep(at)
            shared.block(seconds)
            blocked.append((virtual.now, virtual.now + seconds))

        tasks = [asyncio.create_task(group(*each)) for each in groups]
        tasks += [asyncio.create_task(reply(*each)) for each in blocks]
        await virtual.advance(1e6)
        await asyncio.wait_for(asyncio.gather(*tasks), 1)
        return sent, blocked

    sent, blocked = asyncio.run(scenario())
    assert len(sent) == sum(requests for _, requests in groups), "everybody comes to it"
    assert sent == sorted(sent)
    assert most_in_a_window(sent) <= share
    assert not [time for time in sent for begin, end in blocked if begin < time < end - 1e-6]


async def test_what_is_free_is_given_at_once() -> None:
    virtual = Instant()
    shared = budget(virtual, 3)
    for _ in range(3):
        await shared.take()
    assert virtual.slept == []
    await shared.take()
    assert virtual.slept == [WINDOW]


async def test_who_comes_first_is_served_first() -> None:
    virtual, served = Virtual(), list[int]()
    shared = budget(virtual, 2)

    async def ask(number: int) -> None:
        await shared.take()
        served.append(number)

    tasks = [asyncio.create_task(ask(number)) for number in range(7)]
    for minute in range(4):
        await virtual.advance(0 if minute == 0 else WINDOW)
        assert served == list(range(min(7, 2 * minute + 2)))
    await asyncio.gather(*tasks)


async def test_who_gives_up_waiting_stops_nobody() -> None:
    virtual = Virtual()
    shared = budget(virtual, 1)
    await shared.take()
    first, second = (asyncio.create_task(shared.take()) for _ in range(2))
    await settle()
    first.cancel()
    await virtual.advance(WINDOW)
    await asyncio.wait_for(second, 1)
    assert first.cancelled()


async def test_twenty_account_groups_get_their_turns() -> None:
    virtual, served = Virtual(), [0] * 20
    shared = budget(virtual, 10)

    async def group(number: int) -> None:
        while True:
            await shared.take()
            served[number] += 1
            await virtual.sleep(0.1)

    tasks = [asyncio.create_task(group(number)) for number in range(20)]
    await virtual.advance(20 * WINDOW)
    assert max(served) - min(served) <= 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# What a reply says.


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (GOOD, RateLimit(240, 200, START + 30)),
        ({LIMIT: "600"}, RateLimit(limit=600)),
        ({LIMIT: "600", REMAINING: "lots", RESET: ""}, RateLimit(limit=600)),
        ({LIMIT: "-1", REMAINING: "599", RESET: "NaN"}, RateLimit(remaining=599)),
        ({RESET: "1e999", REMAINING: "0.0"}, RateLimit(remaining=0)),
        ({}, RateLimit()),
        ({LIMIT: "garbage", REMAINING: "garbage", RESET: "garbage"}, RateLimit()),
    ],
)
def test_the_limit_is_what_was_said_and_nothing_else(headers: dict[str, str], said: RateLimit) -> None:
    shared = budget(Virtual())
    shared.observe(headers)
    assert shared.rate_limit == said


def test_a_reply_that_says_nothing_leaves_what_was_said() -> None:
    shared = budget(Virtual())
    shared.observe(GOOD)
    shared.observe({})
    assert shared.rate_limit == RateLimit(240, 200, START + 30)
    shared.observe({LIMIT: "600"})
    assert shared.rate_limit == RateLimit(600)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "waits"),
    [
        ("240", "25", START + 30, None),
        ("240", "24", START + 30, 30.0),
        ("240", "0", START + 30, 30.0),
        ("240", "0", START - 30, 1.0),
        ("240", "0", START + 1e12, LONGEST),
        ("240", "0", 0, WINDOW),
        ("240", "0", "soon", WINDOW),
        ("0", "0", START + 30, None),
        ("garbage", "0", START + 30, None),
    ],
)
async def test_the_last_tenth_is_left_to_others(
    limit: str, remaining: str, reset: float | str, waits: float | None
) -> None:
    virtual = Instant()
    shared = budget(virtual)
    shared.observe({LIMIT: limit, REMAINING: remaining, RESET: str(reset)})
    await shared.take()
    assert virtual.slept == ([] if waits is None else [waits])


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 18 Nov 2026 14:32:50 GMT"}, 20.0),
        ({RESET: str(START + 30)}, 30.0),
        ({"Retry-After": "7", RESET: str(START + 30)}, 30.0),
        ({"Retry-After": "40", RESET: str(START + 30)}, 40.0),
        ({"Retry-After": "Wed, 18 Nov 2026 14:33:15 GMT", RESET: str(START + 30)}, 45.0),
        ({}, WINDOW),
        ({"Retry-After": "soon", RESET: "NaN"}, WINDOW),
        ({"Retry-After": "-5", RESET: "-5"}, WINDOW),
        ({"Retry-After": "0"}, 1.0),
        ({"Retry-After": "0", RESET: "0"}, 1.0),
        ({RESET: str(START - 3600)}, 1.0),
        ({"Retry-After": "Tue, 17 Nov 2026 14:32:30 GMT"}, 1.0),
        ({"Retry-After": "1000000000000"}, LONGEST),
        ({RESET: "1000000000000"}, LONGEST),
        ({RESET: str(int(START * 1000))}, LONGEST),
        ({"Retry-After": "1e999"}, WINDOW),
        ({"Retry-After": "\x00"}, WINDOW),
    ],
)
async def test_after_a_refusal_nothing_is_sent_for_as_long_as_was_said(headers: dict[str, str], wait: float) -> None:
    virtual = Instant()
    shared = budget(virtual)
    assert shared.refused(headers) == wait
    await shared.take()
    assert virtual.slept == [wait]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["Retry-After", LIMIT, REMAINING, RESET]), st.text() | st.floats().map(str)))
def test_no_reply_stops_us_for_longer_than_we_allow(headers: dict[str, str]) -> None:
    async def scenario() -> tuple[float, list[float]]:
        virtual = Instant()
        shared = budget(virtual)
        shared.observe(headers)
        wait = shared.refused(headers)
        await shared.take()
        return wait, virtual.slept

    wait, slept = asyncio.run(scenario())
    assert 1.0 <= wait <= LONGEST
    assert 1.0 <= sum(slept) <= LONGEST


async def test_those_who_waited_for_the_end_of_a_block_do_not_set_out_at_once() -> None:
    """One asks whether it is over; while it is not, nobody else does."""
    virtual, sent = Virtual(), list[float]()
    shared = budget(virtual)
    over = virtual.now + 300

    async def group() -> None:
        await shared.take()
        sent.append(virtual.now)
        await virtual.sleep(0.2)
        shared.observe(GOOD) if virtual.now >= over else shared.refused({"Retry-After": "60"})

    shared.refused({"Retry-After": "60"})
    tasks = [asyncio.create_task(group()) for _ in range(20)]
    await virtual.advance(290)
    assert len(sent) == 4, "one a minute"
    await virtual.advance(60)
    assert len(sent) == 20
    assert sent[5] - sent[4] == PROBE, "the one who asked had time for its answer"
    await asyncio.gather(*tasks)


async def test_without_an_answer_they_go_one_by_one() -> None:
    virtual, sent = Virtual(), list[float]()
    shared = budget(virtual)
    shared.refused({"Retry-After": "10"})

    async def group() -> None:
        await shared.take()
        sent.append(virtual.now - 1000)

    tasks = [asyncio.create_task(group()) for _ in range(4)]
    await virtual.advance(60)
    assert sent == [10, 10 + PROBE, 10 + 2 * PROBE, 10 + 3 * PROBE]
    await asyncio.gather(*tasks)


async def test_an_older_answer_does_not_end_the_caution() -> None:
    virtual, sent = Virtual(), list[float]()
    shared = budget(virtual)
    shared.refused({"Retry-After": "10"})
    shared.observe(GOOD)  # was under way already

    async def group() -> None:
        await shared.take()
        sent.append(virtual.now - 1000)

    tasks = [asyncio.create_task(group()) for _ in range(2)]
    await virtual.advance(60)
    assert sent == [10, 10 + PROBE]
    await asyncio.gather(*tasks)


# Second attempts.


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=500))
def test_second_attempts_are_a_tenth_of_the_first(asks: list[bool]) -> None:
    retries, second = Retries(), 0
    for first, wants_again in enumerate(asks, 1):
        retries.earn()
        second += wants_again and retries.spend()
        assert second <= Retries.SAVED + Retries.SHARE * first


def test_second_attempts_can_be_saved_up_but_not_for_ever() -> None:
    retries = Retries()
    for _ in range(1000):
        retries.earn()
    assert [retries.spend() for _ in range(12)] == [True] * 10 + [False] * 2
    for _ in range(11):
        retries.earn()
    assert [retries.spend() for _ in range(2)] == [True, False]
