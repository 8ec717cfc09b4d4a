"""A real Prometheus scrapes the exporter, and reads what plain arithmetic says of the same company."""

import asyncio
import math
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import NOW, StillClock, ask, exporting, running, scraped_lines, simulated, tool, until

from benchmarks.processes import free_port
from exporter.metrics import FAMILIES
from exporter.simulator import World

PREFIX = "thousandeyes_endpoint_"
LOOKBACK = 900
Values = dict[tuple[str, str, str, str, str], float]
"""Family, account group, agent, site, protocol → value."""


class Prometheus:
    """A running Prometheus, asked by its API."""

    def __init__(self, address: str, http: aiohttp.ClientSession) -> None:
        self.address, self.http = address, http
        self.at: dict[str, str] = {}

    async def _query(self, expression: str) -> list[dict[str, Any]]:
        data = {"query": expression, **self.at}
        async with self.http.post(f"{self.address}/api/v1/query", data=data) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of every series that an instant query finds."""
        return [(each["metric"], float(each["value"][1])) for each in await self._query(expression)]

    async def scraped(self) -> None:
        """Wait for a whole scrape that begins after now; what is asked then is asked of its instant."""
        self.at = {}
        now = time.time()

        async def newest() -> float | None:
            times = [float(when) for it in await self._query("up[1m]") for when, up in it["values"] if up == "1"]
            return max((each for each in times if each > now), default=None)

        self.at = {"time": str(await until(newest, 20))}

    async def value(self, expression: str) -> float | None:
        """Return the only value of a query; None where there is none."""
        found = await self.query(expression)
        return found[0][1] if found else None

    async def own(self) -> dict[str, float]:
        """Return what it counts of its scrapes."""
        async with self.http.get(f"{self.address}/metrics") as response:
            text = await response.text()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {sample.name: sample.value for sample in samples if sample.name.startswith("prometheus_target_scrape")}

    async def sessions(self) -> Values:
        """Return the values of all per-session families."""
        names = "|".join(family.name for family in FAMILIES)
        return {
            (*(labels.get(name, "") for name in ("__name__", "aid", "agent", "site", "protocol")),): value  # type: ignore[misc]
            for labels, value in await self.query(f'{{__name__=~"{names}"}}')
        }


@asynccontextmanager
async def scraping(target: str, folder: Path) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes one address every second, from when it has done so first."""
    address = f"127.0.0.1:{free_port()}"
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n"
        f"- {{job_name: exporter, static_configs: [{{targets: ['{target.removeprefix('http://')}']}}]}}\n"
    )
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    async with running(tool("prometheus"), *flags, cwd=folder) as program, aiohttp.ClientSession() as http:
        await program.said("Server is ready to receive web requests")
        prometheus = Prometheus(f"http://{address}", http)
        await prometheus.scraped()
        yield prometheus


# What plain arithmetic says.


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def weighted(values: Sequence[tuple[float, int]]) -> float | None:
    return sum(value * count for value, count in values) / sum(count for _, count in values) if values else None


def pooled(samples: Sequence[Any]) -> float | None:
    """The standard deviation of all samples together, from those of the parts."""
    if not samples:
        return None
    total = sum(each.count for each in samples)
    middle = sum(each.mean * each.count for each in samples) / total
    return math.sqrt(sum(each.count * (each.std_dev**2 + (each.mean - middle) ** 2) for each in samples) / total)


def legs(sessions: Iterable[Any], leg: str, field: str, unit: float) -> list[float]:
    found = [getattr(session, leg) for session in sessions if session.measured]
    values = [getattr(each, field) for each in found if each is not None]
    return [value / unit for value in values if value is not None]


def system(prefix: str, unit: str, samples: list[Any]) -> dict[str, float | None]:
    return {
        f"{prefix}_{unit}": weighted([(each.mean, each.count) for each in samples]),
        f"{prefix}_min_{unit}": min((each.min for each in samples), default=None),
        f"{prefix}_max_{unit}": max((each.max for each in samples), default=None),
        f"{prefix}_median_{unit}": statistics.median([each.median for each in samples]) if samples else None,
        f"{prefix}_stddev_{unit}": pooled(samples),
    }


def of_key(sessions: list[Any], version: str) -> dict[str, float | None]:
    """What is to be published of one agent at one site: the sessions are those of its newest round."""
    periods = {(s.system.start_ms, s.system.end_ms): s.system for s in sessions if s.measured}.values()
    cpu = [period.cpu for period in periods if period.cpu]
    memory = [period.memory for period in periods]
    values: dict[str, float | None] = {
        "latency_seconds": mean(legs(sessions, "destination", "latency", 1000)),
        "jitter_seconds": mean(legs(sessions, "destination", "jitter", 1000)),
        "loss_ratio": mean(legs(sessions, "destination", "loss", 100)),
        **system("cpu_utilization", "ratio", cpu),
        **system("memory_used", "bytes", memory),
        "cpu_samples": sum(each.count for each in cpu) if cpu else None,
        "memory_samples": sum(each.count for each in memory) if memory else None,
        "memory_size_bytes": max((period.memory_total for period in periods), default=None),
        "experience_score": mean([s.experience_score for s in sessions if s.experience_score is not None]),
        "pages": sum(s.pages for s in sessions),
        "sessions": len(sessions),
        "round_timestamp_seconds": sessions[0].round_id,
    }
    if version == "v6":
        values["avg_rtt_seconds"] = mean(legs(sessions, "destination", "avg_rtt", 1000))
        values["max_rtt_seconds"] = max(legs(sessions, "destination", "max_rtt", 1000), default=None)
        values["mean_dev_rtt_seconds"] = mean(legs(sessions, "destination", "mean_dev_rtt", 1000))
    else:
        for leg in ("vpn", "proxy"):
            values[f"{leg}_latency_seconds"] = mean(legs(sessions, leg, "latency", 1000))
            values[f"{leg}_jitter_seconds"] = mean(legs(sessions, leg, "jitter", 1000))
            values[f"{leg}_loss_ratio"] = mean(legs(sessions, leg, "loss", 100))
    return values


def calculated(world: World, version: str, now: float = NOW, lookback: float = LOOKBACK) -> Values:
    """Calculate every per-session value from the company itself."""
    expected: Values = {}
    for group in world.groups:
        by_key = defaultdict(list)
        for session in world.sessions(group.aid, now - lookback - 60, now, now):
            if session.listed and session.round_id >= now - lookback:
                by_key[session.agent.id, session.site.host, session.site.protocol].append(session)
        for key, sessions in by_key.items():
            newest = max(session.round_id for session in sessions)
            values = of_key([session for session in sessions if session.round_id == newest], version)
            expected |= {(PREFIX + name, str(group.aid), *key): it for name, it in values.items() if it is not None}
    return expected


def differences(found: Values, expected: Values) -> list[str]:
    """Name what is missing, what is too much, and what has another value."""
    return [
        f"{key}: {found.get(key)} for {expected.get(key)}"
        for key in found.keys() | expected.keys()
        if key not in found or key not in expected or not math.isclose(found[key], expected[key], rel_tol=1e-12)
    ]


# The tests.


@pytest.mark.parametrize("version", ["v6", "v7"])
@pytest.mark.fault("S19")
async def test_prometheus_has_the_values_that_arithmetic_gives(tmp_path: Path, version: str) -> None:
    world = World(agents=70, sites=15, account_groups=2)
    async with (
        simulated(world, page_size=150) as (_, api),
        exporting(api, api__version=version, api__account_groups="all") as (_, address),
        scraping(address, tmp_path) as prometheus,
    ):
        assert await prometheus.value("up") == 1
        up = await prometheus.query("thousandeyes_up")
        assert [(labels["aid"], value) for labels, value in up] == [("1001", 1.0), ("1002", 1.0)]
        found, expected = await prometheus.sessions(), calculated(world, version)
        assert differences(found, expected) == []
        assert len(found) > 3000
        published = {name for name, *_ in found}
        only = {"v6": ("avg_rtt", "max_rtt", "mean_dev_rtt"), "v7": ("vpn_", "proxy_")}
        others = only["v7" if version == "v6" else "v6"]
        assert published == {it.name for it in FAMILIES if not it.short.startswith(others)}

        text = (await ask(f"{address}/metrics")).text
        assert await prometheus.value("scrape_samples_scraped") == len(scraped_lines(text))
        assert await prometheus.value("thousandeyes_exporter_series") == len(expected)
        assert len([line for line in scraped_lines(text) if line.startswith(tuple(published))]) >= len(expected)
        sites = {(str(s.agent.aid), s.site.host, s.site.protocol) for g in world.groups for s in seen(world, g.aid)}
        counted = await prometheus.query(f"{PREFIX}site_sessions_total")
        assert {(it["aid"], it["site"], it["protocol"]): value for it, value in counted} == dict.fromkeys(sites, 0.0)
        assert await prometheus.value(f"sum({PREFIX}agent_info)") == len(world.people)
        joined = f"count({PREFIX}sessions * on (aid, agent) group_left (agent_name, location) {PREFIX}agent_info)"
        assert await prometheus.value(joined) == await prometheus.value(f"count({PREFIX}sessions)")

        own = await prometheus.own()
        refused = {name: value for name, value in own.items() if name.startswith("prometheus_target_scrapes_")}
        for what in ("sample_duplicate_timestamp", "sample_out_of_order", "sample_out_of_bounds"):
            assert refused.pop(f"prometheus_target_scrapes_{what}_total") == 0
        assert set(refused.values()) == {0.0}
        assert await prometheus.query('{__name__=~".+_created"}') == []


def seen(world: World, aid: int) -> list[Any]:
    """The user sessions inside the look-back."""
    sessions = world.sessions(aid, NOW - LOOKBACK, NOW, NOW)
    return [each for each in sessions if each.listed and each.round_id >= NOW - LOOKBACK]


async def test_a_vanished_agent_has_left_after_one_look_back(tmp_path: Path) -> None:
    world, clock = World(agents=20, sites=5), StillClock()
    settings = {"poll__interval": "1s", "poll__lookback": "3m", "poll__overlap": "1m"}
    gone = next(session.agent.id for session in world.sessions(1001, NOW - 60, NOW, NOW) if session.listed)
    names = "|".join(family.name for family in FAMILIES)
    async with (
        simulated(world, clock=clock) as (simulator, api),
        exporting(api, **settings) as (exporter, address),
        scraping(address, tmp_path) as prometheus,
    ):
        poller = exporter.pollers["1001"]

        async def series() -> float:
            return await prometheus.value(f'count({{__name__=~"{names}", agent="{gone}"}})') or 0

        async def polled() -> None:
            """Wait for two ends of polls: the second began after now, and Prometheus has seen it."""
            for _ in range(2):
                result = poller.result.rows
                await until(lambda before=result: poller.result.rows is not before)
            await prometheus.scraped()

        assert await series() > 10
        simulator.world = world.vanishing({gone: NOW})
        clock.now += 60
        await polled()
        assert await series() > 10
        while clock.now < NOW + 180:
            clock.now += 30
            await asyncio.sleep(0.3)
        await polled()
        assert await series() == 0
        assert await prometheus.value("thousandeyes_up") == 1
        others = differences(await prometheus.sessions(), calculated(simulator.world, "v7", clock.now, 180))
        assert others == []
