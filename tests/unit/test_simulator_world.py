"""The simulated company is deterministic, and its records agree. Alerts prove its problems."""

from statistics import fmean

import pytest

from exporter.simulator import World

NOW = 1_795_012_350  # 2026-11-18 14:32:30 UTC, a Wednesday, while a site is degraded
MORNING = NOW // 86400 * 86400 + 9 * 3600


def mean(records, field, path="destination"):
    found = [getattr(getattr(r, path), field) for r in records if getattr(r, path)]
    return fmean(value for value in found if value is not None)


def values(record):
    names = ("id", "date", "destination", "vpn", "ping", "system")
    return record.agent.id, *(getattr(record, name, None) for name in names)


@pytest.mark.parametrize("listing", [World.sessions, World.probes])
def test_records_depend_on_seed_and_time_and_appear_when_they_are_committed(listing):
    whole = list(listing(World(seed=7), 1001, NOW - 900, NOW, NOW + 900))
    order = [(record.date, record.id) for record in whole]
    assert order == sorted(set(order))
    assert 60 < max(record.committed - record.date for record in whole) <= 240
    world, middle = World(seed=7), whole[len(whole) // 2].date
    for now in (NOW - 600, NOW, NOW + 900):
        ranges = [(NOW - 900, middle - 1), (middle, middle), (middle + 1, NOW)]
        parts = [each for start, end in ranges for each in listing(world, 1001, start, end, now)]
        expected = [values(each) for each in whole if each.committed <= now]
        assert list(map(values, parts)) == expected
    other = next(iter(listing(World(seed=8), 1001, NOW - 900, NOW, NOW)))
    assert values(other) != values(whole[0])


def test_sessions_and_local_networks_have_the_same_causes():
    world = World()
    sessions = list(world.sessions(1001, MORNING, MORNING + 5400, NOW))
    probes = list(world.probes(1001, MORNING, MORNING + 5400, NOW))
    cpus = {(p.agent.id, p.round_id): p.system.cpu_utilization for p in probes}
    pairs = [(cpus.get((s.agent.id, s.date // 300 * 300)), s.system) for s in sessions]
    assert all(abs(a.mean - b.cpu_utilization.mean) < 0.1 for a, b in pairs if a)
    slow = [s for s in sessions if s.agent.office.code == "BLR"]
    usual = [s for s in sessions if s.agent.office.code != "BLR" and not s.site.degradation(s.date)]
    gateways = [p for p in probes if p.type == "gateway" and p.agent.office.code == "BLR"]
    added = mean(slow, "latency") - mean(usual, "latency")
    assert added == pytest.approx(mean(gateways, "latency", "ping"), rel=0.2)
    vpn = mean((p for p in probes if p.type == "vpn"), "latency", "ping")
    assert mean(sessions, "latency", "vpn") == pytest.approx(vpn, rel=0.1)
    overloaded = [s for s in sessions if s.agent is world.agents[0]]
    assert fmean(s.experience_score or 0 for s in overloaded) < 0.5
    weak = [s for s in usual if (s.agent.signal(s.network, s.date) or 0) < -75]
    assert mean(weak, "loss") > 5 * mean(usual, "loss")
    degraded = [s for s in sessions if s.site.degradation(s.date) > 0.5]
    for field in ("latency", "jitter", "loss"):
        assert mean(degraded, field) > 3 * mean(usual, field)


def test_agents_probe_all_day_and_sessions_come_only_from_agents_that_do():
    world = World(agents=400, problems=())
    for start in (MORNING, MORNING - 6 * 3600):
        probing = {p.agent.id for p in world.probes(1001, start, start + 599, NOW)}
        london = {a.id for a in world.agents if a.office.code == "LON"}
        assert (london <= probing) == (start == MORNING)
        assert {s.agent.id for s in world.sessions(1001, start, start + 599, NOW)} < probing


def test_the_first_outage_is_longer():
    site = World(degraded_at=NOW).sites[1]
    minutes = [n for n in range(-60, 150) if site.degradation(NOW + n * 60)]
    assert minutes == [*range(40), *range(60, 80), *range(120, 140)]
    assert site.degradation(NOW + 600) == site.degradation(NOW + 1800) > 0.99
