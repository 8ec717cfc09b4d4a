"""The limit on the number of series, and the snapshot publisher."""

import asyncio
import math
import re
from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
import pytest
from factories import session, text_of
from fake_clock import fake_time
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.account_group import AccountGroup
from exporter.labels import OTHER
from exporter.metrics.families import COUNT, Family, SeriesTable, Table
from exporter.metrics.self_metrics import SelfMetrics
from exporter.render import GroupResult
from exporter.series_limit import Fold, limit_series
from exporter.snapshot import SnapshotPublisher
from exporter.sources.results import Result, SessionsResult
from exporter.sources.rows import Joined, Key
from exporter.sources.sessions import SERIES, fold

THREE = partial(fold, SERIES.select(["latency_seconds", "sessions", "round_timestamp_seconds"]))
"""A complete session has a sample of each, so a key has three series."""


def group(*sessions: Joined, aid: str = "1") -> GroupResult:
    result = SessionsResult([THREE(sessions, ())], rows=sessions)
    return GroupResult(AccountGroup(aid), {"sessions": result})


def visits(agents: str) -> list[Joined]:
    return [session(agent, agent, values={"destination.latency": 0.5}) for agent in agents]


def samples(results: Sequence[GroupResult]) -> dict[tuple[str, Key], int]:
    """Return the number of samples by account group and series key."""
    return {
        (each.group.aid, key): count
        for each in results
        for table in each.sessions.tables
        for key, count in zip(table.keys, table.samples.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("published", "current", "limit", "expected", "dropped"),
    [
        ("", "ab", 6, "ab", 0),
        ("", "abcd", 9, OTHER + "ab", 6),  # new keys in label order
        ("cd", "abcd", 9, OTHER + "cd", 6),  # published keys stay
        ("bcd", "abcd", 9, "bcd", 3),  # and leave no space for the folded key: dropped
        ("abcd", "abcd", 11, OTHER + "ab", 6),  # the limit was lowered
        ("", "ab", 3, OTHER, 6),
        ("", "ab", 2, "", 6),
        ("", "ab", 0, "", 6),
    ],
)
def test_the_limit(published, current, limit, expected, dropped):
    before, after = [group(*visits(published))], [group(*visits(current))]
    results, series, actual = limit_series(after, limit, before, THREE)
    agents = sorted(agent for _, (agent, *_) in samples(results))
    assert ("".join(agents), actual) == (expected, dropped)
    assert series == sum(samples(results).values())


every_label = st.tuples(*map(st.sampled_from, ("abcde", "xy", ("http", "https"))))
every_value = st.sampled_from([{}, {"destination.latency": 1.0}])
every_session = st.lists(st.tuples(every_label, every_value), max_size=10)


@given(st.lists(every_session, min_size=1, max_size=3), st.integers(0, 60), st.data())
def test_invariants(visits, limit, data):
    results = []
    for aid, rows in enumerate(visits):
        sessions = [session(f"{n:02}", *each, values=v) for n, (each, v) in enumerate(rows)]
        results.append(group(*sessions, aid=str(aid)))
    before = samples(results)
    published = data.draw(st.sets(st.sampled_from(sorted(before)))) if before else set()
    previous = [group(session("", *key), aid=aid) for aid, key in published]
    limited, series, dropped = limit_series(results, limit, previous, THREE)
    after = samples(limited)
    assert sum(after.values()) == series <= limit
    assert dropped == sum(count for key, count in before.items() if key not in after)
    assert dropped == 0 or sum(before.values()) > limit
    assert published <= after.keys() or sum(before[key] for key in published) > limit
    for old, new in zip(results, limited, strict=True):
        assert (new.group, new.sessions.rows) == (old.group, old.sessions.rows)
        table, keys = new.sessions.tables[0], set(new.sessions.tables[0].keys)
        assert new is old or keys != set(old.sessions.tables[0].keys)
        kept = [s for s in old.sessions.rows if {s[0].key, (OTHER, OTHER, s[0].key[2])} & keys]
        expected = THREE(kept, {user.key for user, _ in kept} - keys)
        assert table.keys == expected.keys
        np.testing.assert_equal(table.columns, expected.columns)


class Setup:
    """A publisher of two account groups."""

    def __init__(self, *, max_series: int = 100, fold: Fold = THREE) -> None:
        self.metrics = SelfMetrics(process=False)
        self.publisher = SnapshotPublisher(max_series, fold, self.metrics)
        self.publisher.add(AccountGroup("2"))
        self.publisher.add(AccountGroup("1"))

    async def update(self, aid: str, agents: str) -> str:
        """Publish a new result; return the agents of all published series, in order."""
        self.publisher.update(aid, "sessions", group(*visits(agents)).sessions)
        await self.publisher.publish()
        return "".join(re.findall('_sessions{.*agent="(.)"', self.text()))

    def text(self) -> str:
        return text_of(self.publisher.current.snapshot.common)


def of_agents(agents: str, *names: str) -> Result:
    """Return the result of another source: a family with the value 1, and others without."""
    table = Table(("agent",), tuple(Family(name, "", "", COUNT, "last") for name in names))
    rows = [[1.0, *[math.nan] * len(names[1:])]] * len(agents)
    return Result([table.series([(agent,) for agent in agents], rows)])


async def test_the_newest_results_of_all_account_groups_are_published():
    setup = Setup()
    assert await setup.update("2", "a") == "a"
    setup.publisher.update("2", "agents", of_agents("a", "x"))
    assert await setup.update("1", "b") == "ba"
    assert await setup.update("1", "c") == "ca"
    assert '_x{aid="2",agent="a"} 1' in setup.text()
    setup.publisher.remove("1")
    assert await setup.update("1", "ignored") == "a"


async def test_series_above_both_limits_are_folded_or_dropped_logged_and_counted():
    setup = Setup(max_series=7)
    assert await setup.update("2", "dx") == "dx"
    assert setup.publisher.current.dropped == 0
    for aid, agents in (("1", "abc"), ("2", "ad")):
        setup.publisher.update(aid, "agents", of_agents(agents, "one"))
        setup.publisher.update(aid, "local_networks", of_agents(agents, "two", "three"))
    with capture_logs() as logs:
        assert await setup.update("2", "abcdx") == "dx"
    assert [(log["event"], log["series"]) for log in logs] == [("series_folded", 9 + 4)]
    agents = re.findall(r'_(one|two)\{aid="(.)",agent="(.)"', setup.text())
    assert agents == [(name, "1", agent) for name in ("one", "two") for agent in "abc"]
    values = {"series": 6, "series_dropped": 9 + 4, "snapshot_size_bytes": len(setup.text())}
    for name, value in values.items():
        assert setup.metrics.registry.get_sample_value(f"thousandeyes_exporter_{name}") == value


@fake_time
async def test_changes_during_a_build_are_published_together_and_a_failed_build_is_repeated():
    builds = list[str]()

    def update(agent: str) -> None:
        setup.publisher.update("1", "sessions", group(*visits(agent)).sessions)

    def fold(rows: Sequence[Joined], folded: Collection[Key]) -> SeriesTable:
        builds.extend(agent for agent, _, _ in folded)
        if builds == ["a"]:
            raise ZeroDivisionError
        if builds == ["a", "a"]:
            update("b")
            update("c")
        return THREE(rows, folded)

    setup = Setup(max_series=0, fold=fold)
    update("a")
    with pytest.raises(ZeroDivisionError):
        await setup.publisher.run()
    task = asyncio.create_task(setup.publisher.run())
    await asyncio.sleep(1)
    task.cancel()
    assert builds == ["a", "a", "c"]
