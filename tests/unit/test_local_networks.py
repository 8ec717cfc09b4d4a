"""The source of local networks: what each probe publishes of its target and of its agent."""

import asyncio
from typing import Any

import pytest
from api_records import FakeApi, payload, samples
from fake_clock import WALL_START, fake_clock, fake_time

from exporter.clock import ApiClock
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources.local_networks import (
    AGENTS,
    TARGETS,
    LocalNetworksConfig,
    LocalNetworksSource,
)
from exporter.sources.session_filter import SessionFilter, compile_pattern
from exporter.sources.source import Context

ROUND = int(WALL_START) // 300 * 300
"""The round in which the tests start; it has lasted for 150 seconds."""
PERIOD = {"startTimeMs": 1000, "endTimeMs": 2000}
TIMESTAMP = "agent_local_network_round_timestamp_seconds"


def row(type_: str | None = "gateway", agent: str = "a", start: int = ROUND, **fields: Any) -> Any:
    """Return a probe as the API sends it."""
    return {"agentId": agent, "roundId": start, "type": type_, **fields}


def system(cpu: float, period: dict[str, int] = PERIOD, count: int = 1) -> dict[str, Any]:
    return {"systemMetrics": {**period, "cpuUtilization": {"mean": cpu, "count": count}}}


class Setup:
    """A source that publishes rows for 15 minutes."""

    def __init__(self, filter_: SessionFilter | None = None, **search: list[str]) -> None:
        self.api, self.metrics = FakeApi(), SelfMetrics(process=False)
        config = LocalNetworksConfig(
            300.0, 900.0, 600.0, [TARGETS, AGENTS], search, filter_ or SessionFilter()
        )
        context = Context(self.api, ApiClock(fake_clock()), self.metrics)
        self.source = LocalNetworksSource("7", context, config)

    async def poll(self, *rows: Any) -> dict[tuple[str, ...], float]:
        """Poll once; return the samples: short name, agent, and type of target if any."""
        self.api.answers = [list(rows)]
        self.polled = await self.source.poll()
        assert await self.source.refresh(polled=True)
        return self.samples()

    def samples(self) -> dict[tuple[str, ...], float]:
        found = samples(self.source.result.tables)
        return {key: value for key, value in found.items() if key[0] != TIMESTAMP}


PING = {"avgRtt": 5, "maxRtt": 9.0, "meanDevRtt": 2.0, "loss": 10}
PINGED = {"latency_seconds": 0.005, "max_latency_seconds": 0.009, "jitter_seconds": 0.002}
TARGET_CASES: list[tuple[list[Any], dict[str, float]]] = [
    ([row(icmpPing=PING, isIcmpBlocked=False)], PINGED | {"loss_ratio": 0.1, "icmp_blocked": 0}),
    ([row(icmpPing=PING)], PINGED | {"loss_ratio": 0.1}),
    ([row(icmpPing=PING, isIcmpBlocked=True)], PINGED | {"icmp_blocked": 1}),  # no loss
    (
        [row("dns", icmpPing=PING, isIcmpBlocked=False),
         row("dns", icmpPing=PING | {"loss": 100}, isIcmpBlocked=True)],
        PINGED | {"loss_ratio": 0.1, "icmp_blocked": 1},
    ),
    ([row(tcpConnect={"rtt": 20})], {"tcp_connect_seconds": 0.02}),
    ([row("dns", dnsServerTest={"resolutionTime": 3})], {"dns_resolution_seconds": 0.003}),
    *(
        ([row(t, **{f"{other}Score": {"score": 80 if other == t else 20} for other in
                    ("gateway", "vpn", "proxy")})], {"score_ratio": 0.8} if t != "dns" else {})
        for t in ("gateway", "vpn", "proxy", "dns")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), TARGET_CASES)
@fake_time
async def test_values_of_a_target(rows, expected):
    found = await Setup().poll(*rows)
    names = {f"local_network_{name}": value for name, value in expected.items()}
    assert found == {(name, "a", rows[0]["type"]): value for name, value in names.items()}


@pytest.mark.parametrize("type_", ["gateway", "unknown", None, ...])
@fake_time
async def test_values_of_an_agent_need_no_known_type(type_):
    fields = {"agentScore": {"score": 90}, "connectionScore": {"score": 100}, **system(0.5)}
    fields["systemMetrics"] |= {
        "physicalMemoryTotalBytes": 8, "physicalMemoryUsedBytes": {"mean": 4, "count": 1}
    }  # fmt: skip
    battery = {"batteryLevelNormalizedPercent": 0.3, "batteryLevel": "medium"}
    probe = row(type_, icmpPing=PING, batteryMetrics=battery, **fields)
    if type_ is ...:
        del probe["type"]
    found = await Setup().poll(probe)
    of_agent = {name: value for (name, *key), value in found.items() if key == ["a"]}
    assert of_agent == {
        "agent_score_ratio": 0.9, "agent_connection_score_ratio": 1.0,
        "agent_cpu_utilization_ratio": 0.5, "agent_memory_used_bytes": 4,
        "agent_memory_size_bytes": 8, "agent_battery_level_ratio": 0.3,
    }  # fmt: skip
    assert (len(found) > len(of_agent)) == (type_ == "gateway")


@fake_time
async def test_system_metrics_of_a_period_count_once_for_the_agent():
    later = {"startTimeMs": 2000, "endTimeMs": 3000}
    probes = [row(t, **system(0.2)) for t in ("gateway", "vpn", "dns", "dns")]
    found = await Setup().poll(*probes, row("proxy", **system(0.8, later)))
    assert found == {("agent_cpu_utilization_ratio", "a"): pytest.approx(0.5)}


@fake_time
async def test_all_targets_of_a_type_are_kept_and_reading_them_again_changes_nothing():
    setup = Setup()
    probes = [row("dns", dnsServerTest={"resolutionTime": ms}) for ms in (10, 20, 60)]
    for new in (3, 0):
        found = await setup.poll(*probes)
        assert found == {("local_network_dns_resolution_seconds", "a", "dns"): pytest.approx(0.03)}
        assert setup.polled == {"rows": 3, "new": new, "rejected": 0}
    probes.append(row("dns", start=ROUND + 60, dnsServerTest={"resolutionTime": 5}))
    found = await setup.poll(*probes)  # the newest round
    assert found == {("local_network_dns_resolution_seconds", "a", "dns"): 0.005}


@fake_time
async def test_agents_are_filtered_and_rounds_in_the_future_are_rejected():
    setup = Setup(SessionFilter(exclude_agents=[compile_pattern("b")]))
    future = row(agent="c", start=int(WALL_START) + 61)
    found = await setup.poll(*(row(agent=x, icmpPing={"loss": 0}) for x in "aab"), future, {})
    assert found == {("local_network_loss_ratio", "a", "gateway"): 0}
    registry = setup.metrics.registry
    for reason in ("filtered", "bad_time", "missing_field"):
        labels = {"aid": "7", "source": "local_networks", "reason": reason}
        name = "thousandeyes_exporter_records_rejected_total"
        assert registry.get_sample_value(name, labels) == 1


@fake_time
async def test_rows_expire_after_the_look_back():
    setup = Setup()
    assert len(await setup.poll(row(icmpPing=PING))) == 4
    for after, changed, left in ((750, False, 4), (1, True, 0), (60, False, 0)):
        await asyncio.sleep(after)
        assert await setup.source.refresh(polled=False) == changed
        assert len(setup.samples()) == left
    assert setup.source.result.complete


@fake_time
async def test_requests_have_whole_rounds_the_filter_and_the_lowest_priority():
    setup = Setup(type=["vpn", "dns"])
    await setup.poll()
    await asyncio.sleep(300)
    await setup.poll()
    first, second = setup.api.requests
    assert first.path == "/v7/endpoint/test-results/local-networks/topologies/filter"
    assert (first.aid, first.priority) == ("7", 2)
    assert first.body == {"searchFilters": {"type": ["vpn", "dns"]}}
    ranges = [tuple(each.query.values()) for each in (first, second)]
    assert ranges == [  # the look-back, then the overlap
        ("2026-11-18T14:15:00Z", "2026-11-18T14:32:30Z"),
        ("2026-11-18T14:20:00Z", "2026-11-18T14:37:30Z"),
    ]


@fake_time
async def test_the_example_of_the_description_is_published():
    setup, body = Setup(), payload("v7/local-networks-topologies.json")
    setup.api.answers = [body.replace(b"1384309800", str(ROUND).encode())]
    assert await setup.source.poll() == {"rows": 2, "new": 2, "rejected": 0}
    await setup.source.refresh(polled=True)
    id_ = "861b7557-cd57-4bbb-b648-00bddf88ef49"
    targets = {
        "latency_seconds": 0.007, "max_latency_seconds": 0.066, "jitter_seconds": 0.011,
        "icmp_blocked": 1, "tcp_connect_seconds": 0.077777, "dns_resolution_seconds": 0.003,
        "score_ratio": 1,
    }  # fmt: skip
    agent = {
        "score_ratio": 1, "connection_score_ratio": 1, "cpu_utilization_ratio": 0.55,
        "memory_used_bytes": 1.77, "memory_size_bytes": 1024, "battery_level_ratio": 0.3,
    }  # fmt: skip
    assert setup.samples() == {
        **{(f"local_network_{name}", id_, "vpn"): value for name, value in targets.items()},
        **{(f"agent_{name}", id_): value for name, value in agent.items()},
    }
    assert samples(setup.source.result.tables)[TIMESTAMP, id_] == ROUND
