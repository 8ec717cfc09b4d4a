"""The measures: the exporter and its references take turns in the same run."""

import asyncio
import gzip
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median, quantiles
from timeit import timeit
from typing import NamedTuple

import simdjson
from isal import igzip

from benchmarks import data
from benchmarks.ours import simulated
from benchmarks.programs import BARE, EXPORTER, GO, NAIVE, NGINX, OURS, run, server
from exporter.metrics.exposition import COMPRESSION_LEVEL

AT_LEAST = {"P1": 0.5, "P2": 1000.0, "P3": 200.0, "P4": 20.0, "P5": 8.0}
AT_MOST = {"P6": 1.3, "P7": 4.0, "P8": 2.5, "P9": 2.2, "P10": 1.0, "P11": 2.5, "P12": 8.0}


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int = 5
    seconds: int = 4
    series_sessions: int = 6000  # about 100,000 series
    sizes: Sequence[int] = (1_000, 10_000, 100_000)  # sessions of a poll
    slow: Sequence[int] = sizes  # those compared with slow programs; agents of a company


class Measure(NamedTuple):
    """One line of the table."""

    id: str
    name: str
    ours: float
    reference: float
    unit: str
    against: str

    @property
    def ratio(self) -> float:
        """Ours to the reference; for the CPU time of P4 and P5, the reference to ours."""
        ratio = self.ours / self.reference
        return 1 / ratio if self.id in ("P4", "P5") else ratio

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return AT_LEAST.get(self.id, 0.0) <= self.ratio <= AT_MOST.get(self.id, self.ratio)

    def __str__(self) -> str:
        """Format a line of the table."""
        target = f"≥ {AT_LEAST[self.id]:,g}" if self.id in AT_LEAST else f"≤ {AT_MOST[self.id]:,g}"
        values = [f"{value:,.4g} {self.unit}".strip() for value in (self.ours, self.reference)]
        met = "met" if self.met else "**missed**"
        cells = self.id, self.name, *values, self.against, f"{self.ratio:,.4g}", target, met
        return f"| {' | '.join(cells)} |"


def measure(plan: Plan, folder: Path) -> Iterator[Measure]:
    """Measure everything; `folder` is for temporary files."""
    for sessions in {plan.series_sessions, *plan.sizes}:
        data.write(folder / str(sessions), sessions)
    yield from throughput(plan, folder)
    yield from polls(plan, folder)
    yield from scrapes_during_polls(plan, folder)
    yield demo_memory()
    for agents in plan.slow[:-1]:
        yield from asyncio.run(requests(agents))
    yield start_time(plan)


def compare(rounds: int, *runs: Callable[[], float | str]) -> tuple[float, float]:
    """Run ours and the reference in turn; return the medians of what they return."""
    ours, reference = zip(*[[float(run()) for run in runs] for _ in range(rounds)], strict=True)
    return median(ours), median(reference)


def throughput(plan: Plan, folder: Path) -> Iterator[Measure]:
    """P1, P2, P3: scrapes of 100,000 series."""
    serve = "serve", folder / str(plan.series_sessions), "PORT"
    with server(*OURS, *serve) as ours, server(*NAIVE, *serve) as naive, server(*GO, *serve) as go:
        (folder / "metrics").write_bytes(ours.get())
        with server(*NGINX, folder, port=9351) as nginx:
            for id_, against, reference, rounds in (
                ("P1", "nginx, the same bytes", partial(nginx.rate, plan.seconds), plan.rounds),
                ("P2", "prometheus-client's aiohttp handler", naive.slow_rate, 1),
                ("P3", "client_golang's handler", go.slow_rate, 1),
            ):
                rates = compare(rounds, partial(ours.rate, plan.seconds), reference)
                yield Measure(id_, "scrapes of 100,000 series, gzip", *rates, "1/s", against)


def polls(plan: Plan, folder: Path) -> Iterator[Measure]:
    """P4, P5, P12, P6: CPU time from pages to a compressed exposition."""
    (small, *_, large), microseconds, ours = plan.sizes, {}, partial(run, *OURS, "poll")
    for id_, sizes, against, reference in (
        ("P4", plan.slow, "json, pydantic, prometheus-client, gzip", partial(run, *NAIVE, "poll")),
        ("P5", plan.slow[1:], "Go: encoding/json, client_golang, gzip", partial(run, *GO, "poll")),
        ("P12", plan.sizes[1:], "simdjson and isal only", floor),
    ):
        for size in sizes:
            files = folder / str(size), folder / f"{size}.gz"
            times = compare(plan.rounds, partial(ours, *files), partial(reference, *files))
            yield Measure(id_, f"CPU of a poll, {size:,} sessions", *times, "s", against)
            microseconds[size] = 1e6 * times[0] / size
    times = microseconds[large], microseconds[small]
    yield Measure("P6", f"CPU per session, {large:,} sessions", *times, "µs", f"{small:,} sessions")


def floor(pages: Path, output: Path) -> float:
    """Return the CPU time of parsing the same pages and compressing the same text."""
    bodies = [body for listing in data.LISTINGS for body in data.read(pages, listing)]
    text = gzip.decompress(output.read_bytes())
    parser, start = simdjson.Parser(), time.process_time()
    for body in bodies:
        parser.parse(body)
    igzip.compress(text, COMPRESSION_LEVEL)
    return time.process_time() - start


def scrapes_during_polls(plan: Plan, folder: Path) -> Iterator[Measure]:
    """P7, P8: duration of scrapes while polls run, and the memory that this takes."""
    sessions, peaks = plan.sizes[-1], []

    def p99(command: str) -> float:
        with server(*OURS, command, folder / str(sessions), "PORT") as ours:
            durations = ours.scrape_durations(3 * plan.seconds)
            peaks.append(ours.memory("VmHWM"))
        return 1000 * quantiles(durations, n=100)[-1]

    times = compare(plan.rounds, partial(p99, "poll-and-serve"), partial(p99, "serve"))
    size = len(gzip.decompress((folder / f"{sessions}.gz").read_bytes())) / 1e6
    name = f"during polls of {sessions:,} sessions"
    yield Measure("P7", f"p99 of scrapes {name}", *times, "ms", "p99 without polls")
    yield Measure("P8", f"peak memory {name}", max(peaks), size, "MB", "uncompressed exposition")


def demo_memory() -> Measure:
    """P9: memory of the demo."""
    command = *EXPORTER, "--simulator.listen-address=127.0.0.1:0", "--log.level=error", "demo"
    with server(*command, path="/-/ready") as ours, server(*BARE, "PORT") as reference:
        for each in 20 * [ours, reference]:
            each.get()
        memory = ours.memory("VmRSS"), reference.memory("VmRSS")
    return Measure("P9", "memory of `demo`", *memory, "MB", "only aiohttp and prometheus-client")


async def requests(agents: int) -> list[Measure]:
    """P10: requests of a poll at steady state, and the minimum that paging allows."""
    measures, aid = [], int(data.AID)
    async with simulated(agents, data.END) as exporter:
        await exporter.poll()
        for poller in exporter.pollers:
            exporter.simulator.requests.clear()
            exporter.now = now = data.END + poller.source.interval
            await exporter.poll(poller)
            name, world = poller.source.name, exporter.simulator.world
            overlap = {"sessions": 300, "agents": 0, "local_networks": 600 + data.END % 300}[name]
            sessions = list(world.sessions(aid, data.END - overlap, now, now))
            records = {
                "sessions": [sum(s.listed for s in sessions), sum(s.measured for s in sessions)],
                "agents": [len(world.agents_of(aid))],
                "local_networks": [len(list(world.probes(aid, data.END - overlap, now, now)))],
            }
            needed = sum(ceil(number / data.PAGE_SIZE) for number in records[name])
            name = f"requests of a poll, {name}, {agents:,} agents"
            sent = len(exporter.simulator.requests)
            measures.append(Measure("P10", name, sent, needed, "", "pages of the overlap"))
    return measures


def start_time(plan: Plan) -> Measure:
    """P11: time from start to the first response."""
    flags = "--api.url=http://127.0.0.1:9", "--api.token=x", "--log.level=error"
    libraries = partial(run, sys.executable, "-c", "import aiohttp, prometheus_client")

    def start() -> float:
        before = time.perf_counter()
        with server(*EXPORTER, *flags):
            return time.perf_counter() - before

    seconds = compare(2 * plan.rounds, start, partial(timeit, libraries, number=1))
    return Measure("P11", "start to first response", *seconds, "s", "import of both libraries")
