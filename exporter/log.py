"""Log lines for operators: one event a line, logfmt or JSON, on standard error; the same trouble once a minute.

What is worth a line is decided where it happens.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

_LOGGER = logging.getLogger("exporter")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_LONG = 1e15
LOGGERS = ("exporter", "aiohttp", "asyncio", "concurrent.futures")
"""Whose words are written; those of others that are worth a warning."""
MINUTE = 60.0
"""Seconds in which the same warning or error is written once."""
SAME = ("aid", "reason", "part", "warning", "problem")
"""What tells two messages of one event apart; all else, such as durations, may differ in the same message."""
MOST_REMEMBERED = 1000


def configure(
    level: Literal["debug", "info", "warn", "error"],
    format_: Literal["logfmt", "json"],
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Write lines of that level and above to standard error; a closed one is no reason to stop.

    A warning or an error that comes again within a minute is held back; the next line of it that is written says in
    `repeated` how often that was. `monotonic` is a clock, seconds.
    """
    logging.raiseExceptions = False
    handler = _Patient(sys.stderr, monotonic)
    handler.setFormatter(_Json() if format_ == "json" else _Logfmt())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(max(_LEVELS[level], logging.WARNING))
    _LOGGER.setLevel(_LEVELS[level])


def debug(event: str, **fields: object) -> None:
    """Log what only helps to find a fault."""
    _LOGGER.debug(event, extra={"fields": fields})


def info(event: str, **fields: object) -> None:
    """Log what went as it should."""
    _LOGGER.info(event, extra={"fields": fields})


def warn(event: str, **fields: object) -> None:
    """Log what somebody may have to look at."""
    _LOGGER.warning(event, extra={"fields": fields})


def error(event: str, *, exc_info: bool = False, **fields: object) -> None:
    """Log what somebody has to look at; `exc_info`: with where the exception that is being handled came from."""
    _LOGGER.error(event, extra={"fields": fields}, exc_info=exc_info)


def quiet() -> None:
    """Write nothing more: who runs the command is told in another way."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class _Patient(logging.StreamHandler[Any]):
    """Holds back what was said within the minute."""

    def __init__(self, stream: Any, monotonic: Callable[[], float]) -> None:
        super().__init__(stream)
        self._monotonic = monotonic
        self._said: dict[object, tuple[float, int]] = {}
        """Message → when it was written, and how often it was held back since; what was written last stands last."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            now, same = self._monotonic(), _same(record)
            written, held = self._said.get(same, (-math.inf, 0))
            if now - written < MINUTE:
                self._said[same] = (written, held + 1)
                return
            self._said.pop(same, None)
            self._said[same] = (now, 0)
            if len(self._said) > MOST_REMEMBERED:
                del self._said[next(iter(self._said))]
            record.repeated = held
        super().emit(record)


def _same(record: logging.LogRecord) -> object:
    """Return what two records have in common if they are the same message."""
    fields = getattr(record, "fields", None)
    if fields is None:
        return record.name, record.getMessage().partition("\n")[0]
    return record.levelno, record.msg, *(str(fields.get(name)) for name in SAME)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = "warn" if record.levelno == logging.WARNING else record.levelname.lower()
    traceback = {"traceback": logging.Formatter().formatException(record.exc_info)} if record.exc_info else {}
    foreign = {"event": "library", "logger": record.name, "message": record.getMessage()}
    ours = {"event": record.msg, **fields} if (fields := getattr(record, "fields", None)) is not None else foreign
    repeated = {"repeated": held} if (held := getattr(record, "repeated", 0)) else {}
    return {"time": when, "level": level, **ours, **repeated, **traceback}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record), default=str)


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={_logfmt(value)}" for name, value in _fields(record).items())


def _logfmt(value: object) -> str:
    """Write a value on one line, quoted where it needs to be."""
    if isinstance(value, float):
        text = f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < _LONG else repr(value)
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=\\') else json.dumps(text)
