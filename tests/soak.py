"""Polls for days of simulated time with random faults: `python tests/soak.py --days 30`.

The exporter, its web server and the simulated API are real; only time is virtual. Every minute a
scrape is compared with what the simulated company did, computed in plain Python. Memory, open files
and tasks must not grow.
"""

# ruff: noqa: S311, T201  pseudo-random numbers are the point here; a command prints
import argparse
import asyncio
import logging
import math
import resource
import secrets
from collections import Counter
from datetime import datetime
from functools import lru_cache
from random import Random

from api_faults import FAULTS, faults
from expected_values import of_sessions
from failures.harness import ROUND_FAMILY, Trial, trial
from fake_clock import FakeTimeLoop, pause_time, wall
from web_server import get

from exporter.simulator import World
from exporter.simulator.world import Session

LOOKBACK, OVERLAP = 900, 300


class ChangingWorld(World):
    """A company in which all agents are new every hour, and all sites every eight hours."""

    def round(self, aid: int, round_id: int) -> tuple[Session, ...]:
        return _hour(round_id // 3600).round(aid, round_id)


@lru_cache(2)
def _hour(number: int) -> World:
    world = World(seed=number, agents=6, sites=3)
    for site in world.sites:
        site.host = f"{number // 8}.{site.host}"
    return world


async def soak(minutes: int, seed: int) -> tuple[Counter[str], list[int]]:
    """Poll for some simulated minutes; an AssertionError says what is wrong.

    Returns numbers of polls, failures, compared scrapes and values, and peak memory by minute.
    """
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
        after = await t.footprint()
        assert after[0] <= before[0], f"open files were {before[0]} and are {after[0]}"
        assert after[1] <= before[1], f"tasks were {before[1]} and are {after[1]}"
        for line in t.log:
            assert "crashed" not in line and "traceback" not in line, line  # noqa: PT018
        counts += Counter(polls=int(t.value("polls_total")), failed=t.failures().total())
    return counts, memory


def check(t: Trial, text: str, calm: int, spoiled_until: float) -> Counter[str]:
    """Compare a scrape in the `calm`-th minute without faults with the simulated company.

    Series keys of which a fault changed sessions are compared once these have been read again.
    """
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    series = {name: float(value) for name, value in lines}
    rounds = {n.partition("{")[2]: v for n, v in series.items() if n.startswith(ROUND_FAMILY)}
    assert calm < 3 or t.value("thousandeyes_up"), "the last poll failed"
    assert min(rounds.values(), default=wall()) >= wall() - LOOKBACK - 120, "an old session"
    last = [each for each in t.simulator.requests if "startDate" in each.params][-2:]
    times = [t.value("last_poll_success_timestamp_seconds"), *(each.time for each in last)]
    if calm and len(last) == 2 and max(times) - min(times) <= 1:  # both requests at one time
        first = max(times[1] - LOOKBACK, spoiled_until - OVERLAP) + 60
        end = datetime.fromisoformat(last[0].params["endDate"]).timestamp()
        values_of = of_sessions(t.simulator.world, "v7", first, end, times[1])
        expected = {
            f'thousandeyes_endpoint_{name}{{aid="{aid}",agent="{agent}",site="{site}",'
            f'protocol="{protocol}"}}': value
            for (name, aid, agent, site, protocol), value in values_of.items()
        }
        recent = [labels for labels, start in rounds.items() if start >= first]
        families = {name.partition("{")[0] for name in expected}
        found = {f"{family}{{{labels}" for family in families for labels in recent}
        for name in (found & series.keys()) | expected.keys():
            values = series.get(name, math.nan), expected.get(name, math.nan)
            assert math.isclose(*values), f"{name} is {values[0]} instead of {values[1]}"
        return Counter(scrapes=1, values=len(expected))
    return Counter()


def main() -> None:
    """Run and print one summary; the first deviation ends it with a traceback and status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    print(options, flush=True)
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        counts, memory = runner.run(soak(int(options.days * 1440), options.seed))
    start = memory[len(memory) // 4]
    growth = (memory[-1] / start - 1) * 100 / len(memory) * 4 / 3
    print(dict(counts), f"memory {start} to {memory[-1]}, {growth:+.3%} in 100 polls")
    assert growth < 0.01 or options.days < 1, "memory grows"


if __name__ == "__main__":
    main()
