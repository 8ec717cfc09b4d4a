"""Rate limiting: our share of the organization's limit, and pauses that the API imposes."""

import asyncio
import math
from bisect import insort
from collections import deque
from collections.abc import Mapping
from itertools import count

from exporter.clock import ApiClock, parse_http_date
from exporter.metrics.self_metrics import OrganizationLimits

WINDOW_SECONDS = 60.0
"""Period over which the API counts requests (API documentation, *Rate limits*)."""
RESERVE_RATIO = 0.1
"""Share of the organization's limit left to others; at it, requests pause until the reset."""
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 90.0
PROBE_SECONDS = 1.0
"""Time between requests after a pause, until a response shows that it is over."""
_HEADERS = [f"X-Organization-Rate-Limit-{name}" for name in ("Limit", "Remaining", "Reset")]


class RateLimiter:
    """Limits requests to a number in any 60 seconds, and pauses them when the API demands it.

    Requests wait in the order of their priority, 0 first, and of their arrival. Those of a lower
    priority leave free what the higher priorities have recently needed in a minute, so that a
    request is never delayed by one of a lower priority.
    """

    def __init__(
        self,
        requests_per_minute: int,
        api_clock: ApiClock,
        request_timeout: float,
        reserve_seconds: float,
    ) -> None:
        """Create a limiter.

        Args:
            requests_per_minute: Maximum number of requests in any 60 seconds.
            api_clock: The API's clock.
            request_timeout: Time in seconds that a request may take.
            reserve_seconds: How long the largest number of requests in a minute stays reserved for
                a priority: several times the interval of its polls, and at least a minute.
        """
        self.limits = OrganizationLimits()
        self._monotonic, self._api_clock = api_clock.clock.monotonic, api_clock
        self._request_timeout = request_timeout
        self._reserve_seconds = max(reserve_seconds, WINDOW_SECONDS)
        self._requests_per_minute = requests_per_minute
        self._sent: deque[tuple[float, int, int]] = deque()
        """Time and priority of the last requests, and how many of that priority were sent in the
        minute that ends with it."""
        self._waiting: list[tuple[int, int]] = []
        """Priority and number of every request that waits, in their order."""
        self._waited: dict[int, float] = {}
        """Priority to the time at which a request last ended to wait."""
        self._numbers = count()
        self._paused_until = -math.inf
        self._probing = False

    async def acquire(self, deadline: asyncio.Timeout, priority: int = 0) -> None:
        """Wait until a request may be sent. Waiting extends the deadline, if it has not expired."""
        ticket = priority, next(self._numbers)
        insort(self._waiting, ticket)
        try:
            while (delay := self._delay(ticket)) > 0:
                when, now = deadline.when(), asyncio.get_running_loop().time()
                if when is not None and not deadline.expired():
                    deadline.reschedule(max(when, now + delay + self._request_timeout))
                await asyncio.sleep(delay)
                self._waited[priority] = self._monotonic()
        finally:
            self._waiting.remove(ticket)
        now = self._monotonic()
        while self._sent and self._sent[0][0] < now - self._reserve_seconds:
            self._sent.popleft()
        number = 1 + sum(p == priority and t > now - WINDOW_SECONDS for t, p, _ in self._sent)
        self._sent.append((now, priority, number))

    def waiting(self, priority: int) -> bool:
        """Return whether requests of a priority wait, or have waited within the last minute."""
        since = self._monotonic() - self._waited.get(priority, -math.inf)
        return since < WINDOW_SECONDS or any(p == priority for p, _ in self._waiting)

    def _available(self, priority: int) -> int:
        """Return the number of requests in a minute that higher priorities leave to a priority."""
        start, reserved = self._monotonic() - self._reserve_seconds, [0] * priority
        for time, higher, number in self._sent:
            if higher < priority and time >= start:
                reserved[higher] = max(reserved[higher], number)
        return self._requests_per_minute - sum(reserved)

    def _delay(self, ticket: tuple[int, int]) -> float:
        """Return the seconds until a request may be sent, or until this is to be asked again."""
        now, ahead = self._monotonic(), self._waiting[: self._waiting.index(ticket)]
        slot = max(now, self._paused_until)
        if self._probing and self._sent:
            slot = max(slot, self._sent[-1][0] + PROBE_SECONDS * (len(ahead) + 1))
        for priority in (0, ticket[0]):
            sent = [time for time, p, _ in self._sent if p >= priority]
            allowed = self._available(priority) - sum(p >= priority for p, _ in ahead)
            if allowed <= 0:
                slot = max(slot, now + WINDOW_SECONDS)
            elif len(sent) >= allowed:
                slot = max(slot, sent[-allowed] + WINDOW_SECONDS)
        return slot - now

    def sent_last_minute(self) -> int:
        """Return the number of requests in the last 60 seconds."""
        start = self._monotonic() - WINDOW_SECONDS
        return sum(time > start for time, _, _ in self._sent)

    def paused_for(self) -> float:
        """Return the seconds until the end of the current pause; 0 without one."""
        return max(0.0, self._paused_until - self._monotonic())

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
            self._paused_until = max(self._paused_until, self._monotonic() + pause)
            self._probing = True


def _number(text: str | None) -> float | None:
    """Parse a finite, non-negative number."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
