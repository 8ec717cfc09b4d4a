"""A real Prometheus scrapes the exporter and has the values that plain arithmetic gives."""

import math
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from integration.test_sources import expected as expected_networks
from prometheus_client.parser import text_string_to_metric_families
from system import servers
from system.servers import AFTERNOON, Server, until

from exporter.simulator import World
from exporter.sources.sessions import SERIES

PREFIX = "thousandeyes_endpoint_"
LOOKBACK = 900
LABELS = ("__name__", "aid", "agent", "site", "protocol")
Values = dict[tuple[str, ...], float]
"""By metric name, account group, agent, site and protocol."""
ONLY_V6 = {f"{PREFIX}{name}_seconds" for name in ("avg_rtt", "max_rtt", "mean_dev_rtt")}
ONLY_V7 = {
    family.name for family in SERIES.families if family.short_name.startswith(("vpn_", "proxy_"))
}


@asynccontextmanager
async def scraped(world: World, folder: Path, version: str) -> AsyncIterator[tuple[Server, Server]]:
    """Run exporter and Prometheus, and wait for a scrape of the complete data."""
    address = f"127.0.0.1:{servers.free_port()}"
    settings = {"api__version": version, "api__account_groups": "all"}
    async with (
        servers.simulator(world) as (_, api),
        servers.exporter(api, address, **settings) as source,
        servers.prometheus(folder, servers.scrape_config(address)) as target,
    ):
        agents = f"count({PREFIX}agent_info) == {len(world.agents)}"
        await until(lambda: target.query(f"{agents} and min(thousandeyes_up) == 1"))
        yield source, target


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def measured(sessions: Iterable[Any], target: str, field: str, divisor: float) -> list[float]:
    found = [getattr(each, target) for each in sessions if each.measured]
    values = [getattr(each, field) for each in found if each is not None]
    return [value / divisor for value in values if value is not None]


def summary(prefix: str, unit: str, samples: Sequence[Any]) -> dict[str, float | None]:
    if not samples:
        return {}
    total = sum(each.count for each in samples)
    center = sum(each.mean * each.count for each in samples) / total
    squares = sum(s.count * (s.std_dev**2 + (s.mean - center) ** 2) for s in samples)
    return {
        f"{prefix}_{unit}": center,
        f"{prefix}_min_{unit}": min(each.min for each in samples),
        f"{prefix}_max_{unit}": max(each.max for each in samples),
        f"{prefix}_median_{unit}": statistics.median(each.median for each in samples),
        f"{prefix}_stddev_{unit}": math.sqrt(squares / total),
        f"{prefix.partition('_')[0]}_samples": total,
    }


def calculate(sessions: list[Any]) -> dict[str, float | None]:
    """Return the values of one series key, given the sessions of its newest round."""
    periods = {
        (s.system.start_time_ms, s.system.end_time_ms): s.system for s in sessions if s.measured
    }
    cpu = [each.cpu_utilization for each in periods.values() if each.cpu_utilization]
    memory = [each.physical_memory_used_bytes for each in periods.values()]
    values: dict[str, float | None] = {
        **summary("cpu_utilization", "ratio", cpu),
        **summary("memory_used", "bytes", memory),
        "memory_size_bytes": max(
            (each.physical_memory_total_bytes for each in periods.values()), default=None
        ),
        "experience_score": mean(
            [s.experience_score for s in sessions if s.experience_score is not None]
        ),
        "pages": sum(session.pages for session in sessions),
        "sessions": len(sessions),
        "round_timestamp_seconds": sessions[0].round_id,
        "avg_rtt_seconds": mean(measured(sessions, "destination", "latency", 1000)),
        "max_rtt_seconds": max(measured(sessions, "destination", "max_rtt", 1000), default=None),
        "mean_dev_rtt_seconds": mean(measured(sessions, "destination", "jitter", 1000)),
    }
    for prefix, target in (("", "destination"), ("vpn_", "vpn"), ("proxy_", "proxy")):
        values[f"{prefix}latency_seconds"] = mean(measured(sessions, target, "latency", 1000))
        values[f"{prefix}jitter_seconds"] = mean(measured(sessions, target, "jitter", 1000))
        values[f"{prefix}loss_ratio"] = mean(measured(sessions, target, "loss", 100))
    return values


def expected(world: World, version: str) -> Values:
    """Calculate all per-session values from the simulated company."""
    found: Values = {}
    absent = ONLY_V7 if version == "v6" else ONLY_V6
    for aid in world.groups:
        by_key = defaultdict(list)
        for session in world.sessions(aid, AFTERNOON - LOOKBACK - 60, AFTERNOON, AFTERNOON):
            if session.listed and session.round_id >= AFTERNOON - LOOKBACK:
                key = (str(aid), session.agent.id, session.site.host, session.site.protocol)
                by_key[key].append(session)
        for key, sessions in by_key.items():
            newest = max(session.round_id for session in sessions)
            values = calculate([each for each in sessions if each.round_id == newest])
            found |= {(PREFIX + name, *key): v for name, v in values.items() if v is not None}
    return {key: value for key, value in found.items() if key[0] not in absent}


@pytest.mark.parametrize("version", ["v6", "v7"])
async def test_prometheus_has_the_calculated_values(tmp_path: Path, version: str) -> None:
    world = World(agents=70, sites=15, account_groups=2)
    async with scraped(world, tmp_path, version) as (_, target):
        names = "|".join(family.name for family in SERIES.families)
        series = await target.query(f'{{__name__=~"{names}"}}')
        values = expected(world, version)
        found = {tuple(s["metric"][n] for n in LABELS): float(s["value"][1]) for s in series}
        assert len(found) > 3000
        assert found == pytest.approx(values, rel=1e-12)
        assert await target.value("thousandeyes_exporter_series") == len(values)
        if version == "v7":
            networks = expected_networks(world, AFTERNOON, LOOKBACK)
            await until(lambda: target.query('min(thousandeyes_up{source="local_networks"}) == 1'))
            names = "|".join(PREFIX + name for name in {key[0] for key in networks})
            series = await target.query(f'{{__name__=~"{names}",aid="1001"}}')
            labels = [{"target_type": "", **each["metric"]} for each in series]
            keys = [
                (e["__name__"].removeprefix(PREFIX), e["agent"], e["target_type"]) for e in labels
            ]
            found_networks = {k: float(s["value"][1]) for k, s in zip(keys, series, strict=True)}
            assert len(networks) > 300
            assert found_networks == pytest.approx(networks, rel=1e-12)


async def test_prometheus_ingests_every_sample(tmp_path: Path) -> None:
    async with scraped(World(agents=40, sites=8), tmp_path, "v7") as (source, target):
        text = await source.get("/metrics")
        families = text_string_to_metric_families(text)
        samples = sum(len(family.samples) for family in families)
        assert await target.value("scrape_samples_scraped") == samples
        assert await target.query('{__name__=~".+_created"}') == []
        own = text_string_to_metric_families(await target.get("/metrics"))
        rejected = {
            sample.name: sample.value
            for family in own
            for sample in family.samples
            if sample.name.startswith("prometheus_target_scrapes_")
        }
        assert "prometheus_target_scrapes_sample_duplicate_timestamp_total" in rejected
        assert set(rejected.values()) == {0.0}


async def test_names_and_help_texts_pass_promtool(tmp_path: Path) -> None:
    file = tmp_path / "metrics.txt"
    async with (
        servers.simulator(World(agents=10, sites=4)) as (_, api),
        servers.exporter(api) as source,
    ):
        file.write_text(await source.get("/metrics"))
    with file.open() as text:
        assert await servers.run("promtool", "check", "metrics", stdin=text) == ""
