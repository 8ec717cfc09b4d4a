"""Servers that tests start on real ports: the simulator with a clock that stands still, exporters, and any program."""

import asyncio
import gzip
import io
import logging
import os
import shutil
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from canary import CANARIES, look, look_at_command_line

from exporter import log
from exporter.app import Exporter, answering
from exporter.settings import Settings, load
from exporter.simulator import Simulator, World, parse_faults

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 11, 18, 14, 32, 30, tzinfo=UTC).timestamp()
"""A Wednesday afternoon, in the middle of a round."""
TOKEN = CANARIES[0]
"""The token of every simulator here: it must be seen nowhere."""
EXPORTER = [sys.executable, "-m", "exporter"]


def tool(name: str) -> str:
    """Return the path of a program that tests need: a test that can not have it fails."""
    folders = [os.environ.get("PATH", ""), *map(str, sorted((ROOT / ".tools").glob("**/usr/bin")))]
    found = shutil.which(name, path=os.pathsep.join(folders))
    assert found, f"{name} is missing: `make tools` fetches it"
    return found


async def until(condition: Callable[[], Any], seconds: float = 10.0, every: float = 0.02) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        outcome = condition()
        if asyncio.iscoroutine(outcome):
            outcome = await outcome
        if outcome:
            return outcome
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(every)


@contextmanager
def logging_as(
    level: Any = "debug", format_: Any = "logfmt", monotonic: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], list[str]]]:
    """Log as the command does, for the length of the context; yield what returns the lines so far."""
    loggers = [logging.getLogger(name) for name in log.LOGGERS]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    written = io.StringIO()
    try:
        log.configure(level, format_, monotonic)
        cast("logging.StreamHandler[io.StringIO]", loggers[0].handlers[0]).setStream(written)
        yield lambda: written.getvalue().splitlines()
    finally:
        look("log", written.getvalue())
        logging.raiseExceptions = True
        for logger, (handlers, propagate, severity) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(severity)


# The simulator.


class StillClock:
    """A clock that stands still until a test sets it; Unix seconds."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def simulated(
    world: World | None = None, *, faults: Iterable[str] = (), clock: Callable[[], float] | None = None, **options: Any
) -> AsyncIterator[tuple[Simulator, str]]:
    """Run the simulator, by default with a clock that stands still; yield it and its address."""
    options = {"token": TOKEN, "rate_limit": 1_000_000, **options}
    world = world or World(agents=40, sites=8)
    simulator = Simulator(world, clock=clock or StillClock(), faults=parse_faults(faults), **options)
    try:
        yield simulator, await simulator.start()
    finally:
        await simulator.stop()


# The exporter in this process.


def settings_for(api: str, **changed: object) -> Settings:
    """Return settings that ask the API there; `group__name` changes one."""
    given = {"api__url": api, "api__token": TOKEN, "api__requests_per_minute": 10_000, **changed}
    given.setdefault("web__listen_address", "127.0.0.1:0")
    given = {name: value for name, value in given.items() if value is not None}
    flags = [f"--{name.replace('__', '.').replace('_', '-')}={value}" for name, value in given.items()]
    return load(flags, {}).settings


@asynccontextmanager
async def exporting(api: str, *, ready: bool = True, **changed: object) -> AsyncIterator[tuple[Exporter, str]]:
    """Run an exporter in this process, until it is ready if so wished; yield it and its address."""
    exporter = Exporter(settings_for(api, **changed))
    try:
        async with answering(exporter) as address:
            polling = asyncio.create_task(exporter.run())
            try:
                if ready:
                    await until(lambda: exporter.ready() and exporter.publisher.publication.complete)
                    # The names of agents come a moment later, in a snapshot of their own.
                    await until(lambda: all(poller.result.agents for poller in exporter.pollers.values()))
                    await exporter.publisher.build()
                yield exporter, address
            finally:
                polling.cancel()
                await asyncio.gather(polling, return_exceptions=True)
    finally:
        await exporter.close()


# Asking over HTTP, byte by byte.


@dataclass(frozen=True)
class Reply:
    """What came back: status, headers with lower-case names, and the body as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, decompressed."""
        zipped = self.headers.get("content-encoding") == "gzip"
        return (gzip.decompress(self.body) if zipped else self.body).decode()


async def connect(address: str, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to where a URL leads."""
    parts = urlsplit(address)
    return await asyncio.open_connection(parts.hostname, parts.port, **options)


async def read_reply(reader: asyncio.StreamReader, *, body: bool = True) -> Reply:
    """Read one reply; `body` is False for what answers a HEAD."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", 0)) if body else 0
    return Reply(int(start.split()[1]), headers, await reader.readexactly(length))


async def ask(address: str, path: str | None = None, method: str = "GET", **headers: str) -> Reply:
    """Send one request with exactly this path and these headers; nothing may follow the reply."""
    target = path if path is not None else urlsplit(address).path or "/"
    reader, writer = await connect(address)
    try:
        fields = {"Host": "localhost", "Connection": "close"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        reply = await read_reply(reader, body=method != "HEAD")
        look("answer", reply.text if reply.body else "", f"{method} {target}")
        assert await reader.read() == b""
        return reply
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def raw(address: str, data: bytes, seconds: float = 5.0) -> bytes:
    """Send bytes, and return all that comes until the connection is closed."""
    reader, writer = await connect(address)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), seconds)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def inflate(deflated: bytes) -> bytes:
    """Undo raw deflate."""
    return zlib.decompressobj(-15).decompress(deflated)


# Programs.


class Program:
    """A running program; what it has written so far is in `stdout` and `stderr`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.stdout = self.stderr = ""
        self._reading = [
            asyncio.create_task(self._read(name)) for name in ("stdout", "stderr") if getattr(process, name)
        ]

    async def _read(self, name: str) -> None:
        while line := await getattr(self.process, name).readline():
            setattr(self, name, getattr(self, name) + line.decode())

    async def said(self, words: str, seconds: float = 15.0) -> str:
        """Wait until a line with these words was written; return it."""

        def lines() -> list[str]:
            found = [line for line in (self.stdout + self.stderr).splitlines() if words in line]
            assert found or self.process.returncode is None, f"exit {self.process.returncode}: {self.stderr}"
            return found

        return (await until(lines, seconds))[0]

    async def wait(self, seconds: float = 15.0) -> int:
        """Wait for its end; return the exit code."""
        code = await asyncio.wait_for(self.process.wait(), seconds)
        await asyncio.gather(*self._reading)
        return code

    async def stop(self, number: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """Send a signal and wait for the end; return the exit code."""
        self.process.send_signal(number)
        return await self.wait(seconds)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment without what would be settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("THOUSANDEYES_")}
    return {**kept, **variables}


@asynccontextmanager
async def running(*command: str, **options: Any) -> AsyncIterator[Program]:
    """Run a program; at the end of the context it is killed if it still runs."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, "stdin": asyncio.subprocess.DEVNULL}
    pipes["limit"] = 1 << 24
    process = await asyncio.create_subprocess_exec(*command, **{**pipes, "env": clean_environment(), **options})
    program = Program(process)
    try:
        yield program
    finally:
        look_at_command_line(process.pid, command)
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await program.wait()
        look("output", program.stdout + program.stderr, " ".join(command[:4]))


async def finished(*command: str, seconds: float = 30.0, **options: Any) -> tuple[int, str, str]:
    """Run a program to its end; return exit code, output and what it complained of."""
    async with running(*command, **options) as program:
        code = await program.wait(seconds)
        return code, program.stdout, program.stderr


def scraped_lines(text: str) -> list[str]:
    """Return the samples of an exposition."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]
