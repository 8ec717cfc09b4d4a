"""Log lines: one event is one line, whatever is in it, and libraries speak in the same way."""

import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import logging_as

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
