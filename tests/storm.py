"""`python tests/storm.py [--seconds N]`: many scrapers at once while polls run one after another.

64 connections of wrk ask again and again, 1,000 others send half a request and nothing more, and one good scraper comes
four times a second. The exporter and its API are processes of their own (`benchmarks.roles`). Scrapes of 100,000 series
follow one another without a pause. Those of 100,000 sessions are larger: copying them would take longer than the limit.
There each scraper pauses for some seconds, and still comes far more often than any Prometheus does.
"""

# ruff: noqa: T201 - it is a command

import argparse
import re
import resource
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from benchmarks import data
from benchmarks.measures import SERIES_SESSIONS
from benchmarks.processes import ROLE, program, service
from benchmarks.roles import MOST

SCRAPERS = 64
HALF_OPEN = 1000
CLOSED_WITHIN, GOOD_WITHIN, P99_WITHIN = 15.0, 1.0, 0.25
"""Seconds: until a half-sent request is given up, for a good scrape, and for 99 of 100 answers to the scrapers."""
SCRAPE = (
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept-Encoding: gzip\r\n"
    b"Accept: text/plain;version=0.0.4\r\n\r\n"
)
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass
class Storm:
    """What came of it."""

    sessions: int
    """Of each poll."""
    pause: float = 0.0
    """Seconds that each scraper waits on average, at random, before it comes again."""
    most: int = MOST
    """`metrics.max_series`."""
    size: int = 0
    """Bytes of the uncompressed exposition."""
    polls: int = 0
    answers: int = 0
    bad: int = 0
    """Answers that were no 200, and connections that failed."""
    latency: dict[str, float] = field(default_factory=dict)
    """Seconds within which 50, 75, 90 and 99 of 100 answers came."""
    closings: list[float] = field(default_factory=list)
    """Seconds after which each half-sent request was given up."""
    left_open: int = 0
    good: list[float] = field(default_factory=list)
    """Seconds of each good scrape."""
    stall: float = 0.0
    """Longest stall of the event loop, seconds."""
    words: str = ""
    """What wrk said."""

    def __str__(self) -> str:
        good = sorted(self.good)
        half, nearly_all = (self.latency.get(share, 0.0) * 1000 for share in ("50", "99"))
        return (
            f"{self.sessions:,} sessions, {self.size / 1e6:.0f} MB of text, {self.polls} polls: {self.answers} answers "
            f"to {SCRAPERS} scrapers that pause {self.pause:g} s, {self.bad} bad, median {half:.0f} ms, "
            f"p99 {nearly_all:.0f} ms; {len(self.closings)} half-open connections closed within "
            f"{max(self.closings, default=0):.1f} s, {self.left_open} left open; {len(good)} good scrapes, median "
            f"{statistics.median(good) * 1000:.0f} ms, worst {good[-1] * 1000:.0f} ms; longest stall of the loop "
            f"{self.stall * 1000:.0f} ms"
        )

    @property
    def missed(self) -> bool:
        """Whether a limit was not kept."""
        late = max(self.closings, default=0.0) > CLOSED_WITHIN or max(self.good) > GOOD_WITHIN
        return self.bad > 0 or self.left_open > 0 or late or self.latency["99"] > P99_WITHIN


class _HalfOpen(threading.Thread):
    """Sends half a request on many connections, and waits for the other end to close them."""

    def __init__(self, port: int, found: Storm) -> None:
        super().__init__()
        self._port = port
        self._found = found

    def run(self) -> None:
        began, waiting = dict[socket.socket, float](), selectors.DefaultSelector()
        for number in range(HALF_OPEN):
            connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: l" if number % 2 else b"GE")
            connection.setblocking(False)
            waiting.register(connection, selectors.EVENT_READ)
            began[connection] = time.perf_counter()
        deadline = time.perf_counter() + CLOSED_WITHIN + 5
        while began and time.perf_counter() < deadline:
            for key, _ in waiting.select(0.5):
                connection = cast("socket.socket", key.fileobj)
                try:
                    open_ = bool(connection.recv(4096))
                except OSError:
                    open_ = False
                if not open_:
                    self._found.closings.append(time.perf_counter() - began.pop(connection))
                    waiting.unregister(connection)
                    connection.close()
        self._found.left_open = len(began)
        for connection in began:
            connection.close()


class _Good(threading.Thread):
    """Scrapes four times a second, each time anew."""

    def __init__(self, port: int, found: Storm) -> None:
        super().__init__()
        self._port = port
        self._found = found
        self.done = threading.Event()

    def run(self) -> None:
        buffer = bytearray(1 << 20)
        while not self.done.wait(0.25):
            began, first = time.perf_counter(), b""
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=20) as connection:
                    connection.sendall(SCRAPE)
                    while got := connection.recv_into(buffer):
                        first = first or bytes(buffer[: min(got, 20)])
            except OSError:
                first = b""
            self._found.good.append(time.perf_counter() - began)
            self._found.bad += not first.startswith(b"HTTP/1.1 200 ")


def weather(found: Storm, seconds: int) -> Storm:
    """Measure for so long; polls follow one another all the while."""
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (min(8192, (hard := resource.getrlimit(resource.RLIMIT_NOFILE)[1])), hard)
    )
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    try:
        pages = data.pages(found.sessions).write(folder / "pages")
        with service(*ROLE, "pages", pages) as api, service(*ROLE, "exporter", api.address, found.most) as exporter:
            exporter.tell("poll 0")
            half_open, good = _HalfOpen(exporter.port, found), _Good(exporter.port, found)
            exporter.send(f"poll {seconds}")
            half_open.start()
            good.start()
            _load(exporter.port, seconds, found, folder / "pause.lua")
            half_open.join()
            good.done.set()
            good.join()
            report = exporter.answer()
            found.polls, found.stall, found.size = int(report["polls"]), report["stall"], int(report["size"])
    finally:
        shutil.rmtree(folder)
    return found


def _load(port: int, seconds: int, found: Storm, script: Path) -> None:
    script.write_text(f"function delay() return math.random(0, {round(found.pause * 2000)}) end")
    headers = ["-H", "Accept-Encoding: gzip", "-H", "Accept: text/plain;version=0.0.4"]
    command = [
        program("wrk"),
        "-t1",
        f"-c{SCRAPERS}",
        f"-d{seconds}s",
        "--timeout",
        f"{seconds}s",
        "--latency",
        *(["--script", str(script)] if found.pause else []),
        *headers,
    ]
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/metrics"], capture_output=True, text=True, check=True
    ).stdout
    found.words = said
    found.answers = int(re.findall(r"(\d+) requests in", said)[0])
    found.bad += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    for errors in re.findall(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said):
        found.bad += sum(map(int, errors))
    found.latency = {
        share: float(value) * UNITS[unit] for share, value, unit in re.findall(r"(\d\d)% +([\d.]+)([a-z]+)", said)
    }


STORMS = [
    Storm(SERIES_SESSIONS),
    Storm(100_000, pause=1.0, most=500_000),
    Storm(100_000, pause=4.0),
]
"""100,000 series, and what polls of 100,000 sessions make: with the limit that is the default, and without."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 where a limit is missed, which takes a machine with nothing else to do."""
    parser = argparse.ArgumentParser(prog="python tests/storm.py", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args(argv)
    missed = False
    for storm in STORMS:
        found = weather(storm, options.seconds)
        print(found, flush=True)
        missed |= found.missed
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
