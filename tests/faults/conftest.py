"""How a row of docs/faults.md becomes a test.

A row is a function with `@row("U03")`; its id stands in the id of the test, and so in the table at the end of the run.
A row of several cases names them, and gets one after another as `case`:

    @row("U03")
    async def test_an_api_that_accepts_and_never_answers() -> None:
        async with trial() as t, t.fault():
            t.api.says(silence)
            await t.polls(2)
            assert t.failed == {"timeout": 2}

    @row("U06", head=resets(HEAD), body=resets(HEAD + b"{"))
    async def test_a_reset(case: Script) -> None: ...

Coroutines run on an elastic loop (faults/elastic.py): sockets and threads are real, waiting takes no time, so time
limits and intervals are those of production. `real=True` is for rows about processes: the ordinary loop and clock.
Async fixtures live on another loop: use context managers.

`trial(**settings)` runs an exporter in this process against an API that behaves (faults/api.py), until it is ready.
`t.fault(*names)` is the time during which something is wrong: names of the simulator's faults, or what the row
arranges with `t.api` inside. All that has to be true in every row is checked there, so no row says it: before the end
of the fault the exporter is healthy and scraped in time, with an exposition that a strict parser reads; whatever was
published and has not expired still is; nothing crashed, and nobody forgot a task or a connection; the token is in no
log line and on no page; after the fault the next poll is complete, and descriptors and tasks are as many as before.
What was published in the middle of each fault is given to a real Prometheus at the end (test_prometheus.py).

`process(*flags)` runs the real command against a simulator, on the ordinary loop, and holds the same of it from
outside. Rows of neither kind are plain functions or coroutines, and hold what they can: `scraped(address)` is the
check of a server that has to answer, `told_nothing(lines)` that of a log.

Ordinary tests that hold a row are marked with its id (tests/conftest.py). That docs/faults.md and the tests have the
same rows is held in test_catalogue.py.
"""

import asyncio
import functools
import gc
import inspect
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp.connector
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly
from servers import EXPORTER, TOKEN, Program, ask, logging_as, running, settings_for, simulated, until

from benchmarks.processes import free_port
from exporter.app import Exporter, answering
from exporter.errors import REASONS
from exporter.simulator import Simulator, World
from faults.api import Api
from faults.elastic import Elastic, clock, wall

COMPANY = World(agents=6, sites=3)
PREFIX = "thousandeyes_exporter_"
ROUND_TIME = "thousandeyes_endpoint_round_timestamp_seconds"
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
FORGOTTEN = ("never retrieved", "Unclosed", "never awaited", "was destroyed")
CRASHED = ("Traceback", "event=crashed", "event=poll_crashed", "event=request_crashed", "reason=internal")

PUBLISHED: dict[str, str] = {}
"""Test → what was published in the middle of its fault, for Prometheus to read."""


def row(id_: str, *, real: bool = False, **cases: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function the test of a row, with its cases by their names."""
    assert re.fullmatch(r"[A-Z]\d\d", id_), id_

    def decorate(function: Callable[..., Any]) -> Any:
        assert function.__name__.startswith("test_")
        test = _elastic(function) if inspect.iscoroutinefunction(function) and not real else function
        if cases:
            named = [pytest.param(case, id=f"{id_}-{name}") for name, case in cases.items()]
            return pytest.mark.parametrize("case", named)(test)
        return pytest.mark.parametrize((), [pytest.param(id=id_)])(test)

    return decorate


def _elastic(function: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(function)
    def test(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=Elastic) as runner:
            runner.run(function(*arguments, **named))

    return test


# What is true in every row.


def parsed(text: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Read an exposition in the OpenMetrics format: sample name → labels → value; nothing twice, and no NaN."""
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in strictly(text):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            series = found.setdefault(sample.name, {})
            assert labels not in series, f"twice: {sample}"
            assert sample.value == sample.value, f"no number: {sample}"
            assert sample.timestamp is None, f"with a time: {sample}"
            series[labels] = sample.value
    return found


async def in_time(address: str, path: str, **headers: str) -> str:
    """Ask a path; the answer has to be a 200 and to come within a second."""
    began = time.monotonic()
    reply = await asyncio.wait_for(ask(f"{address}{path}", path, **headers), 1.0)
    assert time.monotonic() - began < 1.0
    assert reply.status == 200, reply
    assert TOKEN not in reply.text
    return reply.text


async def scraped(address: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Scrape, and read strictly what comes; the exporter has to be healthy."""
    await in_time(address, "/-/healthy")
    return parsed(await in_time(address, "/metrics", **OPENMETRICS))


def told_nothing(lines: list[str], *, crashes: bool = False) -> None:
    """Assert that log lines hold no secret, that nothing was forgotten, and that nothing crashed unless it should.

    It is the simulator's server that speaks as aiohttp's: when who asked it has left, it says so with a traceback.
    """
    for line in lines:
        assert TOKEN not in line
        wrong = FORGOTTEN if crashes or "logger=aiohttp.server" in line else (*FORGOTTEN, *CRASHED)
        assert not [words for words in wrong if words in line], line


def descriptors(pid: int | str = "self") -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def command_line(pid: int) -> str:
    """Return what everybody on the machine can read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


@dataclass
class Trial:
    """An exporter under trial: with all that it talks to, and what it says."""

    exporter: Exporter
    address: str
    api: Api
    lines: Callable[[], list[str]]
    name: str
    crashes: bool = False
    _failures: Counter[str] = field(default_factory=Counter)

    @property
    def loop(self) -> Elastic:
        """The event loop, and so the time."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Elastic)
        return loop

    @property
    def aids(self) -> list[str]:
        """The account groups that are polled."""
        return list(self.exporter.pollers)

    def value(self, name: str, **labels: str) -> float | None:
        """Return an own metric, by its name without the prefix."""
        name = name if name.startswith("thousandeyes_") else PREFIX + name
        return self.exporter.telemetry.registry.get_sample_value(name, labels)

    def of(self, name: str, aid: str = "1001", **labels: str) -> float:
        """Return an own metric of an account group."""
        value = self.value(name, aid=aid, **labels)
        assert value is not None, name
        return value

    @property
    def failed(self) -> dict[str, int]:
        """Return how many polls failed since the fault began, by reason, of all account groups."""
        return dict(self._counted() - self._failures)

    def _counted(self) -> Counter[str]:
        return Counter(
            {
                reason: int(sum(self.value("poll_failures_total", aid=aid, reason=reason) or 0 for aid in self.aids))
                for reason in REASONS
            }
        )

    async def polls(self, number: int = 1, seconds: float = 600.0) -> None:
        """Wait until every account group was polled so many times more."""
        wanted = {aid: self.of("polls_total", aid) + number for aid in self.aids}
        await self.until(lambda: all(self.of("polls_total", aid) >= wanted[aid] for aid in wanted), seconds * number)
        await self.until(lambda: not self.exporter.publisher._changed.is_set())
        await asyncio.sleep(0.01)

    async def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """Wait until something is true, in seconds of the loop."""
        end = self.loop.time() + seconds
        while not condition():
            assert self.loop.time() < end, f"not within {seconds} s\n" + "\n".join(self.lines()[-5:])
            await asyncio.sleep(2.0)

    async def scrape(self) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
        """Scrape as in every row."""
        return await scraped(self.address)

    async def footprint(self) -> tuple[int, int, int]:
        """Return how many descriptors, tasks and busy connections there are, without those that only wait for use."""
        connector = self.exporter.http._session.connector
        assert connector
        for idle in connector._conns.values():
            for connection, _ in idle:
                connection.close()
        connector._conns.clear()
        await asyncio.sleep(1.0)
        return descriptors(), len(asyncio.all_tasks()), len(connector._acquired)

    async def text(self) -> str:
        """Scrape the text format."""
        return await in_time(self.address, "/metrics")

    def fault(self, *faults: str, recovers: float | None = None) -> Any:
        """Return the context in which something is wrong; `recovers`: seconds until all is well, else an interval."""
        return _fault(self, faults, recovers)


def _rounds(text: str) -> dict[str, float]:
    """Return the labels of all keys that are published → the start of their round."""
    return {labels: float(start) for labels, start in re.findall(rf"^{ROUND_TIME}({{.*}}) (\S+)$", text, re.MULTILINE)}


@asynccontextmanager
async def _fault(t: Trial, faults: tuple[str, ...], recovers: float | None) -> AsyncIterator[None]:
    settings = t.exporter.settings
    before = _rounds(await t.text())
    small = await t.footprint()
    t._failures = t._counted()
    if faults:
        t.api.fails(*faults)
    yield
    await t.scrape()
    PUBLISHED[t.name] = text = await t.text()
    during = _rounds(text)
    # A snapshot is as old as the last tick: what expires within one is gone or not, and either is right.
    due = {key for key, start in before.items() if start + settings.poll.lookback > wall() + 1}
    assert due <= during.keys(), "what was published stays until it expires"
    oldest = wall() - settings.poll.lookback - settings.poll.interval - 60
    assert all(start >= oldest for start in during.values()), "and no longer"
    await in_time(t.address, "/")

    await t.api.heal()
    patience = settings.poll.interval + 5.0 if recovers is None else recovers
    polls = {aid: t.of("polls_total", aid) for aid in t.aids}
    await t.until(
        lambda: all(t.of("thousandeyes_up", aid) == 1 and t.of("polls_total", aid) > polls[aid] for aid in t.aids),
        patience,
    )
    assert _rounds(await t.text())
    for _ in range(30):  # connections that broke may wait for their end
        if (left := await t.footprint()) <= small:
            break
        await asyncio.sleep(7.0)
    else:
        pytest.fail(f"descriptors, tasks and busy connections were {small} and are {left}")


@asynccontextmanager
async def trial(
    *faults: str,
    world: World = COMPANY,
    api: Api | None = None,
    crashes: bool = False,
    ready: bool = True,
    **settings: Any,
) -> AsyncIterator[Trial]:
    """Run an exporter on an elastic loop, until it has polled twice.

    Its API behaves, but for `faults` of the simulator that are there from the start; `settings` are `group__name`.
    """
    async with AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        lines = stack.enter_context(logging_as("debug", monotonic=loop.time))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(aiohttp.connector, "monotonic", loop.time)
        api = api or Api(world, wall)
        api.fails(*faults)
        await api.start()
        stack.push_async_callback(api.stop)
        chosen = settings_for(settings.pop("api__url", api.url), **settings)
        exporter = Exporter(chosen, clock=clock(), process=False)
        stack.push_async_callback(exporter.close)
        address = await stack.enter_async_context(answering(exporter))
        running_ = asyncio.create_task(exporter.run())
        stack.push_async_callback(_cancelled, running_)
        name = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].partition(" ")[0]
        t = Trial(exporter, address, api, lines, name, crashes)
        if ready:
            await t.until(lambda: exporter.ready() and all(p.result.agents for p in exporter.pollers.values()))
            await t.polls()
        yield t
    gc.collect(1)
    told_nothing(lines(), crashes=crashes)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# The real command.


@dataclass
class Process:
    """A running exporter, and the simulator that it asks."""

    program: Program
    address: str
    simulator: Simulator


@asynccontextmanager
async def process(
    *flags: str, faults: tuple[str, ...] = (), ready: bool = True, ends: bool = False, **options: Any
) -> AsyncIterator[Process]:
    """Run the real command against a simulator with a real clock, and hold from outside what is true in every row.

    `ready`: wait until it is. `ends`: the row ends the process itself, so nothing is asked of it behind the row.
    Flags of the row come last, so they win. The interval is a second; more `options` are those of `servers.running`.
    """
    port = free_port()
    options.setdefault("env", {**os.environ, "THOUSANDEYES_TOKEN": TOKEN})
    async with simulated(COMPANY, faults=faults, clock=time.time) as (simulator, api):
        command = [*EXPORTER, f"--api.url={api}", f"--web.listen-address=127.0.0.1:{port}"]
        if not any(flag.startswith("--poll.interval") for flag in flags):
            command.append("--poll.interval=1s")
        async with running(*command, *flags, **options) as program:
            p = Process(program, f"http://127.0.0.1:{port}", simulator)
            if ready:
                await program.said("event=poll ")
                await until(lambda: _is_ready(p.address), 15)
                open_before = descriptors(program.pid)
            yield p
            if not ends:
                assert program.process.returncode is None, program.stderr
                await scraped(p.address)
                assert TOKEN not in command_line(program.pid)
                if ready:
                    await until(lambda: descriptors(program.pid) <= open_before + 2, 20)
            told_nothing((program.stdout + program.stderr).splitlines())


async def _is_ready(address: str) -> bool:
    try:
        return (await ask(f"{address}/-/ready")).status == 200
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _the_same_chances() -> Iterator[None]:
    state = random.getstate()
    random.seed(1)
    yield
    random.setstate(state)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put Prometheus behind all rows: it reads what they published."""
    items.sort(key=lambda item: item.path.parent.name == "faults" and item.path.stem == "test_prometheus")
