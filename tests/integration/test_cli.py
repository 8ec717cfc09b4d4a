"""Commands: what they print and write, exit codes, and signals."""

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from system.servers import EXPORTER, TOKEN, run, simulator, until

from exporter import NAME, __version__, cli
from exporter.errors import ExporterError
from exporter.settings import load, reference
from exporter.simulator import Simulator, World
from tests.api_faults import faults

Capture = pytest.CaptureFixture[str]
Process = asyncio.subprocess.Process
ANY_PORTS = ("--web.listen-address=127.0.0.1:0", "--simulator.listen-address=127.0.0.1:0")


@pytest.fixture(autouse=True)
def process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what commands set up for the whole process."""
    monkeypatch.setenv("THOUSANDEYES_TOKEN", TOKEN)
    handler, log_handlers = signal.getsignal(signal.SIGHUP), logging.getLogger().handlers
    yield
    signal.signal(signal.SIGHUP, handler)
    logging.getLogger().handlers = log_handlers
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    """An API that `execute` queries."""
    async with simulator(World(agents=20, sites=5, account_groups=2)) as (running, url):
        monkeypatch.setenv("THOUSANDEYES_API_URL", url)
        yield running


async def execute(*argv: str) -> int:
    return await cli.execute(load(argv))


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[Process]:
    """Run a program, whose errors are part of its output."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(*command, **pipes)
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_with(process: Process, text: str) -> str:
    """Read what a program prints up to a line that contains the text; return the line."""
    while text not in (line := (await process.stdout.readline()).decode()):
        assert line, f"no line with {text}"
    return line


async def answers(url: str, status: int) -> bool:
    async with aiohttp.request("GET", url) as response:
        return response.status == status


def printed(capsys: Capture, *argv: str) -> str:
    """Return what a command line prints that ends at once."""
    with pytest.raises(SystemExit, match="0"):
        cli.run(argv)
    return capsys.readouterr().out


def test_help_and_version(capsys: Capture) -> None:
    assert printed(capsys, "--version") == f"{NAME} {__version__}\n"
    text = " ".join(printed(capsys, "--help").split())
    for doc in reference():
        default = f" [{doc.default}]" if doc.default else ""
        assert f"{doc.flag} VALUE {doc.description.replace('`', '')}{default}" in text
    commands = {"demo": [], "simulate": [], "once": ["--output"], "check": ["--output", "--all"]}
    for command, options in commands.items():
        text = printed(capsys, "--poll.interval=2m", command, "--help")
        assert re.findall(r"^  (--\w+)", text, re.MULTILINE) == ["--version", *options]
        assert f"Example: {NAME} {command}" in text
        assert "Exit codes: 0 " in text


@pytest.mark.parametrize(
    ("argv", "code", "contains"),
    [
        ("--log.level=x --poll.interval=5 demo", 2, ["poll.interval", "log.level"]),
        ("--simulator.faults=floods simulate", 2, ["simulator.faults: "]),
        ("--web.listen-address=127.0.0.1:PORT", 1, ["(web.listen_address): Address already"]),
        ("--simulator.listen-address=:PORT demo", 1, ["(simulator.listen_address)"]),
        ("--api.url=http://127.0.0.1:1 once", 1, ["cannot connect to the API"]),
        ("--api.url=http://127.0.0.1:1 check", 1, []),
    ],
)
def test_errors(argv: str, code: int, contains: list[str], capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert cli.run(argv.replace("PORT", str(server.getsockname()[1])).split()) == code
    errors = capsys.readouterr().err
    assert contains or not errors, "the report of check contains all problems"
    lines = [each for each in errors.splitlines() if not each.startswith("time=")]
    for line, text in zip(lines, contains, strict=True):
        assert line.startswith(f"{NAME}: ")
        assert text in line


async def test_once_writes_the_exposition(api: Simulator, tmp_path: Path, capsys: Capture) -> None:
    file, old = tmp_path / "thousandeyes.prom", "old content\n"
    file.write_text(old)
    arguments = ("--api.account-groups=all", "once", "--output", str(file))
    api.faults = faults("forbidden_group")
    with pytest.raises(ExporterError, match="1002"):
        await execute(*arguments)
    assert file.read_text() == old
    api.faults = ()
    with file.open() as reader:
        assert await execute(*arguments) == await execute("once") == 0
        assert reader.read() == old, "readers keep the file that they opened"
    assert [*await asyncio.to_thread(tmp_path.iterdir)] == [file]
    for text in (file.read_text(), capsys.readouterr().out):
        families = {each.name for each in text_string_to_metric_families(text)}
        assert {name.partition("_")[0] for name in families} == {"thousandeyes"}
        assert {"thousandeyes_up", "thousandeyes_endpoint_latency_seconds"} <= families


async def test_once_fails_if_it_cannot_write(api: Any, tmp_path: Path, monkeypatch: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        for stdout in (pipe, None):
            monkeypatch.setattr("sys.stdout", stdout)
            with pytest.raises(ExporterError, match="cannot write to standard output"):
                await execute("once")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "missing/x.prom", tmp_path):
        with pytest.raises(ExporterError, match=f"cannot write {path} "):
            await execute("once", f"--output={path}")


async def test_demo_queries_its_own_api_and_ignores_that_standard_error_is_closed() -> None:
    shell = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    ignored = ("--api.url=https://api.invalid", "--api.proxy=http://proxy.invalid")
    addresses = (*ANY_PORTS, "--web.listen-address=:0")
    async with started(*shell, *EXPORTER, *ignored, "demo", *addresses) as demo:
        url = (await line_with(demo, "Status page:")).split()[-1]
        assert url.startswith("http://localhost:")
        (api,) = re.findall(r"http\S+", await line_with(demo, "Simulated API:"))
        assert await answers(f"{api}/v7/account-groups", 401)
        await until(lambda: answers(f"{url}-/ready", 200))
        demo.send_signal(signal.SIGTERM)
        assert await demo.wait() == 0


async def test_serve_ignores_sighup_and_ends_at_a_signal() -> None:
    async with started(*EXPORTER, *ANY_PORTS, "--api.url=http://127.0.0.1:1") as serve:
        await line_with(serve, "event=listening")
        serve.send_signal(signal.SIGHUP)
        await line_with(serve, "event=account_groups_not_listed")
        serve.send_signal(signal.SIGINT)
        await line_with(serve, "level=info event=stopped")
        assert await serve.stdout.read() == b""
        assert await serve.wait() == 0


SECOND = """
import asyncio, os, signal
from exporter.cli import run_until_signal

async def command():
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("canceled", flush=True)

asyncio.run(run_until_signal(command(), interrupted=3))
"""
STARTING = """
import os, signal, sys, time, types
from exporter.__main__ import main

run = lambda argv: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60)
sys.modules["exporter.cli"] = types.SimpleNamespace(run=run)
main()
"""


@pytest.mark.parametrize(
    ("code", "command", "output", "exit_code"),
    [(SECOND, "", "canceled\n", 3), (STARTING, "serve", "", 0), (STARTING, "once", "", 1)],
)
async def test_a_second_signal_and_one_during_start_up_exit_at_once(
    code: str, command: str, output: str, exit_code: int
) -> None:
    assert await run(sys.executable, "-c", code, command, code=exit_code) == output
