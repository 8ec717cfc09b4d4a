"""Query time of the dashboards and evaluation time of the rules: `make bench-queries`.

For each number of agents, Prometheus is filled with six hours of data at one sample a minute: the
families that dashboards and rules use, and the recorded series. Each agent visits four of 20 sites
and changes one of them every hour.
"""
# ruff: noqa: T201  prints a table

import json
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from exporter.metrics import families
from grafana.generate import FOLDER
from grafana.interpolation import DEFAULTS, interpolate

HOURS, SITES, CHUNK_SECONDS = 6, 20, 1800
RULES = Path("deploy/prometheus/thousandeyes.rules.yml").resolve()
GAUGES = "latency_seconds jitter_seconds loss_ratio experience_score sessions pages"
GAUGES += " memory_size_bytes round_timestamp_seconds cpu_utilization_ratio memory_used_bytes"
GAUGES += " vpn_latency_seconds"
SELECTED = {"site": {"site": "site1"}, "agent": {"agent": "agent1"}}
INTERVALS = {"__rate_interval": "4m", "__range": f"{HOURS}h", "__interval": "1m"}
ADDRESS = "127.0.0.1:19191"


def series(agents: int, hour: int) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield name and labels of all series of one hour."""
    target = {"job": "thousandeyes", "instance": "exporter:9350", "protocol": "https"}
    sites = [{"aid": "1001", "site": f"site{n}", "path": "direct"} for n in range(SITES)]
    people, keys = [], []
    for n in range(agents):
        labels = {"aid": "1001", "agent": f"agent{n}", "agent_name": f"name{n}", "platform": "mac"}
        labels |= {"os_version": f"{n % 5}", "agent_version": f"{n % 4}", "location": f"{n % 40}"}
        people.append(labels)
        yield families.AGENT_INFO, labels | target
        yield families.AGENT_LAST_SEEN, {"aid": "1001", "agent": f"agent{n}"} | target
        for site in (7 * n + hour % 5, 7 * n + 5, 7 * n + 10, 7 * n + 15):
            key = {"aid": "1001", "site": f"site{site % SITES}", "agent": f"agent{n}"} | target
            keys.append(key)
            yield from ((families.PREFIX + name, key) for name in GAUGES.split())
    for each in ({"aid": "1001", "site": each["site"]} | target for each in sites):
        yield f"{families.SITE_SESSIONS}_total", each
        for family in families.HISTOGRAMS:
            for bound in (*family.buckets, "+Inf"):
                yield f"{family.name}_bucket", each | {"le": str(bound)}
    levels: dict[str, list[dict[str, str]]] = {"aid": sites[:1], "aid_location": people[:40]}
    levels |= {"aid_site": sites, "aid_site_path": sites, "aid_agent": people}
    levels |= {"aid_agent_site": keys, "target": keys}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for name in (rule["record"] for each in groups for rule in each["rules"] if "record" in rule):
        level = name.split(":")[0]
        all_labels = level == "target" or name == f"aid_agent:{families.AGENT_INFO}:name"
        for each in levels[level]:
            yield name, {k: each[k] for k in (each if all_labels else level.split("_"))}


def fill(agents: int, end: int) -> int:
    """Write all samples with the remote-write protocol; return the number of series."""
    for start in range(end - 3600 * HOURS, end, CHUNK_SECONDS):
        times = range(start + 60, start + CHUNK_SECONDS + 1, 60)
        ratios = [samples((t, n * (1 + t % 7) / 150) for t in times) for n in range(20)]
        growing, body, count = samples((t, t) for t in times), bytearray(), 0
        for count, (name, labels) in enumerate(series(agents, (start - end) // 3600), 1):
            grows = "timestamp_seconds" in name or name.endswith(("_total", "_bucket"))
            pairs = sorted({**labels, "__name__": name}.items())
            encoded = b"".join(
                field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in pairs
            )
            body += field(1, encoded + (growing if grows else ratios[count % 20]))
            if len(body) > 4_000_000:
                write(body)
        write(body)
    return count


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


def write(body: bytearray) -> None:
    """Send samples, in a Snappy block without compression."""
    parts = (body[i : i + 65536] for i in range(0, len(body), 65536))
    block = b"".join(b"\xf4" + struct.pack("<H", len(part) - 1) + part for part in parts)
    get("api/v1/write", varint(len(body)) + block)
    body.clear()


def get(path: str, data: bytes | None = None) -> bytes:
    """Return a response of Prometheus."""
    with urllib.request.urlopen(f"http://{ADDRESS}/{path}", data) as response:
        return bytes(response.read())


def query(expr: str, end: int, step: int) -> tuple[float, int]:
    """Return seconds and peak samples; without `step`, of an instant query."""
    parameters: dict[str, Any] = {"query": expr, "stats": "all", "time": end}
    if step:
        parameters |= {"start": end - 3600 * HOURS, "end": end, "step": step}
    started = time.monotonic()
    body = get(f"api/v1/query{'_range' * bool(step)}", urlencode(parameters).encode())
    seconds = time.monotonic() - started
    return seconds, json.loads(body)["data"]["stats"]["samples"]["peakSamples"]


def measure(agents: int, folder: Path) -> dict[tuple[str, str], tuple[float, int]]:
    """Return seconds and peak samples by dashboard and panel; print the time of the rules."""
    config = folder / "prometheus.yml"
    config.write_text("global: {}")
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += ["--web.enable-remote-write-receiver", "--log.level=error"]
    found = {}
    with subprocess.Popen([*command, f"--web.listen-address={ADDRESS}"]) as process:  # noqa: S603
        try:
            time.sleep(3)
            end = int(time.time()) // 60 * 60
            print(f"{agents} agents: {fill(agents, end)} series", flush=True)
            for path in sorted(FOLDER.glob("*.json")):
                name, total = path.stem.split("-")[1], (0.0, 0)
                values = DEFAULTS | INTERVALS | SELECTED.get(name, {})
                for panel in json.loads(path.read_text())["panels"]:
                    seconds, peak = 0.0, 0
                    for each in panel.get("targets", []):
                        step = 0 if each.get("instant") else 60 * int(panel["interval"][:-1])
                        expr = interpolate(each["expr"], values)
                        best = min(query(expr, end, step) for _ in range(3))
                        seconds, peak = seconds + best[0], max(peak, best[1])
                    if panel.get("targets"):
                        found[name, f"{panel['title']} ({panel['type']})"] = (seconds, peak)
                        total = total[0] + seconds, max(total[1], peak)
                found[name, "**all panels**"] = total
            for group in yaml.safe_load(RULES.read_text())["groups"]:
                seconds = sum(query(rule["expr"], end, 0)[0] for rule in group["rules"])
                print(f"{agents} agents: rules {group['name']}: {seconds:.3f} s")
        finally:
            process.terminate()
    return found


def main() -> None:
    """Print a table."""
    sizes, results = [int(each) for each in sys.argv[1:]] or [200, 2000], []
    for agents in sizes:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(agents, Path(folder)))
    print("| dashboard | panel |" + "".join(f" {n} agents, s | peak samples |" for n in sizes))
    print("| --- | --- |" + " ---: | ---: |" * len(sizes))
    for key in results[0]:
        cells = (f"{each[key][0]:.3f} | {each[key][1]:,}" for each in results)
        print("|", " | ".join((*key, *cells)), "|")


if __name__ == "__main__":
    main()
