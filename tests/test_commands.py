"""The commands as people and service managers run them: what is printed, what is served, how it ends."""

import asyncio
import io
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from servers import (
    EXPORTER,
    TOKEN,
    Program,
    StillClock,
    ask,
    clean_environment,
    connect,
    finished,
    free_port,
    logging_as,
    read_reply,
    running,
    scraped_lines,
    simulated,
    until,
)

from exporter import NAME, __version__, app, commands, demo
from exporter.errors import ExporterError
from exporter.settings import load, reference
from exporter.simulator import World

SCRIPT = str(Path(sys.executable).parent / NAME)
SMALL = ["--simulator.agents=20", "--simulator.sites=5", "--simulator.listen-address=127.0.0.1:0"]
ANYWHERE = "--web.listen-address=127.0.0.1:0"
READ_ONLY = "/proc"
"""A folder in which not even root can write."""
ENOUGH = 15.0
"""Seconds for what takes a fraction of one on an idle machine."""


def checked(stdout: str, stderr: str) -> None:
    """Whatever happens: no traceback, and the token nowhere."""
    for said in (stdout, stderr):
        assert "Traceback" not in said
        assert "traceback=" not in said
        assert TOKEN not in said


@asynccontextmanager
async def started(*arguments: str, command: list[str] = EXPORTER, **options: Any) -> AsyncIterator[Program]:
    """Run the exporter with these arguments."""
    async with running(*command, *arguments, **options) as program:
        yield program
    checked(program.stdout, program.stderr)


async def ended(*arguments: str, command: list[str] = EXPORTER, **options: Any) -> tuple[int, str, str]:
    """Run the exporter with these arguments to its end."""
    code, stdout, stderr = await finished(*command, *arguments, **options)
    checked(stdout, stderr)
    return code, stdout, stderr


async def address_of(program: Program) -> str:
    """Wait until it listens; return where."""
    line = await program.said("event=listening")
    return re.search(r"address=(\S+)", line)[1]  # type: ignore[index]


def content(file: Path | str) -> bytes:
    return Path(file).read_bytes()


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return [each.name for each in folder.iterdir()]


def state(file: Path) -> tuple[int, int, int]:
    """Return what changes when somebody touches a file: time, node, mode."""
    found = file.stat()
    return found.st_mtime_ns, found.st_ino, stat.S_IMODE(found.st_mode)


def last_event(program: Program) -> str:
    return re.search(r"event=(\S+)", program.stderr.splitlines()[-1])[1]  # type: ignore[index]


async def is_ready(address: str) -> bool:
    return (await ask(f"{address}/-/ready")).status == 200


def asking(api: str, *more: str) -> list[str]:
    """Arguments that ask the API there."""
    return [f"--api.url={api}", ANYWHERE, *more]


@pytest.fixture
def with_token(monkeypatch: Any) -> dict[str, Any]:
    """Options that hand over the token, also to what runs here."""
    monkeypatch.setenv("THOUSANDEYES_TOKEN", TOKEN)
    return {"env": clean_environment(THOUSANDEYES_TOKEN=TOKEN)}


async def here(*arguments: str) -> tuple[int, str, str]:
    """Run a command that ends by itself, in a thread of this process, which is faster; return as `ended` does."""

    def work() -> tuple[int, str, str]:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with logging_as(), redirect_stdout(out), redirect_stderr(err):
            code = commands.run(arguments)
        return code, *(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]

    code, stdout, stderr = await asyncio.to_thread(work)
    checked(stdout, stderr)
    return code, stdout, stderr


# Words.


async def test_version() -> None:
    assert await ended("--version", command=[SCRIPT]) == (0, f"{NAME} {__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
async def test_help_lists_every_setting_and_every_command(flag: str) -> None:
    code, stdout, stderr = await here(flag)
    assert (code, stderr) == (0, "")
    for doc in reference():
        assert f"  {doc.flag}\n      {doc.description}" in stdout
        assert not doc.default or f"Default: {doc.default}." in stdout
    for command in ("serve", "demo", "simulate", "once", "check"):
        assert re.search(rf"^  {command} +\S", stdout, re.M)


async def test_a_command_has_help_of_its_own() -> None:
    code, stdout, _ = await here("once", "--help")
    assert code == 0
    assert "--output FILE" in stdout
    code, stdout, _ = await here("simulate", "--help")
    assert code == 0
    assert "rate_limited_bare" in stdout


async def test_everything_that_is_wrong_is_said_at_once() -> None:
    code, stdout, stderr = await ended(
        "--poll.interval=5", "--api.version=v8", "--wep.x=1", "once", "--outptu=x", "--output"
    )
    assert (code, stdout) == (2, "")
    lines = stderr.splitlines()
    assert all(line.startswith(f"{NAME}: ") for line in lines)
    for word in ("--poll.interval", "--api.version", "--wep.x", "--outptu", "--output: needs a value", "api.token"):
        assert [line for line in lines if word in line], word


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["demo", "now"], "'now' stands after the command demo, which has no options of its own"),
        (["once", "--output="], "--output: needs a value"),
        (["once", "--output=a", "--output=b"], "--output: stands twice"),
        (["dmo"], 'did you mean "demo"?'),
        (["--simulator.faults=floods", "demo"], "simulator.faults"),
        (["--config.file=/nowhere.yml", "demo"], "/nowhere.yml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_what_can_not_be_understood_is_exit_code_2(arguments: list[str], complaint: str) -> None:
    code, stdout, stderr = await here(*arguments)
    assert (code, stdout) == (2, "")
    assert complaint in stderr


# demo, simulate, serve.


@pytest.mark.parametrize("command", [EXPORTER, [SCRIPT]], ids=["module", "script"])
async def test_demo_says_where_to_look_and_has_values_there_within_seconds(command: list[str]) -> None:
    began = time.monotonic()
    async with started(*SMALL, ANYWHERE, "demo", command=command) as demo:
        where = (await demo.said("Metrics")).split()[-1]
        await until(lambda: is_ready(where.removesuffix("/metrics")), ENOUGH)
        assert time.monotonic() - began < ENOUGH
        families = {family.name: family for family in text_string_to_metric_families((await ask(where)).text)}
        assert families["thousandeyes_up"].samples[0].value == 1.0
        assert len(families["thousandeyes_endpoint_latency_seconds"].samples) > 5
        page = (await demo.said("Status page")).split()[-1]
        assert "Example Headquarters" in (await ask(page)).text
        assert (await ask(f"{page}-/healthy")).status == 200
        assert await demo.stop() == 0
        assert last_event(demo) == "stopped"


async def test_demo_asks_its_own_simulator_only() -> None:
    settings = ["--api.url=https://api.invalid", f"--api.token={TOKEN}", "--api.proxy=http://proxy.invalid:3128"]
    async with started(*SMALL, ANYWHERE, *settings, "demo") as demo:
        await demo.said("event=poll ")


async def test_simulate_serves_the_api_alone() -> None:
    async with started(*SMALL, "--simulator.token=open", "simulate") as simulator:
        line = await simulator.said("The pretend API listens at")
        api = re.search(r"http://\S+", line)[0]  # type: ignore[index]
        assert (await ask(api, "/v7/account-groups", Authorization="Bearer open")).status == 200
        assert (await ask(api, "/v7/account-groups", Authorization="Bearer other")).status == 401
        assert await simulator.stop() == 0


@pytest.mark.parametrize("address", [":0", "[::1]:0"])
async def test_it_listens_where_it_is_told_to(address: str) -> None:
    async with started(*SMALL, f"--web.listen-address={address}", "demo") as demo:
        where = (await demo.said("Metrics")).split()[-1]
        assert (await ask(where)).status == 200


async def test_the_simulator_can_be_reached_from_elsewhere_where_wished() -> None:
    async with started("--simulator.listen-address=:0", ANYWHERE, "demo") as demo:
        await demo.said("event=poll ")


async def test_serve_publishes_what_the_api_tells(with_token: Any) -> None:
    async with simulated() as (_, api), started(*asking(api), **with_token) as serve:
        address = await address_of(serve)
        await until(lambda: is_ready(address))
        assert 'thousandeyes_up{aid="1001"} 1.0' in (await ask(f"{address}/metrics")).text
        assert await serve.stop() == 0


async def test_serve_answers_while_the_api_does_not(with_token: Any) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with started(*asking(nowhere), "serve", **with_token) as serve:
        address = await address_of(serve)
        await serve.said("event=account_groups_not_listed")
        text = (await ask(f"{address}/metrics")).text
        assert 'thousandeyes_up{aid=""} 0.0' in text
        assert 'poll_failures_total{aid="",reason="connect"} 1.0' in text
        assert not [line for line in scraped_lines(text) if line.startswith("thousandeyes_endpoint_")]
        assert (await ask(f"{address}/-/ready")).status == 503
        assert (await ask(f"{address}/-/healthy")).status == 200
        assert await serve.stop() == 0


async def test_the_token_is_read_from_its_file_and_told_nobody(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    async with simulated() as (_, api):
        settings = [*asking(api), f"--api.token-file={file}", "--log.level=debug", "--log.format=json"]
        async with started(*settings) as serve:
            await serve.said('"event": "poll"')
            assert TOKEN.encode() not in content(f"/proc/{serve.pid}/cmdline")


# Ports.


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("setting", ["web", "simulator"])
async def test_a_port_in_use_is_one_line_and_exit_code_1(taken: int, setting: str) -> None:
    flags = {"web": ANYWHERE, "simulator": SMALL[2]} | {setting: f"--{setting}.listen-address=127.0.0.1:{taken}"}
    began = time.monotonic()
    code, stdout, stderr = await ended(*flags.values(), "demo")
    assert time.monotonic() - began < ENOUGH
    assert (code, stdout) == (1, "")
    assert stderr == f"{NAME}: can not listen on 127.0.0.1:{taken} ({setting}.listen_address): Address already in use\n"


@pytest.mark.parametrize(
    ("address", "words"),
    [("192.0.2.1:9", "Cannot assign requested address"), ("name.invalid:9", "Name or service not known")],
)
async def test_an_address_that_is_not_ours_is_refused_in_words(address: str, words: str) -> None:
    settings = load([f"--simulator.listen-address={address}"], {"THOUSANDEYES_TOKEN": "x"}).settings.simulator
    with pytest.raises(ExporterError, match=re.escape(f"can not listen on {address} (simulator.listen_address): ")):
        async with demo.running(settings):
            pass
    runner = web.ServerRunner(web.Server(None))  # type: ignore[arg-type]
    await runner.setup()
    with pytest.raises(ExporterError, match=f"{re.escape(address)} .web.listen_address.: .*{words[:10]}|resol|known"):
        await app.listen(runner, settings.listen_address, "web.listen_address")
    await runner.cleanup()


# Signals.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_exporter_at_once(with_token: Any, number: int) -> None:
    async with simulated() as (_, api), started(*asking(api), **with_token) as serve:
        await serve.said("event=poll ")
        reader, writer = await connect(await address_of(serve))  # an idle connection holds nothing up
        began = time.monotonic()
        assert await serve.stop(number) == 0
        assert time.monotonic() - began < ENOUGH
        assert last_event(serve) == "stopped"
        assert await reader.read() == b""
        writer.close()


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has said what a signal means to it."""
    mask = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(mask[1], 16) >> number - 1 & 1)  # type: ignore[index]


@pytest.mark.parametrize(("number", "delay"), [(signal.SIGTERM, 0.0), (signal.SIGINT, 0.0), (signal.SIGTERM, 0.4)])
async def test_a_signal_during_the_start_is_no_failure(number: int, delay: float) -> None:
    async with started(*SMALL, ANYWHERE, "demo") as demo:
        await until(lambda: catches(demo.pid, signal.SIGTERM), every=0.001)
        await asyncio.sleep(delay)
        assert await demo.stop(number) == 0


async def test_a_signal_leaves_undone_what_once_should_have_done(with_token: Any) -> None:
    async with simulated(faults=["hang"]) as (simulator, api), started(*asking(api), "once", **with_token) as once:
        await until(lambda: simulator.requests, 20)
        assert await once.stop() == 1


@pytest.mark.parametrize("fault", ["slow", "hang@10s"], ids=["first-poll", "later-poll"])
async def test_a_signal_amid_a_poll_does_not_wait_for_it(with_token: Any, fault: str) -> None:
    clock = StillClock()
    arguments = asking("", "--poll.interval=1s")[1:]
    async with (
        simulated(faults=[fault], clock=clock) as (simulator, api),
        started(*arguments, f"--api.url={api}", **with_token) as serve,
    ):
        if "@" in fault:
            await serve.said("event=poll ")
            clock.now += 20
        count = len(simulator.requests)
        await until(lambda: len(simulator.requests) > count, 20)
        began = time.monotonic()
        assert await serve.stop() == 0
        assert time.monotonic() - began < ENOUGH
        assert last_event(serve) == "stopped"


@asynccontextmanager
async def slow_scrape(
    **options: Any,
) -> AsyncIterator[tuple[Program, str, asyncio.StreamReader, asyncio.StreamWriter]]:
    """An exporter with much to tell, and a reader who has asked and not read yet."""
    world = World(agents=500, sites=200, sessions_per_minute=220)
    async with simulated(world, page_size=5000) as (_, api), started(*asking(api), **options) as serve:
        address = await address_of(serve)
        await until(lambda: is_ready(address), 20)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", int(address.rpartition(":")[2])))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: len(reader._buffer) > 0)  # type: ignore[attr-defined]
        yield serve, address, reader, writer
        writer.close()


async def test_a_scrape_that_has_begun_is_answered_to_its_end_and_no_other_begins(with_token: Any) -> None:
    async with slow_scrape(**with_token) as (serve, address, reader, _):
        serve.process.send_signal(signal.SIGTERM)
        await until(lambda: refused(address))
        assert serve.process.returncode is None
        reply = await read_reply(reader)
        assert len(reply.body) > 6_000_000
        assert reply.text.endswith("\n")
        assert await reader.read() == b""
        assert await serve.wait() == 0
        assert last_event(serve) == "stopped"


async def refused(address: str) -> bool:
    try:
        _, writer = await connect(address)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_second_signal_ends_it_at_once(with_token: Any) -> None:
    async with slow_scrape(**with_token) as (serve, address, _, _):
        serve.process.send_signal(signal.SIGTERM)
        await until(lambda: refused(address))
        began = time.monotonic()
        assert await serve.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < ENOUGH


# Surroundings.


async def test_a_closed_standard_error_is_no_reason_to_stop() -> None:
    port = free_port()
    shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *EXPORTER]
    flags = [*SMALL, f"--web.listen-address=127.0.0.1:{port}", "--poll.interval=1s", "demo"]
    async with started(*flags, command=shell) as demo:
        await keeps_serving(demo, port)


async def test_a_standard_error_that_nobody_reads_is_no_reason_to_stop() -> None:
    port = free_port()
    read, write = os.pipe()
    flags = [*SMALL, f"--web.listen-address=127.0.0.1:{port}", "--poll.interval=1s", "--log.level=debug", "demo"]
    async with started(*flags, stdout=write, stderr=write) as demo:
        os.close(read)
        os.close(write)
        await keeps_serving(demo, port)


async def keeps_serving(demo: Program, port: int) -> None:
    async def polls() -> float:
        try:
            text = (await ask(f"http://127.0.0.1:{port}/metrics")).text
        except ConnectionRefusedError:
            return 0.0
        counted = re.search(r"^thousandeyes_exporter_polls_total\S* (\S+)", text, re.M)
        return float(counted[1]) if counted else 0.0

    async def polled_twice() -> bool:
        return await polls() >= 2

    await until(polled_twice, 20)
    assert await demo.stop() == 0


async def test_it_runs_where_nothing_can_be_written_and_nobody_is_at_home() -> None:
    bare = {"PATH": os.environ["PATH"], "TMPDIR": READ_ONLY}
    async with started(*SMALL, ANYWHERE, "demo", command=[SCRIPT], cwd=READ_ONLY, env=bare) as demo:
        await demo.said("event=poll ")
        assert await demo.stop() == 0


# once.


async def test_once_writes_the_metrics_and_none_of_the_process(with_token: Any) -> None:
    async with simulated() as (_, api):
        code, stdout, stderr = await ended(*asking(api), "once", **with_token)
    assert code == 0
    assert "event=poll " in stderr
    families = {family.name: family for family in text_string_to_metric_families(stdout)}
    assert {name.partition("_")[0] for name in families} == {"thousandeyes"}
    assert families["thousandeyes_up"].samples[0].value == 1.0
    assert len(families["thousandeyes_endpoint_agent_info"].samples) == 40
    assert len(families["thousandeyes_endpoint_latency_seconds"].samples) > 20


async def test_once_writes_a_file_that_everybody_can_read_and_nothing_beside_it(
    with_token: Any, tmp_path: Path
) -> None:
    file = tmp_path / "thousandeyes.prom"
    async with simulated() as (_, api):
        for _ in range(2):
            code, stdout, _ = await here(*asking(api), "once", "--output", str(file))
            assert (code, stdout) == (0, "")
            assert b"thousandeyes_endpoint_latency_seconds{" in content(file)
    assert state(file)[2] == 0o644
    assert names(tmp_path) == [file.name]


@pytest.mark.parametrize("fault", ["unauthorized", "not_json", "forbidden_group"])
async def test_once_that_fails_writes_nothing(with_token: Any, tmp_path: Path, fault: str) -> None:
    file = tmp_path / "thousandeyes.prom"
    file.write_text("what was there before\n")
    before = state(file)
    async with simulated(World(agents=20, account_groups=2), faults=[fault]) as (_, api):
        arguments = asking(api, "--api.account-groups=all")
        code, stdout, stderr = await here(*arguments, "once", f"--output={file}")
        assert (code, stdout) == (1, "")
        assert "level=error" in stderr
        code, stdout, _ = await here(*arguments, "once")
        assert (code, stdout) == (1, "")
    assert state(file) == before
    assert content(file) == b"what was there before\n"
    assert names(tmp_path) == [file.name]


@pytest.mark.parametrize("target", ["missing/file.prom", ".", READ_ONLY + "/file.prom", "/dev/null"])
async def test_once_says_where_it_can_not_write(with_token: Any, tmp_path: Path, target: str) -> None:
    async with simulated() as (_, api):
        code, stdout, stderr = await here(*asking(api), "once", f"--output={tmp_path / target}")
    assert (code, stdout) == (1, "")
    assert f"{NAME}: can not write {tmp_path / target} (--output): " in stderr
    assert names(tmp_path) == []
    assert content("/dev/null") == b""


async def test_once_fails_where_nobody_takes_what_it_writes(with_token: Any) -> None:
    async with simulated() as (_, api):
        for closed, words in (('"$@" >&-', "closed"), ('"$@" | :; exit ${PIPESTATUS[0]}', "Broken pipe")):
            shell = ["bash", "-c", closed, "bash", *EXPORTER]
            code, stdout, stderr = await ended(*asking(api), "once", command=shell, **with_token)
            assert (code, stdout) == (1, "")
            assert f"can not write to standard output: {words}" in stderr or words in stderr


async def test_once_writes_the_same_bytes_in_every_locale(with_token: Any, tmp_path: Path) -> None:
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    file = tmp_path / "out"
    async with simulated(World(agents=40)) as (_, api):
        with file.open("wb") as stdout:
            environment = {"env": {**with_token["env"], **variables}}
            code, _, _ = await ended(*asking(api), "once", stdout=stdout, **environment)
    assert code == 0
    assert 'location="São Paulo, Brazil"' in file.read_bytes().decode()


# check.


async def test_check_shows_settings_and_what_the_api_answers(with_token: Any) -> None:
    async with simulated(World(agents=30, sites=5, account_groups=2)) as (simulator, api):
        arguments = asking(api, "--api.account-groups=all", "--metrics.max-series=5000")
        code, stdout, _ = await here(*arguments, "check")
        assert not [request for request in simulator.requests if request.status != 200]
    assert code == 0
    assert re.search(r"^  api\.token +<secret>  \(THOUSANDEYES_TOKEN\)$", stdout, re.M)
    assert re.search(rf"^  api\.url +{re.escape(api)}  \(--api\.url\)$", stdout, re.M)
    assert re.search(r"^  poll\.lookback +15m  \(default\)$", stdout, re.M)
    for doc in reference():
        assert f"\n  {doc.name} " in stdout
    for name in ("1001 Example Headquarters", "1002 Example Logistics"):
        assert re.search(rf"^  {name}: 15 agents, \d+ user sessions, \d+ of them joined", stdout, re.M)


async def test_check_listens_nowhere(with_token: Any, taken: int) -> None:
    async with simulated() as (_, api):
        code, _, _ = await here(*asking(api)[:1], f"--web.listen-address=127.0.0.1:{taken}", "check")
    assert code == 0


@pytest.mark.parametrize("fault", ["unauthorized", "maintenance", "html", "forbidden_group"])
async def test_check_fails_where_the_api_does(with_token: Any, fault: str) -> None:
    async with simulated(World(agents=20, account_groups=2), faults=[fault]) as (_, api):
        code, stdout, stderr = await here(*asking(api, "--api.account-groups=all"), "check")
    assert code == 1
    assert "api.version" in stdout
    assert "level=error" in stderr


async def test_check_of_wrong_settings_is_exit_code_2() -> None:
    code, stdout, stderr = await here("--api.url=http://api.thousandeyes.com", "check")
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 2
