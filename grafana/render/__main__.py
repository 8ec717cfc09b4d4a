"""Draws every dashboard into `docs/images`: `python -m grafana.render`.

What it needs meanwhile stays in a folder for temporary files, so that a second run is short; `--fresh` begins anew.
"""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from grafana.fill import CHOSEN, fill, joined, legend
from grafana.generate import DASHBOARDS
from grafana.queries import ENDPOINT
from grafana.render import history

ROOT = Path(__file__).parent.parent.parent
WORK = Path(tempfile.gettempdir()) / "thousandeyes-dashboards"
IMAGES = ROOT / "docs/images"
RULES = ROOT / "deploy/prometheus/thousandeyes.rules.yml"

STEP = 60
RANGE = {"start": history.END - 6 * 3600, "end": history.END, "step": STEP}
TIMES = {"__rate_interval": "4m", "__range": "6h", "__interval": "1m"}
WIDTH = 1600
AILING = "crm.example.com"
TIRED = next(agent for agent in history.WORLD.people if agent.tired)
CHOICES = {
    "site": {"site": joined(AILING)},
    "agent": {"agent": TIRED.id},
    "exporter": {"instance": joined(history.INSTANCE)},
}
SHOWN = {"site": {"site": AILING}, "agent": {"agent": TIRED.name}, "exporter": {"instance": history.INSTANCE}}
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=20000",
]


WRONG: list[str] = []
"""What the pages complained of."""


def run(*command: str | Path, **options: Any) -> None:
    """Run a program; it has to succeed."""
    subprocess.run([str(part) for part in command], check=True, **options)  # noqa: S603  programs that we name


class Prometheus:
    """A real one, over the history alone."""

    def __init__(self, folder: Path) -> None:
        """Prepare one that keeps its data in a folder."""
        self.folder = folder
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it for the length of the context."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        config = self.folder.parent / "prometheus.yml"
        config.write_text("global: {}\n")
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder}"]
        command += [f"--web.listen-address={address}", "--storage.tsdb.retention.time=100y", "--log.level=error"]
        with subprocess.Popen(command) as process:  # noqa: S603  programs that we name
            try:
                self._wait()
                yield
            finally:
                process.terminate()

    def _wait(self) -> None:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/-/ready").read()  # noqa: S310  our own address
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("Prometheus does not become ready")

    def ask(self, path: str, **parameters: object) -> list[Any]:
        """Return what it answers."""
        body = urllib.parse.urlencode(parameters).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body) as reply:  # noqa: S310  our own address
            answer: list[Any] = json.load(reply)["data"]["result"]
            return answer

    def take_in(self, file: Path) -> None:
        """Add the samples of an OpenMetrics file, while it does not run."""
        run("promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", file, self.folder)


def remember(prometheus: Prometheus) -> None:
    """Fill the Prometheus with the history, with what the rules record of it, and with the alerts that they raise."""
    names = set(re.findall(r"\b(?:thousandeyes|process|scrape)_\w+|\bup\b", "".join(_texts())))
    names |= {ENDPOINT + family for family in ("latency_seconds", "loss_ratio", "jitter_seconds")}
    names |= set(re.findall(r"\bthousandeyes_\w+", RULES.read_text()))
    samples = WORK / "history.txt"
    asyncio.run(history.write(samples, names))
    prometheus.take_in(samples)
    start, end = (datetime.fromtimestamp(RANGE[name], UTC).isoformat() for name in ("start", "end"))
    with prometheus.running():
        run(
            *("promtool", "tsdb", "create-blocks-from", "rules", f"--start={start}", f"--end={end}"),
            *(f"--url={prometheus.url}", f"--output-dir={prometheus.folder}", "--eval-interval=1m", RULES),
            stderr=subprocess.DEVNULL,  # it tells of every rule
        )
    with prometheus.running():
        lines = list(_alerts(prometheus))
    samples.write_text("\n".join([*lines, "# EOF", ""]))
    prometheus.take_in(samples)
    samples.unlink()


def _texts() -> list[str]:
    return [path.read_text() for path in sorted(DASHBOARDS.iterdir())]


def _alerts(prometheus: Prometheus) -> Iterator[str]:
    """Yield the alerts that the rules would have raised, as Prometheus writes them: it does so only as time passes."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                for series in prometheus.ask("query_range", query=rule["expr"], **RANGE):
                    metric = {name: value for name, value in series["metric"].items() if name != "__name__"}
                    labels = metric | rule.get("labels", {}) | {"alertname": rule["alert"], "alertstate": "firing"}
                    text = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
                    times = _firing([time_ for time_, _ in series["values"]], _seconds(rule.get("for", "0s")))
                    yield from (f"ALERTS{{{text}}} 1 {moment}" for moment in times)


def _firing(times: list[float], patience: float) -> Iterator[float]:
    """Yield when an alert fires whose condition holds at these times."""
    since = before = -1.0
    for moment in times:
        if moment - before > STEP:
            since = moment
        before = moment
        if moment - since >= patience:
            yield moment


def _seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def answers(prometheus: Prometheus, board: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """Return the answers to all queries of a dashboard, by panel and letter, with the names of the series."""
    found: dict[str, Any] = {}
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            query = fill(target["expr"], chosen)
            if target.get("instant"):
                series = prometheus.ask("query", query=query, time=RANGE["end"] + 25)
            else:
                series = prometheus.ask("query_range", query=query, **RANGE)
            pattern = fill(target.get("legendFormat", ""), chosen)
            for each in series:
                each["name"] = legend(pattern, each["metric"])
            found.setdefault(str(panel["id"]), {})[target["refId"]] = series
    return found


def page(prometheus: Prometheus, name: str, board: dict[str, Any]) -> dict[str, Any]:
    """Return all that the page of a dashboard needs."""
    chosen = CHOSEN | CHOICES.get(name, {}) | TIMES
    titles = {value: title for title, value in (("Location", "location"), ("Latency", "latency_seconds"))}
    shown = []
    for variable in board["templating"]["list"]:
        value = SHOWN.get(name, {}).get(variable["name"]) or titles.get(chosen.get(variable["name"], ""), "All")
        shown.append([variable["label"], "Prometheus" if variable["name"] == "datasource" else value])
    for panel in board["panels"]:
        panel["title"] = fill(panel.get("title", ""), chosen)
    marks = prometheus.ask(
        "query_range", query=fill(board["annotations"]["list"][0]["target"]["expr"], chosen), **RANGE
    )
    return {
        "board": board,
        "shown": shown,
        "period": "2026-11-18 08:35 to 14:35 UTC",
        "range": RANGE,
        "answers": answers(prometheus, board, chosen),
        "marks": list(_spans(sorted({moment for series in marks for moment, _ in series["values"]}))),
    }


def _spans(times: list[float]) -> Iterator[list[float]]:
    """Yield from when to when, in milliseconds, for moments that follow each other."""
    while times:
        length = next((n for n in range(1, len(times)) if times[n] - times[n - 1] > STEP), len(times))
        yield [1000 * times[0], 1000 * times[length - 1] + 1000 * STEP]
        times = times[length:]


def build() -> Path:
    """Build the page that draws; return the folder to serve."""
    source, folder = Path(__file__).parent, WORK / "page"
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if not (folder / "node_modules").exists():
        run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent", cwd=folder)
    options = ("--bundle", "--format=esm", "--jsx=automatic", "--minify", "--splitting", "--outdir=dist")
    loaders = (f"--loader:.{kind}=file" for kind in ("svg", "png", "woff", "woff2", "ttf"))
    run("npx", "esbuild", "src/main.jsx", *options, *loaders, "--log-level=error", cwd=folder)
    shutil.copy(source / "index.html", folder / "dist")
    return folder / "dist"


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and is told what went wrong in the page."""

    def do_POST(self) -> None:
        """Take a complaint of the page."""
        WRONG.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def picture(address: str, name: str, height: int) -> None:
    """Let Chromium draw one dashboard."""
    target = IMAGES / f"{name}.png"
    run(
        *("chromium", *CHROMIUM, f"--user-data-dir={WORK / 'chromium'}", f"--window-size={WIDTH},{height}"),
        *(f"--screenshot={target}", f"{address}/index.html?board={name}"),
        stderr=subprocess.DEVNULL,
    )
    run("node", "shrink.mjs", target, cwd=WORK / "page")
    sys.stdout.write(f"{target.relative_to(ROOT)} {target.stat().st_size // 1024} kB\n")


def main() -> None:
    """Do all of it."""
    if "--fresh" in sys.argv:
        shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    prometheus = Prometheus(WORK / "data")
    if not prometheus.folder.exists():
        remember(prometheus)
    folder = build()
    boards = {path.stem.removeprefix("thousandeyes-"): json.loads(path.read_text()) for path in DASHBOARDS.iterdir()}
    (folder / "data").mkdir(exist_ok=True)
    with prometheus.running():
        for name, board in boards.items():
            (folder / f"data/{name}.json").write_text(json.dumps(page(prometheus, name, board)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, board in boards.items():
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        picture(f"http://127.0.0.1:{server.server_port}", name, 38 * rows + 110)
    server.shutdown()
    if WRONG:
        sys.exit("\n".join(WRONG))


if __name__ == "__main__":
    main()
