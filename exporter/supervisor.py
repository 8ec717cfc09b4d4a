"""Restarts tasks that fail unexpectedly."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from exporter.clock import Clock

log = structlog.get_logger()

MAX_FAILURES, WINDOW_SECONDS = 5, 600.0
"""Failures within a window after which a restart of the process is the remaining remedy."""
RESTART_DELAY_SECONDS = 10.0


class Supervisor:
    """Runs tasks forever; an exception is logged, and the task restarted after a delay."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)

    @property
    def healthy(self) -> bool:
        """Whether tasks have not failed too often recently."""
        full = len(self._failures) == MAX_FAILURES
        return not full or self._clock.monotonic() - self._failures[0] >= WINDOW_SECONDS

    async def run(self, name: str, task: Callable[[], Awaitable[None]]) -> NoReturn:
        """Run a task forever."""
        while True:
            try:
                await task()
            except Exception:
                log.exception("crashed", task=name)
                self._failures.append(self._clock.monotonic())
            await asyncio.sleep(RESTART_DELAY_SECONDS)
