"""Log lines: one line per event whatever its values, and repetitions once a minute."""

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from exporter import log

FIELD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)')


def fields(line: str) -> dict[str, str]:
    """Split a logfmt line; nothing may remain. Escapes are kept."""
    assert FIELD.sub("", line) == ""
    return {name: text.strip('"') for name, text in FIELD.findall(line)}


class Logs:
    """What is logged, with a clock that stands still."""

    now = 0.0

    def __init__(self, level: str = "debug", format_: str = "logfmt") -> None:
        self.stream = io.StringIO()
        self.logger = structlog.stdlib.get_logger("exporter.test")
        with redirect_stderr(self.stream):
            log.configure(level, format_, monotonic=lambda: self.now)  # type: ignore[arg-type]

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().removesuffix("\n").split("\n")


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    handlers = logging.getLogger().handlers
    yield Logs()
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


@given(st.text())
@example('two words, quo"ted, back\\slash, a=b')
@example("new\nline, re\rturn, \x1b[31mred, \x00, line\u2028separator, half \ud800 pair, \u202e")
@example("time=2026-01-01T00:00:00.000Z level=error event=forged")
def test_one_line_per_event(text: str) -> None:
    names = ["time", "level", "event", "value", "after"]
    for format_ in ("logfmt", "json"):
        logs = Logs(format_=format_)
        logs.logger.info("happened", value=text, after="end")
        (line,) = logs.lines
        assert line.isprintable()
        assert list(json.loads(line) if format_ == "json" else fields(line)) == names


def test_formats_of_values(logs: Logs) -> None:
    values = {"a": 7, "b": True, "c": None, "d": 0.12345, "e": ValueError("broke")}
    logs.logger.bind(aid="1").info("happened", **values)
    time = r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    end = "level=info event=happened aid=1 a=7 b=true c= d=0.123 e=broke"
    logs.logger.error("crashed", exc_info=ValueError("it\nbroke"))
    first, second = logs.lines
    assert re.fullmatch(f"{time} {end}", first)
    assert "ValueError: it" in fields(second)["traceback"]


def test_levels() -> None:
    methods = ("error", "warning", "info", "debug")
    for count, level in enumerate(("error", "warn", "info", "debug"), 1):
        logs = Logs(level)
        for method in methods:
            getattr(logs.logger, method)("happened", method=method)
        assert [fields(line)["method"] for line in logs.lines] == [*methods[:count]]
        assert fields(logs.lines[-1])["level"] == level


def test_a_repeated_event_is_written_once_a_minute(logs: Logs) -> None:
    for logs.now in (0.0, 1.0, 59.9, 60.0, 61.0, 130.0, 500.0):
        logs.logger.warning("happened", seconds=logs.now)
        logs.logger.info("poll")
    read = [line for line in map(fields, logs.lines) if line["event"] == "happened"]
    repeated = [(line["seconds"], line.get("repeated")) for line in read]
    assert repeated == [("0.0", None), ("60.0", "2"), ("130.0", "1"), ("500.0", None)]
    assert len(logs.lines) == 4 + 7, "events of the level info are always written"


def test_what_makes_an_event_another_one(logs: Logs) -> None:
    event: dict[str, object] = {"aid": "1", "source": "agents", "reason": "tls"}
    others = ({"aid": "2"}, {"source": "sessions"}, {"reason": "dns"}, {"task": "x"})
    for changed in ({}, *others, {"warning": "x"}, {"reason": None, "error": "x"}):
        logs.logger.error("poll_failed", **event | changed)
        logs.logger.error("poll_failed", **event | changed, seconds=2.0, hint="do something")
    logs.logger.error("another_event")
    logs.logger.warning("another_event")
    assert len(logs.lines) == 9


def test_warnings_of_libraries_are_written_once_a_minute(logs: Logs) -> None:
    library = logging.getLogger("asyncio")
    library.info("not written")
    for number in range(1000):
        library.error("out of files\nsocket: %d" % number)  # noqa: UP031  as asyncio does
        library.error("client %d failed:\n", number)
    logs.now = 60.0
    library.error("out of files")
    read = list(map(fields, logs.lines))
    assert [line.get("repeated") for line in read] == [None, None, "999"]
    assert read[1].items() >= {"event": "library", "logger": "asyncio", "level": "error"}.items()
    assert read[1]["message"] == r"client 0 failed:\n"
