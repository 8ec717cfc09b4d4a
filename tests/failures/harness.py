"""A complete exporter against the simulator on virtual time, with failures in between.

The exporter, its web server and the simulator use real sockets and the timeouts of production.
"""

import asyncio
import io
import logging
import os
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, redirect_stderr
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import structlog
import web_server
from api_faults import faults
from fake_clock import fake_clock, pause_time, wall
from yarl import URL

from exporter.app import Exporter
from exporter.errors import REASONS
from exporter.log import configure
from exporter.settings import load
from exporter.simulator import Fault, Simulator, World
from exporter.web.app import create_app
from exporter.web.server import serving

TOKEN = "canary-of-the-failure-modes"
SMALL = World(agents=6, sites=3)


@dataclass
class Trial:
    """A running exporter with its API."""

    exporter: Exporter
    url: str
    simulator: Simulator
    stream: io.StringIO
    port: int
    """Port of the API."""
    tls: ssl.SSLContext | None

    @property
    def log(self) -> list[str]:
        """Log lines so far."""
        return self.stream.getvalue().splitlines()

    @property
    def aids(self) -> list[str]:
        """Ids of the polled account groups."""
        return list(self.exporter.manager.groups)

    async def restart_api(self, tls: ssl.SSLContext | None = None) -> None:
        """Close all connections of the API and listen again, by default as in the beginning."""
        await self.simulator.stop()
        await self.simulator.start(port=self.port, tls=tls or self.tls)

    def value(self, name: str, aid: str | None = "1001", **labels: str) -> float:
        """Return a metric of the exporter itself; 0 if it does not exist."""
        full = name if name.startswith("thousandeyes_") else f"thousandeyes_exporter_{name}"
        if aid is not None:
            labels = {"aid": aid, "source": "sessions", **labels}
        return self.exporter.metrics.registry.get_sample_value(full, labels) or 0.0

    def failures(self) -> Counter[str]:
        """Return the failed polls of sessions, by reason."""
        counts = Counter[str]()
        for aid, reason in product(self.aids, REASONS):
            counts[reason] += int(self.value("poll_failures_total", aid, reason=reason))
        return +counts

    async def polls(self, count: int = 1) -> None:
        """Wait for this many further polls of every account group."""
        wanted = {aid: self.value("polls_total", aid) + count for aid in self.aids}
        for aid, polls in wanted.items():
            await self.until(lambda: self.value("polls_total", aid) >= polls, 600 * count)  # noqa: B023
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
            reply = await web_server.get(self.url, path)
        assert time.monotonic() - start < 1.0
        assert reply.status == 200, reply.text
        assert TOKEN not in reply.text
        return reply.text

    async def rounds(self) -> dict[str, float]:
        """Return the round of every published series key; the exporter must be healthy."""
        await self.get("/-/healthy")
        rounds = re.findall(r"(\S+_endpoint_round_\S+) (\d\S+)\n", await self.get("/metrics"))
        return {series: float(start) for series, start in rounds}

    async def footprint(self) -> tuple[int, int]:
        """Return the number of open files and of tasks, without connections to the API."""
        await self.restart_api()
        await asyncio.sleep(1.0)
        return len(os.listdir("/dev/fd")), len(asyncio.all_tasks())  # noqa: PTH208


@contextmanager
def full_listen_queue(port: int = 0) -> Iterator[int]:
    """Listen on a port, which is yielded; packets of further connection attempts are dropped."""
    listening = socket.create_server(("127.0.0.1", port), backlog=0)
    clients = [socket.socket() for _ in range(4)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
    yield listening.getsockname()[1]
    for each in (listening, *clients):
        each.close()


@asynccontextmanager
async def trial(
    *,
    world: World = SMALL,
    tls: ssl.SSLContext | None = None,
    ready: bool = True,
    initial_faults: tuple[Fault, ...] = (),
    **settings: Any,
) -> AsyncIterator[Trial]:
    """Run an exporter until it has polled twice; settings are `group__name`."""
    simulator = Simulator(
        world, token=TOKEN, clock=wall, rate_limit=1_000_000, faults=initial_faults
    )
    async with AsyncExitStack() as stack:
        root, stream = logging.getLogger(), io.StringIO()
        stack.callback(structlog.reset_defaults)
        stack.callback(setattr, root, "handlers", root.handlers[:])
        stack.callback(root.setLevel, root.level)
        with redirect_stderr(stream):  # log as the command does
            configure("debug", "logfmt", asyncio.get_running_loop().time)
        api = URL(await simulator.start(tls=tls))
        stack.push_async_callback(simulator.stop)
        url = api.with_scheme("https").with_host("localhost") if tls else api
        flags = {"api__url": url, "api__token": TOKEN, "api__requests_per_minute": 10_000}
        argv = [
            f"--{name.replace('__', '.').replace('_', '-')}={value}"
            for name, value in {**flags, **settings}.items()
            if value is not None
        ]
        exporter = Exporter(load(argv, {}).settings, clock=fake_clock(), process=False)
        stack.push_async_callback(exporter.close)
        app = create_app(exporter, telemetry_path="/metrics", max_requests=40, clock=exporter.clock)
        own_url = await stack.enter_async_context(serving(app, "127.0.0.1", 0))
        task = asyncio.create_task(exporter.run())
        stack.push_async_callback(asyncio.gather, task, return_exceptions=True)
        stack.callback(task.cancel)
        t = Trial(exporter, own_url, simulator, stream, api.port or 0, tls)
        if ready:
            await t.until(exporter.ready)
            await t.polls()
        yield t
    assert not re.search(f"{TOKEN}|never retrieved|Unclosed", stream.getvalue())


@asynccontextmanager
async def failing(
    t: Trial, *names: str, recovery: float | None = None
) -> AsyncIterator[Counter[str]]:
    """A period with faults of the simulator, and what must hold for every failure.

    Yields the counter of failed polls during the period, complete after it. Checked: healthy and
    scrapable in time; published series stay until they expire and no longer; recovery within one
    interval (or `recovery` seconds); no open file or task is left.
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
    await t.restart_api()
    now, name = wall(), "last_poll_success_timestamp_seconds"
    await t.until(
        lambda: all(t.value(name, aid) > now for aid in t.aids), recovery or poll.interval + 5
    )
    for _ in range(30):
        files, tasks = await t.footprint()
        if files <= footprint[0] and tasks <= footprint[1]:
            return
        await asyncio.sleep(7.0)
    pytest.fail(f"open files and tasks were {footprint} and are {files, tasks}")
