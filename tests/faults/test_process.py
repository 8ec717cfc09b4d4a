"""The process: signals, settings read again, clocks, files, and everything else that a system does to a program."""

import asyncio
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
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
    connect,
    finished,
    read_reply,
    running,
    simulated,
    tool,
    until,
)

from benchmarks.processes import free_port
from exporter import NAME, app
from exporter.simulator import World
from faults.conftest import Process, descriptors, process, row, scraped, trial
from faults.elastic import wall

DEMO = ["--simulator.agents=20", "--simulator.sites=5", "--simulator.listen-address=127.0.0.1:0"]
READ_ONLY = "/proc"
"""A folder in which not even root can write."""
ENOUGH = 15.0
"""Seconds for what takes a fraction of one on an idle machine."""


def last_event(program: Program) -> str:
    return re.search(r"event=(\S+)", program.stderr.splitlines()[-1])[1]  # type: ignore[index]


async def ends(p: Process, number: int = signal.SIGTERM) -> None:
    """Assert that a signal ends it soon, and well."""
    began = time.monotonic()
    assert await p.program.stop(number) == 0
    assert time.monotonic() - began < ENOUGH
    assert last_event(p.program) == "stopped"


async def value(address: str, name: str) -> float:
    """Scrape one sample without labels, or the sum of those with any."""
    families = text_string_to_metric_families((await ask(f"{address}/metrics")).text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


# How it ends.


@row("P01", real=True, sigterm=signal.SIGTERM, sigint=signal.SIGINT)
async def test_a_signal_ends_an_idle_exporter_at_once(case: int) -> None:
    async with process("--poll.interval=1m", ends=True) as p:
        reader, writer = await connect(p.address)  # an idle connection holds nothing up
        await ends(p, case)
        assert await reader.read() == b""
        writer.close()


@asynccontextmanager
async def slow_scrape() -> AsyncIterator[tuple[Program, str, asyncio.StreamReader]]:
    """An exporter with much to tell, and a reader who has asked and not read yet."""
    port = free_port()
    world = World(agents=500, sites=200, sessions_per_minute=220)
    environment = clean_environment(THOUSANDEYES_TOKEN=TOKEN)
    async with simulated(world, page_size=5000) as (_, api):
        command = [*EXPORTER, f"--api.url={api}", f"--web.listen-address=127.0.0.1:{port}"]
        async with running(*command, env=environment) as program:
            await program.said("event=poll ", 30)
            address = f"http://127.0.0.1:{port}"
            await until(lambda: _is_ready(address), 30)
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: len(reader._buffer) > 0)  # type: ignore[attr-defined]
            yield program, address, reader
            writer.close()


async def _is_ready(address: str) -> bool:
    return (await ask(f"{address}/-/ready")).status == 200


async def _refused(address: str) -> bool:
    try:
        _, writer = await connect(address)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@row("P02", real=True)
async def test_a_scrape_that_has_begun_is_answered_to_its_end_and_no_other_begins() -> None:
    async with slow_scrape() as (serve, address, reader):
        serve.process.send_signal(signal.SIGTERM)
        await until(lambda: _refused(address))
        assert serve.process.returncode is None
        reply = await read_reply(reader)
        assert len(reply.body) > 6_000_000
        assert reply.text.endswith("\n")
        assert await reader.read() == b""
        assert await serve.wait() == 0
        assert last_event(serve) == "stopped"


@row("P03", real=True, first="hang", later="hang@10s")
async def test_a_signal_amid_a_poll_does_not_wait_for_it(case: str) -> None:
    async with process(faults=(case,), ready=False, ends=True) as p:
        count = 0
        if "@" in case:
            await p.program.said("event=poll ")
            p.simulator.clock = lambda: time.time() + 20.0
            count = len(p.simulator.requests)
        await until(lambda: len(p.simulator.requests) > count, 20)
        await ends(p)


@row("P04", real=True)
async def test_a_second_signal_ends_it_at_once() -> None:
    async with slow_scrape() as (serve, address, _):
        serve.process.send_signal(signal.SIGTERM)
        await until(lambda: _refused(address))
        began = time.monotonic()
        assert await serve.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < ENOUGH
        assert "Traceback" not in serve.stderr


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has said what a signal means to it."""
    mask = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(mask[1], 16) >> number - 1 & 1)  # type: ignore[index]


@row("P05", real=True, sigterm=(signal.SIGTERM, 0.0), sigint=(signal.SIGINT, 0.0), a_moment_later=(signal.SIGTERM, 0.4))
async def test_a_signal_during_the_start_is_no_failure(case: tuple[int, float]) -> None:
    number, delay = case
    async with running(*EXPORTER, *DEMO, "--web.listen-address=127.0.0.1:0", "demo") as demo:
        await until(lambda: catches(demo.pid, signal.SIGTERM), every=0.001)
        await asyncio.sleep(delay)
        assert await demo.stop(number) == 0
        assert "Traceback" not in demo.stderr


# Settings that are read again.


class File:
    """A file of settings that changes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "settings.yaml"
        self.write("")

    def write(self, text: str) -> None:
        self.path.write_text("poll: {overlap: 2m}\n" + text)

    @property
    def flag(self) -> str:
        return f"--config.file={self.path}"


async def hung_up(p: Process, event: str) -> str:
    """Send SIGHUP, and wait for one more line of an event."""
    before = p.program.stderr.count(f"event={event}")
    p.program.process.send_signal(signal.SIGHUP)
    await until(lambda: p.program.stderr.count(f"event={event}") > before)
    return [line for line in p.program.stderr.splitlines() if f"event={event}" in line][-1]


@row("P06", real=True)
async def test_good_settings_are_in_force_within_a_second_and_no_scrape_is_lost(tmp_path: Path) -> None:
    file = File(tmp_path)
    async with process(file.flag) as p:
        polls = await value(p.address, "thousandeyes_exporter_polls_total")
        sessions = await value(p.address, "thousandeyes_endpoint_site_sessions_total")
        load = [tool("wrk"), "-t1", "-c4", "-d3s", f"{p.address}/metrics"]
        loading = asyncio.create_task(finished(*load))
        await asyncio.sleep(0.5)
        file.write("metrics: {max_series: 60, agent_names: 'off'}\nlog: {level: debug}\n")
        began = time.monotonic()
        await hung_up(p, "settings_reloaded")
        assert time.monotonic() - began < 1.0
        code, said, _ = await loading
        assert code == 0
        assert "Non-2xx" not in said
        assert "Socket errors" not in said
        assert await value(p.address, "thousandeyes_exporter_config_last_reload_successful") == 1
        assert await value(p.address, "thousandeyes_exporter_series_limit") == 60
        await until(lambda: _named(p.address, named=False))
        assert await value(p.address, "thousandeyes_exporter_series") <= 60
        assert await value(p.address, "thousandeyes_exporter_polls_total") > polls
        assert await value(p.address, "thousandeyes_endpoint_site_sessions_total") >= sessions
        file.write("")
        await hung_up(p, "settings_reloaded")
        await until(lambda: _named(p.address, named=True))


async def _named(address: str, *, named: bool) -> bool:
    return ("agent_name=" in (await ask(f"{address}/metrics")).text) == named


@row(
    "P07",
    real=True,
    unknown_key="poll: {intervall: 2s}\n",
    no_yaml="poll: [\n",
    wrong_value="poll: {overlap: -1s}\n",
    at_odds="poll: {lookback: 1s}\n",
    only_at_the_start="web: {max_requests: 3}\n",
    no_such_file="api: {ca_file: /nowhere.pem}\n",
)
async def test_bad_settings_change_nothing_and_are_shown(case: str, tmp_path: Path) -> None:
    file = File(tmp_path)
    async with process(file.flag) as p:
        # A key that stands twice would be another problem.
        file.path.write_text(case if case.startswith("poll") else "poll: {overlap: 2m}\n" + case)
        line = await hung_up(p, "settings_not_reloaded")
        assert "level=error" in line
        assert re.search(r"settings\.yaml:\d+:\d+|web\.max_requests", line), line
        await until(lambda: _reloaded(p.address, 0))
        polls = await value(p.address, "thousandeyes_exporter_polls_total")
        await until(lambda: _more_polls(p.address, polls))
        file.write("log: {level: debug}\n")
        await hung_up(p, "settings_reloaded")
        await until(lambda: _reloaded(p.address, 1))


async def _reloaded(address: str, successful: float) -> bool:
    # The exporter's own metrics are rendered once a second.
    return await value(address, "thousandeyes_exporter_config_last_reload_successful") == successful


async def _more_polls(address: str, than: float) -> bool:
    return await value(address, "thousandeyes_exporter_polls_total") > than


@row("P08", real=True)
async def test_a_thousand_hang_ups_are_one_and_cost_no_poll(tmp_path: Path) -> None:
    file = File(tmp_path)
    async with process(file.flag, "--poll.interval=5s") as p:
        open_before, polls = descriptors(p.program.pid), await value(p.address, "thousandeyes_exporter_polls_total")
        began = time.monotonic()
        for number in range(1000):
            p.program.process.send_signal(signal.SIGHUP)
            if number % 10 == 0:
                await asyncio.sleep(0.01)
        await scraped(p.address)
        due = 1 + (time.monotonic() - began) // 5
        assert await value(p.address, "thousandeyes_exporter_polls_total") - polls <= due
        assert "settings_reloaded" not in p.program.stderr  # nothing was different
        assert descriptors(p.program.pid) <= open_before + 2


# What the system has, and has not.


@row("P15", real=True)
async def test_it_runs_where_nothing_can_be_written_and_nobody_is_at_home() -> None:
    bare = {"PATH": os.environ["PATH"], "TMPDIR": READ_ONLY}
    script = str(Path(sys.executable).parent / NAME)
    command = [script, *DEMO, "--web.listen-address=127.0.0.1:0", "demo"]
    async with running(*command, cwd=READ_ONLY, env=bare) as demo:
        await demo.said("event=poll ")
        assert await demo.stop() == 0


def _few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


@row("P17", real=True)
async def test_idle_clients_leave_a_place_for_those_who_ask() -> None:
    async with process(preexec_fn=_few_files) as p:
        idle = [await connect(p.address) for _ in range(150)]
        polls = await value(p.address, "thousandeyes_exporter_polls_total")
        for _ in range(3):
            await scraped(p.address)
        await until(lambda: _more_polls(p.address, polls))
        assert len([line for line in p.program.stderr.splitlines() if "event=poll " not in line]) <= 10
        assert await value(p.address, "thousandeyes_up") == 1
        for _, writer in idle:
            writer.close()


@row("P19", real=True)
async def test_after_standing_still_one_poll_follows_and_not_a_burst() -> None:
    async with process() as p:
        os.kill(p.program.pid, signal.SIGSTOP)
        await asyncio.sleep(8)
        polls, requests = p.program.stderr.count("event=poll "), len(p.simulator.requests)
        os.kill(p.program.pid, signal.SIGCONT)
        await asyncio.sleep(1.5)
        assert 1 <= p.program.stderr.count("event=poll ") - polls <= 3
        assert 2 <= len(p.simulator.requests) - requests <= 6


@row("P19", an_hour=3600.0, a_day=86_400.0)
async def test_a_machine_that_was_suspended_shows_nothing_old_and_asks_once(case: float) -> None:
    async with trial() as t:
        polls = t.of("polls_total")
        t.loop.now += case
        await t.until(lambda: t.of("polls_total") > polls, 65.0)
        await asyncio.sleep(1.0)
        assert t.of("polls_total") <= polls + 2
        rounds = (await t.scrape())["thousandeyes_endpoint_round_timestamp_seconds"].values()
        assert rounds
        assert min(rounds) >= wall() - t.exporter.settings.poll.lookback - 120
        assert t.failed == {}
        assert t.exporter.healthy()


@row("P20", ahead=3600.0, behind=-3600.0, nineteen_seventy=-1.79e9)
async def test_this_machines_date_changes_nothing(case: float) -> None:
    async with trial() as t, t.fault():
        before = {name: samples for name, samples in (await t.scrape()).items() if name.startswith("thousandeyes_e")}
        machine = t.exporter.clock.wall
        object.__setattr__(t.exporter.clock, "wall", lambda: machine() + case)
        await t.polls(3)
        after = await t.scrape()
        rounds = after["thousandeyes_endpoint_round_timestamp_seconds"].values()
        assert all(-960 <= start - machine() <= 0 for start in rounds)
        assert (
            before["thousandeyes_endpoint_round_timestamp_seconds"].keys()
            & after["thousandeyes_endpoint_round_timestamp_seconds"].keys()
        )
        assert t.failed == {}
        assert abs(t.of("last_poll_timestamp_seconds") - machine()) < 120


@row("P22")
async def test_a_crash_is_counted_and_what_crashed_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trial(crashes=True) as t, t.fault():
        build, left = t.exporter.publisher.build, app.MANY_CRASHES - 1

        async def broken() -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                raise RuntimeError("a fault")
            await build()

        t.exporter.publisher.build = broken  # type: ignore[method-assign]
        await t.until(lambda: left < 0, 1200)
        assert t.exporter.healthy()
        assert [line for line in t.lines() if "event=crashed" in line and "a fault" in line]
        t.exporter._crashes.extend([t.loop.time()] * app.MANY_CRASHES)
        assert not t.exporter.healthy()
        t.exporter._crashes.clear()


# Where it listens.


@row("P24", real=True, web="web", simulator="simulator")
async def test_a_port_in_use_is_one_line_and_exit_code_1(case: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        taken = server.getsockname()[1]
        flags = {"web": "--web.listen-address=127.0.0.1:0", "simulator": DEMO[2]}
        flags[case] = f"--{case}.listen-address=127.0.0.1:{taken}"
        began = time.monotonic()
        code, stdout, stderr = await finished(*EXPORTER, *flags.values(), "demo")
    assert time.monotonic() - began < ENOUGH
    assert (code, stdout) == (1, "")
    assert stderr == f"{NAME}: can not listen on 127.0.0.1:{taken} ({case}.listen_address): Address already in use\n"


@row("P26", real=True, every_address="", ipv6_only="[::1]")
async def test_it_listens_on_either_internet_protocol(case: str) -> None:
    port = free_port()
    async with running(*EXPORTER, *DEMO, f"--web.listen-address={case}:{port}", "demo") as demo:
        where = (await demo.said("Metrics")).split()[-1]
        for address in (
            where,
            f"http://[::1]:{port}/metrics",
            *([f"http://127.0.0.1:{port}/metrics"] if not case else []),
        ):
            assert (await ask(address)).status == 200


@row("P27", real=True, closed=False, broken=True)
async def test_a_log_that_nobody_reads_is_no_reason_to_stop(case: Any) -> None:
    port = free_port()
    flags = [*DEMO, f"--web.listen-address=127.0.0.1:{port}", "--poll.interval=1s", "--log.level=debug", "demo"]
    shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"]
    read, write = os.pipe()
    command, options = ([*EXPORTER, *flags], {"stdout": write, "stderr": write}) if case else (
        [*shell, *EXPORTER, *flags],
        {},
    )  # fmt: skip
    async with running(*command, **options) as demo:
        os.close(read)
        os.close(write)
        await until(lambda: _polled_twice(f"http://127.0.0.1:{port}"), 20)
        assert await demo.stop() == 0


async def _polled_twice(address: str) -> bool:
    try:
        return await value(address, "thousandeyes_exporter_polls_total") >= 2
    except ConnectionRefusedError:
        return False
