"""The usual exporter in Python: json, pydantic, prometheus-client, gzip.

It publishes the same per-session gauges as the exporter, and no histograms. `poll FOLDER OUTPUT`
writes the compressed exposition and prints the CPU seconds; `serve FOLDER PORT` serves it.
"""

# ruff: noqa: T201

import gzip
import json
import sys
import time
from operator import attrgetter
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler
from pydantic import create_model

from benchmarks.data import AID, read
from exporter.sources.sessions import SERIES

FAMILIES = [
    each for each in SERIES.families if not each.note.startswith("API v")
]  # of all versions
NAMES = ("mean", "min", "max", "median", "stdDev", "count")
Stats = create_model("Stats", **dict.fromkeys(NAMES, float))  # type: ignore[call-overload]
Ping = create_model("Ping", latency=float, jitter=float, loss=float)
System = create_model(
    "System", cpuUtilization=Stats, physicalMemoryUsedBytes=Stats, physicalMemoryTotalBytes=float
)
Session: Any = create_model(
    "Session",
    agentId=str,
    visitedSite=str,
    protocol=str,
    roundId=int,
    numberOfPages=int,
    experienceScore=float,
    destination=Ping,
    systemMetrics=System,
)


def create_registry(folder: Path) -> prometheus.CollectorRegistry:
    """Turn the pages of a poll into metrics; the newest session of each series counts."""
    users, networks = (
        [record for page in read(folder, listing) for record in json.loads(page)["results"]]
        for listing in ("users", "networks")
    )
    by_id = {each["id"]: each for each in networks}
    sessions = (Session.model_validate({**by_id[each["id"]], **each}) for each in users)  # by date
    newest = {(each.agentId, each.visitedSite, each.protocol): each for each in sessions}
    registry, labels = prometheus.CollectorRegistry(), ("aid", *SERIES.labels)
    for family in FAMILIES:
        gauge = prometheus.Gauge(family.name, family.help, labels, registry=registry)
        value = attrgetter(family.field) if family.field else lambda _: 1
        for key, session in newest.items():
            gauge.labels(AID, *key).set(value(session) / family.unit.divisor)
    return registry


if __name__ == "__main__":
    _, command, folder, argument = sys.argv
    start = time.process_time()
    registry = create_registry(Path(folder))
    if command == "serve":
        app = web.Application()
        app.router.add_get("/metrics", make_aiohttp_handler(registry))
        web.run_app(app, host="127.0.0.1", port=int(argument), print=None, access_log=None)
    else:
        exposition = gzip.compress(prometheus.generate_latest(registry), compresslevel=6)
        print(time.process_time() - start)
        Path(argument).write_bytes(exposition)
