"""Query time of the dashboards and evaluation time of the rules: `make bench-queries`.

For each number of agents, Prometheus is filled with six hours of data at one sample a minute: the
families that dashboards and rules use, and the recorded series. Each agent visits four of 20 sites
and changes one of them every hour. Prometheus evaluates the rules itself.
"""
# ruff: noqa: T201  prints a table

import json
import re
import struct
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import yaml

from benchmarks.programs import server
from exporter.metrics.families import PREFIX, Table
from exporter.sources import agents as endpoint
from exporter.sources import local_networks
from exporter.sources.site_histograms import HISTOGRAMS, SITE_SESSIONS
from grafana.generate import FOLDER
from grafana.interpolation import DEFAULTS, interpolate

HOURS, SITES, CHUNK_SECONDS, INTERVAL = 6, 20, 1800, 60
RULES = Path("deploy/prometheus/thousandeyes.rules.yml").resolve()
GAUGES = "latency_seconds jitter_seconds loss_ratio experience_score sessions pages"
GAUGES += " memory_size_bytes round_timestamp_seconds cpu_utilization_ratio memory_used_bytes"
GAUGES += " vpn_latency_seconds"
SELECTED = {"site": {"site": "site1"}, "agent": {"agent": "agent1"}}
INTERVALS = {"__rate_interval": "4m", "__range": f"{HOURS}h", "__interval": "1m"}
FLAGS = ("--web.enable-remote-write-receiver", "--web.enable-lifecycle", "--log.level=error")
Cost = tuple[float, int]  # seconds and peak samples


def series(agents: int, hour: int) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield name and labels of all series of one hour."""
    target = {"job": "thousandeyes", "instance": "exporter:9350", "protocol": "https"}
    sites = [{"aid": "1001", "site": f"site{n}", "path": "direct"} for n in range(SITES)]
    people, keys = [], []
    for n in range(agents):
        labels = {"aid": "1001", "agent": f"agent{n}", "agent_name": f"name{n}", "platform": "mac"}
        labels |= {"os_version": f"{n % 5}", "agent_version": f"{n % 4}", "location": f"{n % 40}"}
        labels |= {"connection": f"{n % 2}", "isp": f"{n % 9}", "vpn": f"{n % 3}"}
        people.append(labels)
        own = target | {"target_type": "gateway", "aid": "1001"}
        for table in (endpoint.INFO, endpoint.CONNECTION, endpoint.STATE, local_networks.AGENTS):
            yield from rows(table, own | labels)
        for type_ in ("gateway", "dns", "vpn")[: 2 + n % 2]:
            yield from rows(local_networks.TARGETS, own | labels | {"target_type": type_})
        for site in (7 * n + hour % 5, 7 * n + 5, 7 * n + 10, 7 * n + 15):
            key = {"aid": "1001", "site": f"site{site % SITES}", "agent": f"agent{n}"} | target
            keys.append(key)
            yield from ((PREFIX + name, key) for name in GAUGES.split())
    for each in ({"aid": "1001", "site": each["site"]} | target for each in sites):
        yield f"{SITE_SESSIONS}_total", each
        for family in HISTOGRAMS:
            for bound in (*family.buckets, "+Inf"):
                yield f"{family.name}_bucket", each | {"le": str(bound)}
    levels: dict[str, list[dict[str, str]]] = {"aid": sites[:1], "aid_location": people[:40]}
    levels |= {"aid_site": sites, "aid_site_path": sites, "aid_agent": people}
    levels |= {"aid_agent_site": keys, "target": keys, "aid_vpn": people[:3], "aid_isp": people[:9]}
    gateways = [each | {"target_type": "gateway"} for each in people[:40]]
    levels |= {"aid_location_target_type": gateways, "aid_connection": people[:2]}
    targets = [each | {"target_type": type_} for each in people for type_ in ("gateway", "vpn")]
    levels |= {"aid_agent_target_type": targets}
    joined = {
        f"aid_agent:{PREFIX}{table.families[0].short_name}:name": table.labels
        for table in endpoint.TABLES[:2]
    }
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for name in (rule["record"] for each in groups for rule in each["rules"] if "record" in rule):
        level = name.split(":")[0]
        keys_of = {*re.findall("target_type|[a-z]+", level), "aid"}
        keys_of.update(joined.get(name, ()))
        series_of = levels[level]
        if name.endswith(("topk", "bottomk")):
            keys_of |= {"agent_name", "location"}
            series_of = people[:400]  # ten of each location
        for each in series_of:
            yield name, each if level == "target" else {k: each[k] for k in keys_of}


def rows(table: Table, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the series of a table for one agent or target."""
    own = {name: labels[name] for name in (*table.labels, "aid", "job", "instance")}
    return ((family.name, own) for family in table.families)


def samples(points: Iterator[tuple[int, float]]) -> bytes:
    """Encode samples in protobuf."""
    parts = (b"\x09" + struct.pack("<d", v) + b"\x10" + varint(1000 * t) for t, v in points)
    return b"".join(field(2, part) for part in parts)


def field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field in protobuf."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Encode an integer in protobuf."""
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, data: bytes | None = None) -> bytes:
        """Return a response."""
        with urllib.request.urlopen(f"{self.url}/{path}", data) as response:  # noqa: S310
            return bytes(response.read())

    def fill(self, agents: int, end: int) -> int:
        """Write all samples with the remote-write protocol; return the number of series."""
        for start in range(end - 3600 * HOURS, end, CHUNK_SECONDS):
            times = range(start + INTERVAL, start + CHUNK_SECONDS + 1, INTERVAL)
            ratios = [samples((t, n * (1 + t % 7) / 1500) for t in times) for n in range(20)]
            growing, body, count = samples((t, t) for t in times), bytearray(), 0
            for count, (name, labels) in enumerate(series(agents, (start - end) // 3600), 1):
                grows = "timestamp_seconds" in name or name.endswith(("_total", "_bucket"))
                pairs = sorted({**labels, "__name__": name}.items())
                encoded = b"".join(
                    field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in pairs
                )
                body += field(1, encoded + (growing if grows else ratios[count % 20]))
                if len(body) > 4_000_000:
                    self.write(body)
            self.write(body)
        return count

    def write(self, body: bytearray) -> None:
        """Send samples, in a Snappy block without compression."""
        parts = (body[i : i + 65536] for i in range(0, len(body), 65536))
        block = b"".join(b"\xf4" + struct.pack("<H", len(part) - 1) + part for part in parts)
        self.get("api/v1/write", varint(len(body)) + block)
        body.clear()

    def query(self, expr: str, end: int, step: int) -> Cost:
        """Measure a query, the best of three; without `step`, an instant query."""
        parameters: dict[str, Any] = {"query": expr, "stats": "all", "time": end}
        if step:
            parameters |= {"start": end - 3600 * HOURS, "end": end, "step": step}
        costs = []
        for _ in range(3):
            started = time.monotonic()
            body = self.get(f"api/v1/query{'_range' * bool(step)}", urlencode(parameters).encode())
            statistics = json.loads(body)["data"]["stats"]["samples"]
            costs.append((time.monotonic() - started, int(statistics["peakSamples"])))
        return min(costs)

    def dashboard(self, path: Path, end: int) -> Iterator[tuple[str, Cost]]:
        """Measure all panels of a dashboard."""
        values = DEFAULTS | INTERVALS | SELECTED.get(path.stem.split("-")[1], {})
        for panel in json.loads(path.read_text())["panels"]:
            costs = [
                self.query(
                    interpolate(each["expr"], values),
                    end,
                    0 if each.get("instant") else 60 * int(panel["interval"][:-1]),
                )
                for each in panel.get("targets", [])
            ]
            if costs:
                peak = max(peak for _, peak in costs)
                yield panel["title"], (sum(seconds for seconds, _ in costs), peak)

    def rules(self, config: Path) -> Iterator[tuple[str, Cost]]:
        """Let Prometheus evaluate the rules, and return its own measurements, the best of ten."""
        settings = {"global": {"evaluation_interval": "5s"}, "rule_files": [str(RULES)]}
        config.write_text(yaml.safe_dump(settings))
        self.get("-/reload", b"")
        groups = []
        for _ in range(10):
            time.sleep(5)
            groups += json.loads(self.get("api/v1/rules"))["data"]["groups"]
        config.write_text("global: {}")
        self.get("-/reload", b"")
        times = [(group["name"], group["evaluationTime"]) for group in groups]
        for name in dict(times):
            yield name, (min(seconds for each, seconds in times if each == name and seconds), 0)


def measure(agents: int, folder: Path) -> dict[str, tuple[str, Cost, Cost]]:
    """Return the costs of each dashboard and its most expensive panel, and of each rule group."""
    config, found = folder / "prometheus.yml", {}
    config.write_text("global: {}")
    files = f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"
    address = "--web.listen-address=127.0.0.1:PORT"
    with server("prometheus", *files, *FLAGS, address, path="/-/ready") as process:
        prometheus, end = Prometheus(process.port), int(time.time()) // 60 * 60
        print(f"{agents} agents: {prometheus.fill(agents, end)} series", flush=True)
        for name, cost in prometheus.rules(config):
            found[f"rules `{name}`"] = "", cost, cost
        for path in sorted(FOLDER.glob("*.json")):
            costs = dict(prometheus.dashboard(path, end))
            worst = max(costs, key=costs.__getitem__)
            total = sum(s for s, _ in costs.values()), max(peak for _, peak in costs.values())
            found[path.stem.split("-")[1].title()] = worst, total, costs[worst]
    return found


def main() -> None:
    """Print a table."""
    sizes, results = [int(each) for each in sys.argv[1:]] or [200, 2000], []
    for agents in sizes:
        with TemporaryDirectory() as folder:
            results.append(measure(agents, Path(folder)))
    print("| |" + "".join(f" {n:,} agents, s | peak samples | slowest panel, s |" for n in sizes))
    print("| --- |" + " ---: | ---: | --- |" * len(sizes))
    for key in results[0]:
        cells = []
        for worst, (total, peak), (seconds, _) in (each[key] for each in results):
            panel = (f"{peak:,}", f"{worst}: {seconds:.3f}") if worst else ("", "")
            cells += [f"{total:.3f}", *panel]
        print("|", " | ".join((key, *cells)), "|")


if __name__ == "__main__":
    main()
