"""The compared programs: started, scraped, stopped."""

# ruff: noqa: S603  the programs and their addresses are our own

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS, NAIVE = ((sys.executable, "-m", f"benchmarks.{name}") for name in ("ours", "naive"))
SERVE = """
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler as metrics
app = web.Application()
app.router.add_get("/metrics", metrics())
web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None)
"""
BARE = (sys.executable, "-c", SERVE)
GO = (ROOT / ".tools/benchmarks-go",)
EXPORTER = (sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:PORT")
NGINX = ("nginx", "-c", ROOT / "benchmarks/nginx.conf", "-e", "stderr", "-p")


def run(*command: object) -> str:
    """Run a program and return its output."""
    return subprocess.check_output(list(map(str, command)), cwd=ROOT, text=True)


@dataclass(frozen=True, slots=True)
class Server:
    """A running program that serves metrics."""

    process: subprocess.Popen[bytes]
    port: int

    def memory(self, field: str) -> float:
        """Return memory in MB: `VmRSS` is the current one, `VmHWM` the peak."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return float(status.partition(f"{field}:")[2].split()[0]) / 1000

    def get(self, path: str = "/metrics", data: bytes | None = None) -> bytes:
        """Return the body of a response, compressed if the server supports that; POST with data."""
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"Accept-Encoding": "gzip"}
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as response:
            return bytes(response.read())

    def rate(self, seconds: int) -> float:
        """Scrape with four connections, as fast as possible; return the scrapes per second."""
        options = "-t1", "-c4", f"-d{seconds}s", f"--timeout={seconds}s", "-H"
        url = f"http://127.0.0.1:{self.port}/metrics"
        report = run("wrk", *options, "Accept-Encoding: gzip", url)
        if "Non-2xx" in report:
            raise RuntimeError(report)
        return float(report.partition("Requests/sec:")[2].split()[0])

    def slow_rate(self) -> float:
        """Scrape once with each of four connections; return the scrapes per second."""
        start = time.perf_counter()
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.get, 4 * ["/metrics"]))
        return 4 / (time.perf_counter() - start)

    def scrape_durations(self, seconds: int) -> list[float]:
        """Scrape 20 times a second; return the seconds from when each was due to its end."""
        durations, start = [], time.perf_counter()
        for number in range(20 * seconds):
            due = start + number / 20
            time.sleep(max(0.0, due - time.perf_counter()))
            self.get()
            durations.append(time.perf_counter() - due)
        return durations


@contextmanager
def server(*command: object, path: str = "/metrics", port: int = 0) -> Iterator[Server]:
    """Start a program with a free port as `PORT`, wait until it serves; terminate it at the end."""
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
    arguments = [str(each).replace("PORT", str(port)) for each in command]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        server = Server(process, port)
        try:
            while process.poll() is None:
                with suppress(OSError):
                    server.get(path)
                    break
                time.sleep(0.002)
            yield server
        finally:
            process.terminate()
