"""Renders all dashboards to `docs/images`: `python -m grafana.render [--fresh]`.

Samples and the built page are kept in a temporary folder for the next run, unless `--fresh`. A
larger company with a shorter history, elsewhere: `--agents 2000 --minutes 15 --images FOLDER`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from exporter.simulator import World, parse_faults
from grafana.generate import FOLDER
from grafana.interpolation import DEFAULTS, as_regex, interpolate, legend
from grafana.render import history
from grafana.render.prometheus import STEP, Prometheus, run, spans

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
RULES = ROOT / "deploy/prometheus/thousandeyes.rules.yml"
CACHE = Path(tempfile.gettempdir()) / "thousandeyes-dashboards"

END = datetime(2026, 11, 18, 14, 35, tzinfo=UTC).timestamp()
"""A Wednesday afternoon while a site is degraded."""
WARM_UP_SECONDS = 1800
FAULTS = parse_faults(
    ["maintenance=0.7@200m+7m", "server_error=0.4@300m+4m", "rate_limited=0.3@350m+4m"]
)
INSTANCE = "exporter.example.com:9350"
DEGRADED_SITE = "crm.example.com"
OVERLOADED = next(agent for agent in World().agents if agent.overloaded)
SELECTED = {
    "site": ("site", as_regex(DEGRADED_SITE), DEGRADED_SITE),
    "agent": ("agent", OVERLOADED.id, OVERLOADED.name),
    "exporter": ("instance", as_regex(INSTANCE), INSTANCE),
}
"""By dashboard: a variable, its value, and its text in the picker."""
TITLES = {"location": "Location", "latency_seconds": "Latency"}

WIDTH = 1600
CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars", "--run-all-compositor-stages-before-draw"),
    *("--virtual-time-budget=20000", f"--user-data-dir={CACHE / 'chromium'}"),
)


def create_database(prometheus: Prometheus, agents: int, minutes: int) -> None:
    """Write the samples of the past, and apply the rules to them."""
    samples, start = prometheus.folder.with_suffix(".samples"), END - 60 * minutes
    begin = start - min(WARM_UP_SECONDS, 60 * minutes)
    history.write(samples, World(agents=agents), begin, END, instance=INSTANCE, faults=FAULTS)
    prometheus.add_samples(samples)
    samples.unlink()
    prometheus.add_rules(RULES, start, END)


def page_data(
    prometheus: Prometheus, name: str, dashboard: dict[str, Any], minutes: int
) -> dict[str, Any]:
    """Return everything that the page of a dashboard shows."""
    selected, value, text = SELECTED.get(name, ("", "", ""))
    values = DEFAULTS | {selected: value}
    values |= {"__rate_interval": "4m", "__range": f"{minutes}m", "__interval": "1m"}
    start = END - 60 * minutes
    pickers = []
    for variable in dashboard["templating"]["list"]:
        shown = TITLES.get(values.get(variable["name"], ""), "All")
        shown = text if variable["name"] == selected else shown
        shown = "Prometheus" if variable["name"] == "datasource" else shown
        pickers.append([variable["label"], shown])
    for panel in dashboard["panels"]:
        panel["title"] = interpolate(panel.get("title", ""), values)
    alerts = interpolate(dashboard["annotations"]["list"][0]["target"]["expr"], values)
    series = prometheus.query_range(alerts, start, END)
    times = sorted({time for each in series for time, _ in each["values"]})
    return {
        "dashboard": dashboard,
        "pickers": pickers,
        "range": {"start": start, "end": END, "step": STEP},
        "results": results(prometheus, dashboard, values, start),
        "alerts": [(1000 * start, 1000 * (end + STEP)) for start, end in spans(times)],
    }


def results(
    prometheus: Prometheus, dashboard: Mapping[str, Any], values: Mapping[str, str], start: float
) -> dict[str, dict[str, Any]]:
    """Return the series of all queries with their names, by panel and reference id."""
    found: dict[str, dict[str, Any]] = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expr = interpolate(target["expr"], values)
            if target.get("instant"):
                series = prometheus.query(expr, END + 25)
            else:
                series = prometheus.query_range(expr, start, END)
            template = interpolate(target["legendFormat"], values)
            for each in series:
                each["name"] = legend(template, each["metric"])
            found.setdefault(str(panel["id"]), {})[target["refId"]] = series
    return found


def build_page() -> Path:
    """Bundle the page that renders a dashboard; return its folder."""
    source, folder = Path(__file__).parent, CACHE / "page"
    ignored = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=ignored)
    if not (folder / "node_modules").exists():
        install = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent")
        run(*install, cwd=folder)
    options = ("--bundle", "--format=esm", "--jsx=automatic", "--minify", "--splitting")
    loaders = (f"--loader:.{kind}=file" for kind in ("svg", "png", "woff", "woff2", "ttf"))
    esbuild = ("npx", "esbuild", "src/main.jsx", "--outdir=dist", "--log-level=error")
    run(*esbuild, *options, *loaders, cwd=folder)
    shutil.copy(source / "index.html", folder / "dist")
    return folder / "dist"


class Handler(SimpleHTTPRequestHandler):
    """Serves the page; scripts post their errors."""

    errors: list[str] = []  # noqa: RUF012  shared by all requests

    def do_POST(self) -> None:
        """Receive an error."""
        self.errors.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Suppress the access log."""


def screenshot(address: str, image: Path, height: int) -> None:
    """Write the image of one dashboard, with a palette of 256 colors."""
    options = (f"--window-size={WIDTH},{height}", f"--screenshot={image}")
    run(*CHROMIUM, *options, f"{address}/index.html?name={image.stem}", stderr=subprocess.DEVNULL)
    run("node", "shrink.mjs", image, cwd=CACHE / "page")
    sys.stdout.write(f"{image} {image.stat().st_size // 1024} kB\n")


def main() -> None:
    """Render all dashboards."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--minutes", type=int, default=360)
    parser.add_argument("--images", type=Path, default=IMAGES)
    options = parser.parse_args()
    images = options.images.resolve()
    if options.fresh:
        shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    prometheus = Prometheus(CACHE / f"data-{options.agents}-{options.minutes}")
    if not prometheus.folder.exists():
        create_database(prometheus, options.agents, options.minutes)
    folder = build_page()
    (folder / "data").mkdir(exist_ok=True)
    heights = {}
    with prometheus.running():
        for path in sorted(FOLDER.glob("*.json")):
            name, dashboard = path.stem.removeprefix("thousandeyes-"), json.loads(path.read_text())
            data = page_data(prometheus, name, dashboard, options.minutes)
            (folder / f"data/{name}.json").write_text(json.dumps(data))
            bottom = max(
                each["gridPos"]["y"] + each["gridPos"]["h"] for each in dashboard["panels"]
            )
            heights[name] = 38 * bottom + 110
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, height in heights.items():
        screenshot(f"http://127.0.0.1:{server.server_port}", images / f"{name}.png", height)
    server.shutdown()
    if Handler.errors:
        sys.exit("\n".join(Handler.errors))


if __name__ == "__main__":
    main()
