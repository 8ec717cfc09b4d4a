"""The usual way in Python: json, pydantic, dictionaries of lists, `Gauge.labels().set()`, `generate_latest`, gzip.

It publishes the same samples as the exporter, written as such exporters are: a reference, not a straw man, so models
have only the fields that are needed, and nothing is computed twice.
"""

# ruff: noqa: N815 - the API's own names

import gzip
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel

from benchmarks.data import AID, END, Pages
from exporter.metrics import FAMILIES

LOOKBACK = 900
LABELS = ("aid", "agent", "site", "protocol")


class User(BaseModel):
    """A user session."""

    id: str
    agentId: str
    roundId: int
    visitedSite: str = ""
    protocol: str = ""
    experienceScore: float | None = None
    numberOfPages: int | None = None


class Leg(BaseModel):
    """A network path that was measured."""

    latency: float | None = None
    jitter: float | None = None
    loss: float | None = None


class Samples(BaseModel):
    """A quantity over a period."""

    min: float | None = None
    max: float | None = None
    mean: float | None = None
    median: float | None = None
    stdDev: float | None = None
    count: int | None = None


class SystemMetrics(BaseModel):
    """What the agent measured of its own machine."""

    startTimeMs: int | None = None
    endTimeMs: int | None = None
    cpuUtilization: Samples | None = None
    physicalMemoryUsedBytes: Samples | None = None
    physicalMemoryTotalBytes: float | None = None


class Network(BaseModel):
    """A network session."""

    id: str
    roundId: int
    destination: Leg | None = None
    systemMetrics: SystemMetrics | None = None


Key = tuple[str, str, str]


@dataclass(slots=True)
class Newest:
    """The sessions of the newest round of a key."""

    round: int
    sessions: list[tuple[User, Network | None]]


def poll(pages: Pages) -> bytes:
    """Take the pages of one poll; return the compressed exposition."""
    return gzip.compress(generate_latest(registry(pages)), compresslevel=6)


def registry(pages: Pages) -> CollectorRegistry:
    """Take the pages of one poll; return gauges that are set to what it found."""
    users = [User(**record) for page in pages.users for record in json.loads(page)["results"]]
    networks = {record["id"]: Network(**record) for page in pages.networks for record in json.loads(page)["results"]}
    registry = CollectorRegistry()
    gauges = {family.short: Gauge(family.name, family.help, LABELS, registry=registry) for family in FAMILIES}
    for key, newest in _newest(users, networks).items():
        for short, value in _values(newest):
            gauges[short].labels(AID, *key).set(value)
    return registry


def _newest(users: Iterable[User], networks: dict[str, Network]) -> dict[Key, Newest]:
    found: dict[Key, Newest] = {}
    for user in users:
        if not END - LOOKBACK <= user.roundId <= END:
            continue
        key = (user.agentId, user.visitedSite, user.protocol)
        newest = found.get(key)
        if newest is None or user.roundId > newest.round:
            newest = found[key] = Newest(user.roundId, [])
        if user.roundId == newest.round:
            newest.sessions.append((user, networks.get(user.id)))
    return found


def _values(newest: Newest) -> Iterator[tuple[str, float]]:
    """Yield the samples of one key: short name of the family, value in its unit."""
    fields: dict[str, list[float]] = defaultdict(list)
    periods: dict[tuple[int | None, int | None], SystemMetrics] = {}
    for user, network in newest.sessions:
        _take(fields, user, "experienceScore", "numberOfPages")
        if network and network.destination:
            _take(fields, network.destination, "latency", "jitter", "loss")
        if network and (system := network.systemMetrics):
            periods.setdefault((system.startTimeMs, system.endTimeMs), system)
    for short, field, divisor in (("latency", "latency", 1000), ("jitter", "jitter", 1000), ("loss", "loss", 100)):
        if values := fields[field]:
            yield f"{short}_{'ratio' if short == 'loss' else 'seconds'}", statistics.fmean(values) / divisor
    systems = list(periods.values())
    cpus = [system.cpuUtilization for system in systems if system.cpuUtilization]
    yield from _system("cpu_utilization{}_ratio", "cpu_samples", cpus)
    memories = [system.physicalMemoryUsedBytes for system in systems if system.physicalMemoryUsedBytes]
    yield from _system("memory_used{}_bytes", "memory_samples", memories)
    if sizes := [system.physicalMemoryTotalBytes for system in systems if system.physicalMemoryTotalBytes is not None]:
        yield "memory_size_bytes", max(sizes)
    if scores := fields["experienceScore"]:
        yield "experience_score", statistics.fmean(scores)
    if counts := fields["numberOfPages"]:
        yield "pages", sum(counts)
    yield "sessions", len(newest.sessions)
    yield "round_timestamp_seconds", newest.round


def _take(fields: dict[str, list[float]], record: BaseModel, *names: str) -> None:
    for name in names:
        if (value := getattr(record, name)) is not None:
            fields[name].append(value)


def _system(names: str, samples: str, periods: list[Samples]) -> Iterator[tuple[str, float]]:
    """Yield the samples of one quantity of the system, of periods that differ."""
    fields: dict[str, list[float]] = defaultdict(list)
    for period in periods:
        _take(fields, period, "min", "max", "median", "count")
    weighed = [(each.mean, each.count or 1) for each in periods if each.mean is not None]
    if weighed:
        yield names.format(""), sum(mean * count for mean, count in weighed) / sum(count for _, count in weighed)
    for statistic, over in (("min", min), ("max", max), ("median", statistics.median)):
        if values := fields[statistic]:
            yield names.format(f"_{statistic}"), over(values)
    spread = [(s.stdDev, s.mean, s.count or 1) for s in periods if s.stdDev is not None and s.mean is not None]
    if spread:
        total = sum(count for _, _, count in spread)
        middle = sum(mean * count for _, mean, count in spread) / total
        yield (
            names.format("_stddev"),
            math.sqrt(sum(count * (own**2 + (mean - middle) ** 2) for own, mean, count in spread) / total),
        )
    if counts := fields["count"]:
        yield samples, sum(counts)
