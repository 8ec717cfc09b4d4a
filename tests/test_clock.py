"""The clocks: the API's is carried on by the machine's own, whatever the wall says."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import START, Virtual

from exporter.clock import ApiClock, Clock, http_date


def test_the_wall_clock_counts_until_the_api_has_said_the_time() -> None:
    virtual = Virtual(skew=-86400)
    api_clock = ApiClock(virtual.clock)
    assert (api_clock.known, api_clock.now()) == (False, START - 86400)
    api_clock.observe("Wed, 18 Nov 2026 14:32:30 GMT")
    assert (api_clock.known, api_clock.now()) == (True, START)
    virtual.now += 90
    virtual.skew += 12345
    assert api_clock.now() == START + 90


@pytest.mark.parametrize("date", [None, "", "yesterday", "Wed, 99 Nov 2026 14:32:30 GMT", "0", "\x00", "Wed, 18 Nov"])
def test_a_date_that_is_none_changes_nothing(date: str | None) -> None:
    api_clock = ApiClock(Virtual().clock)
    api_clock.observe(date)
    assert not api_clock.known
    api_clock.observe("Wed, 18 Nov 2026 14:32:31 GMT")
    api_clock.observe(date)
    assert api_clock.now() == START + 1


@pytest.mark.parametrize(
    "text",
    [
        "Wed, 18 Nov 2026 14:32:30 GMT",
        "Wed, 18 Nov 2026 14:32:30",
        "Wed, 18 Nov 2026 14:32:30 -0000",
        "Wed, 18 Nov 2026 15:32:30 +0100",
        "Wednesday, 18-Nov-26 14:32:30 GMT",
    ],
)
def test_a_date_is_in_utc_unless_it_says_otherwise(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert http_date(text) == START
    finally:
        monkeypatch.undo()
        time.tzset()


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [-+A-Z]\d*", fullmatch=True))
def test_any_text_is_a_date_or_is_none(text: str) -> None:
    found = http_date(text)
    assert found is None or found == found + 0.0


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))  # noqa: DTZ001  hypothesis adds none
def test_a_date_is_read_back(when: datetime) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    assert (
        http_date(when.strftime("%a, %d %b ") + f"{when.year:04} " + when.strftime("%H:%M:%S GMT")) == when.timestamp()
    )


async def test_the_machines_clocks_go_on() -> None:
    clock = Clock()
    before = clock.monotonic()
    await clock.sleep(0.01)
    assert 0.01 <= clock.monotonic() - before < 5
    assert abs(clock.wall() - time.time()) < 5


async def test_a_virtual_clock_wakes_everybody_in_order() -> None:
    virtual, woken = Virtual(), list[tuple[str, float]]()

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await virtual.sleep(nap)
            woken.append((name, virtual.now - 1000))

    tasks = [asyncio.create_task(sleeper("a", 3, 3)), asyncio.create_task(sleeper("b", 2, 2, 100))]
    await virtual.advance(10)
    assert woken == [("b", 2), ("a", 3), ("b", 4), ("a", 6)]
    assert virtual.sleepers == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
