"""An event loop on which waiting takes no time: its clock stands while anything happens, and leaps when nothing does.

Sockets and threads are real. Time limits are those of production, and an hour of outage passes in a second.
"""

import asyncio
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from exporter.clock import Clock

BEGIN = 1000.0
WALL = 1_795_012_350.0
"""Unix seconds when a row begins: Wednesday, 2026-11-18 14:32:30 UTC, in the middle of a round."""
QUIET = 0.0003
"""Seconds of real time without a byte on any socket after which nothing is on its way."""
LEAP = 10.0
"""Seconds that the clock moves at most before the sockets are looked at again."""


class _Selector(selectors.DefaultSelector):
    loop: "Elastic"

    def select(self, timeout: float | None = None) -> list[Any]:
        loop = self.loop
        loop.lag = max(loop.lag, time.monotonic() - loop.turned)
        try:
            events = super().select(0)
            if events or (timeout is not None and timeout <= 0):
                return events
            if loop.held or timeout is None:
                return super().select(0.02)
            time.sleep(QUIET)  # the finest wait of select is a millisecond
            if events := super().select(0):
                return events
            loop.now += min(timeout, LEAP)
            return []
        finally:
            loop.turned = time.monotonic()


class Elastic(asyncio.SelectorEventLoop):
    """The loop; `now` is its clock."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.held = 0
        """How many threads compute, and who else wants the clock to stand."""
        self.lag = 0.0
        """Seconds of real time for which the sockets were not looked at, at most."""
        self.turned = time.monotonic()
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return seconds on the loop's clock."""
        return self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Compute in a thread; no time passes meanwhile."""
        self.hold()
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self.release)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Wait for the threads, in real time."""
        self.hold()
        await super().shutdown_default_executor(*args)
        self.release()

    def hold(self) -> None:
        """Let the clock stand, until it is released as often."""
        self.held += 1

    def release(self, _: object = None) -> None:
        """Let the clock go on."""
        self.held -= 1


def wall() -> float:
    """Return Unix seconds: that of the API, and of the machine unless a row says otherwise."""
    return WALL + asyncio.get_running_loop().time() - BEGIN


def clock() -> Clock:
    """Return the clocks of a machine that lives on the loop's time."""
    loop = asyncio.get_running_loop()
    return Clock(loop.time, lambda: WALL + loop.time() - BEGIN, asyncio.sleep)


@contextmanager
def standing_still() -> Iterator[None]:
    """Let no time pass: for waiting on another program."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Elastic)
    loop.hold()
    try:
        yield
    finally:
        loop.release()
