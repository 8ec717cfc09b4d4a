"""Clocks: the API's time is independent of the local wall clock."""

import time
from email.utils import formatdate

import pytest

from exporter.clock import ApiClock, Clock

DATE, TIMESTAMP = "Wed, 18 Nov 2026 14:32:30", 1_795_012_350.0


@pytest.mark.parametrize(
    ("date", "timestamp"),
    [
        *((text, None) for text in (None, "", "0", "\x00", "yesterday", f"{DATE} +9999999999999")),
        *((f"Wed, {day} Nov 2026 14:32:30 GMT", None) for day in (0, 31, 10**9, 10**99)),
        *((f"{DATE}{zone}", TIMESTAMP) for zone in (" GMT", " -0000", "")),  # UTC, not local
        (f"{DATE} +0100", TIMESTAMP - 3600),
        ("Wed, 31 Dec 1969 23:59:59 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 31 Dec 9998 23:59:59 GMT", 253_370_764_799),
        ("Fri, 01 Jan 9999 00:00:00 GMT", None),
    ],
)
def test_the_wall_clock_is_used_until_the_first_valid_date_header(date, timestamp, monkeypatch):
    local = {"monotonic": 1000.0, "wall": 5.0}
    api_clock = ApiClock(Clock(lambda: local["monotonic"], lambda: local["wall"]))
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        api_clock.observe(date)
    time.tzset()
    assert api_clock.synchronized == (timestamp is not None)
    assert api_clock.now() == (5.0 if timestamp is None else timestamp)
    local["monotonic"], local["wall"] = 1090.0, 12345.0
    assert api_clock.now() == (12345.0 if timestamp is None else timestamp + 90)


@pytest.mark.parametrize(
    "responses",  # seconds since the previous one, jump of its date, change of the clock afterwards
    [
        [(60, 60, 60), (60, 0, 0), (60, -60, -60)],  # the clocks of the API's servers differ
        [(60, 3600, 0), (29, 3600, 0), (1, 3600, 3600)],  # confirmed after 30 s
        [(60, 3600, 0), (60, 0, 0), (60, 3600, 0), (60, 3600, 3600)],  # one wrong date
        [(60, 3600, 0), (60, -3600, 0), (60, -3590, -3590)],  # two that disagree
    ],
)
def test_a_jump_of_the_date_needs_a_confirmation(responses):
    monotonic = [0.0]
    api_clock = ApiClock(Clock(lambda: monotonic[0]))
    api_clock.observe(f"{DATE} GMT")
    for after, jump, expected in responses:
        monotonic[0] += after
        api_clock.observe(formatdate(TIMESTAMP + monotonic[0] + jump, usegmt=True))
        assert api_clock.now() - monotonic[0] - TIMESTAMP == expected
