"""A day of polls in simulated time, with faults at random: nothing grows, nothing is stale, nothing is half."""

# ruff: noqa: T201 - the seed is for people

import os
import secrets
import sys

import pytest
import soak
from servers import ROOT, clean_environment, finished

from exporter.simulator.faults import FaultSpec


@pytest.mark.timeout(500)
async def test_a_day_of_polls_and_faults_leaves_nothing_behind() -> None:
    # In a process of its own, whose memory is its own; not measured for coverage, which would take three times as long.
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("COVERAGE")}
    seed = os.environ.get("SOAK_SEED") or secrets.randbelow(10**6)
    command = [sys.executable, "tests/soak.py", "--days=1", f"--seed={seed}"]
    code, said, complaints = await finished(*command, seconds=480, cwd=ROOT, env=environment)
    print(said, complaints)
    assert code == 0, said + complaints


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([100.0] * 50, 0.0), ([100.0 + n for n in range(101)], 1 / 150), ([5.0, 1e9, 5.0, 5.0], 0)],
)
def test_growth_is_the_median_of_all_slopes(samples: list[float], expected: float) -> None:
    assert soak.growth(samples) == pytest.approx(expected)


def test_what_leaks_is_seen() -> None:
    found = soak.Soak(1, before=(10, 5), after=(11, 5), memory=[10**6 + 2000 * n for n in range(100)])
    assert found.leaked
    assert found.slope > 0.01


# What broke once.


def test_a_list_of_account_groups_that_is_refused_for_a_minute_costs_no_series() -> None:
    found = soak.soak(60, 1, weather=lambda minute: [FaultSpec("forbidden")] if minute == 29 else [])
    assert found.wrong == []
    assert found.polls == 60
