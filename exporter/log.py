"""Logging: one event per line on standard error, as logfmt or JSON, set up with structlog.

Modules log with `structlog.get_logger()`. Warnings of libraries become lines of the same format.
"""

import logging
import math
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import structlog
from structlog.processors import JSONRenderer, LogfmtRenderer, format_exc_info
from structlog.stdlib import BoundLogger, LoggerFactory, ProcessorFormatter, filter_by_level
from structlog.typing import EventDict

REPEAT_SECONDS = 60.0


def configure(
    level: Literal["debug", "info", "warn", "error"],
    format_: Literal["logfmt", "json"],
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Write events of a level and above to standard error; of libraries, only warnings and errors.

    `monotonic` is the clock of repetitions, in seconds.
    """
    renderer = JSONRenderer() if format_ == "json" else LogfmtRenderer(bool_as_flag=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Deduplicator(monotonic))
    handler.setFormatter(ProcessorFormatter(processors=[format_exc_info, _arrange, renderer]))
    root_level = "ERROR" if level == "error" else "WARNING"
    logging.raiseExceptions = False  # standard error may be closed
    logging.basicConfig(handlers=[handler], level=root_level, force=True)
    logging.getLogger("exporter").setLevel(level.upper())
    structlog.configure(
        processors=[filter_by_level, ProcessorFormatter.wrap_for_formatter],
        logger_factory=LoggerFactory(),
        wrapper_class=BoundLogger,
    )


class _Deduplicator:
    """Filter that passes the same warning or error once a minute.

    `repeated` of the next record is the number of those in between.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._written: dict[object, tuple[float, int]] = {}
        """Identity to the time of the last line, and the number of records dropped since then."""

    def __call__(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        # Arguments of messages, and durations and counts in fields, may differ.
        message: object = record.msg
        fields = message if isinstance(message, dict) else {"event": str(message).split("\n")[0]}
        values = [str(fields.get(name)) for name in ("event", "aid", "source", "task", "warning")]
        cause = fields.get("reason") or fields.get("error")
        identity = (record.name, record.levelno, *values, str(cause))
        now = self._monotonic()
        last, dropped = self._written.get(identity, (-math.inf, 0))
        if now - last < REPEAT_SECONDS:
            self._written[identity] = (last, dropped + 1)
            return False
        self._written[identity] = (now, 0)
        record.__dict__["repeated"] = dropped
        return True


def _arrange(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Return the fields in order: time, level, event, the event's own fields, traceback."""
    record: logging.LogRecord = event.pop("_record")
    if not event.pop("_from_structlog"):
        event = {"event": "library", "logger": record.name, "message": event.pop("event"), **event}
    created = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    level = record.levelname.lower().replace("warning", "warn")
    head = {"time": created.replace("+00:00", "Z"), "level": level, "event": event.pop("event")}
    if repeated := record.__dict__.get("repeated"):
        event["repeated"] = repeated
    if "exception" in event:
        event["traceback"] = event.pop("exception")
    return head | {name: _printable(value) for name, value in event.items()}


def _printable(value: object) -> object:
    """Escape what could forge or garble lines in a terminal; renderers escape line feeds."""
    if isinstance(value, float):
        return round(value, 3)
    if value is None or isinstance(value, bool | int):
        return value
    characters = (
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in str(value)
    )
    return "".join(characters)
