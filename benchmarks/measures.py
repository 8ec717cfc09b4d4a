"""The measures: the exporter and its references take turns in the same run."""

import asyncio
import gzip
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import simdjson
from isal import igzip

from benchmarks import data, ours
from benchmarks.programs import BARE, EXPORTER, GO, NAIVE, NGINX, NGINX_PORT, OURS, run, server
from exporter.clock import Clock
from exporter.metrics.exposition import COMPRESSION_LEVEL
from exporter.simulator import Simulator, World
from exporter.sources.round_source import RoundSource

SIZES = (1_000, 10_000, 100_000)
AT_LEAST = {"P1": 0.5, "P2": 1000.0, "P3": 200.0, "P4": 20.0, "P5": 8.0}
AT_MOST = {"P6": 1.3, "P7": 4.0, "P8": 2.5, "P9": 2.2, "P10": 1.0, "P11": 2.5, "P12": 8.0}


class Plan(NamedTuple):
    """How much is measured: rounds, seconds of a load test, agents and sessions of a measure."""

    rounds: int = 5
    seconds: int = 4
    series_sessions: int = 6000  # about 100,000 series
    polls: Mapping[str, Sequence[int]] = {"P4": SIZES, "P5": SIZES[1:], "P12": SIZES[1:]}
    agents: Sequence[int] = SIZES[:2]


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
        at_least = AT_LEAST.get(self.id)
        return self.ratio >= at_least if at_least else self.ratio <= AT_MOST[self.id]

    def __str__(self) -> str:
        """Format a line of the table."""
        target = f"≥ {AT_LEAST[self.id]:,g}" if self.id in AT_LEAST else f"≤ {AT_MOST[self.id]:,g}"
        values = [f"{value:,.4g} {self.unit}".strip() for value in (self.ours, self.reference)]
        met = "met" if self.met else "**missed**"
        cells = self.id, self.name, *values, self.against, f"{self.ratio:,.4g}", target, met
        return f"| {' | '.join(cells)} |"


def measure(plan: Plan, folder: Path) -> Iterator[Measure]:
    """Measure everything; `folder` is for temporary files."""
    for sessions in {plan.series_sessions}.union(*plan.polls.values()):
        data.write(folder / str(sessions), sessions)
    yield from throughput(plan, folder)
    yield from polls(plan, folder)
    yield from scrapes_during_polls(plan, folder)
    yield demo_memory()
    for agents in plan.agents:
        yield from asyncio.run(requests(agents))
    yield start_time(plan)


def compare(rounds: int, *runs: Callable[[], float]) -> tuple[float, float]:
    """Run ours and the reference in turn; return the medians."""
    ours, reference = zip(*[[run() for run in runs] for _ in range(rounds)], strict=True)
    return median(ours), median(reference)


def throughput(plan: Plan, folder: Path) -> Iterator[Measure]:
    """P1, P2, P3: scrapes of 100,000 series."""
    serve = "serve", folder / str(plan.series_sessions), "PORT"
    with server(*OURS, *serve) as ours, server(*NAIVE, *serve) as naive, server(*GO, *serve) as go:
        (folder / "metrics").write_bytes(ours.get())
        with server(*NGINX, folder, port=NGINX_PORT) as nginx:
            for id_, against, reference, rounds, seconds in (
                ("P1", "nginx, the same bytes", nginx, plan.rounds, plan.seconds),
                ("P2", "prometheus-client's aiohttp handler", naive, 1, 10 * plan.seconds),
                ("P3", "client_golang's handler", go, 1, 10 * plan.seconds),
            ):
                scrape = partial(ours.scrapes_per_second, plan.seconds)
                rates = compare(rounds, scrape, partial(reference.scrapes_per_second, seconds))
                yield Measure(id_, "scrapes of 100,000 series, gzip", *rates, "1/s", against)


def polls(plan: Plan, folder: Path) -> Iterator[Measure]:
    """P4, P5, P12, P6: CPU time from pages to a compressed exposition."""
    per_session = {}
    for id_, against, reference in (
        ("P4", "json, pydantic, prometheus-client, gzip", partial(cpu, NAIVE)),
        ("P5", "Go: encoding/json, client_golang, gzip", partial(cpu, GO)),
        ("P12", "simdjson and isal only", floor),
    ):
        for sessions in plan.polls[id_]:
            files = folder / str(sessions), folder / f"{sessions}.gz"
            seconds = compare(plan.rounds, partial(cpu, OURS, *files), partial(reference, *files))
            yield Measure(id_, f"CPU of a poll, {sessions:,} sessions", *seconds, "s", against)
            per_session[sessions] = 1e6 * seconds[0] / sessions
    small, large = min(per_session), max(per_session)
    times = per_session[large], per_session[small]
    yield Measure("P6", f"CPU per session, {large:,} sessions", *times, "µs", f"{small:,} sessions")


def cpu(program: tuple[object, ...], pages: Path, output: Path) -> float:
    """Return the CPU time of a poll."""
    return float(run(*program, "poll", pages, output))


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
    sessions, peaks = max(plan.polls["P12"]), []

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
    now, world, measures = float(data.END), World(agents=agents), []
    simulator = Simulator(world, clock=lambda: now, rate_limit=1_000_000)
    clock, aid = Clock(lambda: now, lambda: now), int(data.AID)
    async with ours.exporter(await simulator.start(), clock=clock) as exporter:
        for poller in exporter.manager.pollers:
            source, now = poller.source, float(data.END)
            await ours.poll(exporter, poller)
            simulator.requests.clear()
            first, now = now, now + source.interval
            await ours.poll(exporter, poller)
            if isinstance(source, RoundSource):
                first -= source.config.overlap
                first -= first % source.round_seconds
            sessions = list(world.sessions(aid, first, now, now))
            records = {
                "sessions": [sum(s.listed for s in sessions), sum(s.measured for s in sessions)],
                "agents": [len(world.agents_of(aid))],
                "local_networks": [len(list(world.probes(aid, first, now, now)))],
            }[source.name]
            sent, least = len(simulator.requests), sum(ceil(n / data.PAGE_SIZE) for n in records)
            name = f"requests of a poll, {source.name}, {agents:,} agents"
            measures.append(Measure("P10", name, sent, least, "", "pages of the overlap"))
    await simulator.stop()
    return measures


def start_time(plan: Plan) -> Measure:
    """P11: time from start to the first response."""
    flags = "--api.url=http://127.0.0.1:9", "--api.token=x", "--log.level=error"

    def start() -> float:
        before = time.perf_counter()
        with server(*EXPORTER, *flags):
            return time.perf_counter() - before

    def imports() -> float:
        before = time.perf_counter()
        run(sys.executable, "-c", "import aiohttp, prometheus_client")
        return time.perf_counter() - before

    seconds = compare(2 * plan.rounds, start, imports)
    return Measure("P11", "start to first response", *seconds, "s", "import of both libraries")
