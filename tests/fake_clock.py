"""An event loop with virtual time, for tests with the decorator `fake_time`.

The loop's clock stands still while anything runs and jumps to the next timer when nothing does.
Sockets and threads are real, so code with the timeouts of production runs unchanged, and an hour of
waiting takes a second.
"""

import asyncio
import functools
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from exporter.clock import Clock

START = 1000.0
"""Initial value of the loop's clock."""
WALL_START = 1_795_012_350.0
"""Initial wall-clock time, Unix seconds: 2026-11-18 14:32:30 UTC, in the middle of a round."""


class _Selector(selectors.DefaultSelector):
    loop: "FakeTimeLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self.loop.paused or timeout is None:
            return super().select(0.02)
        if len(self.get_map()) > 1:  # not only the loop's own socket: something can arrive
            timeout = min(timeout, 10.0)
            time.sleep(0.0003)  # the resolution of select is a millisecond
            events = super().select(0)
        self.loop.now += 0 if events else timeout
        return events


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `now` is its clock, in seconds."""

    def __init__(self) -> None:
        self.now = START
        self.paused = 0  # number of running threads and `pause_time` contexts
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self.paused += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._resume)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self.paused += 1
        await super().shutdown_default_executor(*args)
        self._resume()

    def _resume(self, _: object = None) -> None:
        self.paused -= 1


def fake_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test on a `FakeTimeLoop`."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
            runner.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


def wall() -> float:
    """Return the wall-clock time of the running `FakeTimeLoop`, Unix seconds."""
    return WALL_START + asyncio.get_running_loop().time() - START


def fake_clock(skew: float = 0.0) -> Clock:
    """Return clocks that follow the running loop; the wall clock is wrong by some seconds."""
    time = asyncio.get_running_loop().time
    return Clock(time, lambda: WALL_START + time() - START + skew)


@contextmanager
def pause_time() -> Iterator[None]:
    """Keep virtual time from advancing, for example while waiting for another process."""
    loop: Any = asyncio.get_running_loop()
    loop.paused += 1
    try:
        yield
    finally:
        loop.paused -= 1
