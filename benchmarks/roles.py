"""What runs in a process of its own while something is measured: `python -m benchmarks.roles ROLE ...`.

A role that serves prints its port first; one that measures prints JSON. Who starts them stands in
`benchmarks.processes`. Every role imports only what it needs, so that memory and start are its own.
"""

# ruff: noqa: PLC0415 - see above

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

Report = dict[str, float]

BEAT = 0.002
"""Seconds between two heartbeats of the event loop."""


def say(report: object) -> None:
    """Tell the parent something: one line of JSON."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def poll(reference: str, folder: str, output: str, repeat: str) -> None:
    """Turn pages into a compressed exposition, so many times; print the median of what that cost."""
    from statistics import median

    from benchmarks.data import Pages

    pages = Pages.read(Path(folder))
    run = _polls(reference)
    costs: list[tuple[float, float]] = []
    for _ in range(int(repeat)):
        cpu, wall = _cpu(), time.perf_counter()
        exposition = run(pages)
        costs.append((_cpu() - cpu, time.perf_counter() - wall))
    Path(output).write_bytes(exposition)
    cpus, walls = zip(*costs, strict=True)
    say({"cpu": median(cpus), "wall": median(walls), "rss": _peak()})


def _peak() -> int:
    """Return the most memory of this process; `ru_maxrss` would count what the parent had when it started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _polls(reference: str) -> Callable[[Any], bytes]:
    if reference == "naive":
        from benchmarks import naive

        return naive.poll
    from benchmarks import ours

    return lambda pages: ours.compressed(ours.poll(pages))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def serve(reference: str, folder: str) -> None:
    """Serve what is in pages: by the exporter's own web application, or by the one of prometheus-client."""
    from benchmarks.data import Pages

    pages = Pages.read(Path(folder))
    if reference == "naive":
        from prometheus_client.aiohttp import make_aiohttp_handler

        from benchmarks import naive

        handler = make_aiohttp_handler(naive.registry(pages))
        asyncio.run(_for_ever(handler))
    else:
        asyncio.run(_serving(pages))


async def _serving(pages: Any) -> None:
    from benchmarks import ours
    from exporter.publisher import Publication

    running = _exporter("http://127.0.0.1:9")
    running.publisher.publication = Publication(ours.poll(pages))
    async with _answering(running):
        await asyncio.Event().wait()


def bare() -> None:
    """Serve what aiohttp and prometheus-client have to say without any exporter."""
    from prometheus_client.aiohttp import make_aiohttp_handler

    asyncio.run(_for_ever(make_aiohttp_handler()))


async def _for_ever(handler: Any) -> None:
    from aiohttp import web

    app = web.Application()
    app.router.add_get("/metrics", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    say(runner.addresses[0][1])
    await asyncio.Event().wait()


MOST = 10_000_000
"""Series that nothing reaches."""


def _exporter(api: str, most: int = MOST) -> Any:
    """Return the exporter as it is when it serves, with room for so many series."""
    from benchmarks.data import AID
    from exporter import log
    from exporter.app import Exporter
    from exporter.metrics import FAMILIES
    from exporter.settings import load
    from exporter.turns import answer_first

    answer_first()
    flags = [
        f"--api.url={api}",
        f"--api.account-groups={AID}",
        "--api.requests-per-minute=10000",
        f"--metrics.max-series={most}",
        "--web.listen-address=127.0.0.1:0",
        "--log.level=error",
    ]
    settings = load(flags, {"THOUSANDEYES_TOKEN": "benchmark"}, [family.short for family in FAMILIES]).settings
    log.configure(settings.log.level, settings.log.format)
    return Exporter(settings)


@asynccontextmanager
async def _answering(running: Any) -> AsyncIterator[None]:
    """Serve, and say the port."""
    from exporter.app import answering

    async with answering(running) as address:
        say(int(address.rpartition(":")[2]))
        yield


def pages(folder: str) -> None:
    """Answer as the API does, every page compressed beforehand: a request costs this process next to nothing."""
    from isal import igzip

    from benchmarks.data import END, NETWORKS, USERS, Pages

    found = Pages.read(Path(folder))
    listings = {USERS: found.users, NETWORKS: found.networks}
    answers = {
        (path.encode(), number): _answer(igzip.compress(page, 1), END)
        for path, listing in listings.items()
        for number, page in enumerate(listing)
    }
    empty = _answer(igzip.compress(b'{"accountGroups":[],"agents":[],"_links":{}}'), END)
    asyncio.run(_replying(answers, empty))


def _answer(body: bytes, now: int) -> bytes:
    from email.utils import formatdate

    head = (
        f"HTTP/1.1 200 OK\r\nDate: {formatdate(now, usegmt=True)}\r\nContent-Type: application/json\r\n"
        f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _replying(answers: dict[tuple[bytes, int], bytes], empty: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, found, length = head.lower().partition(b"content-length:")
                await reader.readexactly(int(length.split(b"\r\n")[0]) if found else 0)
                path, _, query = head.split(b" ", 2)[1].partition(b"?")
                cursor = next((part[7:] for part in query.split(b"&") if part.startswith(b"cursor=")), b"0")
                writer.write(answers.get((path, int(cursor)), empty))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    say(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def exporter(api: str, most: str = str(MOST)) -> None:
    """Poll and serve as the exporter does, but when told to: a line `poll SECONDS` or `idle SECONDS` on standard input.

    Polls follow one after another, each with its snapshot. For every line the longest stall of the event loop, the
    number of polls and the seconds of each are printed.
    """
    asyncio.run(_exporting(api, int(most)))


async def _exporting(api: str, most: int) -> None:
    running = _exporter(api, most)
    await running.find()
    (poller,) = running.pollers.values()

    async def once() -> None:
        await poller.poll()
        await running.publisher.build()

    async with _answering(running):
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := await commands.readline():
            word, seconds = line.split()
            report = await _watched(once if word == b"poll" else None, float(seconds))
            say({**report, "size": running.publisher.publication.snapshot.size})
            if poller.failing:
                raise SystemExit(f"the poll failed: {poller.failing}")
    await running.close()


async def _watched(once: Callable[[], Awaitable[None]] | None, seconds: float) -> Report:
    """Do something again and again for so long, at least once, with a heartbeat beside it."""
    beating = asyncio.create_task(_heartbeat())
    began, count = time.perf_counter(), 0
    if once is None:
        await asyncio.sleep(seconds)
    else:
        while not count or time.perf_counter() - began < seconds:
            await once()
            count += 1
    took = time.perf_counter() - began
    beating.cancel()
    stalls = await beating
    return {"polls": count, "wall": took / max(count, 1), "stall": max(stalls), "cpu": _cpu()}


async def _heartbeat() -> list[float]:
    """Return by how much every beat came late, when cancelled."""
    stalls = [0.0]
    with suppress(asyncio.CancelledError):
        while True:
            before = time.perf_counter()
            await asyncio.sleep(BEAT)
            stalls.append(time.perf_counter() - before - BEAT)
    return stalls


def rounds(sizes: str) -> None:
    """Poll as many sessions as each number says, a minute after the other, all new; print the memory after each.

    Sessions, their agents and so all series change with every poll; what is older than the look-back is forgotten.
    Another process makes the pages, so that the memory is that of the polls alone.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from tempfile import TemporaryDirectory

    from benchmarks import data, ours

    company = ours.Company()
    memory = []
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        for number, sessions in enumerate(json.loads(sizes)):
            now = data.END + 60 * number
            with TemporaryDirectory() as folder:
                other.submit(_write, sessions, number, now, folder).result()
                company.poll(data.Pages.stream(Path(folder)), now)
            memory.append(_resident())
    say(memory)


def _write(sessions: int, seed: int, end: int, folder: str) -> None:
    from benchmarks.data import pages

    pages(sessions, seed, end).write(Path(folder))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def scrape(port: str, seconds: str, rate: str) -> None:
    """Scrape so often a second over one connection, as Prometheus does; print every duration, from when it was due."""
    import socket

    request = (
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n"
        b"Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2\r\n\r\n"
    )
    buffer = bytearray(1 << 20)
    durations = []
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        began = time.perf_counter()
        for number in range(int(float(seconds) * float(rate))):
            due = began + number / float(rate)
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.sendall(request)
            _receive(connection, buffer)
            durations.append(time.perf_counter() - due)
    say(durations)


def _receive(connection: Any, buffer: bytearray) -> None:
    """Read one answer, and forget it."""
    got = connection.recv_into(buffer)
    head = bytes(buffer[: min(got, 4096)]).partition(b"\r\n\r\n")[0]
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    left = int(length[15:]) + len(head) + 4 - got
    while left > 0:
        got = connection.recv_into(buffer)
        if not got:
            raise ConnectionError("the answer broke off")
        left -= got


ROLES: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (poll, serve, bare, pages, exporter, rounds, scrape)
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
