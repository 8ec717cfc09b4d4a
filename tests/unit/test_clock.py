"""Clocks: the API's time is independent of the local wall clock."""

import asyncio
import time
from email.utils import formatdate

import pytest
from fake_clock import fake_clock, fake_time
from hypothesis import given
from hypothesis import strategies as st

from exporter.clock import ApiClock, Clock, parse_http_date, poll_deadline
from exporter.errors import PollError

DATE = "Wed, 18 Nov 2026 14:32:30 GMT"
TIMESTAMP = 1_795_012_350.0


def test_the_wall_clock_is_used_until_the_first_valid_date_header():
    local = {"monotonic": 1000.0, "wall": 5.0}
    api_clock = ApiClock(Clock(lambda: local["monotonic"], lambda: local["wall"]))
    assert (api_clock.synchronized, api_clock.now()) == (False, 5.0)
    api_clock.observe(DATE)
    assert (api_clock.synchronized, api_clock.now()) == (True, TIMESTAMP)
    local["monotonic"] += 90
    local["wall"] += 12345
    assert api_clock.now() == TIMESTAMP + 90


@pytest.mark.parametrize(
    ("date", "timestamp"),
    [
        *((text, None) for text in (None, "", "0", "\x00", "yesterday", "Wed, 18 Nov")),
        ("Wed, 99 Nov 2026 14:32:30 GMT", None),
        ("Wed, 31 Dec 1969 23:59:59 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 31 Dec 9998 23:59:59 GMT", 253_370_764_799),
        ("Fri, 01 Jan 9999 00:00:00 GMT", None),
    ],
)
def test_an_invalid_date_header_is_ignored(date, timestamp):
    api_clock = ApiClock(Clock(lambda: 1.0, lambda: 5.0))
    api_clock.observe(date)
    assert api_clock.now() == (5.0 if timestamp is None else timestamp)


# seconds since the previous response, jump of its date, difference of the clock afterwards
JUMPS = [
    [(60, 60, 60), (60, 0, 0), (60, -60, -60)],  # the clocks of the API's servers differ
    [(60, 3600, 0), (29, 3600, 0), (1, 3600, 3600)],  # confirmed after 30 s
    [(60, 3600, 0), (60, 0, 0), (60, 3600, 0), (60, 3600, 3600)],  # one wrong date
    [(60, 3600, 0), (60, -3600, 0), (60, -3590, -3590)],  # two that disagree
]


@pytest.mark.parametrize("responses", JUMPS)
def test_a_jump_of_the_date_needs_a_confirmation(responses):
    monotonic = [0.0]
    api_clock = ApiClock(Clock(lambda: monotonic[0]))
    api_clock.observe(DATE)
    for after, jump, expected in responses:
        monotonic[0] += after
        api_clock.observe(formatdate(TIMESTAMP + monotonic[0] + jump, usegmt=True))
        assert api_clock.now() - monotonic[0] - TIMESTAMP == expected


@pytest.mark.parametrize(("zone", "offset"), [("GMT", 0), ("", 0), ("-0000", 0), ("+0100", 3600)])
def test_a_date_without_time_zone_is_in_utc(zone, offset, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        assert parse_http_date(f"Wed, 18 Nov 2026 14:32:30 {zone}") == TIMESTAMP - offset
    time.tzset()


NUMBERS = st.integers(0, 10**5)
DATES = st.builds("Mon, {} Feb {} {}:{}:{} {}".format, *[NUMBERS] * 5, st.sampled_from("+1Z"))


@given(st.text() | DATES)
def test_any_text_is_a_date_or_invalid(text):
    assert isinstance(parse_http_date(text), float | None)


@fake_time
async def test_a_poll_that_exceeds_its_time_limit_fails():
    clock = fake_clock()
    start = clock.monotonic()
    with pytest.raises(PollError) as failure:
        async with poll_deadline(57.0):
            await asyncio.sleep(60)
    assert (failure.value.reason, clock.monotonic() - start) == ("deadline", 57.0)
    async with poll_deadline(57.0) as deadline:
        deadline.reschedule(clock.monotonic() + 100)
        await asyncio.sleep(90)
