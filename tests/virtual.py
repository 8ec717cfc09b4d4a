"""Clocks that tests turn: what waits for hours in life takes no time here."""

import asyncio
import heapq
from contextlib import AbstractContextManager, nullcontext
from itertools import count

from exporter.clock import Clock

START = 1_795_012_350.0
"""The wall clock when a test begins: Wednesday, 2026-11-18 14:32:30 UTC, in the middle of a round."""


class Virtual:
    """A clock that stands still until it is moved; `skew` is by how many seconds the wall clock is wrong."""

    def __init__(self, skew: float = 0.0) -> None:
        self.now = 1000.0
        self.skew = skew
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self.clock = Clock(lambda: self.now, lambda: self.true() + self.skew, self.sleep)

    def true(self) -> float:
        """Return the right time, Unix seconds: that of the API."""
        return START + self.now - 1000.0

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved that far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now + seconds, next(self._numbers), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many wait for the clock."""
        return sum(not woken.done() for _, _, woken in self._waiting)

    async def advance(self, seconds: float) -> None:
        """Move the clock, wake everybody on the way at their time, and let them do what takes no time."""
        end = self.now + seconds
        await settle()
        while self._waiting and self._waiting[0][0] <= end:
            when, _, woken = heapq.heappop(self._waiting)
            if not woken.done():
                self.now = max(self.now, when)
                woken.set_result(None)
                await settle()
        self.now = end

    async def jump(self, seconds: float) -> None:
        """Move the clock in one go, as after a machine slept: everybody wakes at the end."""
        self.now += seconds
        await self.advance(0)


class Instant(Virtual):
    """A clock on which every wait is over at once: for one who waits alone."""

    def __init__(self, skew: float = 0.0) -> None:
        super().__init__(skew)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.slept.append(seconds)
        self.now += max(seconds, 0.0)
        await asyncio.sleep(0)


class Patient:
    """A deadline that is so many seconds away, for ever; see `exporter.api.http.Deadline`."""

    def __init__(self, left: float = float("inf")) -> None:
        self.left = left

    def remaining(self) -> float:
        """Seconds left."""
        return self.left

    def standing_still(self) -> AbstractContextManager[None]:
        """Let no time pass, which it does not anyway."""
        return nullcontext()


async def settle() -> None:
    """Let everybody run until they all wait for something."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    while ready:  # noqa: ASYNC110  there is no event for nothing happening
        await asyncio.sleep(0)
