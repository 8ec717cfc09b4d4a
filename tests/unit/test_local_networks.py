"""The source of local networks: what each probe publishes of its target and of its agent."""

import json
from typing import Any

import pytest
from api_records import FakeApi, payload, samples
from fake_clock import WALL_START, fake_clock, fake_time

from exporter.clock import ApiClock
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources import local_networks
from exporter.sources.session_filter import SessionFilter, compile_pattern
from exporter.sources.source import Context

ROUND = int(WALL_START) // 300 * 300  # in which the tests start


def row(type_: str | None = "gateway", agent: str = "a", start: int = ROUND, **fields: Any) -> Any:
    """Return a probe as the API sends it."""
    return {"agentId": agent, "roundId": start, "type": type_, **fields}


class Setup:
    """A source that publishes rows for 15 minutes."""

    def __init__(self, excluded_agent: str = "", **search: list[str]) -> None:
        self.api, self.metrics = FakeApi(), SelfMetrics(process=False)
        agents = SessionFilter(exclude_agents=[compile_pattern(excluded_agent)])
        tables = [local_networks.TARGETS, local_networks.AGENTS]
        config = local_networks.LocalNetworksConfig(300, 900, 600, tables, search, agents)
        context = Context(self.api, ApiClock(fake_clock()), self.metrics)
        self.source = local_networks.LocalNetworksSource("7", context, config)

    async def poll(self, *rows: Any) -> dict[tuple[str, ...], float]:
        """Poll once; return the samples: short name, agent, and type of target if any."""
        self.api.answers = [list(rows)]
        self.polled = await self.source.poll()
        assert await self.source.refresh(polled=True)
        found = samples(self.source.result.tables)
        rounds = {key: found.pop(key) for key in list(found) if "_round_timestamp_" in key[0]}
        assert set(rounds.values()) <= {ROUND, ROUND + 60}
        return found


@fake_time
async def test_the_example_of_the_description_is_published():
    rows = json.loads(payload("v7/local-networks-topologies.json"))["results"]
    setup, id_ = Setup(), "861b7557-cd57-4bbb-b648-00bddf88ef49"
    targets = {
        "latency_seconds": 0.007, "max_latency_seconds": 0.066, "jitter_seconds": 0.011,
        "icmp_blocked": 1, "tcp_connect_seconds": 0.077777, "dns_resolution_seconds": 0.003,
        "score_ratio": 1,
    }  # fmt: skip
    agent = {
        "score_ratio": 1, "connection_score_ratio": 0.5, "cpu_utilization_ratio": 0.55,
        "memory_used_bytes": 1.77, "memory_size_bytes": 1024, "battery_level_ratio": 0.3,
    }  # fmt: skip
    changes = {"roundId": ROUND, "connectionScore": {"score": 50}, "proxyScore": {"score": 9}}
    assert await setup.poll(*(each | changes for each in rows)) == {
        **{(f"local_network_{name}", id_, "vpn"): value for name, value in targets.items()},
        **{(f"agent_{name}", id_): value for name, value in agent.items()},
    }
    assert setup.polled == {"rows": 2, "new": 2, "rejected": 0}


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
    setup = Setup(excluded_agent="b")
    future = row(agent="c", start=int(WALL_START) + 61)
    found = await setup.poll(*(row(agent=x, icmpPing={"loss": 10}) for x in "aab"), future, {})
    assert found == {("local_network_loss_ratio", "a", "gateway"): 0.1}
    for reason in ("filtered", "bad_time", "missing_field"):
        labels = {"aid": "7", "source": "local_networks", "reason": reason}
        name = "thousandeyes_exporter_records_rejected_total"
        assert setup.metrics.registry.get_sample_value(name, labels) == 1


@fake_time
async def test_requests_have_whole_rounds_the_filter_and_the_lowest_priority():
    setup = Setup(type=["vpn", "dns"])
    await setup.poll()
    (request,) = setup.api.requests
    assert request.path == "/v7/endpoint/test-results/local-networks/topologies/filter"
    assert (request.aid, request.priority) == ("7", 2)
    assert request.body == {"searchFilters": {"type": ["vpn", "dns"]}}
    assert [*request.query.values()] == ["2026-11-18T14:15:00Z", "2026-11-18T14:32:30Z"]
