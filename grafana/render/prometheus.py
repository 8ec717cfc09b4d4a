"""A Prometheus server with past data: samples, what the rules record of them, and alerts."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

STEP = 60
UNITS = {"s": 1, "m": 60, "h": 3600}


def run(*command: str | Path, **options: Any) -> None:
    """Run a program, which must succeed."""
    subprocess.run([str(part) for part in command], check=True, **options)  # noqa: S603


class Prometheus:
    """Prometheus over the data of one folder; query it in the context of `running`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the server."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        config = self.folder.with_suffix(".yml")
        config.write_text("global: {}\n")
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder}"]
        command += ["--storage.tsdb.retention.time=100y", "--log.level=error"]
        # Past data has no staleness markers: a series ends when a sample is missing. Samples of
        # rules are up to a step later than those that they are computed from.
        command.append(f"--query.lookback-delta={STEP - 1}999ms")
        with subprocess.Popen([*command, f"--web.listen-address={address}"]) as process:  # noqa: S603
            try:
                self._wait()
                yield
            finally:
                process.terminate()

    def _wait(self) -> None:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/-/ready").read()  # noqa: S310
                return
            except OSError:
                time.sleep(0.2)
        sys.exit("Prometheus does not start")

    def query(self, expr: str, when: float) -> list[Any]:
        """Return the series of an instant query."""
        return self._get("query", query=expr, time=when)

    def query_range(self, expr: str, start: float, end: float) -> list[Any]:
        """Return the series of a range query."""
        return self._get("query_range", query=expr, start=start, end=end, step=STEP)

    def _get(self, path: str, **parameters: object) -> list[Any]:
        body = urllib.parse.urlencode(parameters).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body) as response:  # noqa: S310
            series: list[Any] = json.load(response)["data"]["result"]
            return series

    def add_samples(self, file: Path) -> None:
        """Add samples in the OpenMetrics format; the server must not run."""
        command = ("promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet")
        run(*command, file, self.folder)

    def add_rules(self, rules: Path, start: float, end: float) -> None:
        """Add the series that rules would have recorded, and the alerts that would have fired."""
        groups = yaml.safe_load(rules.read_text())["groups"]
        every = [rule for group in groups for rule in group["rules"]]
        records = [rule for rule in every if "record" in rule]
        depths = [_depth(rule, records) for rule in records]
        for depth in range(max(depths) + 1):  # rules that use recorded series come later
            level = [rule for rule, each in zip(records, depths, strict=True) if each == depth]
            self._record(level, start, end)
        with self.running():
            alerts = [
                sample
                for rule in (rule for rule in every if "alert" in rule)
                for series in self.query_range(rule["expr"], start, end)
                for sample in _alert_samples(rule, series)
            ]
        file = self.folder.with_suffix(".txt")
        file.write_text("\n".join([*alerts, "# EOF", ""]))
        self.add_samples(file)

    def _record(self, rules: list[dict[str, Any]], start: float, end: float) -> None:
        file = self.folder.with_suffix(".rules.yml")
        file.write_text(yaml.safe_dump({"groups": [{"name": "past", "rules": rules}]}))
        times = (datetime.fromtimestamp(each, UTC).isoformat() for each in (start, end))
        with self.running():
            run(
                *("promtool", "tsdb", "create-blocks-from", "rules", f"--url={self.url}"),
                *(f"--{name}={each}" for name, each in zip(("start", "end"), times, strict=True)),
                *(f"--output-dir={self.folder}", f"--eval-interval={STEP}s", file),
                stderr=subprocess.DEVNULL,
            )


def _depth(rule: dict[str, Any], records: list[dict[str, Any]]) -> int:
    """Return the number of rules on which a rule depends, one after another."""
    names = set(re.findall(r"[\w:]+", rule["expr"]))
    used = [each for each in records if each["record"] in names]
    return 1 + max(_depth(each, records) for each in used) if used else 0


def _alert_samples(rule: dict[str, Any], series: dict[str, Any]) -> Iterator[str]:
    """Yield the samples of ALERTS: promtool records only recording rules of the past."""
    labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
    labels |= rule["labels"] | {"alertname": rule["alert"], "alertstate": "firing"}
    text = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
    delay, kept = (_seconds(rule.get(name, "0s")) for name in ("for", "keep_firing_for"))
    firing = {
        timestamp
        for start, end in spans(timestamp for timestamp, _ in series["values"])
        if end >= start + delay
        for timestamp in range(int(start + delay), int(end + kept) + 1, STEP)
    }
    for timestamp in sorted(firing):
        yield f"ALERTS{{{text}}} 1 {timestamp}"


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * UNITS[duration[-1]]


def spans(times: Iterable[float]) -> list[tuple[float, float]]:
    """Return first and last of each uninterrupted sequence of times."""
    found: list[tuple[float, float]] = []
    for each in times:
        uninterrupted = found and each - found[-1][1] <= STEP
        start = found.pop()[0] if uninterrupted else each
        found.append((start, each))
    return found
