"""Log lines: one event is one line, whatever is in it, and libraries speak in the same way."""

import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import StillClock, exporting, logging_as, raw, simulated, until

from exporter import log

NASTY = [
    "plain", "", " ", "two words", 'quo"ted', "back\\slash", "a=b", "new\nline", "re\rturn", "tab\t", "nul\x00",
    "\x1b[31mred\x1b[0m", "line\u2028separator", "next\x85line", "half \ud800 a pair", "snow☃", "right\u202eto left",
    "time=2026-01-01T00:00:00.000Z level=error event=forged",
]  # fmt: skip
HEAD = r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(debug|info|warn|error) event=\S+"
PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]+)(?: |$)')


def fields(line: str) -> dict[str, str]:
    """Read a line of logfmt back; nothing may be left over."""
    assert PAIR.sub("", line) == ""
    return {name: json.loads(value) if value[0] == '"' else value for name, value in PAIR.findall(line)}


@pytest.mark.parametrize("value", NASTY, ids=ascii)
@pytest.mark.parametrize("format_", ["logfmt", "json"])
def test_a_line_is_one_line_and_reads_back(format_: str, value: str) -> None:
    with logging_as("info", format_) as lines:
        log.info("happened", value=value, after="end")
    (line,) = lines()
    assert line.isprintable()
    line.encode()
    read = json.loads(line) if format_ == "json" else fields(line)
    assert (read["event"], read["value"], read["after"]) == ("happened", value, "end")


@given(st.text(st.characters()))
def test_no_text_breaks_a_line(value: str) -> None:
    for format_ in ("logfmt", "json"):
        with logging_as("info", format_) as lines:
            log.info("happened", value=value)
        (line,) = lines()
        assert (json.loads(line) if format_ == "json" else fields(line))["value"] == value


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0"), (1.5, "1.5"), (0.12345, "0.123"), (100.0, "100"), (1e300, "1e+300"), (7, "7"), (True, "true"),
     (False, "false"), (ValueError("it broke"), '"it broke"'), (["a"], "['a']")],
    ids=repr,
)  # fmt: skip
def test_values_are_written_short(value: object, written: str) -> None:
    with logging_as() as lines:
        log.info("happened", value=value)
    assert lines()[0].endswith(f" event=happened value={written}")


def test_a_line_begins_with_time_level_and_event() -> None:
    with logging_as() as lines:
        for write in (log.debug, log.info, log.warn, log.error):
            write("happened")
    assert all(re.fullmatch(HEAD, line) for line in lines())
    assert [line.split()[1] for line in lines()] == ["level=debug", "level=info", "level=warn", "level=error"]


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_only_the_level_and_above_is_written(level: str, count: int) -> None:
    with logging_as(level) as lines:
        for write in (log.debug, log.info, log.warn, log.error):
            write("happened")
    assert len(lines()) == count


def fail() -> None:
    raise ValueError("it\nbroke")


@pytest.mark.parametrize("format_", ["logfmt", "json"])
def test_where_an_exception_came_from_is_in_the_same_line(format_: str) -> None:
    with logging_as("error", format_) as lines:
        try:
            fail()
        except ValueError:
            log.error("crashed", exc_info=True, part="x")
    (line,) = lines()
    traceback = (json.loads(line) if format_ == "json" else fields(line))["traceback"]
    assert traceback.startswith("Traceback")
    assert "in fail" in traceback


@pytest.mark.parametrize("name", ["asyncio", "aiohttp.client", "aiohttp.server", "concurrent.futures"])
@pytest.mark.parametrize("level", ["debug", "error"])
def test_warnings_of_libraries_are_lines_like_ours(name: str, level: str) -> None:
    library = logging.getLogger(name)
    with logging_as(level) as lines:
        library.info("nothing to see")
        library.error("it broke: %s", "new\nline")
    (line,) = lines()
    read = fields(line)
    assert (read["event"], read["logger"], read["message"]) == ("library", name, "it broke: new\nline")


def test_a_closed_stream_is_no_reason_to_stop(monkeypatch: Any) -> None:
    with logging_as():
        monkeypatch.setattr("sys.stderr", None)
        log.configure("info", "logfmt")
        log.info("nobody hears it")


# The same trouble, once a minute.


def trouble(**fields: object) -> None:
    """Say that a poll failed."""
    log.error("poll_failed", **{"aid": "1", "reason": "tls", "error": "it broke", **fields})


@pytest.mark.parametrize("write", [log.warn, log.error])
def test_the_same_trouble_is_one_line_a_minute_that_says_how_often_it_was_held_back(write: Any) -> None:
    clock = StillClock(0.0)
    with logging_as(monotonic=clock) as lines:
        for clock.now in (0.0, 1.0, 59.9, 60.0, 61.0, 130.0, 500.0):
            write("happened", aid="1", seconds=clock.now)
    read = [fields(line) for line in lines()]
    assert [(line["seconds"], line.get("repeated")) for line in read] == [
        ("0", None),
        ("60", "2"),
        ("130", "1"),
        ("500", None),
    ]


def test_what_goes_well_is_never_held_back() -> None:
    with logging_as(monotonic=StillClock()) as lines:
        for _ in range(3):
            log.info("poll", aid="1")
            log.debug("poll", aid="1")
    assert len(lines()) == 6


@pytest.mark.parametrize(
    "other", [{"aid": "2"}, {"reason": "dns"}, {"part": "x"}, {"warning": "x"}, {"problem": ValueError("x")}], ids=str
)
def test_other_trouble_is_another_line(other: dict[str, object]) -> None:
    with logging_as(monotonic=StillClock()) as lines:
        trouble()
        trouble(**other)
    assert len(lines()) == 2


def test_another_event_or_level_is_another_line() -> None:
    with logging_as(monotonic=StillClock()) as lines:
        log.warn("one")
        log.warn("other")
        log.error("one")
    assert len(lines()) == 3


def test_trouble_in_other_words_or_after_other_durations_is_the_same() -> None:
    with logging_as(monotonic=StillClock()) as lines:
        trouble(seconds=1.0)
        trouble(seconds=2.0, error="it broke (again)", hint="mend it")
    assert len(lines()) == 1


def test_libraries_repeat_themselves_once_a_minute_too() -> None:
    clock = StillClock()
    with logging_as(monotonic=clock) as lines:
        for number in range(5000):
            logging.getLogger("asyncio").error("out of files\nsocket: <fd=%d>", number)
        logging.getLogger("asyncio").error("something else")
        clock.now += 60
        logging.getLogger("asyncio").error("out of files")
    assert [fields(line).get("repeated") for line in lines()] == [None, None, "4999"]


def test_what_is_remembered_of_trouble_is_bounded() -> None:
    clock = StillClock()
    with logging_as(monotonic=clock) as lines:
        for aid in range(2 * log.MOST_REMEMBERED):
            trouble(aid=aid)
        handler = logging.getLogger("exporter").handlers[0]
        assert len(handler._said) == log.MOST_REMEMBERED  # type: ignore[attr-defined]
        trouble(aid=2 * log.MOST_REMEMBERED - 1)
        trouble(aid=0)
    assert len(lines()) == 2 * log.MOST_REMEMBERED + 1


def test_who_is_told_in_another_way_hears_nothing() -> None:
    with logging_as() as lines:
        log.quiet()
        trouble()
        logging.getLogger("asyncio").error("it broke")
    assert lines() == []


async def test_polls_are_a_line_each_and_what_changes_is_one_more() -> None:
    clock = StillClock(0.0)
    async with simulated(faults=["maintenance@1s+100s"]) as (simulator, api), exporting(api) as (exporter, _):
        (poller,) = exporter.pollers.values()
        with logging_as(monotonic=clock) as lines:
            simulator.clock.now += 60  # type: ignore[attr-defined]
            for clock.now in (0.0, 30.0, 61.0):
                await poller.poll()
            simulator.clock.now += 60  # type: ignore[attr-defined]
            await poller.poll()
            await poller.poll()
    read = [fields(line) for line in lines() if "event=poll" in line]
    assert [line["event"] for line in read] == ["poll_failed", "poll_failed", "poll", "poll_healed", "poll"]
    failed, again, poll, healed, _ = read
    assert (failed["reason"], failed.get("repeated"), again["repeated"]) == ("maintenance", None, "1")
    assert failed["hint"].startswith("wait: ")
    assert {"user_sessions", "network_sessions", "new", "rejected", "keys", "seconds"} <= poll.keys()
    assert (healed["reason"], healed["failed_polls"], healed["aid"]) == ("maintenance", "3", "1001")
    assert float(healed["after_seconds"]) > 0


async def test_strangers_can_not_flood_the_log() -> None:
    async with simulated() as (_, api), exporting(api) as (_, address):
        with logging_as(monotonic=StillClock()) as lines:
            for garbage in (
                b"\x16\x03\x01\r\n\r\n",
                b"GET / HTTP/9\r\n\r\n",
                b"GET  /\r\n\r\n",
                b"\x00" * 9000 + b"\r\n\r\n",
            ):
                for _ in range(25):
                    await raw(address, garbage)
            await until(lambda: [line for line in lines() if "request_not_understood" in line])
    assert len([line for line in lines() if "level=debug" not in line]) <= 3
