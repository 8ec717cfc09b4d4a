"""Runs a complete exporter against the simulator on virtual time, with failures in between.

The exporter, its web server and the simulator use real sockets and the timeouts of production. A
`Front` between exporter and simulator fails at the level of the connection; faults of the simulator
(tests/api_faults.py) fail at the level of HTTP and JSON.
"""

import asyncio
import io
import logging
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    redirect_stderr,
    suppress,
)
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import structlog
from api_faults import faults
from fake_clock import fake_clock, pause_time, wall

from exporter.app import Exporter
from exporter.log import configure
from exporter.settings import load
from exporter.simulator import Fault, Simulator, World
from exporter.web.app import create_app
from exporter.web.server import serving

TOKEN = "canary-of-the-failure-modes"
SMALL = World(agents=6, sites=3)
ROUND_FAMILY = "thousandeyes_endpoint_round_timestamp_seconds"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Front:
    """A port in front of the simulator that forwards bytes.

    `handler` replaces forwarding for new connections. `tls` terminates TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.port = 0
        self.connections = 0
        self.handler: Handler | None = None
        self._good_tls = tls
        self._target = ("", 0)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []

    @property
    def url(self) -> str:
        """The URL of the API as the exporter sees it."""
        origin = "https://localhost" if self._good_tls else "http://127.0.0.1"
        return f"{origin}:{self.port}"

    async def start(self, target: str) -> None:
        """Forward to a URL."""
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 0)
        await self.listen()

    async def listen(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.tls, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and abort those that exist."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        if self._server:
            self._server.close()
            await self.abort_connections()
            await self._server.wait_closed()
            self._server = None

    async def abort_connections(self) -> None:
        """Abort all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drop_packets(self) -> None:
        """Answer no connection attempt: the listen queue is full."""
        await self.close()
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(0)
        self._sockets.append(listening)
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(("127.0.0.1", self.port))
            self._sockets.append(client)

    async def replace(
        self, *, handler: Handler | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Handle new connections in another way, and with another certificate."""
        await self.close()
        self.handler, self.tls = handler, tls
        await self.listen()

    async def restore(self) -> None:
        """Forward again."""
        await self.replace(tls=self._good_tls)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        with suppress(OSError, asyncio.CancelledError):
            await (self.handler or self._forward)(reader, writer)
        writer.transport.abort()
        self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._target)

        pumps = [
            asyncio.create_task(_pump(reader, back_writer)),
            asyncio.create_task(_pump(back_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            back_writer.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()


@dataclass
class Trial:
    """A running exporter with its API."""

    exporter: Exporter
    url: str
    front: Front
    simulator: Simulator
    stream: io.StringIO

    @property
    def log(self) -> list[str]:
        """Log lines so far."""
        return self.stream.getvalue().splitlines()

    @property
    def aids(self) -> list[str]:
        """Ids of the polled account groups."""
        return list(self.exporter.manager.groups)

    def value(self, name: str, aid: str | None = "1001", **labels: str) -> float:
        """Return a metric of the exporter itself; 0 if it does not exist."""
        full = name if name.startswith("thousandeyes_") else f"thousandeyes_exporter_{name}"
        if aid is not None:
            labels = {"aid": aid, "source": "sessions", **labels}
        return self.exporter.metrics.registry.get_sample_value(full, labels) or 0.0

    def failures(self) -> Counter[str]:
        """Return the failed polls of sessions, by reason."""
        counts: Counter[str] = Counter()
        for sample in self.exporter.metrics.poll_failures.collect()[0].samples:
            if sample.labels["source"] == "sessions" and sample.name.endswith("_total"):
                counts[sample.labels["reason"]] += int(sample.value)
        return +counts

    async def polls(self, count: int = 1) -> None:
        """Wait for this many further polls of every account group."""
        wanted = {aid: self.value("polls_total", aid) + count for aid in self.aids}
        await self.until(
            lambda: all(self.value("polls_total", aid) >= n for aid, n in wanted.items()),
            600 * count,
        )
        await asyncio.sleep(0.5)  # publish

    async def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for a condition, in virtual time."""
        end = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < end, "\n".join(self.log[-5:])
            await asyncio.sleep(1.0)

    async def get(self, path: str) -> str:
        """Return the body of a response with status 200 that arrives within a second."""
        start = time.monotonic()
        with pause_time():
            async with (
                aiohttp.ClientSession() as session,
                session.get(self.url + path) as response,
            ):
                text = await response.text()
        assert time.monotonic() - start < 1.0
        assert response.status == 200, text
        assert TOKEN not in text
        return text

    async def rounds(self) -> dict[str, float]:
        """Return the round of every published series key; the exporter must be healthy."""
        await self.get("/-/healthy")
        lines = (await self.get("/metrics")).splitlines()
        found = (line.rpartition(" ") for line in lines if line.startswith(f"{ROUND_FAMILY}{{"))
        return {series: float(start) for series, _, start in found}

    async def footprint(self) -> tuple[int, int]:
        """Return the number of open files and of tasks, without idle connections."""
        connector = self.exporter.client._session.connector
        assert connector
        for each in list(connector._conns.values()):
            for connection, _ in each:
                connection.close()
        connector._conns.clear()
        await asyncio.sleep(1.0)
        files = len(os.listdir("/dev/fd"))  # noqa: PTH208
        return files, len(asyncio.all_tasks())


@asynccontextmanager
async def trial(
    *,
    world: World = SMALL,
    front: Front | None = None,
    ready: bool = True,
    initial_faults: tuple[Fault, ...] = (),
    **settings: Any,
) -> AsyncIterator[Trial]:
    """Run an exporter until it has polled twice; settings are `group__name`."""
    async with AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("aiohttp.connector.monotonic", loop.time)  # keep-alive of idle connections
        log = stack.enter_context(_logging(loop.time))
        simulator = Simulator(
            world, token=TOKEN, clock=wall, rate_limit=1_000_000, faults=initial_faults
        )
        behind = await simulator.start()
        stack.push_async_callback(simulator.stop)
        front = front or Front()
        await front.start(behind)
        stack.push_async_callback(front.close)
        flags = {"api__url": front.url, "api__token": TOKEN, "api__requests_per_minute": 10_000}
        argv = [
            f"--{name.replace('__', '.').replace('_', '-')}={value}"
            for name, value in {**flags, **settings}.items()
            if value is not None
        ]
        exporter = Exporter(load(argv, {}).settings, clock=fake_clock(), process=False)
        stack.push_async_callback(exporter.close)
        app = create_app(exporter, telemetry_path="/metrics", max_requests=40, clock=exporter.clock)
        url = await stack.enter_async_context(serving(app, "127.0.0.1", 0))
        task = asyncio.create_task(exporter.run())
        stack.push_async_callback(_cancel, task)
        t = Trial(exporter, url, front, simulator, log)
        if ready:
            await t.until(exporter.ready)
            await t.polls()
        yield t
    for line in t.log:
        assert TOKEN not in line
        assert "never retrieved" not in line
        assert "Unclosed" not in line


@contextmanager
def _logging(monotonic: Callable[[], float]) -> Iterator[io.StringIO]:
    """Log as the command does, at level debug."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(stream):
        configure("debug", "logfmt", monotonic)
    try:
        yield stream
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def failing(
    t: Trial, *names: str, recovery: float | None = None
) -> AsyncIterator[Counter[str]]:
    """A period of failure, and what must hold for every failure.

    Within: whatever the test arranges, and faults of the simulator by name. Yields the counter of
    failed polls during the period, complete after it. Checked: healthy and scrapable in time;
    published series stay until they expire and no longer; recovery within one interval (or
    `recovery` seconds); no open file or task is left.
    """
    poll = t.exporter.settings.poll
    before, footprint, counted = await t.rounds(), await t.footprint(), t.failures()
    t.simulator.faults = faults(*names)
    failed: Counter[str] = Counter()
    yield failed
    during = await t.rounds()
    failed.update(t.failures() - counted)
    unexpired = {key for key, start in before.items() if start + poll.lookback > wall() + 1}
    assert unexpired <= during.keys(), "published series stay until they expire"
    oldest = wall() - poll.lookback - poll.interval - 60
    assert all(start >= oldest for start in during.values()), "and no longer"
    await t.get("/")
    t.simulator.faults = ()
    await t.front.restore()
    polls = {aid: t.value("polls_total", aid) for aid in t.aids}
    await t.until(
        lambda: all(
            t.value("thousandeyes_up", aid) and t.value("polls_total", aid) > n
            for aid, n in polls.items()
        ),
        poll.interval + 5 if recovery is None else recovery,
    )
    for _ in range(30):
        current = await t.footprint()
        if current[0] <= footprint[0] and current[1] <= footprint[1]:
            return
        await asyncio.sleep(7.0)
    pytest.fail(f"open files and tasks were {footprint} and are {current}")
