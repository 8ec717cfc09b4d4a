"""Local clocks, the API's clock as derived from its `Date` headers, and the deadline of a poll.

Schedules use the monotonic clock, and time ranges use the API's clock. The local wall clock is used
only until the API has sent its first `Date` header.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import structlog

from exporter.errors import PollError

log = structlog.get_logger()

MAX_JUMP_SECONDS = 60.0
"""A `Date` header that differs more from the extrapolated time needs a confirmation."""
CONFIRM_SECONDS = 30.0
"""Time between two responses that confirm each other; longer than one poll's requests take."""
MAX_TIMESTAMP = 253_370_764_800.0
"""The year 9999 in Unix seconds; a later `Date` header is ignored, because times after it cannot be
formatted."""


def monotonic_including_suspend() -> float:
    """Seconds on a clock that never jumps and keeps counting while the host is suspended."""
    # On macOS, CLOCK_MONOTONIC does.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of this host; tests pass their own."""

    monotonic: Callable[[], float] = monotonic_including_suspend
    """Seconds; the zero point is arbitrary."""
    wall: Callable[[], float] = time.time
    """Unix seconds."""


class ApiClock:
    """The API's time, extrapolated with the monotonic clock between responses."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._offset: float | None = None
        self._jump = (0.0, math.inf)
        """When a jump that is not confirmed yet was first seen, and the offset after it."""

    @property
    def synchronized(self) -> bool:
        """Whether the API has sent a valid `Date` header."""
        return self._offset is not None

    def now(self) -> float:
        """Unix seconds; the local wall clock until the first valid `Date` header."""
        return self.clock.wall() if self._offset is None else self.clock.monotonic() + self._offset

    def observe(self, date: str | None) -> None:
        """Set the clock from a `Date` header; a missing or invalid one is ignored.

        A jump counts only if a later response confirms it: a wrong `Date` of one poll must neither
        remove what is published nor make old sessions new.
        """
        timestamp, now = parse_http_date(date), self.clock.monotonic()
        if timestamp is None or not 0 <= timestamp < MAX_TIMESTAMP:
            return
        offset = timestamp - now
        if self._offset is not None and abs(offset - self._offset) > MAX_JUMP_SECONDS:
            since, jumped = self._jump
            if abs(offset - jumped) > MAX_JUMP_SECONDS:
                self._jump = (now, offset)
                log.warning("api_clock_jump_ignored", seconds=round(offset - self._offset))
                return
            if now - since < CONFIRM_SECONDS:
                return
            log.warning("api_clock_jumped", seconds=round(offset - self._offset))
        self._offset, self._jump = offset, (0.0, math.inf)


def parse_http_date(text: str | None) -> float | None:
    """Parse an HTTP date to Unix seconds; `None` if it is missing or invalid."""
    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@asynccontextmanager
async def poll_deadline(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Limit the time of a poll; yields the deadline, which waiting for the rate limiter extends.

    Raises:
        PollError: `deadline` if the time limit was exceeded.
    """
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield deadline
    except TimeoutError:
        message = f"the poll exceeded its time limit of {seconds:.0f} s"
        raise PollError("deadline", message) from None
