"""The clocks: what runs on this machine, and what the API says the time is.

Everything is scheduled on the first and measured on the second; the wall clock of this machine decides nothing that is
published.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

LATEST = 253_370_764_800.0
"""The year 9999, Unix seconds: times that are counted from a later one could not be written."""


def _since_boot() -> float:
    """Seconds on a clock that never jumps, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """The machine's clocks, handed in so that tests can turn them."""

    monotonic: Callable[[], float] = _since_boot
    """Seconds; the zero point means nothing."""
    wall: Callable[[], float] = time.time
    """Unix seconds, used only until the API has said the time."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class ApiClock:
    """The time on the API's clock, carried on by the monotonic one between two replies."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._offset: float | None = None

    @property
    def known(self) -> bool:
        """Whether the API has said the time yet."""
        return self._offset is not None

    def now(self) -> float:
        """Unix seconds; this machine's own clock until the API has said the time."""
        return self.clock.wall() if self._offset is None else self.clock.monotonic() + self._offset

    def observe(self, date: str | None) -> None:
        """Set the clock by the `Date` header of a reply; one that can not be read, or not be, changes nothing."""
        said = http_date(date)
        if said is not None and 0 <= said < LATEST:
            self._offset = said - self.clock.monotonic()


def http_date(text: str | None) -> float | None:
    """Return an HTTP date as Unix seconds, UTC unless it says otherwise; None where it is missing or no date."""
    try:
        when = parsedate_to_datetime(text or "")
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
