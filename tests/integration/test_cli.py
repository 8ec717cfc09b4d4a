"""Commands: what they print and write, exit codes, and signals."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import aiohttp
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from exporter import NAME, __version__, cli
from exporter.errors import ExporterError
from exporter.settings import load, reference
from exporter.simulator import Simulator, World
from tests.api_faults import faults

TOKEN = "canary-token"
AFTERNOON = 1_795_012_350
"""2026-11-18 14:32:30 UTC, a Wednesday."""
Capture = pytest.CaptureFixture[str]
Program = tuple[asyncio.subprocess.Process, asyncio.StreamReader]
EXPORTER = (sys.executable, "-m", "exporter")
ANY_PORTS = ("--web.listen-address=127.0.0.1:0", "--simulator.listen-address=127.0.0.1:0")


@pytest.fixture(autouse=True)
def process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what commands set up for the whole process."""
    monkeypatch.setenv("THOUSANDEYES_TOKEN", TOKEN)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    log_handlers = logging.getLogger().handlers
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.getLogger().handlers = log_handlers
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    """An API that `execute` queries."""
    world = World(agents=20, sites=5, account_groups=2)
    simulator = Simulator(world, token=TOKEN, clock=lambda: AFTERNOON)
    monkeypatch.setenv("THOUSANDEYES_API_URL", await simulator.start())
    yield simulator
    await simulator.stop()


async def execute(*argv: str) -> int:
    return await cli.execute(load(argv))


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[Program]:
    """Run a program; yield it and what it prints."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout
    try:
        async with asyncio.timeout(30):
            yield process, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_with(output: asyncio.StreamReader, text: str) -> str:
    """Read lines up to one that contains the text."""
    async for line in output:
        if text in line.decode():
            return line.decode()
    pytest.fail(f"no line with {text}")


async def status(url: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status


def test_help_and_version(capsys: Capture) -> None:
    for flag in ("--help", "--version"):
        with pytest.raises(SystemExit, match="0"):
            cli.run([flag])
    *lines, version = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).split())
    for doc in reference():
        assert f"{doc.flag} VALUE {doc.description.replace('`', '')}" in text
        assert not doc.default or f"[{doc.default}]" in text
    assert version == f"{NAME} {__version__}"


@pytest.mark.parametrize(
    ("command", "options"),
    [("demo", []), ("simulate", []), ("once", ["--output"]), ("check", ["--output", "--all"])],
)
def test_help_of_a_command(command: str, options: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.run(["--poll.interval=2m", command, "--help"])
    text = capsys.readouterr().out
    assert re.findall(r"^  (--\w+)", text, re.MULTILINE) == ["--version", *options]
    assert f"Example: {NAME} {command}" in text
    assert "Exit codes: 0 " in text


@pytest.mark.parametrize(
    ("argv", "code", "contains"),
    [
        (["--log.level=x", "--poll.interval=5", "demo"], 2, ["poll.interval", "log.level"]),
        (["--simulator.faults=floods", "simulate"], 2, ["simulator.faults: "]),
        (["--web.listen-address=127.0.0.1:{port}"], 1, ["(web.listen_address): Address already"]),
        (["--simulator.listen-address=:{port}", "demo"], 1, ["(simulator.listen_address)"]),
        (["--simulator.listen-address=x.invalid:1", "simulate"], 1, ["x.invalid:1 (simulator."]),
        (["--api.url=http://127.0.0.1:1", "once"], 1, ["cannot connect to the API"]),
    ],
)
def test_errors(argv: list[str], code: int, contains: list[str], capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert cli.run([each.format(port=port) for each in argv]) == code
    lines = [each for each in capsys.readouterr().err.splitlines() if not each.startswith("time=")]
    assert len(lines) == len(contains)
    for line, text in zip(lines, contains, strict=True):
        assert line.startswith(f"{NAME}: ")
        assert text in line


async def test_once_prints_the_exposition(api: Simulator, capsys: Capture) -> None:
    assert await execute("once") == 0
    families = {each.name for each in text_string_to_metric_families(capsys.readouterr().out)}
    assert {name.partition("_")[0] for name in families} == {"thousandeyes"}
    assert {"thousandeyes_up", "thousandeyes_endpoint_latency_seconds"} <= families


@pytest.mark.parametrize(("fault", "kept"), [("slow=0.01", False), ("forbidden_group", True)])
async def test_once_replaces_a_file_if_the_poll_succeeds(
    api: Simulator, tmp_path: Path, fault: str, kept: bool
) -> None:
    file, old = tmp_path / "thousandeyes.prom", "old content\n"
    file.write_text(old)
    api.faults = faults(fault)
    with file.open() as reader:
        with pytest.raises(ExporterError, match="1002") if kept else nullcontext():
            await execute("--api.account-groups=all", "once", "--output", str(file))
        assert reader.read() == old, "readers keep the file that they opened"
    assert ("thousandeyes_endpoint_latency_seconds{" in file.read_text()) != kept
    assert (file.read_text() == old) == kept
    assert [*await asyncio.to_thread(tmp_path.iterdir)] == [file]


@pytest.mark.parametrize("output", ["/dev/null", "/nowhere/x.prom", ".", ""])
async def test_once_fails_if_it_cannot_write(
    api: Simulator, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    options = [f"--output={output}"] if output else []
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with pytest.raises(ExporterError, match=f"cannot write .*{re.escape(output)}"):
            await execute("once", *options)


async def test_check(api: Simulator, capsys: Capture) -> None:
    assert await execute("check", "--output=json") == 0
    output, errors = capsys.readouterr()
    assert json.loads(output)["verdict"] in ("good", "warnings")
    api.faults = faults("unauthorized")
    assert await execute("check") == 1
    assert errors + capsys.readouterr().err == "", "the report contains everything"


async def test_demo_queries_its_own_api_and_ends_at_a_signal() -> None:
    ignored = ("--api.url=https://api.invalid", "--api.proxy=http://proxy.invalid")
    addresses = (*ANY_PORTS, "--web.listen-address=:0")
    async with started(*EXPORTER, *ignored, "demo", *addresses) as (demo, output):
        metrics = (await line_with(output, "Metrics:")).split()[-1]
        api = re.findall(r"http\S+", await line_with(output, "Simulated API:"))[0]
        assert metrics.startswith("http://localhost:")
        await line_with(output, "event=poll aid=1001 source=sessions")
        assert (await status(metrics), await status(f"{api}/v7/account-groups")) == (200, 401)
        demo.send_signal(signal.SIGTERM)
        *_, last = (await output.read()).decode().splitlines()
        assert "level=info event=stopped" in last
        assert await demo.wait() == 0


async def test_serve_ignores_sighup() -> None:
    arguments = (*ANY_PORTS, "--api.url=http://127.0.0.1:1")
    async with started(*EXPORTER, *arguments) as (serve, output):
        await line_with(output, "event=listening")
        serve.send_signal(signal.SIGHUP)
        await line_with(output, "event=account_groups_not_listed")
        serve.send_signal(signal.SIGINT)
        assert "Traceback" not in (await output.read()).decode()
        assert await serve.wait() == 0


@pytest.mark.parametrize(("closed", "line"), [("2>&-", "Metrics:"), (">&-", "event=listening")])
async def test_closed_output_stops_nothing(closed: str, line: str) -> None:
    redirect = closed if closed.startswith("2") else f"2>&1 {closed}"
    shell = ("sh", "-c", f'exec "$@" {redirect}', "sh")
    async with started(*shell, *EXPORTER, "demo", *ANY_PORTS) as (demo, output):
        url = re.search(r"http://[^/ ]+:\d+", await line_with(output, line))
        assert url
        assert await status(f"{url[0]}/metrics") == 200
        demo.send_signal(signal.SIGTERM)
        assert await demo.wait() == 0


STUBBORN = """
import asyncio, sys
from exporter.cli import run_until_signal

async def command():
    try:
        print("started", flush=True)
        await asyncio.sleep(60)
    finally:
        print("canceled", flush=True)
        await asyncio.sleep(60)

sys.exit(asyncio.run(run_until_signal(command(), interrupted=0)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_exits_at_once(number: signal.Signals) -> None:
    async with started(sys.executable, "-c", STUBBORN) as (process, output):
        for line in ("started", "canceled"):
            await line_with(output, line)
            process.send_signal(number)
        assert await output.read() == b""
        assert await process.wait() == 0


STARTING = """
import os, signal, sys, time, types
from exporter.__main__ import main

run = lambda argv: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60)
sys.modules["exporter.cli"] = types.SimpleNamespace(run=run)
main()
"""


@pytest.mark.parametrize(("command", "code"), [("serve", 0), ("once", 1)])
async def test_a_signal_during_start_up(command: str, code: int) -> None:
    async with started(sys.executable, "-c", STARTING, command) as (process, output):
        assert await output.read() == b""
        assert await process.wait() == code
