"""`python -m benchmarks.sizing [AGENTS ...]`: the table in docs/sizing.md, for a weekday at 14:32.

`check` reports samples, sizes and requests. For the series of three hours, a real Prometheus
scrapes a real exporter that polls the simulated company every ten minutes: time passes faster.
More than 2,000 agents are polled for 20 minutes only.
"""
# ruff: noqa: T201  prints a table

import asyncio
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from benchmarks.programs import EXPORTER, ROOT, server
from exporter.simulator import Simulator, World

START = 1_795_012_350  # 2026-11-18 14:32:30 UTC
FLAGS = ["--api.token=demo", "--api.requests-per-minute=10000", "--metrics.max-series=10000000"]
CONFIG = """
global: {scrape_interval: %(seconds)ds, scrape_timeout: %(seconds)ds}
scrape_configs: [{job_name: thousandeyes, static_configs: [{targets: ['127.0.0.1:%(port)d']}]}]
"""


@contextmanager
def simulator(agents: int, speed: int) -> Iterator[str]:
    """Run the simulated API in a thread; yields its URL."""
    loop, began = asyncio.new_event_loop(), time.time()
    Thread(target=loop.run_forever, daemon=True).start()

    def clock() -> float:
        return START + speed * (time.time() - began)

    api = Simulator(World(agents=agents), token="demo", clock=clock, rate_limit=1_000_000)  # noqa: S106
    yield asyncio.run_coroutine_threadsafe(api.start(), loop).result()
    asyncio.run_coroutine_threadsafe(api.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)


def measure(agents: int, folder: Path) -> list[str]:
    """Return the cells of a row."""
    polls, seconds = (2, 60) if agents > 2000 else (18, 25 if agents > 200 else 10)
    with simulator(agents, 0) as url:
        command = [sys.executable, "-m", "exporter", "check", "--output=json", *FLAGS]
        command.append(f"--api.url={url}")
        report = json.loads(subprocess.run(command, cwd=ROOT, stdout=-1, check=False).stdout)  # noqa: S603
    series, requests = report["series"], report["requests"]["total_per_minute"]
    flags = [*FLAGS, f"--poll.interval={seconds}s", "--poll.overlap=14m", "--log.level=error"]
    with (
        simulator(agents, 600 // seconds) as url,
        server(*EXPORTER, f"--api.url={url}", *flags, path="/-/ready") as exporter,
    ):
        config = folder / "prometheus.yml"
        config.write_text(CONFIG % {"port": exporter.port, "seconds": seconds})
        files = f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"
        address = "--web.listen-address=127.0.0.1:PORT", "--log.level=error"
        with server("prometheus", *files, *address, path="/-/ready") as prometheus:
            time.sleep(polls * seconds + 10)  # Prometheus scrapes only some seconds after its start
            text = gzip.decompress(prometheus.get()).decode()
            head = int(float(text.partition("\nprometheus_tsdb_head_series ")[2].split()[0]))
            memory = exporter.memory("VmHWM")
    saved = 1 - series["with_standard_families"] / series["published"]
    sizes = series["scrape_gzip_bytes"] / 1e6, series["scrape_text_bytes"] / 1e6
    return [
        f"{agents:,}",
        f"{sum(group['user_sessions'] for group in report['account_groups']):,}",
        f"{series['scrape_samples']:,}",
        f"{saved:.0%}",
        "{:.2f} / {:.1f} MB".format(*sizes),
        f"{memory:.0f} MB",
        f"{requests:.0f}",
        f"{head:,}" if agents <= 2000 else "",
    ]


if __name__ == "__main__":
    for agents in [int(each) for each in sys.argv[1:]] or [200, 2000, 20_000]:
        with TemporaryDirectory() as folder:
            print("|", " | ".join(measure(agents, Path(folder))), "|", flush=True)
