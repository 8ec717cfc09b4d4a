"""Settings: command-line flags over environment variables over a YAML file over defaults.

`load` combines these sources, and lists everything that is wrong with them.
"""

import argparse
import difflib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import CliSettingsSource, EnvSettingsSource, InitSettingsSource

from exporter import NAME, __version__, yaml_file
from exporter.errors import SettingsError
from exporter.settings.model import PREFIX, is_exposed
from exporter.settings.model import Settings as Settings
from exporter.settings.model import SimulatorSettings as SimulatorSettings
from exporter.settings.model import format_duration as format_duration
from exporter.settings.model import read_agent_names_key as read_agent_names_key
from exporter.settings.model import read_otlp_headers as read_otlp_headers
from exporter.settings.model import read_token as read_token
from exporter.yaml_file import KeyPath

COMMANDS = {
    "serve": ("Serve the metrics of ThousandEyes agents (default).", "--api.token-file token.txt"),
    "demo": ("Serve the metrics of a simulated company; needs no account.", "demo"),
    "simulate": ("Run the simulated API only.", "simulate --simulator.agents 1000"),
    "once": ("Poll once and write the metrics.", "once --output thousandeyes.prom"),
    "check": ("Check the settings and show what would be published.", "check --all"),
}
"""Summary and example of each command."""
EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 invalid settings."
SETTINGS_HELP = """\
The default of a setting is in brackets. Each setting is also an environment variable and a key
of the file: --api.token-file is THOUSANDEYES_API_TOKEN_FILE, and token_file: below api:."""
CONFIG_VARIABLE = f"{PREFIX}CONFIG_FILE"
SERVICE_LINK = re.compile(r"_SERVICE_(HOST=|PORT[_=])|_PORT(_\d+_|=(tcp|udp|sctp):)")
"""Variables that Kubernetes sets for each service of the namespace."""

Parser = partial(
    argparse.ArgumentParser,
    allow_abbrev=False,
    exit_on_error=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
)


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One line of the reference; `default` is written as in a flag, empty if there is none."""

    name: str
    flag: str
    variable: str
    default: str
    description: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and command of one run of the program."""

    settings: Settings
    command: str
    options: Mapping[str, Any]
    """Options of the command: `output` of once and check, `all` of check."""
    origins: Mapping[str, str]
    """Flag, variable, `file:line` or `default` by name of the setting."""
    warnings: tuple[str, ...]

    def shown(self) -> list[tuple[str, str, str]]:
        """Return name, formatted value and origin of all settings; secrets are masked."""
        groups = self.settings.model_dump(mode="json").items()
        values = {f"{name}.{field}": group[field] for name, group in groups for field in group}
        return [(name, format_value(values[name]), self.origins[name]) for name in _DOCS]


def reference() -> list[SettingDoc]:
    """Return all settings in order, for the documentation and `--help`."""
    return [
        SettingDoc(
            name=f"{group}.{field}",
            flag=f"--{group}.{field}".replace("_", "-"),
            variable=f"{PREFIX}{group}_{field}".upper(),
            default=format_value(default),
            description=type(outer.default).model_fields[field].description or "",
        )
        for group, outer in Settings.model_fields.items()
        for field, default in outer.default.model_dump(mode="json").items()
    ]


def format_value(value: object) -> str:
    """Format a dumped value as it is written in a flag; empty if not set."""
    if isinstance(value, list) and all(re.fullmatch(r"\w+", str(item)) for item in value):
        return ",".join(value)
    if isinstance(value, str) or value in (None, {}):
        return str(value or "")
    return json.dumps(value, ensure_ascii=False)


_DOCS = {doc.name: doc for doc in reference()}
_VARIABLES = {f"{PREFIX}TOKEN": "api.token"} | {doc.variable: doc.name for doc in _DOCS.values()}


def load(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Loaded:
    """Load the settings from a command line, an environment, and the file that they name.

    Args:
        argv: Command line without the name of the program. `--help` and `--version` exit.
        environ: Environment variables; those of the process if `None`.

    Raises:
        SettingsError: One message for each problem. A mistyped flag, and a file that cannot be
            read, are reported alone.
    """
    environ = os.environ if environ is None else environ
    parser = Parser(usage=argparse.SUPPRESS, add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config.file", metavar="FILE", help="YAML file with settings")
    cli = CliSettingsSource[Any](Settings, root_parser=parser, add_argument_method=_add_flag)
    try:
        flags, words = parser.parse_known_args(argv)
        command, options = _parse_command(words, parser.format_help())
    except argparse.ArgumentError as error:
        raise SettingsError([str(error)]) from None
    cli(parsed_args=vars(flags))

    variables = {name: key for key, name in _VARIABLES.items() if key in environ}
    env = EnvSettingsSource(Settings, case_sensitive=False)
    env.env_vars = {_DOCS[name].variable.lower(): environ[key] for name, key in variables.items()}

    path = vars(flags).get("config.file", environ.get(CONFIG_VARIABLE))
    content, lines = ({}, {}) if path is None else _read_file(path)

    origins = dict.fromkeys(_DOCS, "default")
    origins |= {_name(key): f"{path}:{line}" for key, line in lines.items() if len(key) <= 2}
    origins |= variables | {name: doc.flag for name, doc in _DOCS.items() if name in flags}
    problems = list(_unknown_variables(environ))
    try:
        sources = (cli, env, InitSettingsSource(Settings, content))
        settings = Settings(_build_sources=(sources, {}))  # type: ignore[call-arg]
    except ValidationError as error:
        for each in error.errors(include_url=False):
            problems += _describe(each, origins)
    has_token = {origins["api.token"], origins["api.token_file"]} != {"default"}
    if command not in ("demo", "simulate") and not has_token:
        problems.append("no API token: set api.token_file or api.token, or try the command demo")
    if problems:
        raise SettingsError(problems)
    origins = {name: origins[name] for name in _DOCS}
    return Loaded(settings, command, options, origins, tuple(_warnings(settings, origins)))


def _add_flag(group: Any, *flags: str, **options: Any) -> None:
    """Add the flag of a setting, with a help text from the reference."""
    if doc := _DOCS.get(options["dest"]):  # pydantic-settings also adds one for each group
        default = f" [{doc.default}]" if doc.default else ""
        text = doc.description.replace("`", "") + default
        group.add_argument(*flags, **{**options, "help": text, "metavar": "VALUE"})


def _parse_command(words: list[str], settings_help: str) -> tuple[str, dict[str, Any]]:
    """Parse a command line without settings; return the command and its options."""
    command = words.pop(0) if words and not words[0].startswith("-") else "serve"
    if command not in COMMANDS:  # and may be a secret
        suggestion = _did_you_mean(command, COMMANDS)
        raise SettingsError([f"unknown command{suggestion}; commands are {', '.join(COMMANDS)}"])
    summary, example = COMMANDS[command]
    details = f"All settings: {NAME} --help"
    if command == "serve":
        commands = "".join(f"  {name:9} {text}\n" for name, (text, _) in COMMANDS.items())
        details = f"commands:\n{commands}\n{settings_help}\n{SETTINGS_HELP}"
    parser = Parser(
        usage=f"{NAME} [--config.file FILE] [--GROUP.SETTING VALUE ...] [COMMAND [OPTION ...]]",
        description=summary,
        epilog=f"Example: {NAME} {example}\n{EXIT_CODES}\n\n{details}",
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    if command == "once":
        text = "file to replace atomically (default: standard output)"
        parser.add_argument("--output", metavar="FILE", type=Path, help=text)
    if command == "check":
        parser.add_argument("--output", choices=["json"], help="write the report as JSON")
        parser.add_argument("--all", action="store_true", help="show all settings")
    options, unknown = parser.parse_known_args(words)
    if unknown:
        flag = unknown[0].partition("=")[0] if unknown[0].startswith("-") else "argument"
        known = re.findall(r"--[a-z.-]+", settings_help + parser.format_help())
        raise SettingsError([f"unknown {flag}{_did_you_mean(flag, known)}; see {NAME} --help"])
    return command, vars(options)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the most similar name; empty if none is similar."""
    matches = difflib.get_close_matches(name[:60], list(known), 1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = [*_VARIABLES, CONFIG_VARIABLE]
    for variable in sorted(environ.keys() - known):
        is_link = SERVICE_LINK.search(f"{variable}={environ[variable]}")
        if variable.startswith(PREFIX) and not is_link:
            yield f"unknown variable {variable}{_did_you_mean(variable, known)}"


def _read_file(path: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return the groups of a file, and the line of each key. Raises SettingsError."""
    if not path:
        raise SettingsError(["config.file is empty"])
    content, lines = yaml_file.read(Path(path), minimum=0)
    groups = content if isinstance(content, dict) else {"": content}
    wrong = [name for name, group in groups.items() if not isinstance(group, dict | None)]
    if wrong:
        problem = "must be a group of settings, such as poll: {interval: 1m}"
        raise SettingsError(f"{path}:{lines.get((name,), 1)}: {problem}" for name in wrong)
    return {name: group or {} for name, group in groups.items() if name}, lines


def _describe(error: ErrorDetails, origins: Mapping[str, str]) -> list[str]:
    """Return what is wrong, where it was set, and what would be right, without the value."""
    key, problem, context = error["loc"], error["msg"], error.get("ctx", {})
    match error["type"]:
        case "value_error" if len(key) == 1:  # conflicts, which name the settings
            names = re.compile(r"[a-z]+\.[a-z_]+")
            conflicts = str(context["error"]).splitlines()
            return [names.sub(lambda x: f"{x[0]} ({origins[x[0]]})", each) for each in conflicts]
        case "value_error":
            problem = str(context["error"])
        case "extra_forbidden":
            known = [*_DOCS, *Settings.model_fields] if len(key) <= 2 else []
            problem = f"unknown setting{_did_you_mean('.'.join(map(str, key)), known)}"
        case "greater_than_equal" | "less_than_equal":
            [(bound, limit)] = context.items()
            text = format_duration(limit) if isinstance(limit, float) else str(limit)
            problem = f"must be at {'least' if bound == 'ge' else 'most'} {text}"
    return [f"{_name(key)} ({origins[_name(key[:2])]}): {problem}"]


def _name(key: KeyPath) -> str:
    """Return the name of a setting, up to a part that is not a name and may be a secret."""
    return ".".join(takewhile(re.compile(r"\w{1,40}").fullmatch, map(str, key)))


def _warnings(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    for name in ("api.token", "api.proxy", "metrics.agent_names_key", "otlp.headers"):
        if origins[name].startswith("--"):
            yield f"{origins[name]}: other users can see the command line; use a file or a variable"
    for name in ("api.token_file", "metrics.agent_names_key_file", "otlp.headers_file"):
        path = attrgetter(name)(settings)
        if path and path.stat().st_mode & stat.S_IROTH:
            yield f"{name} ({origins[name]}): other users can read the file; run chmod o-r on it"
    otlp = settings.otlp
    if (otlp.headers or otlp.headers_file) and is_exposed(otlp.endpoint or ""):
        yield f"otlp.endpoint ({origins['otlp.endpoint']}): exposes the headers; use https"
