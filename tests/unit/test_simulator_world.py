"""The simulated company is deterministic, and has the problems that its docstring promises."""

import statistics
from collections.abc import Iterable

from exporter.simulator import World
from exporter.simulator.world import OFFICES, Session

NOW = 1_795_012_350
"""2026-11-18 14:32:30 UTC, a Wednesday, while the degraded site is degraded."""
SLOW_OFFICE = max(OFFICES, key=lambda office: office.delay_ms)


def visits(world: World, seconds: int = 900, now: float = NOW) -> list[Session]:
    return list(world.sessions(1001, now - seconds, now, now))


def mean(sessions: Iterable[Session], field: str) -> float:
    found = [getattr(s.destination, field) for s in sessions if s.destination]
    return statistics.fmean(value for value in found if value is not None)


def test_sessions_depend_on_seed_and_time_only() -> None:
    whole, world = visits(World(seed=7)), World(seed=7)
    middle = whole[len(whole) // 2].date
    ranges = [(middle + 1, NOW), (middle, middle), (NOW - 900, middle - 1)]
    parts = [list(world.sessions(1001, start, end, NOW)) for start, end in ranges]
    both = zip(whole, parts[2] + parts[1] + parts[0], strict=True)
    for one, other in both:
        assert (one.id, one.destination, one.system) == (other.id, other.destination, other.system)
    assert len({s.id for s in whole}) == len(whole)
    assert visits(World(seed=8))[0].id != whole[0].id


def test_sessions_appear_when_they_are_committed_and_their_pages_grow() -> None:
    world = World(agents=100)
    final = world.round(1001, NOW // 60 * 60 - 120)
    assert 60 < max(s.committed - s.date for s in visits(world, seconds=3600)) <= 240
    for now in (NOW - 90, NOW - 60, NOW):
        known = {s.id: s.pages for s in world.sessions(1001, NOW - 900, NOW, now)}
        for session in final:
            assert (session.id in known) == (session.committed <= now)
            assert 1 <= known.get(session.id, 1) <= session.pages
    assert all(s.at(s.date).pages == 1 and s.at(s.date + 120) == s for s in final)


def test_a_site_an_office_a_laptop_and_a_wifi_network_are_bad() -> None:
    sessions = visits(World(), seconds=3600)
    slow = [s for s in sessions if s.agent.office == SLOW_OFFICE]
    others = [s for s in sessions if s.agent.office != SLOW_OFFICE]
    degraded = [s for s in others if s.site.degraded_at and s.date > NOW - 600]
    usual = [s for s in others if not s.site.degraded_at]
    for field in ("latency", "jitter", "loss"):
        assert mean(degraded, field) > 3 * mean(usual, field)
    assert mean(slow, "latency") > 3 * mean(usual, "latency")
    assert mean((s for s in sessions if s.agent.bad_wifi), "loss") > 5 * mean(usual, "loss")
    for system in (s.system for s in sessions if s.agent.overloaded):
        assert system.cpu_utilization
        assert system.cpu_utilization.min > 0.85
    site = World(degraded_at=3000).sites[1]
    assert [n for n in range(60) if site.degradation(n * 60)] == [*range(10), *range(50, 60)]
