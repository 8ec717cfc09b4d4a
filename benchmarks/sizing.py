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

from benchmarks import ours
from benchmarks.programs import EXPORTER, ROOT, server
from exporter.clock import Clock
from exporter.metrics.exposition import Format
from exporter.simulator import Simulator, World
from exporter.web.app import ExpositionCache

START = 1_795_012_350.0  # 2026-11-18 14:32:30 UTC
FLAGS = ("--api.token=demo", "--api.requests-per-minute=10000", "--metrics.max-series=10000000")


def measure(url: str) -> list[str]:
    """Return what an exporter of this API needs: cells of the table."""
    check = sys.executable, "-m", "exporter", "check", "--output=json", f"--api.url={url}", *FLAGS
    report = json.loads(subprocess.run(check, cwd=ROOT, stdout=-1, check=False).stdout)  # noqa: S603
    flags = f"--api.url={url}", *FLAGS, "--log.level=error"
    with server(*EXPORTER, *flags, path="/-/ready") as exporter:
        exporter.get()
        memory = exporter.memory("VmHWM")
    published, requests = report["series"], report["requests"]["total_per_minute"]
    saved = 1 - published["with_standard_families"] / published["published"]
    sizes = published["scrape_gzip_bytes"] / 1e6, published["scrape_text_bytes"] / 1e6
    return [
        f"{sum(group['user_sessions'] for group in report['account_groups']):,}",
        f"{published['scrape_samples']:,}",
        f"{saved:.0%}",
        "{:.2f} / {:.1f} MB".format(*sizes),
        f"{memory:.0f} MB",
        f"{requests:.0f}",
    ]


async def row(agents: int) -> list[str]:
    """Return the cells of a row."""
    now, found = START, set[bytes]()
    simulator = Simulator(World(agents=agents), clock=lambda: now, rate_limit=1_000_000)
    url = await simulator.start()
    cells = [f"{agents:,}", *await asyncio.to_thread(measure, url)]
    async with ours.exporter(url, clock=Clock(lambda: now, lambda: now)) as exporter:
        while now <= START + 3 * 3600 and agents <= 2000:
            for poller in exporter.manager.pollers:
                await ours.poll(exporter, poller)
            body = ExpositionCache(exporter, exporter.clock).body(Format.TEXT)
            lines = b"".join(body.chunks(gzip=False)).splitlines()
            found |= {line.rpartition(b" ")[0] for line in lines if not line.startswith(b"#")}
            now += 600
    await simulator.stop()
    return [*cells, f"{len(found):,}" if found else ""]


if __name__ == "__main__":
    for agents in [int(each) for each in sys.argv[1:]] or [200, 2000, 20_000]:
        print("|", " | ".join(asyncio.run(row(agents))), "|", flush=True)
