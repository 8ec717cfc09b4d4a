"""`python -m benchmarks.sizing [AGENTS ...]`: the table in docs/sizing.md, for a weekday at 14:32.

`check` reports samples, sizes and requests. Memory is that of a process that has polled once and
was scraped. Series after three hours are the different ones of a scrape every ten minutes, with a
clock that is set.
"""
# ruff: noqa: T201  prints a table

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from benchmarks.programs import EXPORTER, ROOT, server
from exporter import log
from exporter.app import Exporter
from exporter.clock import Clock
from exporter.metrics.exposition import Format
from exporter.settings import load
from exporter.simulator import Simulator, World
from exporter.web.app import ExpositionCache

START = 1_795_012_350  # 2026-11-18 14:32:30 UTC
FLAGS = ["--api.token=demo", "--api.requests-per-minute=10000", "--metrics.max-series=10000000"]


@contextmanager
def simulator(agents: int) -> Iterator[str]:
    """Run the simulated API in a thread; yields its URL."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    api = Simulator(World(agents=agents), token="demo", clock=lambda: START, rate_limit=1_000_000)  # noqa: S106
    yield asyncio.run_coroutine_threadsafe(api.start(), loop).result()
    asyncio.run_coroutine_threadsafe(api.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)


async def series(agents: int) -> int:
    """Return the number of different series of three hours."""
    log.configure("error", "logfmt")
    now, found = float(START), set[bytes]()
    api = Simulator(World(agents=agents), token="demo", clock=lambda: now, rate_limit=1_000_000)  # noqa: S106
    settings = load([f"--api.url={await api.start()}", *FLAGS], {}).settings
    exporter = Exporter(settings, clock=Clock(lambda: now, lambda: now))
    await exporter.manager.update()
    for _ in range(19):
        for poller in exporter.manager.pollers:
            await poller.poll()
        await exporter.publisher.publish()
        body = ExpositionCache(exporter, exporter.clock).body(Format.TEXT)
        lines = b"".join(body.chunks(gzip=False)).splitlines()
        found |= {line.rpartition(b" ")[0] for line in lines if not line.startswith(b"#")}
        now += 600
    await exporter.close()
    await api.stop()
    return len(found)


def measure(agents: int) -> list[str]:
    """Return the cells of a row."""
    with simulator(agents) as url:
        command = [sys.executable, "-m", "exporter", "check", "--output=json", *FLAGS]
        command.append(f"--api.url={url}")
        report = json.loads(subprocess.run(command, cwd=ROOT, stdout=-1, check=False).stdout)  # noqa: S603
        flags = f"--api.url={url}", *FLAGS, "--log.level=error"
        with server(*EXPORTER, *flags, path="/-/ready") as exporter:
            exporter.get()
            memory = exporter.memory("VmHWM")
    published, requests = report["series"], report["requests"]["total_per_minute"]
    saved = 1 - published["with_standard_families"] / published["published"]
    sizes = published["scrape_gzip_bytes"] / 1e6, published["scrape_text_bytes"] / 1e6
    return [
        f"{agents:,}",
        f"{sum(group['user_sessions'] for group in report['account_groups']):,}",
        f"{published['scrape_samples']:,}",
        f"{saved:.0%}",
        "{:.2f} / {:.1f} MB".format(*sizes),
        f"{memory:.0f} MB",
        f"{requests:.0f}",
        f"{asyncio.run(series(agents)):,}" if agents <= 2000 else "",
    ]


if __name__ == "__main__":
    for agents in [int(each) for each in sys.argv[1:]] or [200, 2000, 20_000]:
        print("|", " | ".join(measure(agents)), "|", flush=True)
