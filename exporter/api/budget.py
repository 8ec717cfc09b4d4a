"""How many requests may be sent: our share of the organization's limit, and a share for second attempts.

It counts and waits; what a request is stands in `exporter.api.http`.
"""

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from exporter.clock import ApiClock, Clock, http_date

WINDOW = 60.0
"""Seconds over which the API counts requests (API documentation, *Rate limits*)."""
RESERVE = 0.1
"""Share of the organization's limit that is left to others: reaching it, we wait for the next window."""
LONGEST = 90.0
"""Seconds of the longest wait that a reply can impose: a window, and slack for clocks that count whole seconds."""
PROBE = 1.0
"""Seconds from one request to the next after a wait that a reply imposed, until a reply imposes none: those who waited
do not set out all at once."""

_LIMIT = "X-Organization-Rate-Limit-Limit"
_REMAINING = "X-Organization-Rate-Limit-Remaining"
_RESET = "X-Organization-Rate-Limit-Reset"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the API last said of the organization's limit; None where it said nothing of use."""

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    """Unix seconds."""


class Budget:
    """At most so many requests in any minute, first come, first served, for all account groups together."""

    def __init__(self, per_minute: int, clock: Clock, api_clock: ApiClock) -> None:
        self.rate_limit = RateLimit()
        self.per_minute = per_minute
        self._clock = clock
        self._api_clock = api_clock
        self._sent: deque[float] = deque(maxlen=per_minute)
        self._turn = asyncio.Lock()
        self._blocked_until = -math.inf
        self._probing = False
        self._next_probe = -math.inf

    def adopt(self, per_minute: int) -> None:
        """Send another number of requests in a minute; what was sent counts."""
        self.per_minute = per_minute
        self._sent = deque(self._sent, maxlen=per_minute)

    async def take(self) -> None:
        """Wait until one more request may be sent."""
        async with self._turn:
            while (wait := self._wait()) > 0:
                await self._clock.sleep(wait)
            self._sent.append(self._clock.monotonic())
            if self._probing:
                self._next_probe = self._clock.monotonic() + PROBE

    def sent(self) -> int:
        """Return how many requests were sent in the last minute."""
        return sum(sent > self._clock.monotonic() - WINDOW for sent in self._sent)

    def block(self, seconds: float) -> None:
        """Send nothing for so long, and then one request after another until a reply is good."""
        self._blocked_until = max(self._blocked_until, self._clock.monotonic() + seconds)
        self._probing = True

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take in what a reply says of the organization's limit; a reply may say nothing."""
        if self._clock.monotonic() >= self._blocked_until:
            self._probing = False
        limit, remaining, reset = (_number(headers.get(name)) for name in (_LIMIT, _REMAINING, _RESET))
        if limit is None and remaining is None and reset is None:
            return
        self.rate_limit = RateLimit(limit, remaining, reset)
        if limit and remaining is not None and remaining <= limit * RESERVE:
            self.block(self._until(reset))

    def refused(self, headers: Mapping[str, str]) -> float:
        """Take in a 429; return the seconds to wait, the longer where two headers disagree."""
        hints = [
            wait
            for wait in (self._retry_after(headers.get("Retry-After")), self._reset_in(headers))
            if wait is not None
        ]
        wait = min(max(hints, default=WINDOW), LONGEST)
        wait = max(wait, 1.0)
        self.block(wait)
        return wait

    def _wait(self) -> float:
        now = self._clock.monotonic()
        full = len(self._sent) == self.per_minute
        return max(self._blocked_until, self._next_probe, self._sent[0] + WINDOW if full else -math.inf) - now

    def _until(self, reset: float | None) -> float:
        """Return the seconds until a time on the API's clock, within reason; a window where it is not known."""
        return min(max(reset - self._api_clock.now(), 1.0), LONGEST) if reset else WINDOW

    def _reset_in(self, headers: Mapping[str, str]) -> float | None:
        reset = _number(headers.get(_RESET))
        return None if reset is None else reset - self._api_clock.now()

    def _retry_after(self, text: str | None) -> float | None:
        date = http_date(text)
        return _number(text) if date is None else date - self._api_clock.now()


class Retries:
    """A share of second attempts: every first attempt earns a tenth of one, ten can be saved up.

    When everything fails, the API is asked hardly more often than when everything works.
    """

    SHARE = 0.1
    SAVED = 10.0

    def __init__(self) -> None:
        self._saved = self.SAVED

    def earn(self) -> None:
        """Count a first attempt."""
        self._saved = min(self._saved + self.SHARE, self.SAVED)

    def spend(self) -> bool:
        """Take one second attempt; False when none is left."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
