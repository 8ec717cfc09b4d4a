"""How many requests an hour of polls sends, counted where they arrive: by the simulator, in simulated time.

The real exporter asks the real simulator over a real connection; only the time is made up, so an hour takes seconds.
"""

import asyncio
import math
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qs

from exporter import log
from exporter.app import Exporter
from exporter.clock import Clock
from exporter.metrics import FAMILIES
from exporter.settings import load
from exporter.simulator import Simulator, World
from exporter.simulator.server import REAL_USER_TESTS, Request

START = 1_763_728_200
"""When the hour begins, Unix seconds."""
LISTINGS = {f"{REAL_USER_TESTS}/filter": "listed", f"{REAL_USER_TESTS}/networks/filter": "measured"}

T = TypeVar("T")


class _Impatient(selectors.EpollSelector):
    """Waits for nothing: where nobody has anything to do, the time is what it would be after the wait."""

    SETTLED = 0.001
    """Seconds in which a byte that was sent on this machine has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if events or timeout == 0:
            return events
        events = super().select(None if timeout is None else self.SETTLED)
        if not events:
            self.now += timeout or 0.0
        return events


class SimulatedTime(asyncio.SelectorEventLoop):
    """An event loop on which time passes only by waiting; what would be computed in a thread is computed at once."""

    def __init__(self) -> None:
        self._waits = _Impatient()
        super().__init__(self._waits)

    def time(self) -> float:
        """Return the seconds since the loop was made."""
        return self._waits.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        """Compute now; return what came of it."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            future.set_exception(error)
        return future


def simulated(main: Coroutine[Any, Any, T]) -> T:
    """Run a program in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        return runner.run(main)


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll of one account group: what was asked, and what the asked range needs."""

    aid: str
    start: float
    end: float
    """The range, Unix seconds."""
    first: bool
    requests: int
    needed: int
    """Pages that hold sessions of the range, and one for a listing that has none: nobody can know beforehand."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What came of an hour."""

    polls: list[Poll]
    busiest: int
    """Most requests of any 60 seconds, of all kinds."""
    total: int
    statuses: Counter[int]
    failures: float
    skipped: float
    """Polls that failed, or that were left out because the one before still ran."""

    @property
    def steady(self) -> list[Poll]:
        """The polls after the first of each account group."""
        return [poll for poll in self.polls if not poll.first]


def hour(
    world: World, seconds: float = 3600.0, *, page_size: int = 1000, settings: Mapping[str, str] | None = None
) -> Hour:
    """Poll all account groups of a company for so long."""
    return simulated(_hour(world, seconds, page_size, dict(settings or {})))


async def _hour(world: World, seconds: float, page_size: int, settings: dict[str, str]) -> Hour:
    loop = asyncio.get_running_loop()
    simulator = Simulator(world, page_size=page_size, clock=lambda: START + loop.time())
    flags = {"api.url": await simulator.start(), "api.account-groups": "all", **settings}
    loaded = load(
        [f"--{name}={value}" for name, value in flags.items()],
        {"THOUSANDEYES_TOKEN": "demo"},
        [family.short for family in FAMILIES],
    )
    log.configure("error", "logfmt")
    exporter = Exporter(loaded.settings, clock=Clock(loop.time, lambda: START + loop.time(), asyncio.sleep))
    running = asyncio.create_task(exporter.run())
    await asyncio.sleep(seconds - 30)  # no poll is cut off
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await exporter.close()
    await simulator.stop()
    times = sorted(request.time for request in simulator.requests)
    return Hour(
        _polls(list(simulator.requests), world, page_size),
        max((sum(time <= other < time + 60 for other in times) for time in times), default=0),
        len(times),
        Counter(request.status for request in simulator.requests),
        _counted(exporter, "thousandeyes_exporter_poll_failures_total"),
        _counted(exporter, "thousandeyes_exporter_polls_skipped_total"),
    )


def _counted(exporter: Exporter, name: str) -> float:
    registry = exporter.telemetry.registry
    return sum(sample.value for family in registry.collect() for sample in family.samples if sample.name == name)


def _polls(requests: list[Request], world: World, page_size: int) -> list[Poll]:
    """Tell the polls apart by their ranges."""
    asked: dict[tuple[str, float, float], list[Request]] = {}
    ranges: dict[tuple[str, str], tuple[float, float]] = {}
    for request in requests:
        if request.path not in LISTINGS:
            continue
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        aid = query["aid"]
        if "cursor" not in query:
            ranges[aid, request.path] = _seconds(query["startDate"]), _seconds(query["endDate"])
        asked.setdefault((aid, *ranges[aid, request.path]), []).append(request)
    polls, known = [], set[str]()
    for (aid, start, end), sent in asked.items():
        first, needed = aid not in known, 0
        known.add(aid)
        for path, listing in LISTINGS.items():
            began = min((request.time for request in sent if request.path == path), default=None)
            if began is not None:
                found = world.sessions(int(aid), start, end, began)
                needed += max(1, math.ceil(sum(getattr(session, listing) for session in found) / page_size))
        polls.append(Poll(aid, start, end, first, len(sent), needed))
    return polls


def _seconds(date: str) -> float:
    return datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
