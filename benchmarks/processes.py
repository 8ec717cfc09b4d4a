"""Other programs: found, started, asked, stopped; what their memory is.

What they do stands in `benchmarks.roles`, in `benchmarks/go`, or in the manual of nginx, wrk and Prometheus.
"""

# ruff: noqa: S603 - the programs are our own

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".tools"
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", f"{TOOLS}/usr/bin", f"{TOOLS}/usr/sbin"])
ROLE = (sys.executable, "-m", "benchmarks.roles")


class MissingError(Exception):
    """A program that something is measured against can not be had."""


def program(name: str) -> str:
    """Return where a program is, in the system or under `.tools`."""
    found = shutil.which(name, path=PATH)
    if not found:
        raise MissingError(
            f"{name} is needed and not there: benchmarks/tools.sh .tools fetches it on Debian and Ubuntu"
        )
    return found


def fetch() -> None:
    """Fetch the programs that the machine lacks."""
    if subprocess.run([ROOT / "benchmarks/tools.sh", TOOLS], check=False).returncode:
        raise MissingError("not every program to measure against could be fetched")


def built() -> str:
    """Build the reference in Go where it is older than its source; return the program."""
    source, target = ROOT / "benchmarks/go", TOOLS / "benchmark-reference"
    newest = max(path.stat().st_mtime for path in source.iterdir())
    if target.exists() and target.stat().st_mtime > newest:
        return str(target)
    target.parent.mkdir(exist_ok=True)
    packages = next((path for path in (Path("/usr/share/gocode"), TOOLS / "usr/share/gocode") if path.exists()), None)
    if not packages:
        raise MissingError("Debian's golang-github-prometheus-client-golang-dev is needed: see benchmarks/tools.sh")
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(packages), "GOFLAGS": ""}
    environment.setdefault("GOCACHE", str(Path(tempfile.gettempdir()) / "go-cache"))
    subprocess.run([program("go"), "build", "-o", target, "."], cwd=source, env=environment, check=True)
    return str(target)


def free_port() -> int:
    """Return a port that nobody listens on, and that the system gives nobody who does not care which."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def asked(*command: object) -> Any:
    """Run a program to its end; return what it printed, which is JSON."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


class Service:
    """A program that runs beside others, and says its port first."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def tell(self, line: str) -> Any:
        """Send a line; return the answer."""
        self.send(line)
        return self.answer()

    def send(self, line: str) -> None:
        """Send a line."""
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Wait for an answer to a line."""
        assert self.process.stdout  # noqa: S101
        return json.loads(self.process.stdout.readline())

    def memory(self, field: str = "VmRSS") -> int:
        """Return bytes of memory: `VmRSS` now, `VmHWM` at the most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
        assert found  # noqa: S101
        return int(found[1]) * 1024


@contextmanager
def service(*command: object) -> Iterator[Service]:
    """Run a program that prints its port."""
    process = subprocess.Popen(
        [str(word) for word in command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout  # noqa: S101
        yield Service(process, int(process.stdout.readline()))
    finally:
        process.terminate()
        process.communicate()


NGINX = """
daemon off;
pid {folder}/pid;
error_log stderr crit;
worker_processes auto;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        default_type "text/plain; version=0.0.4; charset=utf-8";
        add_header Content-Encoding gzip;
    }}
}}
"""


def scrapes_a_second(port: int, seconds: int) -> float:
    """Load a server from 4 connections, as much as it bears; return the answers a second.

    A server that answered fewer than twice is given twice the time: what it was about to answer does not count.
    """
    options = ["-t1", "-c4", f"-d{seconds}s", "--timeout", f"{seconds}s"]
    headers = ["-H", "Accept-Encoding: gzip", "-H", "Accept: text/plain;version=0.0.4"]
    command = [program("wrk"), *options, *headers, f"http://127.0.0.1:{port}/metrics"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    answers, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+([\d.]+)", said)
    if "Non-2xx" in said or not answers or not rate:
        raise RuntimeError(f"the load did not go well:\n{said}")
    return float(rate[1]) if int(answers[1]) >= 2 else scrapes_a_second(port, 2 * seconds)
