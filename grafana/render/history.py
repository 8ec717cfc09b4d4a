"""Scrapes of a simulated company over hours, in the format of `promtool tsdb create-blocks-from`.

Dashboards and rules need the families of `metrics.families: standard` only.

The exporter and the simulated API run on an event loop with virtual time, so hours take a minute.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from pathlib import Path
from random import expovariate

from aiohttp import web

from exporter import log
from exporter.app import Exporter
from exporter.clock import Clock
from exporter.metrics.exposition import Format, plain_chunks
from exporter.settings import load
from exporter.simulator import Fault, Simulator, World

SCRAPE_INTERVAL = 60
API_LATENCY = 0.15
"""Mean duration of API requests, seconds."""
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


def write(
    path: Path, world: World, start: float, end: float, *, instance: str, faults: tuple[Fault, ...]
) -> None:
    """Write all samples between two times, Unix seconds, as OpenMetrics with timestamps."""
    target = f'job="thousandeyes",instance="{instance}"'
    log.configure("error", "logfmt")
    loop_factory = import_module("tests.fake_clock").FakeTimeLoop
    with asyncio.Runner(loop_factory=loop_factory) as runner, path.open("w") as file:

        async def run() -> None:
            async for scrape in _scrapes(world, start, end, target, faults):
                file.writelines(scrape)

        runner.run(run())
        file.write("# EOF\n")


async def _scrapes(
    world: World, start: float, end: float, target: str, faults: tuple[Fault, ...]
) -> AsyncIterator[Iterator[str]]:
    """Yield the samples of one scrape after another."""
    loop = asyncio.get_running_loop()
    offset = start - loop.time()
    clock = Clock(loop.time, lambda: loop.time() + offset)
    latency = Fault("latency", "responses are delayed", response=_delay)
    simulator = Simulator(world, clock=clock.wall, faults=(latency, *faults))
    url = await simulator.start()
    flags = [f"--api.url={url}", "--api.token=demo", "--metrics.families=standard"]
    exporter = Exporter(load(flags, {}).settings, clock=clock)
    polling = asyncio.create_task(exporter.run())
    try:
        while clock.wall() < end:
            await asyncio.sleep(SCRAPE_INTERVAL)
            yield _samples(exporter, target, round(clock.wall()))
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        await exporter.close()
        await simulator.stop()


async def _delay(_request: web.Request, response: web.Response) -> web.StreamResponse:
    await asyncio.sleep(expovariate(1 / API_LATENCY))
    return response


def _samples(exporter: Exporter, target: str, timestamp: int) -> Iterator[str]:
    """Yield the samples of one scrape."""
    parts = (exporter.snapshot.common, exporter.snapshot.tails[Format.TEXT])
    text = b"".join(chunk for part in parts for chunk in plain_chunks(part)).decode()
    text += exporter.metrics.render(Format.TEXT)
    for line in (*text.splitlines(), "up 1", "scrape_duration_seconds 0.008"):
        if match := SAMPLE.fullmatch(line):
            name, labels, value = match.groups()
            yield f"{name}{{{labels + ',' if labels else ''}{target}}} {value} {timestamp}\n"
