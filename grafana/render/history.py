"""Six hours of the pretend company, written as fast as they can be polled, in a form that `promtool` takes in.

The real exporter polls the real simulator once for every minute; only the clocks are turned by hand.
"""

import asyncio
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from exporter.app import Exporter
from exporter.clock import Clock
from exporter.exposition import Format, plain
from exporter.settings import load
from exporter.simulator import Simulator, World, parse_faults

END = datetime(2026, 11, 18, 14, 35, tzinfo=UTC).timestamp()
"""A Wednesday afternoon on which a site ails right now."""
START = END - 6 * 3600 - 1800
WORLD = World(agents=120)
FAULTS = ("server_error=0.7@170m+7m", "bad_records=0.3@250m+10m", "rate_limited=0.5@310m+6m")
"""Things that go wrong meanwhile, in minutes after the start: the dashboard of the exporter is to show something."""
INSTANCE = "exporter.example.com:9350"


class Turned:
    """A clock that is set by hand, and runs on at the usual speed until it is set again; Unix seconds."""

    def __init__(self) -> None:
        self._offset = 0.0

    def set(self, now: float) -> None:
        """Set it."""
        self._offset = now - time.perf_counter()

    def __call__(self) -> float:
        """Return what it shows."""
        return time.perf_counter() + self._offset

    async def sleep(self, seconds: float) -> None:
        """Let the time pass without waiting for it."""
        self._offset += seconds
        await asyncio.sleep(0)


async def write(path: Path, names: Collection[str]) -> None:
    """Write the history of the metrics with these names, as OpenMetrics with timestamps."""
    clock = Turned()
    clock.set(START)
    simulator = Simulator(WORLD, clock=clock, faults=parse_faults(FAULTS))
    url = await simulator.start()
    settings = load([f"--api.url={url}", "--api.token=demo"], {}).settings
    exporter = Exporter(settings, clock=Clock(monotonic=clock, wall=clock, sleep=clock.sleep))
    try:
        with path.open("w", encoding="utf-8") as file:
            await exporter.find()
            for minute in range(int((END - START) // 60) + 1):
                now = START + 60 * minute
                clock.set(now)
                await asyncio.gather(
                    *(each.once() if minute % 30 == 0 else each.poll() for each in exporter.pollers.values())
                )
                await exporter.publisher.build()
                _append(file, exporter, names, now)
            file.write("# EOF\n")
    finally:
        await exporter.close()
        await simulator.stop()


def _append(file: TextIO, exporter: Exporter, names: Collection[str], now: float) -> None:
    """Write one scrape."""
    began = time.perf_counter()
    snapshot = exporter.publisher.publication.snapshot
    parts = (snapshot.common, snapshot.tails[Format.TEXT])
    text = b"".join(chunk for part in parts for chunk in plain(part)).decode()
    text += exporter.telemetry.render(Format.TEXT)
    text += f"up 1\nscrape_duration_seconds {time.perf_counter() - began}\n"
    file.writelines(_stamped(text, names, now))


def _stamped(text: str, names: Collection[str], now: float) -> Iterator[str]:
    target = f'job="thousandeyes",instance="{INSTANCE}"'
    for line in text.splitlines():
        name = line.partition(" ")[0].partition("{")[0]
        if name in names:
            labels, _, value = line[len(name) :].rpartition(" ")
            inside = f"{labels.strip()[1:-1]}," if labels.strip() else ""
            yield f"{name}{{{inside}{target}}} {value} {now}\n"
