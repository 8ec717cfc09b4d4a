"""The limit on the number of series, and the snapshot publisher."""

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from factories import session, text_of
from fake_clock import fake_time
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from exporter.account_group import AccountGroup
from exporter.labels import OTHER
from exporter.metrics.families import COUNT, Family, SeriesTable
from exporter.metrics.self_metrics import SelfMetrics
from exporter.render import GroupResult
from exporter.series_limit import limit_series
from exporter.snapshot import SnapshotPublisher
from exporter.sources.agents import INFO
from exporter.sources.results import Result, SessionsResult
from exporter.sources.rows import Joined, Key
from exporter.sources.sessions import SERIES, fold

THREE = partial(fold, SERIES.select(["latency_seconds", "sessions", "round_timestamp_seconds"]))
"""A complete session has a sample of each, so a key has three series."""


def with_series(table: SeriesTable, aid: str = "1", rows: Sequence[Joined] = ()) -> GroupResult:
    return GroupResult(AccountGroup(aid), {"sessions": SessionsResult([table], rows=rows)})


def group(*sessions: Joined, aid: str = "1") -> GroupResult:
    return with_series(THREE(sessions, ()), aid, sessions)


def visits(agents: str, protocol: str = "https") -> list[Joined]:
    values = {"destination.latency": 0.5}
    return [session(agent, agent, protocol=protocol, values=values) for agent in agents]


def samples(results: Sequence[GroupResult]) -> dict[tuple[str, Key], int]:
    """Return the number of samples by account group and series key."""
    return {
        (each.group.aid, key): count
        for each, table in [(each, table) for each in results for table in each.sessions.tables]
        for key, count in zip(table.keys, table.samples.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("published", "current", "limit", "expected", "dropped"),
    [
        ("", "ab", 6, "ab", 0),
        ("", "abcd", 9, OTHER + "ab", 6),  # new keys in label order
        ("cd", "abcd", 9, OTHER + "cd", 6),  # published keys stay
        ("bcd", "abcd", 9, "bcd", 3),  # and leave no space for the folded key: dropped
        ("bcd", "abcd", 11, "bcd", 3),
        ("abcd", "abcd", 11, OTHER + "ab", 6),  # the limit was lowered
        ("ab", "abcd", 12, "abcd", 0),
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


def test_protocols_without_space_are_dropped():
    published = group(*visits("xyz"))
    new = [*visits("a", "http"), *visits("b", "quic")]
    current = [group(*new, *visits("xyz"))]
    results, _, dropped = limit_series(current, 12, [published], THREE)
    folded = {("1", (OTHER, OTHER, "http")): 3}
    assert (samples(results), dropped) == (samples([published]) | folded, 6)
    results, _, dropped = limit_series(current, 12, [], THREE)  # space for each protocol
    assert ([key[0] for _, key in samples(results)], dropped) == ([OTHER, OTHER, "a"], 12)


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
    previous = [with_series(SeriesTable((), (), [key], {}), aid) for aid, key in published]
    limited, series, dropped = limit_series(results, limit, previous, THREE)
    after = samples(limited)
    assert sum(after.values()) == series <= limit
    assert dropped == sum(count for key, count in before.items() if key not in after)
    assert dropped == 0 or sum(before.values()) > limit
    assert published <= after.keys() or sum(before[key] for key in published) > limit
    for old, new in zip(results, limited, strict=True):
        assert (new.group, new.sessions.rows) == (old.group, old.sessions.rows)
        (before_, table) = (each.sessions.tables[0] for each in (old, new))
        assert new is old or table.keys != before_.keys
        folded = [
            (user if user.key in table.keys else replace(user, key=key), network)
            for user, network in old.sessions.rows
            for key in [(OTHER, OTHER, user.key[2])]
        ]
        expected = THREE([each for each in folded if each[0].key in table.keys], ())
        assert table.keys == expected.keys
        np.testing.assert_equal(table.columns, expected.columns)


class Other:
    """The result of another source; `build` is called in the thread that builds the snapshot."""

    def __init__(self, build: Callable[[], Sequence[SeriesTable]]) -> None:
        self.build = build

    @property
    def tables(self) -> Sequence[SeriesTable]:
        return self.build()


NAMED = SeriesTable(INFO.labels[:2], INFO.families, [("a", "anna")], {"agent_info": np.ones(1)})


class Setup:
    """A publisher of two account groups."""

    def __init__(self, *, max_series=100) -> None:
        self.metrics = SelfMetrics(process=False)
        self.publisher = SnapshotPublisher(max_series, THREE, self.metrics)
        self.publisher.add(AccountGroup("2"))
        self.publisher.add(AccountGroup("1"))

    async def update(self, aid: str, agents: str) -> str:
        """Publish a new result; return the agents of all published series, in order."""
        self.publisher.update(aid, "sessions", group(*visits(agents)).sessions)
        await self.publisher.publish()
        lines = [line for line in self.text().splitlines() if "_sessions{" in line]
        return "".join(line.split('agent="')[1][0] for line in lines)

    def text(self) -> str:
        return text_of(self.publisher.current.snapshot.common)


async def test_the_newest_results_of_all_account_groups_are_published():
    setup = Setup()
    assert setup.text() == ""
    assert await setup.update("2", "a") == "a"
    setup.publisher.update("2", "agents", Result([NAMED]))
    assert await setup.update("1", "b") == "ba"
    assert await setup.update("1", "c") == "ca"
    assert 'agent_name="anna"' in setup.text()
    setup.publisher.remove("1")
    assert await setup.update("1", "ignored") == "a"


async def test_published_keys_stay_and_folded_series_are_logged():
    setup = Setup(max_series=6)
    with capture_logs() as logs:
        assert (await setup.update("1", "xy"), logs) == ("xy", [])
        assert await setup.update("1", "abcxy") == "xy"
    assert [(log["event"], log["series"]) for log in logs] == [("series_folded", 9)]
    values = {"series": 6, "series_dropped": 9, "snapshot_size_bytes": len(setup.text())}
    for name, value in values.items():
        assert setup.metrics.registry.get_sample_value(f"thousandeyes_exporter_{name}") == value


async def test_agents_above_the_limit_are_dropped_and_counted():
    setup = Setup(max_series=7)
    for aid, agents in (("1", "abc"), ("2", "ad")):
        of_one, of_two = [(agent, "x") for agent in agents], [(agent,) for agent in agents]
        families = [Family(name, "", "", COUNT, "last") for name in ("one", "two", "three")]
        ones, nan = np.ones(len(agents)), np.full(len(agents), np.nan)
        tables = (
            SeriesTable(("agent", "name"), families[:1], of_one, {"one": ones}),
            SeriesTable(("agent",), families[1:], of_two, {"two": ones, "three": nan}),
        )
        setup.publisher.update(aid, "agents", Result(tables[:1]))
        setup.publisher.update(aid, "local_networks", Result(tables[1:]))
    with capture_logs() as logs:
        assert await setup.update("1", "xy") == "xy"
    assert [(log["event"], log["series"]) for log in logs] == [("series_folded", 4)]
    agents = re.findall(r'_(one|two)\{aid="(.)",agent="(.)"', setup.text())
    assert agents == [(name, "1", agent) for name in ("one", "two") for agent in "abc"]
    assert setup.metrics.registry.get_sample_value("thousandeyes_exporter_series_dropped") == 4


@fake_time
async def test_changes_during_a_run_are_published_together():
    loop, builds, changed = asyncio.get_running_loop(), list[str](), threading.Event()

    def change() -> None:
        for name in ("second", "third"):
            publisher.update("1", "agents", Other(partial(build, name)))
        changed.set()

    def build(name: str) -> list[SeriesTable]:
        builds.append(name)
        if len(builds) == 1:
            loop.call_soon_threadsafe(change)
            changed.wait(10)
        return []

    publisher = Setup().publisher
    publisher.update("1", "agents", Other(partial(build, "first")))
    task = asyncio.create_task(publisher.run())
    await asyncio.sleep(1)
    task.cancel()
    assert list(dict.fromkeys(builds)) == ["first", "third"]


@fake_time
async def test_a_failed_build_is_repeated_without_another_change():
    failing = [True]

    def build() -> list[SeriesTable]:
        if failing and failing.pop():
            raise ZeroDivisionError
        return [NAMED]

    setup = Setup()
    setup.publisher.update("1", "agents", Other(build))
    with pytest.raises(ZeroDivisionError):
        await setup.publisher.run()
    task = asyncio.create_task(setup.publisher.run())
    await asyncio.sleep(1)
    task.cancel()
    assert 'agent_name="anna"' in setup.text()
