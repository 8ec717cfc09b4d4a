"""Polls for days of simulated time with random faults: `python tests/soak.py --days 30`.

Every minute a scrape is compared with what the simulated company did, computed in plain Python.
Memory, open files and tasks must not grow.
"""

# ruff: noqa: S311, T201  pseudo-random numbers are the point here; a command prints
import argparse
import asyncio
import logging
import resource
import secrets
from collections import Counter
from datetime import datetime
from functools import lru_cache
from random import Random

import pytest
from api_faults import FAULTS, faults
from expected_values import of_sessions
from factories import parse
from failures.harness import Trial, trial
from fake_clock import FakeTimeLoop, pause_time, wall
from web_server import get

from exporter.simulator import World
from exporter.simulator.world import Session
from exporter.sources.sessions import SERIES

LOOKBACK, OVERLAP = 900, 300


class ChangingWorld(World):
    """A company in which all agents are new every hour, and all sites every eight hours."""

    def round(self, aid: int, round_id: int) -> tuple[Session, ...]:
        return _hour(round_id // 3600).round(aid, round_id)


@lru_cache(2)
def _hour(number: int) -> World:
    world = World(seed=number, agents=12, sites=3)
    for site in world.sites:
        site.host = f"{number // 8}.{site.host}"
    return world


async def soak(minutes: int, seed: int) -> Counter[str]:
    """Poll for some minutes; returns numbers of polls, failures, compared scrapes and values."""
    rng, counts, memory, loop = Random(seed), Counter[str](), [], asyncio.get_running_loop()
    end, calm, spoiled_until = 0, 0, 0.0
    async with trial(world=ChangingWorld(agents=6), api__requests_per_minute=120) as t:
        logging.getLogger("exporter").setLevel(logging.WARNING)  # the harness keeps the log
        before, start = await t.footprint(), loop.time() // 60 * 60 + 60
        for minute in range(minutes):
            await asyncio.sleep(start + 60 * minute - loop.time())
            calm = 0 if t.simulator.faults else calm + 1
            if any(fault.payload for fault in t.simulator.faults):
                spoiled_until = wall()
            with pause_time():
                text = (await get(t.url)).text
            counts += check(t, text, calm, spoiled_until)
            t.simulator.requests.clear()
            if minute >= end:
                t.simulator.faults = ()
                if minute < minutes - 30 and rng.random() < 1 / 10:
                    fault, end = rng.choice(list(FAULTS)), minute + rng.choice((1, 1, 2, 3, 6, 20))
                    t.simulator.faults = faults(f"{fault}={rng.choice((0.5, 1))}")
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        files, tasks = await t.footprint()
        assert files <= before[0]
        assert tasks <= before[1]
        assert not [line for line in t.log if "crashed" in line or "traceback" in line]
        counts += Counter(polls=int(t.value("polls_total")), failed=t.failures().total())
    growth = memory[-1] / memory[minutes // 4] - 1
    assert growth < minutes / 10_000 or minutes < 1440, "memory grows by 1 % in 100 polls"
    return counts


def check(t: Trial, text: str, calm: int, spoiled_until: float) -> Counter[str]:
    """Compare a scrape in the `calm`-th minute without faults with the simulated company.

    Series keys of which a fault changed sessions are compared once these have been read again.
    """
    lines = [line for line in text.splitlines() if "agent=" in line and ",site=" in line]
    published = parse("\n".join([*lines, ""]), prefix="thousandeyes_endpoint_")
    rounds = {key: v for (name, key), v in published.items() if name == "round_timestamp_seconds"}
    assert calm < 3 or t.value("thousandeyes_up"), "the last poll failed"
    assert min(rounds.values(), default=wall()) >= wall() - LOOKBACK - 120, "an old session"
    last = [each for each in t.simulator.requests if "startDate" in each.params][-2:]
    times = [t.value("last_poll_success_timestamp_seconds"), *(each.time for each in last)]
    if not calm or len(last) < 2 or max(times) - min(times) > 1:  # not both requests at one time
        return Counter()
    first = max(times[1] - LOOKBACK, spoiled_until - OVERLAP) + 60
    end = datetime.fromisoformat(last[0].params["endDate"]).timestamp()
    values = of_sessions(t.simulator.world, "v7", first, end, times[1])
    labels = ("aid", *SERIES.labels)
    expected = {(k[0], frozenset(zip(labels, k[1:], strict=True))): v for k, v in values.items()}
    families = {name for name, _ in expected}
    assert expected == pytest.approx(
        {k: v for k, v in published.items() if k[0] in families and rounds[k[1]] >= first}
    )
    return Counter(scrapes=1, values=len(expected))


def main() -> None:
    """Run and print a summary; the first deviation ends it with a traceback and status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    print(options, flush=True)
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        print(dict(runner.run(soak(int(options.days * 1440), options.seed))))


if __name__ == "__main__":
    main()
