"""Every measure against its reference: both run in turn, several times, and their medians are compared.

What is run stands in `benchmarks.roles` and `benchmarks/go`; the table of it all in `benchmarks.report`.
"""

# ruff: noqa: S310, S603 - the programs and their addresses are our own

import gzip
import json
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import data, equal
from benchmarks.processes import NGINX, ROLE, ROOT, Service, asked, built, free_port, program, scrapes_a_second, service

SERIES_SESSIONS = 6_500
"""Sessions that make 100,000 series."""
SCRAPES_A_SECOND = 20


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table."""

    target: str
    what: str
    ours: float
    reference: float
    unit: str
    against: str
    bound: float
    """What the ratio has to reach or to keep under."""
    more: bool
    """Whether the ratio has to reach the bound; otherwise it has to keep under it."""
    faster: bool = False
    """Whether the ratio says how many times less ours costs."""

    @property
    def ratio(self) -> float:
        """Ours over reference; reference over ours where that is how many times less ours costs."""
        return self.reference / self.ours if self.faster else self.ours / self.reference

    @property
    def good(self) -> bool:
        """Whether the target is met."""
        return self.ratio >= self.bound if self.more else self.ratio <= self.bound


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    rounds: int
    load_seconds: int
    slow_load_seconds: int
    """For a reference that answers less than once a second."""
    costs: dict[int, tuple[int, ...]]
    """Sessions a poll → rounds of ours, of the naive way and of Go."""
    idle_seconds: int
    loop_rounds: int
    loop_sessions: int
    hour: float
    """Simulated seconds."""
    thorough: bool
    """Whether memory is watched over many polls and the real Prometheus scrapes, which has no target and takes long."""


FULL = Extent(
    rounds=5,
    load_seconds=4,
    slow_load_seconds=30,
    costs={1_000: (7, 5, 0), 10_000: (5, 3, 5), 100_000: (5, 1, 3)},
    idle_seconds=15,
    loop_rounds=4,
    loop_sessions=100_000,
    hour=3600.0,
    thorough=True,
)
QUICK = Extent(
    rounds=3,
    load_seconds=1,
    slow_load_seconds=16,
    costs={1_000: (3, 2, 0), 10_000: (3, 1, 1), 100_000: (2, 0, 0)},
    idle_seconds=6,
    loop_rounds=1,
    loop_sessions=100_000,
    hour=300.0,
    thorough=False,
)


@dataclass(slots=True)
class Figures:
    """What is measured besides the targets, for people."""

    growth: dict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """Sessions a poll → seconds, bytes, requests."""
    notes: list[str] = field(default_factory=list)


class UnequalError(Exception):
    """Two programs do not publish the same, so it means nothing which is faster."""


def expect_equal(name: str, ours: equal.Samples, theirs: bytes) -> None:
    """Compare samples with those of a compressed exposition."""
    if not ours or (found := equal.differences(ours, equal.samples(theirs))):
        raise UnequalError("\n".join([f"{name} does not publish the same samples:", *(found if ours else ["none"])]))


def _written(folder: Path, sessions: int) -> Path:
    """Return where the pages of so many sessions are, which several measures share."""
    pages = folder / f"pages-{sessions}"
    return pages if pages.exists() else data.pages(sessions).write(pages)


def throughput(extent: Extent, folder: Path) -> Iterator[Measure]:
    """P1, P2, P3: how many scrapes of 100,000 series a server answers in a second."""
    pages = _written(folder, SERIES_SESSIONS)
    with (
        service(*ROLE, "serve", "ours", pages) as ours,
        service(*ROLE, "serve", "naive", pages) as naive,
        service(built(), "serve", pages) as go,
        nginx(folder / "nginx", scraped(ours)) as file,
    ):
        published = equal.samples(scraped(ours))
        expect_equal("prometheus-client", published, scraped(naive))
        expect_equal("the Go program", published, scraped(go))
        expect_equal("nginx", published, scraped(file))
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(extent.rounds):
            rates["ours"].append(scrapes_a_second(ours.port, extent.load_seconds))
            rates["nginx"].append(scrapes_a_second(file.port, extent.load_seconds))
        rates["go"].append(scrapes_a_second(go.port, extent.slow_load_seconds // 4))
        rates["ours"].append(scrapes_a_second(ours.port, extent.load_seconds))
        rates["naive"].append(scrapes_a_second(naive.port, extent.slow_load_seconds))
        rates["ours"].append(scrapes_a_second(ours.port, extent.load_seconds))
    what = f"scrapes of {len(published):,} series, gzip, 4 connections"
    for target, reference, words, bound in (
        ("P1", "nginx", "nginx, the same bytes from a file", 0.9),
        ("P2", "naive", "prometheus-client's aiohttp handler", 1000.0),
        ("P3", "go", "client_golang's handler", 200.0),
    ):
        yield Measure(target, what, median(rates["ours"]), median(rates[reference]), "1/s", words, bound, more=True)


def scraped(server: Service) -> bytes:
    """Return one compressed answer."""
    request = urllib.request.Request(f"{server.address}/metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        body: bytes = answer.read()
    return body if body[:2] == b"\x1f\x8b" else gzip.compress(body)


@contextmanager
def nginx(folder: Path, body: bytes) -> Iterator[Service]:
    """Run nginx with one compressed file."""
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "metrics").write_bytes(body)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    process = subprocess.Popen([program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"])
    try:
        _answers(port, process)
        yield Service(process, port)  # type: ignore[arg-type]
    finally:
        process.terminate()
        process.wait()


def _answers(port: int, process: "subprocess.Popen[bytes]", path: str = "/metrics") -> float:
    """Wait until a server answers with 200; return when it did."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10):
                return time.perf_counter()
        except OSError:
            time.sleep(0.002)
    raise RuntimeError("the server ended before it answered")


def costs(extent: Extent, folder: Path, figures: Figures) -> Iterator[Measure]:
    """P4, P5, P6: what a poll costs, from pages to the compressed snapshot."""
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for sessions, rounds in extent.costs.items():
        pages = _written(folder, sessions)
        outputs = [folder / name for name in ("ours.gz", "naive.gz", "go.gz")]
        commands = {
            "ours": (*ROLE, "poll", "ours", pages, outputs[0], max(1, 20_000 // sessions)),
            "naive": (*ROLE, "poll", "naive", pages, outputs[1], max(1, 2_000 // sessions)),
            "go": (built(), "poll", pages, outputs[2]),
        }
        for number in range(max(rounds)):
            for (name, command), times, output in zip(commands.items(), rounds, outputs, strict=True):
                if number < times:
                    cost = asked(*command)
                    seconds[name, sessions].append(cost["cpu"])
                    if name == "ours":
                        figures.growth[sessions] |= {"seconds": cost["wall"], "memory": cost["rss"]}
                    elif number == 0:
                        expect_equal(name, equal.samples(outputs[0].read_bytes()), output.read_bytes())
        text = gzip.decompress(outputs[0].read_bytes())
        figures.growth[sessions]["seconds"] = median(seconds["ours", sessions])
        figures.growth[sessions]["requests"] = 2 * -(-sessions // data.PAGE)
        figures.growth[sessions]["scrape"] = outputs[0].stat().st_size
        figures.growth[sessions]["text"] = len(text)
        figures.growth[sessions]["samples"] = text.count(b"\nthousandeyes_endpoint_")
    for target, name, words, bound in (
        ("P4", "naive", "json, pydantic, prometheus-client, gzip", 20.0),
        ("P5", "go", "encoding/json, client_golang, gzip", 8.0),
    ):
        for sessions in extent.costs:
            if theirs := seconds[name, sessions]:
                ours, what = median(seconds["ours", sessions]), f"CPU of a poll of {sessions:,} sessions"
                yield Measure(target, what, ours, median(theirs), "s", words, bound, more=True, faster=True)
    small, large = min(extent.costs), max(extent.costs)
    each = {sessions: median(seconds["ours", sessions]) / sessions * 1e6 for sessions in (small, large)}
    what = f"CPU a session, polls of {large:,} sessions"
    yield Measure("P6", what, each[large], each[small], "µs", f"polls of {small:,} sessions", 1.3, more=False)


def responsiveness(extent: Extent, folder: Path, figures: Figures) -> Iterator[Measure]:
    """P7, P8: scrapes while polls run, and the most memory that this takes."""
    sessions = extent.loop_sessions
    pages = _written(folder, sessions)
    durations: dict[str, list[float]] = defaultdict(list)
    stalls: list[float] = []
    with service(*ROLE, "pages", pages) as api, service(*ROLE, "exporter", api.address) as exporter:
        exporter.tell("poll 0")
        for _ in range(extent.loop_rounds):
            for word in ("idle", "poll"):
                exporter.send(f"{word} {extent.idle_seconds}")
                durations[word] += asked(*ROLE, "scrape", exporter.port, extent.idle_seconds - 0.5, SCRAPES_A_SECOND)
                report = exporter.answer()
            stalls.append(report["stall"])
        peak, size = exporter.memory("VmHWM"), report["size"]
    p99 = {word: sorted(found)[int(len(found) * 0.99)] * 1000 for word, found in durations.items()}
    what = f"p99 of scrapes while a poll of {sessions:,} sessions runs"
    yield Measure("P7", what, p99["poll"], p99["idle"], "ms", "p99 while nothing is polled", 2.0, more=False)
    yield Measure(
        "P7", "longest stall of the event loop meanwhile", max(stalls) * 1000, 50.0, "ms", "50 ms", 1.0, more=False
    )
    what = f"peak memory at {sessions:,} sessions"
    yield Measure("P8", what, peak / 1e6, size / 1e6, "MB", "size of the exposition's text", 2.5, more=False)
    figures.notes.append(
        f"Median scrape: {median(durations['idle']) * 1000:.1f} ms idle, "
        f"{median(durations['poll']) * 1000:.1f} ms while a poll runs."
    )


def demo() -> Iterator[Measure]:
    """P9: memory of the demo beside that of a process with nothing but aiohttp and prometheus-client."""
    port = free_port()
    command = [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}",
               f"--simulator.listen-address=127.0.0.1:{free_port()}", "--log.level=error", "demo"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        _answers(port, process, "/-/ready")
        ours = Service(process, port)  # type: ignore[arg-type]
        with service(*ROLE, "bare") as bare:
            for server in (ours, bare):
                for _ in range(20):
                    scraped(server)
            yield Measure("P9", "resident memory of `demo`", ours.memory() / 1e6, bare.memory() / 1e6, "MB",
                          "bare aiohttp and prometheus-client", 2.0, more=False)  # fmt: skip
    finally:
        process.terminate()
        process.wait()


def start(extent: Extent) -> Iterator[Measure]:
    """P11: from the start to the first answer on /metrics."""
    ours, reference = [], []
    for _ in range(extent.rounds + 2):
        ours.append(_first_answer())
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import aiohttp, prometheus_client"], check=True)
        reference.append(time.perf_counter() - began)
    yield Measure("P11", "start to first answer on /metrics", median(ours), median(reference), "s",
                  'python -c "import aiohttp, prometheus_client"', 3.0, more=False)  # fmt: skip


def _first_answer() -> float:
    port = free_port()
    command = [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
               "--api.url=http://127.0.0.1:9", "--api.token=none"]  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return _answers(port, process) - began
    finally:
        process.kill()
        process.wait()


def requests(extent: Extent, figures: Figures) -> Iterator[Measure]:
    """P10: requests of polls at steady state, and how an hour of them looks for many account groups."""
    from benchmarks.frugal import hour  # noqa: PLC0415 - it takes the simulator in
    from exporter.simulator import World  # noqa: PLC0415

    for groups in (1, 5, 20):
        found = hour(World(agents=20 * groups, account_groups=groups), extent.hour, page_size=20)
        polls = found.steady
        sent, needed = (sum(getattr(poll, name) for poll in polls) / len(polls) for name in ("requests", "needed"))
        what = f"requests of a poll, {groups} account group{'s' * (groups > 1)}"
        yield Measure("P10", what, sent, needed, "", "pages that hold sessions of the overlap", 1.0, more=False)
        figures.notes.append(
            f"{groups} account groups, {extent.hour / 60:.0f} simulated minutes: {found.total} requests, at most "
            f"{found.busiest} in any minute of our share of 120; {found.failures:.0f} polls failed, "
            f"{found.skipped:.0f} were left out because the one before still waited for its share."
        )


def memory(figures: Figures) -> None:
    """Whether memory returns after a large round, and stays flat over many polls."""
    sizes = [1_000] * 3 + [100_000] + [1_000] * 20
    found = [each / 1e6 for each in asked(*ROLE, "rounds", sizes)]
    figures.notes.append(
        f"Memory returns: {found[2]:.0f} MB after polls of 1,000 sessions, {found[3]:.0f} MB after one of 100,000, "
        f"{found[-1]:.0f} MB when that has left the look-back."
    )
    flat = [each / 1e6 for each in asked(*ROLE, "rounds", [1_000] * 500)]
    half = flat[len(flat) // 2 :]
    middle = (len(half) - 1) / 2
    slope = sum((number - middle) * each for number, each in enumerate(half)) / sum(
        (number - middle) ** 2 for number in range(len(half))
    )
    figures.notes.append(
        f"500 polls of 1,000 new sessions each, all agents new: {half[0]:.1f} MB at the 250th, {half[-1]:.1f} MB at "
        f"the 500th, {slope * 1000:+.1f} kB a poll."
    )


def prometheus(folder: Path, figures: Figures) -> None:
    """How long the real Prometheus takes for a scrape of 1,000, 10,000 and 100,000 sessions: once cold, then warm."""
    for sessions in (1_000, 10_000, 100_000):
        pages = _written(folder, sessions)
        with service(*ROLE, "serve", "ours", pages) as ours:
            cold, warm = _scrape_durations(folder / f"tsdb-{sessions}", ours.port)
        figures.notes.append(
            f"Prometheus scrapes {sessions:,} sessions in {cold:.2f} s at first, then in {warm:.2f} s."
        )


def _scrape_durations(folder: Path, target: int) -> tuple[float, float]:
    """Return the first duration of a scrape, and the median of the next three."""
    folder.mkdir()
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(
        "global: {scrape_interval: 30s, scrape_timeout: 30s}\n"
        f"scrape_configs: [{{job_name: exporter, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = subprocess.Popen([program("prometheus"), *options, "--log.level=error"])
    try:
        _answers(port, process, "/-/ready")
        found: list[float] = []
        began = time.perf_counter()
        while len(found) < 4 and time.perf_counter() - began < 300:
            time.sleep(5)
            query = f"http://127.0.0.1:{port}/api/v1/query?query=scrape_duration_seconds[10m]"
            with urllib.request.urlopen(query, timeout=60) as answer:
                series = json.load(answer)["data"]["result"]
            found = [float(value) for _, value in series[0]["values"]] if series else []
        return found[0], median(found[1:])
    finally:
        process.terminate()
        process.wait()


def run(extent: Extent, folder: Path, figures: Figures, tell: Callable[[str], None]) -> Iterator[Measure]:
    """Measure everything; yield line by line."""
    steps: list[Callable[[], Iterator[Measure]]] = [
        lambda: throughput(extent, folder),
        lambda: costs(extent, folder, figures),
        lambda: responsiveness(extent, folder, figures),
        demo,
        lambda: requests(extent, figures),
        lambda: start(extent),
    ]
    names = ("throughput", "cost of a poll", "responsiveness", "memory", "requests", "start")
    for name, step in zip(names, steps, strict=True):
        began = time.perf_counter()
        yield from step()
        tell(f"{name}: {time.perf_counter() - began:.0f} s")
    if extent.thorough:
        memory(figures)
        prometheus(folder, figures)
