"""Every setting with its unit and default; the only reader of the flags, the environment and the settings file.

What a text may mean is left to `exporter.values`, what YAML to `exporter.settings_file`, and what a setting does to the
room that uses it: nothing here opens a connection or starts anything.
"""

import difflib
import json
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from exporter import settings_file, values
from exporter.errors import SettingsError
from exporter.values import ListenAddress, Seconds

PREFIX = "THOUSANDEYES_"
COMMANDS = ("serve", "demo", "simulate", "once", "check")
MAX_COMMAND_LENGTH = 12
MAX_LISTED = 36
MAX_SPOKEN = 60
_V6_SEARCH_KEYS = (
    *("agentId", "bssid", "connection", "destinationIp", "domain", "gateway", "location", "networkId"),
    *("platform", "proxyTarget", "ssid", "trigger", "visitedSite", "vpnTarget"),
)
SEARCH_KEYS = {"v6": _V6_SEARCH_KEYS, "v7": (*_V6_SEARCH_KEYS, "nicDriverVersion", "nicModel")}


class Group(BaseModel):
    """Settings that belong together. The text under a setting is its description in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class ApiSettings(Group):
    """Where the data comes from."""

    url: values.Url = "https://api.thousandeyes.com"
    """Address of the ThousandEyes API, without a version."""

    version: Literal["v7", "v6"] = "v7"
    """Version of the API: `v7` or `v6`."""

    token: values.Secret | None = None
    """API token; also `THOUSANDEYES_TOKEN`. Better kept in a file: see `api.token_file`."""

    token_file: values.SecretFile | None = None
    """File that holds the API token and nothing else; read again for every poll."""

    email: values.Email | None = None
    """E-mail address of the token's user, for basic authentication; for `v6` only."""

    account_groups: Annotated[
        tuple[str, ...] | Literal["all"],
        values.word_or_items("all", item="[1-9][0-9]{0,17}", wanted="all, or a list of account group ids, all digits"),
    ] = ()
    """Ids of the account groups to poll, or `all`; without it the token's own."""

    timeout: Annotated[Seconds, values.duration("1s", "1m")] = 30.0
    """Longest wait for the API to send something: a duration."""

    ca_file: values.CertificatesFile | None = None
    """File of the certificate authorities to trust, PEM; without it those of the system."""

    proxy: values.Proxy | None = None
    """HTTP proxy on the way to the API, such as `http://user:password@proxy:3128`."""

    requests_per_minute: Annotated[int, values.integer(1, 10_000)] = 120
    """Most requests sent to the API in a minute: our share of the organization's 240."""

    allow_insecure: values.Boolean = False
    """Allow `http://` to an address other than this machine's; the token can be read on the way."""


class PollSettings(Group):
    """When the API is asked, and for how much of the past."""

    interval: Annotated[Seconds, values.duration("1s", "1h")] = 60.0
    """Time from one poll to the next: a duration."""

    lookback: Annotated[Seconds, values.duration("1s", "24h")] = 900.0
    """How far back sessions still count: a duration."""

    overlap: Annotated[Seconds, values.duration("0s", "24h")] = 300.0
    """How much of the past each poll reads again, because sessions come late: a duration."""


class FilterSettings(Group):
    """Which sessions count. What is left out is never stored."""

    include_sites: Annotated[tuple[values.Pattern, ...], values.Items] = ()
    """Regular expressions: only sites that one of them matches whole."""

    exclude_sites: Annotated[tuple[values.Pattern, ...], values.Items] = ()
    """Regular expressions: no site that one of them matches whole."""

    include_agents: Annotated[tuple[values.Pattern, ...], values.Items] = ()
    """Regular expressions: only agent ids that one of them matches whole."""

    exclude_agents: Annotated[tuple[values.Pattern, ...], values.Items] = ()
    """Regular expressions: no agent id that one of them matches whole."""

    include_protocols: Annotated[tuple[values.Pattern, ...], values.Items] = ()
    """Regular expressions: only protocols that one of them matches whole."""

    search: Annotated[dict[str, Annotated[tuple[str, ...], values.Items]], values.Mapping] = {}
    """Filter that the API applies, its `searchFilters`: lists of values by key."""


class SiteGroup(Group):
    """Hosts that count as one site."""

    pattern: values.Pattern
    """Matches the whole `visitedSite`."""

    name: Annotated[str, values.matching(r"\S(.{0,254}\S)?", "a name of 1 to 256 characters")]
    """What they are called together."""


class MetricsSettings(Group):
    """What is published."""

    site_groups: Annotated[tuple[SiteGroup, ...], values.Items] = ()
    """Ordered list of `{pattern, name}`: a site takes the name of the first pattern that matches it whole."""

    families: Annotated[
        tuple[str, ...] | Literal["all", "none"],
        values.word_or_items("all", "none", item="[a-z0-9_]+", wanted="all, none, or a list of names of metrics"),
    ] = "all"
    """Per-session metrics to publish: `all`, a list of names, or `none`: nothing by agent at all."""

    max_series: Annotated[int, values.integer(1, 10_000_000)] = 500_000
    """Most series of the per-session metrics; what is new above it is folded into `__other__`."""

    agent_names: Literal["plain", "hashed", "off"] = "plain"
    """Names of agents: `plain`, `hashed` with a key, or `off`."""

    agent_names_key: values.Key | None = None
    """Secret of at least 16 characters, the key of `hashed` names."""

    agent_names_key_file: values.KeyFile | None = None
    """File that holds this key and nothing else."""


class WebSettings(Group):
    """What Prometheus asks."""

    listen_address: values.Listen = ListenAddress(None, 9350)
    """Address to serve on: `host:port`, `:port` or `[IPv6]:port`."""

    telemetry_path: Annotated[
        str,
        values.matching(
            r"(?!/-/(healthy|ready)$)(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+",
            "a path such as /metrics, other than /, /-/healthy and /-/ready",
        ),
    ] = "/metrics"
    """Path of the metrics."""

    config_file: values.File | None = None
    """File for TLS and basic authentication, in the format of Prometheus' exporter-toolkit."""

    max_requests: Annotated[int, values.integer(1, 1000)] = 40
    """Most requests answered at the same time."""


class LogSettings(Group):
    """What is written to standard error."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    """Least severity to log: `debug`, `info`, `warn` or `error`."""

    format: Literal["logfmt", "json"] = "logfmt"
    """Format of a line: `logfmt` or `json`."""


class SimulatorSettings(Group):
    """The pretend company; for the commands `demo` and `simulate` only."""

    listen_address: values.Listen = ListenAddress("127.0.0.1", 9351)
    """Address that the simulator serves on."""

    token: Annotated[str, values.matching("[!-~]{1,256}", "one word of ASCII")] = "demo"  # noqa: S105  opens nothing but the simulator
    """Token that the simulator accepts."""

    agents: Annotated[int, values.integer(1, 100_000)] = 200
    """Number of agents."""

    sites: Annotated[int, values.integer(1, 100_000)] = 20
    """Number of sites that they visit."""

    page_size: Annotated[int, values.integer(1, 100_000)] = 1000
    """Most records in one page of a listing."""

    seed: Annotated[int, values.integer(0, 999_999_999)] = 1
    """Same seed and same time give the same data."""

    faults: Annotated[tuple[str, ...], values.Items] = ()
    """What it does wrong: names with a share or a schedule, as `simulate --help` lists them."""


class Settings(BaseSettings):
    """Everything that can be set, checked; `load` makes it. Times are seconds."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api: ApiSettings = ApiSettings()
    poll: PollSettings = PollSettings()
    filter: FilterSettings = FilterSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    simulator: SimulatorSettings = SimulatorSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load` hands over, which keeps where each value came from."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def written(value: object) -> str:
    """Write a setting's value as a user would: `<secret>` for a secret, nothing for what is not set."""
    match value:
        case SecretStr():
            return "<secret>"
        case bool():
            return str(value).lower()
        case float():
            return values.written_duration(value)
        case tuple() | dict() if value:
            return json.dumps(value, ensure_ascii=False, default=_plain)
        case None | tuple() | dict():
            return ""
        case _:
            return str(value)


def _plain(value: re.Pattern[str] | SiteGroup) -> object:
    return value.pattern if isinstance(value, re.Pattern) else dict(value)


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One line of the reference; `default` is written as a user would, empty for none."""

    name: str
    flag: str
    variable: str
    default: str
    description: str


def reference() -> list[SettingDoc]:
    """List every setting in order, for the README and for --help."""
    return [
        SettingDoc(
            name=f"{group}.{field}",
            flag=f"--{group}.{field.replace('_', '-')}",
            variable=f"{PREFIX}{group}_{field}".upper(),
            default=written(info.default),
            description=info.description or "",
        )
        for group, outer in Settings.model_fields.items()
        for field, info in cast("type[Group]", outer.annotation).model_fields.items()
    ]


_NAMES = [doc.name for doc in reference()]
CONFIG_FILE = SettingDoc(
    "config.file",
    "--config.file",
    f"{PREFIX}CONFIG_FILE",
    "",
    "Settings file: YAML, each `group.name` as `name:` under `group:`.",
)
_FLAGS = {doc.flag: doc.name for doc in (CONFIG_FILE, *reference())}
_VARIABLES = {doc.variable: doc.name for doc in (CONFIG_FILE, *reference())} | {f"{PREFIX}TOKEN": "api.token"}
_SECRETS = ("api.token", "api.proxy", "metrics.agent_names_key")
_SECRET_FILES = ("api.token_file", "metrics.agent_names_key_file")
# Where a secret may stand, if only by mistake: messages do not repeat it.
_UNSPOKEN = {*_SECRETS, *_SECRET_FILES, "api.url", "api.email", "simulator.token"}


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as the user gave it, where (`origin`), and how a problem with it begins (`label`)."""

    value: object
    origin: str
    label: str


_Layer = dict[str, _Given]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings; where each came from: `default`, a flag, a variable or `file:line:column`; and what to warn of."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]

    def shown(self) -> list[tuple[str, str, str]]:
        """List name, value as a user would write it with secrets masked, and origin of every setting."""
        return [(name, written(_value(self.settings, name)), self.origins[name]) for name in _NAMES]


def split(argv: Sequence[str]) -> tuple[list[tuple[str, str | None]], str, list[str]]:
    """Split a command line, without the program's name: flags of the settings, command, and what follows it.

    No command is `serve`; `--help`, `-h` and `--version` in its place are `help` and `version`; a flag without a
    value has None. Nothing is judged: `load` tells what is wrong.
    """
    flags: list[tuple[str, str | None]] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        flag, equals, value = rest.pop(0).partition("=")
        if flag in ("-h", "--help", "--version"):
            return flags, "version" if flag == "--version" else "help", rest
        if not equals and rest and not rest[0].startswith("--"):
            equals, value = " ", rest.pop(0)
        flags.append((flag, value if equals else None))
    return flags, rest[0] if rest else "serve", rest[1:]


def load(argv: Sequence[str], environ: Mapping[str, str], known_families: Collection[str] = ()) -> Loaded:
    """Load the settings of a command line (without the program's name), an environment, and the file they name.

    A flag beats a variable beats the file beats the default, setting by setting. The command on the line tells
    whether a token is needed: `demo` and `simulate` need none. `known_families` are the names that
    `metrics.families` may list; if empty, any will do.

    Raises:
        SettingsError: with every problem there is.

    """
    problems: list[str] = []
    flags, command, rest = split(argv)
    flag_layer = _from_flags(flags, command, rest, problems)
    variable_layer = _from_environ(environ, problems)
    sources = [layer.pop("config.file") for layer in (flag_layer, variable_layer) if "config.file" in layer]
    given = (_from_file(sources[0], problems) if sources else {}) | variable_layer | flag_layer
    settings, broken = _validated(given, problems)
    labels = {name: given[name].label if name in given else name for name in _NAMES}
    for names, problem in _conflicts(settings, command, known_families):
        if broken.isdisjoint(names):
            problems.append(f"{', '.join(labels[name] for name in names)}: {problem}")
    if problems:
        raise SettingsError(problems)
    origins = {name: given[name].origin if name in given else "default" for name in _NAMES}
    return Loaded(settings, origins, tuple(f"{labels[name]}: {text}" for name, text in _warnings(settings, origins)))


def read_token(settings: Settings) -> str:
    """Read the API token as it is now: its file is read anew. Raises SettingsError, without any of it."""
    return _read_secret("api.token", settings.api.token, settings.api.token_file)


def read_agent_names_key(settings: Settings) -> str:
    """Read the key for `hashed` names, as `read_token`."""
    metrics = settings.metrics
    return _read_secret("metrics.agent_names_key", metrics.agent_names_key, metrics.agent_names_key_file)


def _read_secret(name: str, value: SecretStr | None, path: Path | None) -> str:
    if value is not None:
        return value.get_secret_value()
    if path is None:
        raise SettingsError([f"{name}, {name}_file: one of the two must be set"])
    try:
        return values.secret_content(path)
    except ValueError as error:
        raise SettingsError([f"{name}_file: {error}"]) from None


def _from_flags(flags: list[tuple[str, str | None]], command: str, rest: list[str], problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for flag, value in flags:
        name = _FLAGS.get(flag)
        if name is None:
            problems.append(_unknown("flag", flag, _FLAGS))
        elif value is None:
            problems.append(f"{flag}: needs a value")
        elif name in layer:
            problems.append(f"{flag}: stands twice")
        else:
            layer[name] = _Given(value, flag, flag)
    if command not in (*COMMANDS, "help", "version"):
        # What stands here by mistake may be a secret: commands are short.
        named = len(command) <= MAX_COMMAND_LENGTH
        problems.append(_unknown("command", command, COMMANDS) if named else f"unknown command{_listed(COMMANDS)}")
    problems += [
        f"{flag}: stands after the command {command}; flags of the settings stand before it"
        for flag in (argument.partition("=")[0] for argument in rest)
        if flag in _FLAGS
    ]
    return layer


def _from_environ(environ: Mapping[str, str], problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for variable, value in sorted(environ.items()):
        name = _VARIABLES.get(variable)
        if name is None:
            if variable.startswith(PREFIX) and not _is_service_link(variable, value):
                problems.append(_unknown("variable", variable, _VARIABLES))
        elif name in layer and layer[name].value != value:
            problems.append(f"{layer[name].label}, {variable}: hold different tokens; set only one of them")
        else:
            layer.setdefault(name, _Given(value, variable, variable))
    return layer


def _is_service_link(variable: str, value: str) -> bool:
    """Tell whether Kubernetes made it: each service of a namespace gives its containers variables of its name."""
    by_name = r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
    by_value = variable.endswith("_PORT") and re.match("(tcp|udp|sctp)://", value)
    return bool(by_value or re.fullmatch(by_name, variable))


def _from_file(source: _Given, problems: list[str]) -> _Layer:
    path = str(source.value)
    try:
        entries, found = settings_file.read(values.content(Path(path)))
    except ValueError as error:
        problems.append(f"{source.label}: {path} {error}")
        return {}
    found += [(it.place, _unknown_setting(it.name)) for it in entries if it.name not in _NAMES]
    problems += [f"{path}:{place}: {problem}" for place, problem in found]
    return {
        it.name: _Given(it.value, f"{path}:{it.place}", f"{path}:{it.place}: {it.name}")
        for it in entries
        if it.name in _NAMES
    }


def _validated(given: _Layer, problems: list[str]) -> tuple[Settings, set[str]]:
    """Make settings of all that is valid; name what is not."""
    broken = {name for name, it in given.items() if it.value == ""}
    problems += [f"{given[name].label}: is empty; leave it out for the default" for name in given if name in broken]
    try:
        return Settings(**_nested(given, broken)), broken
    except ValidationError as errors:
        for error in errors.errors(include_url=False, include_context=False):
            group, field, *within = error["loc"]
            name = f"{group}.{field}"
            where = f"{given[name].label}{''.join(f'[{part}]' for part in within)}"
            message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            problem = {"missing": "is missing", "extra_forbidden": "is not known"}.get(error["type"], message)
            got = "" if name in _UNSPOKEN else f", got {_spoken(error['input'])}"
            problems.append(f"{where}: {problem}{got}")
            broken.add(name)
    return Settings(**_nested(given, broken)), broken


def _nested(given: _Layer, without: set[str]) -> dict[str, Any]:
    nested: dict[str, dict[str, object]] = {}
    for name in given.keys() - without:
        group, field = name.split(".")
        nested.setdefault(group, {})[field] = given[name].value
    return nested


def _conflicts(settings: Settings, command: str, families: Collection[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give what can not go together: the settings that take part, and what would be right."""
    api, poll, metrics = settings.api, settings.poll, settings.metrics
    tokens = ("api.token", "api.token_file")
    if api.token and api.token_file:
        yield tokens, "only one of the two can be set"
    if not api.token and not api.token_file and command not in ("demo", "simulate"):
        yield tokens, "no API token: set one of the two, or try the command demo, which needs none"
    if api.email and api.version != "v6":
        yield ("api.email", "api.version"), "an e-mail address goes with v6 only; v7 takes the token alone"
    url = urlsplit(api.url)
    if url.scheme == "http" and not api.allow_insecure and not values.is_loopback(url.hostname or ""):
        yield ("api.url", "api.allow_insecure"), "http:// shows the token on the way: use https://, or allow it"
    if poll.lookback < poll.interval:
        yield ("poll.lookback", "poll.interval"), "the look-back must not be shorter than the interval"
    if poll.lookback <= poll.overlap:
        yield ("poll.lookback", "poll.overlap"), "the look-back must be longer than the overlap"
    keys = ("metrics.agent_names_key", "metrics.agent_names_key_file")
    if metrics.agent_names_key and metrics.agent_names_key_file:
        yield keys, "only one of the two can be set"
    elif (metrics.agent_names == "hashed") != bool(metrics.agent_names_key or metrics.agent_names_key_file):
        yield ("metrics.agent_names", *keys), "hashed names need a key, and a key needs hashed names"
    for key in settings.filter.search:
        if key not in (known := SEARCH_KEYS[api.version]):
            yield ("filter.search", "api.version"), _unknown("key", key, known)
    for name in metrics.families if isinstance(metrics.families, tuple) and families else ():
        if name not in families:
            yield ("metrics.families",), _unknown("name", name, families)


def _warnings(settings: Settings, origins: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in _SECRETS:
        if origins[name].startswith("--"):
            yield name, "everyone on this machine can see a command line; a file or a variable keeps the secret"
    for name in _SECRET_FILES:
        path = _value(settings, name)
        if isinstance(path, Path) and path.stat().st_mode & stat.S_IROTH:
            yield name, "everyone on this machine can read the file; chmod o-r takes that away"


def _value(settings: Settings, name: str) -> object:
    group, field = name.split(".")
    return getattr(getattr(settings, group), field)


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    """Say that a name is not known: with its nearest neighbour, and with all of them where they are few."""
    near = difflib.get_close_matches(name[:100], known, 1, 0.5)
    guess = f'; did you mean "{near[0]}"?' if near else ""
    return f"unknown {what} {_spoken(name)}{guess}{_listed(known) if len(known) <= MAX_LISTED else ''}"


def _unknown_setting(name: str) -> str:
    """As `_unknown`, in a file: what stands there by mistake may be a secret, and names of settings look otherwise."""
    if not re.fullmatch("[A-Za-z0-9_.-]{1,60}", name):
        return "this is the name of no setting; is a space missing behind its colon?"
    return _unknown("setting", name, _NAMES)


def _listed(known: Collection[str]) -> str:
    return f" (there are {', '.join(known)})"


def _spoken(value: object) -> str:
    """Quote what the user gave: escaped, and cut."""
    text = json.dumps(value, default=str)
    return text if len(text) <= MAX_SPOKEN else f"{text[:MAX_SPOKEN]}…"
