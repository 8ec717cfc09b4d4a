"""What Prometheus needs for rules and dashboards, in docs/sizing.md: `make bench-queries`.

Prometheus is filled with six hours of a simulated company on a weekday: the series that the
exporter publishes and that rules record every hour, interpolated to one sample a minute.
"""

# ruff: noqa: T201

import asyncio
import gzip
import json
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import numpy as np
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.data import END
from benchmarks.ours import PolledExporter, simulated
from benchmarks.programs import ROOT, Server, server
from grafana.generate import FOLDER
from grafana.interpolation import DEFAULTS, interpolate

RULES = yaml.safe_load((ROOT / "deploy/prometheus/thousandeyes.rules.yml").read_text())
TARGET = {"job": "thousandeyes", "instance": "exporter:9350"}
INTERVALS = {"__rate_interval": "4m", "__range": "6h", "__interval": "1m"}
START, CHUNK_SECONDS, INTERVAL = END - 6 * 3600, 3600, 60
Series = dict[frozenset[tuple[str, str]], float]  # newest value by labels


def published(exporter: PolledExporter) -> Series:
    """Return what Prometheus scrapes."""
    return {
        frozenset({"__name__": each.name, **each.labels, **TARGET}.items()): each.value
        for family in text_string_to_metric_families(exporter.text())
        for each in family.samples
    }


def field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field in protobuf."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Encode an integer in protobuf."""
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def write(prometheus: Server, new: Series, old: Series, end: int) -> None:
    """Send the samples of an hour with the remote-write protocol."""
    times = range(end - CHUNK_SECONDS + INTERVAL, end + 1, INTERVAL)
    samples = np.empty(len(times), [("tags", "S3"), ("value", "<f8"), ("time", "S7")])
    samples["tags"], samples["time"] = b"\x12\x10\x09", [b"\x10" + varint(1000 * t) for t in times]
    body = bytearray()
    for labels, value in new.items():
        samples["value"] = np.linspace(old.get(labels, value), value, len(times))
        pairs = (field(1, k.encode()) + field(2, v.encode()) for k, v in sorted(labels))
        body += field(1, b"".join(field(1, each) for each in pairs) + samples.tobytes())
        if len(body) > 4_000_000:
            send(prometheus, body)
    send(prometheus, body)


def send(prometheus: Server, body: bytearray) -> None:
    """Send a request and empty the body, which becomes a Snappy block without compression."""
    parts = (body[i : i + 65536] for i in range(0, len(body), 65536))
    block = b"".join(b"\xf4" + struct.pack("<H", len(part) - 1) + part for part in parts)
    prometheus.get("/api/v1/write", varint(len(body)) + block)
    body.clear()


def query(prometheus: Server, expr: str, **times: int) -> tuple[float, Any]:
    """Run an instant query, or with `step` a range query; return the seconds and the result."""
    path = "/api/v1/query_range" if "step" in times else "/api/v1/query"
    start = time.monotonic()
    body = prometheus.get(path, urlencode({"query": expr, **times}).encode())
    return time.monotonic() - start, json.loads(gzip.decompress(body))["data"]["result"]


def evaluate(prometheus: Server, new: Series, old: Series, end: int) -> float:
    """Evaluate all rules, and send and add what they record; return the seconds."""
    total = 0.0
    for rule in (each for group in RULES["groups"] for each in group["rules"]):
        seconds, result = query(prometheus, rule["expr"], time=end)
        total += seconds
        if name := rule.get("record"):
            labels = (frozenset({**each["metric"], "__name__": name}.items()) for each in result)
            recorded = dict(zip(labels, (float(each["value"][1]) for each in result), strict=True))
            write(prometheus, recorded, old, end)
            new |= recorded
    return total


def dashboard(prometheus: Server, path: Path, selected: Mapping[str, str]) -> float:
    """Return the seconds of all queries of a dashboard, each the best of three."""
    total, values = 0.0, {**DEFAULTS, **INTERVALS, **selected}
    for panel in json.loads(path.read_text())["panels"]:
        for each in panel.get("targets", []):
            expr, times = interpolate(each["expr"], values), {"time": END}
            if not each.get("instant"):
                times = {"start": START, "end": END, "step": 60 * int(panel["interval"][:-1])}
            total += min(query(prometheus, expr, **times)[0] for _ in range(3))
    return total


async def measure(agents: int, folder: Path) -> dict[str, str]:
    """Return the cells of a column by row: number of series, and seconds."""
    files = "--config.file=/dev/null", f"--storage.tsdb.path={folder}"
    flags = "--web.enable-remote-write-receiver", "--web.listen-address=127.0.0.1:PORT"
    seconds, old, every, standard = [], Series(), Series(), "--metrics.families=standard"
    with server("prometheus", *files, *flags, "--log.level=error", path="/-/ready") as prometheus:
        async with simulated(agents, START, standard) as exporter:
            for exporter.now in range(START + CHUNK_SECONDS, END + 1, CHUNK_SECONDS):
                await exporter.poll()
                new, end = published(exporter), int(exporter.now)
                write(prometheus, new, old, end)
                seconds.append(evaluate(prometheus, new, old, end))
                old, every = new, every | new
        cells = {"series": f"{len(every):,}", "rules": f"{min(seconds[-3:]):.3f} s"}
        world = exporter.simulator.world
        selected = {"site": {"site": world.sites[0].host}, "agent": {"agent": world.agents[1].id}}
        for path in sorted(FOLDER.glob("*.json")):
            name = path.stem.split("-")[1]
            cells[name] = f"{dashboard(prometheus, path, selected.get(name, {})):.3f} s"
    return cells


if __name__ == "__main__":
    columns = []
    for agents in [int(each) for each in sys.argv[1:]] or [200, 2000]:
        with TemporaryDirectory() as folder:
            columns.append(asyncio.run(measure(agents, Path(folder))))
    for name in columns[0]:
        print("|", " | ".join((name, *(cells[name] for cells in columns))), "|")
