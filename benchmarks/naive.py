"""The usual exporter in Python: json, pydantic, prometheus-client, gzip.

It publishes the same per-session gauges as the exporter, and no histograms. `poll FOLDER OUTPUT`
writes the compressed exposition and prints the CPU seconds; `serve FOLDER PORT` serves it.
"""

# ruff: noqa: D101, T201

import gzip
import json
import math
import sys
import time
from pathlib import Path
from statistics import fmean, median

import prometheus_client as prometheus
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from benchmarks.data import AID, read
from exporter.sources.sessions import SERIES

LABELS = ("aid", "agent", "site", "protocol")


class Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class UserSession(Record):
    id: str
    agent_id: str
    round_id: int
    visited_site: str
    protocol: str
    experience_score: float
    number_of_pages: int


class NetworkPath(Record):
    latency: float
    jitter: float
    loss: float


class Statistics(Record):
    min: float
    max: float
    mean: float
    median: float
    std_dev: float
    count: int


class SystemMetrics(Record):
    start_time_ms: int
    end_time_ms: int
    cpu_utilization: Statistics
    physical_memory_used_bytes: Statistics
    physical_memory_total_bytes: float


class NetworkSession(Record):
    id: str
    destination: NetworkPath
    system_metrics: SystemMetrics


def create_registry(folder: Path) -> prometheus.CollectorRegistry:
    """Turn the pages of a poll into metrics."""
    users, networks = (
        [record for page in read(folder, listing) for record in json.loads(page)["results"]]
        for listing in ("users", "networks")
    )
    by_id = {each["id"]: NetworkSession.model_validate(each) for each in networks}
    newest: dict[tuple[str, str, str], list[tuple[UserSession, NetworkSession]]] = {}
    for user in map(UserSession.model_validate, users):
        known = newest.setdefault((user.agent_id, user.visited_site, user.protocol), [])
        if known and known[0][0].round_id < user.round_id:
            known.clear()
        if not known or known[0][0].round_id == user.round_id:
            known.append((user, by_id[user.id]))
    registry = prometheus.CollectorRegistry()
    gauges = {
        family.short_name: prometheus.Gauge(family.name, family.help, LABELS, registry=registry)
        for family in SERIES.families
    }
    for key, group in newest.items():
        for name, value in _aggregate(group).items():
            gauges[name].labels(AID, *key).set(value)
    return registry


def _aggregate(sessions: list[tuple[UserSession, NetworkSession]]) -> dict[str, float]:
    """Return the values of all gauges of a series key."""
    users = [user for user, _ in sessions]
    paths = [network.destination for _, network in sessions]
    systems = [network.system_metrics for _, network in sessions]
    periods = {(each.start_time_ms, each.end_time_ms): each for each in systems}.values()
    return {
        "latency_seconds": fmean(each.latency for each in paths) / 1000,
        "jitter_seconds": fmean(each.jitter for each in paths) / 1000,
        "loss_ratio": fmean(each.loss for each in paths) / 100,
        **_combine("cpu", "utilization", "ratio", [p.cpu_utilization for p in periods]),
        **_combine("memory", "used", "bytes", [p.physical_memory_used_bytes for p in periods]),
        "memory_size_bytes": max(each.physical_memory_total_bytes for each in periods),
        "experience_score": fmean(each.experience_score for each in users),
        "pages": sum(each.number_of_pages for each in users),
        "sessions": len(users),
        "round_timestamp_seconds": users[0].round_id,
    }


def _combine(what: str, of: str, unit: str, periods: list[Statistics]) -> dict[str, float]:
    """Combine the statistics of several periods."""
    count = sum(each.count for each in periods)
    mean = sum(each.mean * each.count for each in periods) / count
    squares = sum(each.count * (each.std_dev**2 + (each.mean - mean) ** 2) for each in periods)
    return {
        f"{what}_{of}_{unit}": mean,
        f"{what}_{of}_min_{unit}": min(each.min for each in periods),
        f"{what}_{of}_max_{unit}": max(each.max for each in periods),
        f"{what}_{of}_median_{unit}": median(each.median for each in periods),
        f"{what}_{of}_stddev_{unit}": math.sqrt(squares / count),
        f"{what}_samples": count,
    }


if __name__ == "__main__":
    _, command, folder, argument = sys.argv
    start = time.process_time()
    registry = create_registry(Path(folder))
    if command == "serve":
        app = web.Application()
        app.router.add_get("/metrics", make_aiohttp_handler(registry))
        web.run_app(app, host="127.0.0.1", port=int(argument), print=None, access_log=None)
        sys.exit()
    exposition = gzip.compress(prometheus.generate_latest(registry), compresslevel=6)
    print(time.process_time() - start)
    Path(argument).write_bytes(exposition)
