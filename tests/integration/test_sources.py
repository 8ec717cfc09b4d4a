"""Sources of one account group: published values, failures of one of them, and privacy."""

import asyncio
import gc
import statistics
from collections import defaultdict
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import pytest
from aiohttp import web
from failures.harness import Trial, trial
from fake_clock import fake_time
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.self_metrics import SelfMetrics
from exporter.simulator import Fault, World, v7
from exporter.simulator.api import ApiRequest, Payload
from exporter.simulator.faults import error, records
from exporter.thousandeyes.api import Api

PREFIX = "thousandeyes_endpoint_"
WORLD = World(agents=30, sites=5)
TYPES = ("gateway", "vpn", "proxy", "dns")
PATHS = {"agents": "endpoint/agents", "local_networks": "local-networks"}
FAMILIES = {"agents": "agent_connection_info", "local_networks": "local_network_score_ratio"}
Samples = dict[tuple[str, ...], float]
"""By metric name, agent and type of target."""


async def samples(t: Trial) -> Samples:
    """Return the published samples of agents and their targets, with names without prefix."""
    return {
        (s.name.removeprefix(PREFIX), s.labels["agent"], s.labels.get("target_type", "")): s.value
        for family in text_string_to_metric_families(await t.get("/metrics"))
        for s in family.samples
        if s.name.startswith((f"{PREFIX}local_network", f"{PREFIX}agent_"))
    }


def mean(rows: list[Payload], *path: str, divisor: float = 1.0) -> dict[str, float]:
    """Return the mean of a field over the rows that have it, in base units, if any."""
    found = []
    for row in rows:
        value: Any = row
        for name in path:
            value = value.get(name, {})
        if value != {}:
            found.append(value / divisor)
    return {"": statistics.fmean(found)} if found else {}


def expected(world: World, now: float, lookback: float) -> Samples:
    """Calculate the values of local networks from the simulated company in plain Python."""
    by_agent = defaultdict(list)
    for probe in world.probes(1001, now - lookback, now, now):
        if probe.round_id >= now - lookback:
            by_agent[probe.agent.id].append(v7.local_network(probe))
    values: dict[tuple[str, ...], dict[str, float]] = {}
    for agent, rows in by_agent.items():
        for type_ in ("", *TYPES):
            those = [row for row in rows if type_ in ("", row["type"])]
            newest = max((row["roundId"] for row in those), default=0)
            those = [row for row in those if row["roundId"] == newest]
            if not those:
                continue
            unblocked = [row for row in those if not row["isIcmpBlocked"]]
            target = {
                "local_network_latency_seconds": mean(those, "icmpPing", "avgRtt", divisor=1000),
                "local_network_loss_ratio": mean(unblocked, "icmpPing", "loss", divisor=100),
                "local_network_icmp_blocked": {
                    "": float(any(row["isIcmpBlocked"] for row in those))
                },
                "local_network_tcp_connect_seconds": mean(those, "tcpConnect", "rtt", divisor=1000),
                "local_network_dns_resolution_seconds": mean(
                    those, "dnsServerTest", "resolutionTime", divisor=1000
                ),
                "local_network_score_ratio": mean(those, f"{type_}Score", "score", divisor=100),
            }
            whole = {
                "agent_score_ratio": mean(those, "agentScore", "score", divisor=100),
                "agent_connection_score_ratio": mean(
                    those, "connectionScore", "score", divisor=100
                ),
                "agent_cpu_utilization_ratio": mean(
                    those, "systemMetrics", "cpuUtilization", "mean"
                ),
                "agent_memory_used_bytes": mean(
                    those, "systemMetrics", "physicalMemoryUsedBytes", "mean"
                ),
                "agent_battery_level_ratio": mean(
                    those, "batteryMetrics", "batteryLevelNormalizedPercent"
                ),
                "agent_local_network_round_timestamp_seconds": {"": newest},
            }
            for name, value in (target if type_ else whole).items():
                values |= {(name, agent, type_): value} if value else {}
    return {key: value[""] for key, value in values.items()}


@fake_time
async def test_local_networks_have_the_calculated_values() -> None:
    async with trial(world=WORLD) as t:
        await t.until(lambda: bool(t.value("polls_total", source="local_networks")))
        poller = next(p for p in t.exporter.manager.pollers if p.source.name == "local_networks")
        polled = poller.last_success
        assert polled
        await asyncio.sleep(0.5)
        found = await samples(t)
        values = expected(WORLD, polled, 900)
        assert len(values) > 300
        assert {key: found.get(key) for key in values} == pytest.approx(values)
        types = {key[2] for key in found if key[0].startswith("local_network")}
        assert types == set(TYPES)


@pytest.mark.parametrize("source", PATHS)
@fake_time
async def test_a_failing_source_leaves_the_others_untouched(source: str) -> None:
    async with trial(world=WORLD) as t:
        await t.until(lambda: bool(t.value("thousandeyes_up", source=source)))
        before = await samples(t)
        failing = error(500, "Internal Server Error", paths=PATHS[source])
        t.simulator.faults = (Fault("failing", "", failing),)
        await t.until(lambda: not t.value("thousandeyes_up", source=source), 400)
        others = {"sessions", "agents", "local_networks"} - {source}
        assert all(t.value("thousandeyes_up", source=each) for each in others)
        assert FAMILIES[source] in {key[0] for key in await samples(t)}
        await asyncio.sleep(1000)  # longer than the look-back
        names = {key[0] for key in await samples(t)}
        assert (FAMILIES[source] in names) == (source == "agents")  # agents do not expire
        assert sum("poll_failed" in line and source in line for line in t.log) == 1
        t.simulator.faults = ()
        await t.until(lambda: bool(t.value("thousandeyes_up", source=source)), 305)
        await asyncio.sleep(0.5)
        assert FAMILIES[source] in {key[0] for key in await samples(t)}
        assert before


@fake_time
async def test_the_exporter_is_healthy_while_the_first_poll_of_sessions_takes_long() -> None:
    async with trial(ready=False, agents__interval="1m", api__requests_per_minute=1) as t:
        await t.until(lambda: bool(t.aids))
        for _ in range(30):
            await t.get("/-/healthy")
            await asyncio.sleep(10)


def _fail_later_pages(request: ApiRequest) -> web.Response | None:
    later = "local-networks" in request.path and "cursor" in request.params
    return error(500, "Internal Server Error")(request) if later else None


@fake_time
async def test_a_partial_poll_of_local_networks_is_not_published() -> None:
    later = Fault("later_pages", "", _fail_later_pages)
    async with trial(world=WORLD, initial_faults=(later,), ready=False) as t:
        t.simulator.page_size = 10
        await t.until(lambda: bool(t.value("polls_total", source="local_networks")), 400)
        assert not t.value("thousandeyes_up", source="local_networks")
        assert not [key for key in await samples(t) if key[0].startswith("local_network")]


@fake_time
async def test_series_of_a_vanished_agent_expire_within_the_lookback() -> None:
    async with trial(world=WORLD) as t:
        await t.until(lambda: bool(t.value("thousandeyes_up", source="local_networks")))
        await asyncio.sleep(0.5)
        agent = next(key[1] for key in await samples(t) if key[0] == FAMILIES["local_networks"])

        def vanish(_request: ApiRequest, payload: Payload) -> None:
            found = records(payload)
            found[:] = [
                each for each in found if agent not in (each.get("agentId"), each.get("id"))
            ]

        t.simulator.faults = (Fault("vanished", "", payload=vanish),)
        await asyncio.sleep(900 + 60)
        left = await samples(t)
        assert left
        assert agent not in {key[1] for key in left}


READ = {
    "id", "agentId", "name", "platform", "version", "osVersion", "locationName", "visitedSite",
    "protocol", "date", "committed", "lastSeen", "type", "hardwareType", "asName", "vpnType",
    "reasonCode",
}  # fmt: skip
"""Fields with text that the exporter reads."""


def _canaries(_request: ApiRequest, payload: Payload) -> None:
    for record in records(payload):
        _replace_text(record)


def _replace_text(value: Any) -> Any:
    """Replace all text by a canary, except in the fields that the exporter reads."""
    if isinstance(value, dict):
        for name in value.keys() - READ:
            value[name] = _replace_text(value[name])
    elif isinstance(value, list):
        value[:] = map(_replace_text, value)
    return f"canary-{value}" if isinstance(value, str) else value


def texts(*roots: object) -> Iterator[str]:
    """Yield all text that objects hold, directly or indirectly."""
    skipped = (ModuleType, type, FunctionType, BuiltinFunctionType, MethodType, Api, SelfMetrics)
    seen, stack = set[int](), list(roots)
    while stack:
        each = stack.pop()
        if id(each) in seen or isinstance(each, (*skipped, asyncio.AbstractEventLoop)):
            continue
        seen.add(id(each))
        if isinstance(each, str | bytes):
            yield str(each)
        stack += gc.get_referents(each)
        stack += [getattr(each, name, None) for name in getattr(each, "__struct_fields__", ())]


@fake_time
async def test_no_personal_data_is_read() -> None:
    canaries = Fault("canaries", "", payload=_canaries)
    async with trial(world=WORLD, initial_faults=(canaries,)) as t:
        for source in PATHS:
            await t.until(lambda name=source: bool(t.value("thousandeyes_up", source=name)))
        await asyncio.sleep(0.5)
        published = await t.get("/metrics") + await t.get("/") + "\n".join(t.log)
        pollers = t.exporter.manager.pollers
        held = list(texts(*(vars(each.source) for each in pollers), t.exporter.publisher.current))
        assert WORLD.agents[0].id in held
        assert not [text for text in (published, *held) if "canary-" in text.replace(t.url, "")]
        assert (FAMILIES["agents"], WORLD.agents[0].id, "") in await samples(t)
