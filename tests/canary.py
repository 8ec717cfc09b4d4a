"""The secrets of all tests, which must be seen nowhere, and what looks for them in all that the exporter says."""

from contextlib import suppress
from pathlib import Path

CANARIES = ("canary-9hT2xVq", "canary-7Yh3kQ", "canary-5vTz0", "canary-8fKq2")
"""Tokens, keys and passwords that tests give to what they test."""
SEEN: list[str] = []
"""Where one of them was seen; a run of the tests in which this is not empty at the end has failed."""
LOOKED: dict[str, int] = {}
"""How many bytes were looked through, by kind."""


def look(kind: str, said: str | bytes, where: str = "") -> None:
    """Look for secrets in what was said: an output, an answer, a log, a command line."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    LOOKED[kind] = LOOKED.get(kind, 0) + len(text)
    SEEN.extend(f"{kind} {where}: {canary}" for canary in CANARIES if canary in text)


def look_at_command_line(pid: int, command: tuple[str, ...]) -> None:
    """Look at what everybody on this machine sees of a process, unless the test itself has put a secret there."""
    if not any(canary in word for canary in CANARIES for word in command):
        with suppress(OSError):  # it may have ended
            look("command line", Path(f"/proc/{pid}/cmdline").read_bytes(), str(command[:3]))
