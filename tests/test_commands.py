"""The commands as people and service managers run them: what is printed, what is served, how it ends."""

import asyncio
import io
import json
import re
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import (
    EXPORTER,
    TOKEN,
    Program,
    ask,
    clean_environment,
    finished,
    logging_as,
    running,
    scraped_lines,
    simulated,
    until,
)

from benchmarks.processes import free_port
from exporter import NAME, __version__, app, commands, demo
from exporter.errors import ExporterError
from exporter.server import Answer, Request, Server
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


@pytest.mark.parametrize(
    ("address", "words"),
    [("192.0.2.1:9", "Cannot assign requested address"), ("name.invalid:9", "Name or service not known")],
)
async def test_an_address_that_is_not_ours_is_refused_in_words(address: str, words: str) -> None:
    settings = load([f"--simulator.listen-address={address}"], {"THOUSANDEYES_TOKEN": "x"}).settings.simulator
    with pytest.raises(ExporterError, match=re.escape(f"can not listen on {address} (simulator.listen_address): ")):
        async with demo.running(settings):
            pass
    with pytest.raises(ExporterError, match=f"{re.escape(address)} .web.listen_address.: .*{words[:10]}|resol|known"):
        await app.listen(Server(nobody), settings.listen_address, "web.listen_address")


async def nobody(request: Request) -> Answer:
    raise AssertionError(f"nothing listens, and yet somebody asked for {request.path}")


# Signals.


async def test_a_signal_leaves_undone_what_once_should_have_done(with_token: Any) -> None:
    async with simulated(faults=["hang"]) as (simulator, api), started(*asking(api), "once", **with_token) as once:
        await until(lambda: simulator.requests, 20)
        assert await once.stop() == 1


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


# check.


async def test_check_shows_settings_and_what_the_api_answers(with_token: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    async with simulated(World(agents=30, sites=5, account_groups=2)) as (simulator, api):
        arguments = asking(api, "--api.account-groups=all", "--metrics.max-series=5000")
        code, stdout, stderr = await here(*arguments, "check")
        assert not [request for request in simulator.requests if request.status != 200]
    assert (code, stderr) == (0, "")
    assert re.search(r"^  api\.token +<secret> +THOUSANDEYES_TOKEN$", stdout, re.M)
    assert max(map(len, stdout.splitlines())) <= 80
    assert re.search(rf"^  api\.url +{re.escape(api)} +--api\.url$", stdout, re.M)
    assert re.search(r"^  poll\.lookback +15m +default$", stdout, re.M)
    for doc in reference():
        assert f"\n  {doc.name} " in stdout
    for name in ("1001 Example Headquarters", "1002 Example Logistics"):
        section = stdout.partition(f"\nAccount group {name}\n")[2].partition("\n\n")[0]
        assert re.search(r"^  agents +15$", section, re.M)
        assert re.search(r"^  user sessions +\d+, \d\d % with a network session$", section, re.M)


async def test_check_tells_machines_the_same_in_one_object_and_nothing_else(with_token: Any) -> None:
    async with simulated(World(agents=20, sites=4)) as (_, api):
        code, stdout, stderr = await here(*asking(api), "check", "--output", "json")
    assert (code, stderr, stdout.count("\n")) == (0, "", 1)
    report = json.loads(stdout)
    assert report["verdict"] == "warnings"  # the simulator's clock stands still
    assert [group["agents"] for group in report["account_groups"]] == [20]


async def test_check_knows_no_other_output(with_token: Any) -> None:
    code, stdout, stderr = await here(*asking("http://localhost:1"), "check", "--output=xml")
    assert (code, stdout) == (2, "")
    assert "--output: must be json" in stderr


async def test_check_finds_what_would_keep_the_exporter_from_starting(with_token: Any, tmp_path: Path) -> None:
    config = tmp_path / "web.yml"
    config.write_text("tls_server_config: {cert_file: missing.pem, key_file: missing.pem}\n")
    async with simulated() as (simulator, api):
        arguments = asking(api, f"--web.config-file={config}")
        code, stdout, stderr = await here(*arguments, "check")
        assert not simulator.requests
        assert (code, stdout) == (2, "")
        assert (code, stderr) == (await ended(*arguments, **with_token))[::2]


async def test_check_says_more_where_it_is_asked_to(with_token: Any) -> None:
    async with simulated(World(agents=20, sites=4)) as (_, api):
        _, _, stderr = await here(*asking(api, "--log.level=debug"), "check")
    assert "event=poll " in stderr


async def test_check_listens_nowhere(with_token: Any, taken: int) -> None:
    async with simulated() as (_, api):
        code, _, _ = await here(*asking(api)[:1], f"--web.listen-address=127.0.0.1:{taken}", "check")
    assert code == 0


@pytest.mark.parametrize("fault", ["unauthorized", "maintenance", "html", "forbidden_group"])
async def test_check_fails_where_the_api_does(with_token: Any, fault: str) -> None:
    async with simulated(World(agents=20, account_groups=2), faults=[fault]) as (_, api):
        code, stdout, stderr = await here(*asking(api, "--api.account-groups=all"), "check")
    assert (code, stderr) == (1, "")
    assert "\n  error    " in stdout
    assert stdout.splitlines()[-1].strip().startswith("failed: ")


async def test_check_of_wrong_settings_is_exit_code_2() -> None:
    code, stdout, stderr = await here("--api.url=http://api.thousandeyes.com", "check")
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 2
