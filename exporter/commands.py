"""The commands: serve, demo, simulate, once, check.

What is typed is read here; what it means stands in `exporter.settings`, what it does in `exporter.app`.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import msgspec
from pydantic import SecretStr

from exporter import NAME, __version__, log
from exporter.app import once, reason, serve, until_stopped
from exporter.errors import ExporterError, SettingsError
from exporter.metrics import FAMILIES
from exporter.settings import Loaded, Settings, load, reference, split

DONE, FAILED, WRONG_SETTINGS = 0, 1, 2

_COMMANDS = {
    "serve": "poll the API and serve the metrics: what is done without a command",
    "demo": "the same with a pretend company behind it: no account is needed",
    "simulate": "run the pretend company's API alone",
    "once": "poll once and write the metrics to standard output, or with --output to a file",
    "check": "ask the API and show what it answers, what is selected and what that will cost",
}
_OPTIONS = {"once": {"--output": "FILE"}, "check": {"--output": "json"}}


def run(argv: Sequence[str]) -> int:
    """Run a command line, without the program's name; return its exit code: 0 done, 1 failed, 2 settings."""
    _, command, rest = split(argv)
    try:
        if command == "version":
            return _say(f"{NAME} {__version__}")
        if command == "help" or {"--help", "-h"} & set(rest):
            return _say(_help(command))
        options, problems = _options(command, rest)
        loaded = _load(argv, problems)
        log.configure(loaded.settings.log.level, loaded.settings.log.format)
        for warning in loaded.warnings if command != "check" else ():
            log.warn("settings", warning=warning)
        return asyncio.run(_run(argv, command, loaded, options))
    except SettingsError as error:
        _complain(*error.problems)
        return WRONG_SETTINGS
    except ExporterError as error:
        _complain(str(error))
        return FAILED


def _load(argv: Sequence[str], problems: list[str]) -> Loaded:
    """Load the settings.

    Raises:
        SettingsError: with these problems and all others.
    """
    try:
        loaded = load(argv, os.environ, [family.short for family in FAMILIES])
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from None
    if problems:
        raise SettingsError(problems)
    return loaded


async def _run(argv: Sequence[str], command: str, loaded: Loaded, options: dict[str, str]) -> int:
    settings = loaded.settings
    match command:
        case "demo":
            await _demo(settings)
        case "simulate":
            await _simulate(settings)
        case "once":
            return await _once(settings, options.get("--output"))
        case "check":
            return await _check(loaded, options.get("--output"))
        case _:
            await serve(settings, reread=lambda: _load(argv, []).settings)
    return DONE


async def _demo(settings: Settings) -> None:
    from exporter.demo import running  # noqa: PLC0415  only two commands need the simulator

    async with running(settings.simulator) as address:
        pretend = {
            "url": address,
            "token": SecretStr(settings.simulator.token),
            "token_file": None,
            "email": None,
            "proxy": None,
        }
        api = settings.api.model_copy(update=pretend)

        def announce(own: str) -> None:
            _say(
                f"A pretend company of {settings.simulator.agents} agents visits {settings.simulator.sites} sites.",
                f"  Metrics      {own}{settings.web.telemetry_path}",
                f"  Status page  {own}/",
                f"  Its API      {address} (token: {settings.simulator.token})",
                "Stop it with Ctrl-C.",
            )

        await serve(settings.model_copy(update={"api": api}), announce=announce)


async def _simulate(settings: Settings) -> None:
    from exporter.demo import running  # noqa: PLC0415  only two commands need the simulator

    async with running(settings.simulator) as address:
        _say(f"The pretend API listens at {address} (token: {settings.simulator.token}).", "Stop it with Ctrl-C.")
        await until_stopped()


async def _once(settings: Settings, output: str | None) -> int:
    text, failed = await once(settings)
    if failed:
        return FAILED
    if output is None:
        _write(sys.stdout, text)
    else:
        _write_file(Path(output), text)
    return DONE


def _write_file(path: Path, text: str) -> None:
    """Write a file so that its readers see all of it or what was there before.

    Raises:
        ExporterError: where that is not possible; what was there before is untouched.
    """
    if path.exists() and not path.is_file():
        raise ExporterError(f"can not write {path} (--output): it is there, and is no file")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            Path(name).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise ExporterError(f"can not write {path} (--output): {reason(error)}") from error


async def _check(loaded: Loaded, output: str | None) -> int:
    from exporter import table  # noqa: PLC0415  with Rich, which nothing else needs
    from exporter.check import check  # noqa: PLC0415

    if loaded.settings.log.level != "debug":
        log.quiet()  # the report says it all
    with table.progress(sys.stderr) as tell:
        report = await check(loaded, tell)
    if output:
        _write(sys.stdout, msgspec.json.encode(report).decode() + "\n")
    else:
        columns = shutil.get_terminal_size().columns  # 80 where nobody says
        _say(table.written(report, sys.stdout.isatty(), columns).rstrip("\n"))
    return DONE if report.verdict in ("good", "warnings") else FAILED


def _options(command: str, rest: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Read the options of a command, `--name VALUE` or `--name=VALUE`; return them, and what is wrong with them."""
    known = _OPTIONS.get(command, {})
    options: dict[str, str] = {}
    problems: list[str] = []
    words = iter(rest)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in known:
            listed = ", ".join(known) or "no options of its own"
            problems.append(f"{name[:40]!r} stands after the command {command}, which has {listed}")
        elif name in options:
            problems.append(f"{name}: stands twice")
        else:
            options[name] = value if equals else next(words, "")
            if not options[name]:
                problems.append(f"{name}: needs a value")
            elif known[name].islower() and options[name] != known[name]:
                problems.append(f"{name}: must be {known[name]}")
    return options, problems


def _help(command: str) -> str:
    lines = [f"usage: {NAME} [--config.file FILE] [--group.setting VALUE ...] [COMMAND]", ""]
    if command in _COMMANDS:
        lines += [f"{command}: {_COMMANDS[command]}", ""]
        lines += [f"  {name} {value}" for name, value in _OPTIONS.get(command, {}).items()]
    if command == "simulate":
        from exporter.simulator import describe_faults  # noqa: PLC0415  only here

        return "\n".join([*lines, describe_faults()])
    lines += ["Commands"] + [f"  {name:10}{what}" for name, what in _COMMANDS.items()] + ["", "Settings"]
    lines += [f"  {doc.flag}\n      {doc.description} Default: {doc.default or 'none'}." for doc in reference()]
    return "\n".join([*lines, "", "Every setting is also a variable and a key of the settings file: see the README."])


def _say(*lines: str) -> int:
    """Write lines for people to standard output; that nobody reads them is no failure."""
    with suppress(ExporterError):
        _write(sys.stdout, "".join(f"{line}\n" for line in lines))
    return DONE


def _complain(*lines: str) -> None:
    """Write lines for people to standard error."""
    with suppress(ExporterError):
        _write(sys.stderr, "".join(f"{NAME}: {line}\n" for line in lines))


def _write(stream: TextIO | None, text: str) -> None:
    """Write a text to an open stream, in UTF-8 whatever the locale says.

    Raises:
        ExporterError: where it is closed, or nobody reads it.
    """
    if stream is None:
        raise ExporterError("can not write to standard output: it is closed")
    try:
        stream.flush()
        stream.buffer.write(text.encode(errors="backslashreplace"))
        stream.flush()
    except OSError as error:
        # What is left over would be written again at the exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise ExporterError(f"can not write to standard output: {reason(error)}") from error
