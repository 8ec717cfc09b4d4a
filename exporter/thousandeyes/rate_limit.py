"""Rate limiting: our share of the organization's limit, and pauses that the API imposes."""

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from exporter.clock import ApiClock, parse_http_date

WINDOW_SECONDS = 60.0
"""Period over which the API counts requests (API documentation, *Rate limits*)."""
RESERVE_RATIO = 0.1
"""Share of the organization's limit left to others; at it, requests pause until the reset."""
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 90.0
PROBE_SECONDS = 1.0
"""Time between requests after a pause, until a response shows that it is over."""
_HEADERS = [f"X-Organization-Rate-Limit-{name}" for name in ("Limit", "Remaining", "Reset")]


class OrganizationLimits(NamedTuple):
    """The organization's rate limit as last sent by the API; `None` for what it did not send."""

    limit: float | None = None
    """Requests per minute."""
    remaining: float | None = None
    """Requests left in the current minute."""
    reset: float | None = None
    """End of the current minute, Unix seconds."""


class RateLimiter:
    """Limits requests to a number in any 60 seconds, and pauses them when the API demands it.

    Each request reserves a time slot and sleeps until then. The slot of a canceled request stays
    unused.
    """

    def __init__(
        self, requests_per_minute: int, api_clock: ApiClock, request_timeout: float
    ) -> None:
        """Create a limiter; `request_timeout` is the time in seconds that a request may take."""
        self.limits = OrganizationLimits()
        self._clock, self._api_clock = api_clock.clock, api_clock
        self._request_timeout = request_timeout
        self._slots: deque[float] = deque(maxlen=requests_per_minute)
        self._paused_until = -math.inf
        self._probing = False

    async def acquire(self, deadline: asyncio.Timeout) -> None:
        """Wait until a request may be sent. Waiting extends the deadline, if it has not expired."""
        while True:
            slot = self._reserve()
            delay = slot - self._clock.monotonic()
            if delay > 0:
                when, now = deadline.when(), asyncio.get_running_loop().time()
                if when is not None and not deadline.expired():
                    deadline.reschedule(max(when, now + delay + self._request_timeout))
                await asyncio.sleep(delay)
            if slot >= self._paused_until:  # otherwise a pause was imposed in the meantime
                return

    def _reserve(self) -> float:
        """Reserve the next free slot; returns its time on the monotonic clock."""
        slot = max(self._clock.monotonic(), self._paused_until)
        if len(self._slots) == self._slots.maxlen:
            slot = max(slot, self._slots[0] + WINDOW_SECONDS)
        if self._probing and self._slots:
            slot = max(slot, self._slots[-1] + PROBE_SECONDS)
        self._slots.append(slot)
        return slot

    def sent_last_minute(self) -> int:
        """Return the number of requests in the last 60 seconds."""
        now = self._clock.monotonic()
        return sum(now - WINDOW_SECONDS < slot <= now for slot in self._slots)

    def paused_for(self) -> float:
        """Return the seconds until the end of the current pause; 0 without one."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Process a response; each of the headers may be missing.

        After a 429, or if the limit is nearly reached, all requests pause until the reset, or as
        long as `Retry-After` demands, whichever is later.
        """
        if not self.paused_for():
            self._probing = False
        limits = OrganizationLimits(*(_number(headers.get(name)) for name in _HEADERS))
        if limits != OrganizationLimits():
            self.limits = limits
        limit, remaining, reset = limits
        used_up = limit and remaining is not None and remaining <= limit * RESERVE_RATIO
        if status == 429 or used_up:
            now, retry_after = self._api_clock.now(), headers.get("Retry-After")
            seconds = _number(retry_after)
            retry = parse_http_date(retry_after) if seconds is None else now + seconds
            ends = [time for time in (reset, retry) if time is not None]
            pause = max(ends, default=now + WINDOW_SECONDS) - now
            pause = min(max(pause, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)
            self._paused_until = max(self._paused_until, self._clock.monotonic() + pause)
            self._probing = True


def _number(text: str | None) -> float | None:
    """Parse a finite, non-negative number."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
