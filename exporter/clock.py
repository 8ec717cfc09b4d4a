"""Local clocks, the API's clock as derived from its `Date` headers, and the deadline of a poll.

Schedules use the monotonic clock, and time ranges use the API's clock. The local wall clock is used
only until the API has sent its first `Date` header.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from exporter.errors import PollError

MAX_TIMESTAMP = 253_370_764_800.0
"""The year 9999 in Unix seconds; a later `Date` header is ignored, because times after it cannot be
formatted."""

_CLOCK_ID = getattr(
    time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
)  # on macOS, CLOCK_MONOTONIC includes suspend


def monotonic_including_suspend() -> float:
    """Seconds on a clock that never jumps and keeps counting while the host is suspended."""
    return time.clock_gettime(_CLOCK_ID)


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

    @property
    def synchronized(self) -> bool:
        """Whether the API has sent a valid `Date` header."""
        return self._offset is not None

    def now(self) -> float:
        """Unix seconds; the local wall clock until the first valid `Date` header."""
        return self.clock.wall() if self._offset is None else self.clock.monotonic() + self._offset

    def observe(self, date: str | None) -> None:
        """Set the clock from a `Date` header; a missing or invalid one is ignored."""
        timestamp = parse_http_date(date)
        if timestamp is not None and 0 <= timestamp < MAX_TIMESTAMP:
            self._offset = timestamp - self.clock.monotonic()


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
    except TimeoutError as error:
        raise PollError(
            "deadline", f"the poll exceeded its time limit of {seconds:.0f} s"
        ) from error
