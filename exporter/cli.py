"""Commands: serve, demo, simulate, once, check. Logging and signals are set up only here."""

import asyncio
import errno
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import structlog
from pydantic import SecretStr

from exporter import NAME, log
from exporter.app import poll_once, serve
from exporter.check import run_check
from exporter.errors import ExporterError, PollError, SettingsError
from exporter.settings import Loaded, Settings, SimulatorSettings, load
from exporter.simulator import Simulator, World, parse_faults

DONE, FAILED, INVALID_SETTINGS = 0, 1, 2
"""Exit codes."""


def run(argv: Sequence[str]) -> int:
    """Run a command line, without the name of the program; return the exit code."""
    try:
        loaded = load(argv)
        interrupted = FAILED if loaded.command in ("once", "check") else DONE
        return asyncio.run(run_until_signal(execute(loaded), interrupted))
    except SettingsError as error:
        problems, code = error.problems, INVALID_SETTINGS
    except ExporterError as error:
        hint = f"; {error.hint}" if isinstance(error, PollError) else ""
        problems, code = (f"{error}{hint}",), FAILED
    for problem in problems:
        sys.stderr.write(f"{NAME}: {problem}\n")
    return code


async def run_until_signal(command: Awaitable[int], interrupted: int) -> int:
    """Return the command's exit code, or `interrupted` after SIGTERM or SIGINT canceled it."""
    task, loop = asyncio.ensure_future(command), asyncio.get_running_loop()

    def stop(number: int) -> None:
        task.cancel()
        loop.add_signal_handler(number, os._exit, interrupted)  # a second one does not wait

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        structlog.get_logger().info("stopped")
        return interrupted


async def execute(loaded: Loaded) -> int:
    """Run the command until it ends or is canceled; return the exit code.

    Raises:
        ExporterError: The command failed; the message is for the operator.
    """
    settings = loaded.settings
    log.configure(settings.log.level, settings.log.format)
    sys.setswitchinterval(0.0005)  # seconds; computing a snapshot must not delay responses
    if loaded.command == "check":
        if settings.log.level != "debug":
            logging.disable()  # the report contains all problems
        return DONE if await run_check(loaded) else FAILED
    for warning in loaded.warnings:
        structlog.get_logger().warning("settings", warning=warning)
    match loaded.command:
        case "demo":
            await _demo(loaded)
        case "simulate":
            async with _simulator(settings.simulator) as url:
                _announce(f"Simulated API: {url} (token {settings.simulator.token})\n")
                await asyncio.Event().wait()
        case "once":
            await _once(settings, loaded.options["output"])
        case _:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            await serve(settings, shown=loaded.shown())
    return DONE


async def _demo(loaded: Loaded) -> None:
    settings = loaded.settings
    degraded_at = int(time.time()) + 600  # the operator sees a healthy site first
    async with _simulator(settings.simulator, degraded_at) as url:
        token = SecretStr(settings.simulator.token)
        unset = dict.fromkeys(("token_file", "email", "proxy", "ca_file"))
        api = settings.api.model_copy(update={**unset, "url": url, "token": token})

        def announce(own_url: str) -> None:
            _announce(
                f"Metrics:       {own_url}{settings.web.telemetry_path}\n"
                f"Status page:   {own_url}/\n"
                f"Simulated API: {url} (token {settings.simulator.token})\n"
                "Press Ctrl-C to stop.\n"
            )

        origins = {**loaded.origins, "api.url": "demo", "api.token": "demo"}
        settings = settings.model_copy(update={"api": api})
        shown = replace(loaded, settings=settings, origins=origins).shown()
        await serve(settings, announce, shown)


@asynccontextmanager
async def _simulator(settings: SimulatorSettings, degraded_at: int = 1200) -> AsyncIterator[str]:
    try:
        faults = parse_faults(settings.faults)
    except ValueError as error:
        raise SettingsError([f"simulator.faults: {error}"]) from error
    world = World(settings.seed, settings.agents, settings.sites, degraded_at=degraded_at)
    simulator = Simulator(world, token=settings.token, page_size=settings.page_size, faults=faults)
    address = settings.listen_address
    try:
        yield await simulator.start(address.host, address.port)
    except OSError as error:
        name, problem = "simulator.listen_address", error.strerror or error
        raise ExporterError(f"cannot listen on {address} ({name}): {problem}") from error
    finally:
        await simulator.stop()


async def _once(settings: Settings, output: Path | None) -> None:
    text, failed = await poll_once(settings)
    if failed:
        reasons = ", ".join(f"{reason} (account group {aid})" for aid, reason in failed.items())
        raise ExporterError(f"poll failed: {reasons}; nothing was written")
    if output:
        _replace_file(output, text)
    else:
        _print(text)


def _replace_file(path: Path, text: str) -> None:
    """Replace a file atomically: readers see the old content or the new one."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
            temporary = Path(directory) / path.name
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    except OSError as error:
        raise ExporterError(f"cannot write {path} (--output): {error.strerror}") from error


def _announce(text: str) -> None:
    """Print URLs, if standard output is open; all addresses become one that browsers open."""
    with suppress(ExporterError):
        _print(re.sub(r"//(0\.0\.0\.0|\[::\]):", "//localhost:", text))


def _print(text: str) -> None:
    """Write UTF-8 to standard output. Raises ExporterError."""
    if not sys.stdout:
        raise ExporterError("cannot write to standard output: closed")
    try:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at exit
        raise ExporterError(f"cannot write to standard output: {error.strerror}") from error
