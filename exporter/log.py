"""Log lines for operators: one event a line, logfmt or JSON, on standard error.

What is worth a line is decided where it happens.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

_LOGGER = logging.getLogger("exporter")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_LONG = 1e15
LOGGERS = ("exporter", "aiohttp", "asyncio", "concurrent.futures")
"""Whose words are written; those of others that are worth a warning."""


def configure(level: Literal["debug", "info", "warn", "error"], format_: Literal["logfmt", "json"]) -> None:
    """Write lines of that level and above to standard error; a closed one is no reason to stop."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
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


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = "warn" if record.levelno == logging.WARNING else record.levelname.lower()
    traceback = {"traceback": logging.Formatter().formatException(record.exc_info)} if record.exc_info else {}
    foreign = {"event": "library", "logger": record.name, "message": record.getMessage()}
    ours = {"event": record.msg, **fields} if (fields := getattr(record, "fields", None)) is not None else foreign
    return {"time": time, "level": level, **ours, **traceback}


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
