"""`python tests/soak.py [--days N] [--seed SEED]`: days of polls in simulated time, with faults at random, all held.

The real exporter asks the real simulator over real connections; only the time is made up (`benchmarks.frugal`). People
and sites come and go, the API fails in every way that the simulator knows, and in every minute there is a scrape.
"""

# ruff: noqa: S311, T201 - what goes wrong is not a secret; it is a command

import argparse
import asyncio
import gc
import logging
import os
import resource
import secrets
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from urllib.parse import parse_qs

from servers import ask, settings_for

from benchmarks.frugal import START, simulated
from exporter.app import Exporter, answering
from exporter.clock import Clock
from exporter.simulator import Simulator, World
from exporter.simulator.faults import FAULTS, SLOW, FaultSpec
from exporter.simulator.server import REAL_USER_TESTS
from exporter.simulator.world import Agent, Session

DAY = 86_400
ERA = 7200
"""Seconds after which people and sites are others, or some of them."""
LOOKBACK, INTERVAL = 900, 60
ROUNDS = "thousandeyes_endpoint_round_timestamp_seconds{"
EDGE = 10
"""Seconds that a poll may take and still count as of the moment when it asked."""
MOST_GROWTH = 0.01
"""Of memory, in a hundred polls."""
SPOILING = {name for name, fault in FAULTS.items() if fault.payload}
"""Faults that change what is read, not whether it is."""
LINGERING = {
    "hang": "a poll that began in time may still wait when the next one is due",
    "slow": "the same",
    "unauthorized": "a token that was refused is not tried again within a minute",
    "rate_limited": "the API said to wait until its next minute",
    "rate_limited_bare": "the same",
}
"""Faults that the second poll behind their end heals at the latest, and why; all others the first one."""


@dataclass(frozen=True)
class Changing(World):
    """A company where, every two hours, some are gone or back, sites too; and twice a day everybody is new."""

    clock: Callable[[], float] = time.time

    def era(self, when: float) -> World:
        """Return the company as it is at Unix time `when`."""
        return self._eras(int(when) // ERA)

    @cached_property
    def _eras(self) -> Callable[[int], World]:
        return lru_cache(4)(self._era)

    def _era(self, number: int) -> World:
        rng = Random(f"{self.seed}/{number}")
        world = World(seed=self.seed + number // 6, agents=self.agents, sites=rng.randint(3, self.sites))
        return world.without(agent.id for agent in rng.sample(world.people, rng.randrange(self.agents // 2)))

    @property
    def people(self) -> tuple[Agent, ...]:
        """The people of now, and those who are gone."""
        return self.era(self.clock()).people

    def is_vanished(self, agent: Agent, when: float) -> bool:
        """Whether somebody is gone at Unix time `when`."""
        return self.era(when).is_vanished(agent, when)

    def round(self, aid: int, round_id: int) -> tuple[Session, ...]:
        """All sessions of a minute, as they were made in their era."""
        return self.era(round_id).round(aid, round_id)


class Weather:
    """What goes wrong, minute by minute: mostly nothing, now and then a thing or two, and for an hour each day all."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._left: dict[str, int] = {}
        self._outage = rng.randrange(DAY // 60 // 4, DAY // 60 // 2)

    def faults(self, minute: int) -> list[FaultSpec]:
        """Return what goes wrong from now on for a minute."""
        rng = self._rng
        self._left = {name: left - 1 for name, left in self._left.items() if left > 1}
        if minute % (DAY // 60) == self._outage:
            self._left = {rng.choice(["server_error", "maintenance", "hang", "html"]): 60}
        elif rng.random() < (1 / 15 if not self._left else 1 / 30):
            self._left[rng.choice([*FAULTS])] = rng.choice([1, 1, 2, 3, 6])
        return [FaultSpec(name, share=rng.choice([1.0, 1.0, 0.5])) for name in self._left]


@dataclass
class Soak:
    """What came of it."""

    seed: int
    polls: int = 0
    healed: int = 0
    """Faults that ended, and the next poll was complete."""
    equal: int = 0
    """Scrapes that were compared with what the company did."""
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Bytes after every ten polls."""
    objects: list[int] = field(default_factory=list)
    """Objects of the garbage collector after every hundred polls."""
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    """Descriptors and tasks when an hour was over, and at the end."""
    words: list[str] = field(default_factory=list)
    """Lines of the log that should not be there."""
    seconds: float = 0.0

    @property
    def slope(self) -> float:
        """Growth of memory in a hundred polls, as a share of it, behind the first quarter: the median of all slopes."""
        return growth(self.memory[len(self.memory) // 4 :]) * 10

    @property
    def hoard(self) -> float:
        """The same of objects."""
        return growth(self.objects[len(self.objects) // 4 :])

    @property
    def leaked(self) -> bool:
        """Whether there are more descriptors or tasks than in the beginning."""
        return any(now > then for now, then in zip(self.after, self.before, strict=True))


def growth(samples: Sequence[float]) -> float:
    """Return the growth from one sample to the next as a share of them: Theil and Sen's median of all slopes."""
    step = max(1, len(samples) // 300)
    chosen = list(enumerate(samples))[::step]
    slopes = [(b - a) / (m - n) for n, a in chosen for m, b in chosen if m > n]
    return statistics.median(slopes) / statistics.median(samples)


class _Log(logging.Handler):
    """Keeps what should not be there, and forgets the rest."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self._words = words

    def emit(self, record: logging.LogRecord) -> None:
        expected = record.name == "aiohttp.server"  # the simulator's, whose client leaves when it hangs
        line = f"{record.getMessage()} {getattr(record, 'fields', '')}"
        if not expected and (record.exc_info or record.name == "asyncio" or "internal" in line or "Unclosed" in line):
            self._words.append(f"{line} {record.exc_info}")


def soak(
    minutes: int,
    seed: int,
    *,
    weather: Callable[[int], list[FaultSpec]] | None = None,
    tell: Callable[[Soak], None] = lambda so_far: None,
) -> Soak:
    """Poll for so many minutes.

    Args:
        minutes: of simulated time; in the first and the last twenty nothing goes wrong.
        seed: of the company, and of what goes wrong.
        weather: takes a minute and returns what goes wrong in it, from its middle on; at random by default.
        tell: is called every simulated day.
    """
    began, found = time.perf_counter(), Soak(seed)
    loggers = [logging.getLogger(name) for name in ("exporter", "asyncio", "aiohttp")]
    before, handler = [(logger.propagate, logger.level) for logger in loggers], _Log(found.words)
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    try:
        simulated(_soak(minutes, found, weather or Weather(Random(f"{seed}/weather")).faults, tell))
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)
    found.seconds = time.perf_counter() - began
    return found


async def _soak(
    minutes: int, found: Soak, weather: Callable[[int], list[FaultSpec]], tell: Callable[[Soak], None]
) -> None:
    loop = asyncio.get_running_loop()

    def now() -> float:
        return START + loop.time()

    world = Changing(found.seed, agents=10, sites=6, clock=now)
    simulator = Simulator(world, token="soak", clock=now)
    simulator.requests = deque(maxlen=100)  # its memory is not what is watched
    url = await simulator.start()
    exporter = Exporter(settings_for(url, api__token="soak", api__requests_per_minute="120"),
                        clock=Clock(loop.time, now, asyncio.sleep), process=False)  # fmt: skip
    try:
        async with answering(exporter) as address:
            polling = asyncio.create_task(exporter.run())
            watch = Watch(found, world, exporter, address)
            for minute in range(minutes):
                await asyncio.sleep(INTERVAL * minute + INTERVAL / 2 - loop.time())
                await watch.look(now(), {spec.name for spec in simulator.faults}, _asked(simulator))
                calm = minute < 20 or minute >= minutes - 20
                simulator.faults = () if calm else tuple(weather(minute))
                if minute == 60:
                    found.before = await _held()
                if minute % (DAY // 60) == DAY // 60 - 1:
                    tell(found)
            found.after = await _held()
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
    finally:
        await exporter.close()
        await simulator.stop()


async def _held() -> tuple[int, int]:
    """Return how many descriptors and tasks there are, when nobody is being asked."""
    await asyncio.sleep(1)
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())  # noqa: PTH208  no Path in a coroutine


def _asked(simulator: Simulator) -> tuple[float, float]:
    """Return when user sessions were last asked for, and until when; Unix seconds."""
    last = next((it for it in reversed(simulator.requests) if it.path == f"{REAL_USER_TESTS}/filter"), None)
    return (last.time, _seconds(parse_qs(last.query)["endDate"][0])) if last else (0.0, 0.0)


def _seconds(date: str) -> float:
    return datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


class Watch:
    """Looks at an exporter in the middle of every interval."""

    def __init__(self, found: Soak, world: Changing, exporter: Exporter, address: str) -> None:
        self._found = found
        self._world = world
        self._exporter = exporter
        self._address = address
        self._minute = 0
        self._calm = 0
        self._spoiled = 0
        self._last: set[str] = set()
        self._past: deque[str] = deque(maxlen=20)
        """What went wrong in the last minutes."""

    def own(self, name: str) -> float:
        """Return one of the exporter's own metrics, added up over its labels."""
        series = self._series
        return sum(value for each, value in series.items() if each.partition("{")[0] == f"thousandeyes_exporter_{name}")

    async def look(self, now: float, faults: set[str], asked: tuple[float, float]) -> None:
        """Scrape, and hold what is published to what must be.

        `faults` were there since the last look; `asked` is when the API was last asked, and until when, Unix seconds.
        """
        found = self._found
        reply = await ask(f"{self._address}/metrics")
        self._expect(now, "an answer", reply.status == 200)
        self._series = series = _samples(reply.text)
        found.polls = int(self.own("polls_total"))
        self._past.append("+".join(sorted(faults)) or "-")
        up = series.get('thousandeyes_up{aid="1001"}', 0.0)
        if faults:
            self._last = faults if self._calm else self._last | faults
            self._calm = 0
        else:
            self._calm += 1
            late = self._calm == 1 and self._last & LINGERING.keys()
            found.healed += self._calm == 1 and up == 1
            self._expect(now, f"healed of {sorted(self._last)}", up == 1 or bool(late))
        self._spoiled = 0 if faults & SPOILING else self._spoiled + 1
        self._consistent(now, series)
        if up and not faults and self._spoiled > (LOOKBACK + 600) // INTERVAL:
            self._equal(now, series, *asked)
        self._minute += 1
        if self._minute % 10 == 0:
            found.memory.append(_resident())
        if self._minute % 100 == 0:
            gc.collect()
            found.objects.append(len(gc.get_objects()))

    def _expect(self, now: float, what: str, good: bool) -> None:
        if not good:
            self._found.wrong.append(f"minute {self._minute}, {now:.0f}: not {what}; {', '.join(self._past)}")

    def _consistent(self, now: float, series: dict[str, float]) -> None:
        """Nothing stale, nothing half: every family is of the keys that have a round, and of no others."""
        families: dict[str, set[str]] = {}
        for name in series:
            family, _, labels = name.partition("{")
            if family.startswith("thousandeyes_endpoint_") and 'agent="' in labels and "_agent_" not in family:
                families.setdefault(family, set()).add(labels)
        rounds = families.get(ROUNDS[:-1], set())
        self._expect(now, "whole", families.get("thousandeyes_endpoint_sessions", set()) == rounds)
        self._expect(now, "of known keys", all(labels <= rounds for labels in families.values()))
        self._expect(now, "counted", sum(map(len, families.values())) == self.own("series"))
        # A poll that began half an interval ago may still wait; meanwhile there is the snapshot of the one before.
        oldest = min((value for name, value in series.items() if name.startswith(ROUNDS)), default=now)
        self._expect(now, f"fresh, but of {oldest:.0f}", oldest >= now - LOOKBACK - INTERVAL - INTERVAL / 2 - SLOW)

    def _equal(self, now: float, series: dict[str, float], asked: float, end: float) -> None:
        """Compare with what the company did until the last poll, unless that had to wait, or is not over."""
        if abs(series['thousandeyes_exporter_last_poll_success_timestamp_seconds{aid="1001"}'] - asked) > EDGE:
            return
        newest: dict[tuple[str, ...], list[Session]] = {}
        for session in self._world.sessions(1001, end - LOOKBACK - INTERVAL, end, asked):
            if session.listed:
                same = newest.setdefault((session.agent_id, session.visited_site, session.protocol), [])
                if same and same[0].round_id < session.round_id:
                    same.clear()
                same.append(session)
        # What has left the look-back by now is gone or not: a tick may have come since.
        newest = {key: it for key, it in newest.items() if it[0].round_id > now - LOOKBACK}
        expected = dict(_published(newest))
        names = {name.partition("{")[0] for name in expected}
        known = {name.partition("{")[2] for name in expected}
        starts = {name[len(ROUNDS) :]: start for name, start in series.items() if name.startswith(ROUNDS)}
        known |= {labels for labels, start in starts.items() if start > now - LOOKBACK}
        parts = {name: name.partition("{") for name in series}
        shown = {
            name: series[name] for name, (family, _, labels) in parts.items() if family in names and labels in known
        }
        differences = [
            f"{name}: {shown.get(name)} instead of {expected.get(name)}"
            for name in expected.keys() | shown.keys()
            if abs(shown.get(name, -1) - expected.get(name, -1)) > 1e-9 * abs(expected.get(name, 1))
        ]
        self._expect(now, f"equal: {len(differences)} of {len(expected)}, {differences[:3]}", not differences)
        self._found.equal += 1


def _published(newest: dict[tuple[str, ...], list[Session]]) -> Iterator[tuple[str, float]]:
    """Compute some families anew, as simply as can be."""
    for (agent, site, protocol), sessions in newest.items():
        labels = f'{{aid="1001",agent="{agent}",site="{site}",protocol="{protocol}"}}'
        name = "thousandeyes_endpoint_"
        yield f"{name}sessions{labels}", len(sessions)
        yield f"{name}round_timestamp_seconds{labels}", sessions[0].round_id
        yield f"{name}pages{labels}", sum(session.pages for session in sessions)
        if scores := [it.experience_score for it in sessions if it.experience_score is not None]:
            yield f"{name}experience_score{labels}", statistics.fmean(scores)
        legs = [it.destination.latency for it in sessions if it.measured and it.destination]
        if latencies := [latency for latency in legs if latency is not None]:
            yield f"{name}latency_seconds{labels}", statistics.fmean(latencies) / 1000


def _samples(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.split("\n") if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def report(found: Soak) -> str:
    """Tell people."""
    rss = [each // 2**20 for each in (found.memory or [0])]
    return (
        f"seed {found.seed}: {len(found.memory) * 10} minutes, {found.polls} polls, {found.healed} faults healed, "
        f"{found.equal} scrapes compared, {len(found.wrong)} wrong; memory {rss[len(rss) // 4]} → {rss[-1]} MB, "
        f"{found.slope if len(rss) > 8 else 0:+.3%} per 100 polls, descriptors and tasks {found.before} → {found.after}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Soak; return 1 where anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="python tests/soak.py", description=__doc__)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    found = soak(int(options.days * DAY / 60), options.seed, tell=lambda so_far: print(report(so_far), flush=True))
    print(report(found), f"{found.seconds:.0f} s", *found.wrong[:20], *found.words[:20], sep="\n")
    broken = {
        "published what is not so": found.wrong,
        "said what should not be said": found.words,
        "too few polls": found.polls < 0.95 * len(found.memory) * 10,
        "no fault, or nothing compared": not (found.healed and found.equal),
        "memory grows": found.slope > MOST_GROWTH,
        "objects become more": found.hoard > MOST_GROWTH,
        "descriptors or tasks are left": found.leaked,
    }
    missed = [what for what, it_is_so in broken.items() if it_is_so]
    print(*missed, sep=", ")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
