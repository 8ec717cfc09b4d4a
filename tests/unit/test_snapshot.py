"""The limit on the number of series, and the snapshot publisher."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from factories import session, text_of
from fake_clock import fake_time
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from exporter.inventory import AccountGroup, Agent
from exporter.labels import OTHER
from exporter.metrics.families import select_families
from exporter.metrics.self_metrics import SelfMetrics
from exporter.render import GroupResult
from exporter.series_limit import limit_series
from exporter.sessions.aggregate import SeriesTable, aggregate
from exporter.sessions.model import SeriesKey
from exporter.sessions.source import SessionsResult
from exporter.sessions.store import JoinedSession
from exporter.snapshot import SnapshotPublisher

THREE = select_families(["latency_seconds", "sessions", "round_timestamp_seconds"])
"""A complete session has a sample of each, so a key has three series."""


def group(*sessions: JoinedSession, aid: str = "1") -> GroupResult:
    series = aggregate(sessions, THREE)
    return GroupResult(AccountGroup(aid), SessionsResult(list(sessions), series))


def visits(agents: str, protocol: str = "https") -> list[JoinedSession]:
    values = {"destination.latency": 0.5}
    return [session(agent, agent, protocol=protocol, values=values) for agent in agents]


def samples(results: Sequence[GroupResult]) -> dict[tuple[str, SeriesKey], int]:
    """Return the number of samples by account group and series key."""
    return {
        (each.group.aid, key): count
        for each, table in [(each, each.sessions.series) for each in results]
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
    results, actual = limit_series(after, limit, before, THREE)
    agents = sorted(key.agent for _, key in samples(results))
    assert ("".join(agents), actual) == (expected, dropped)


def test_protocols_without_space_are_dropped():
    published = group(*visits("xyz"))
    new = [*visits("a", "http"), *visits("b", "quic")]
    current = [group(*new, *visits("xyz"))]
    results, dropped = limit_series(current, 12, [published], THREE)
    folded = {("1", SeriesKey(OTHER, OTHER, "http")): 3}
    assert (samples(results), dropped) == (samples([published]) | folded, 6)
    results, dropped = limit_series(current, 12, [], THREE)  # space for each protocol
    assert ([key.agent for _, key in samples(results)], dropped) == ([OTHER, OTHER, "a"], 12)


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
    tables = [(aid, SeriesTable([key], {})) for aid, key in published]
    previous = [GroupResult(AccountGroup(aid), SessionsResult(series=each)) for aid, each in tables]
    limited, dropped = limit_series(results, limit, previous, THREE)
    after = samples(limited)
    assert sum(after.values()) <= limit
    assert dropped == sum(count for key, count in before.items() if key not in after)
    assert dropped == 0 or sum(before.values()) > limit
    assert published <= after.keys() or sum(before[key] for key in published) > limit
    for old, new in zip(results, limited, strict=True):
        assert (new.group, new.sessions.sessions) == (old.group, old.sessions.sessions)
        assert new is old or new.sessions.series.keys != old.sessions.series.keys
        folded = [
            (user if user.key in new.sessions.series.keys else replace(user, key=key), network)
            for user, network in old.sessions.sessions
            for key in [SeriesKey(OTHER, OTHER, user.key.protocol)]
        ]
        kept = [each for each in folded if each[0].key in new.sessions.series.keys]
        expected = aggregate(kept, THREE)
        assert new.sessions.series.keys == expected.keys
        np.testing.assert_equal(new.sessions.series.columns, expected.columns)


class Setup:
    """A publisher of two account groups."""

    def __init__(self, *, max_series=100, families=THREE, names=lambda agent: agent) -> None:
        self.metrics = SelfMetrics(process=False)
        self.publisher = SnapshotPublisher(families, max_series, names, self.metrics)
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
    setup.publisher.update("2", "agents", [Agent("a", "anna")])
    assert await setup.update("1", "b") == "ba"
    assert await setup.update("1", "c") == "ca"
    assert 'agent_name="anna"' in setup.text()
    setup.publisher.remove("1")
    assert await setup.update("1", "ignored") == "a"
    without = Setup(families=())
    without.publisher.update("1", "agents", [Agent("a", "anna")])
    await without.publisher.publish()
    assert without.text() == ""


async def test_published_keys_stay_and_folded_series_are_logged():
    setup = Setup(max_series=6)
    with capture_logs() as logs:
        assert (await setup.update("1", "xy"), logs) == ("xy", [])
        assert await setup.update("1", "abcxy") == "xy"
    assert [(log["event"], log["series"]) for log in logs] == [("series_folded", 9)]
    values = {"series": 6, "series_dropped": 9, "snapshot_size_bytes": len(setup.text())}
    for name, value in values.items():
        assert setup.metrics.registry.get_sample_value(f"thousandeyes_exporter_{name}") == value


@fake_time
async def test_changes_during_a_run_are_published_together():
    loop, builds, changed = asyncio.get_running_loop(), list[str](), threading.Event()

    def change() -> None:
        for name in ("second", "third"):
            publisher.update("1", "agents", [Agent(name)])
        changed.set()

    def names(agent: Agent) -> Agent:  # called in the thread that builds the snapshot
        builds.append(agent.id)
        if len(builds) == 1:
            loop.call_soon_threadsafe(change)
            changed.wait(10)
        return agent

    publisher = Setup(names=names).publisher
    publisher.update("1", "agents", [Agent("first")])
    task = asyncio.create_task(publisher.run())
    await asyncio.sleep(1)
    task.cancel()
    assert builds == ["first", "third"]


@fake_time
async def test_a_failed_build_is_repeated_without_another_change():
    failing = [True]

    def names(agent: Agent) -> Agent:
        if failing and failing.pop():
            raise ZeroDivisionError
        return agent

    setup = Setup(names=names)
    setup.publisher.update("1", "agents", [Agent("first")])
    with pytest.raises(ZeroDivisionError):
        await setup.publisher.run()
    task = asyncio.create_task(setup.publisher.run())
    await asyncio.sleep(1)
    task.cancel()
    assert 'agent="first"' in setup.text()
