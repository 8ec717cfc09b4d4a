"""Settings: their types, defaults and descriptions, and what they require of each other.

A validator raises ValueError with what would be right, and never quotes the value.
"""

import json
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    PlainSerializer,
    PlainValidator,
    Secret,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from exporter import files
from exporter.errors import SettingsError
from exporter.sources import local_networks, sessions
from exporter.sources.local_networks import TYPES, TargetType
from exporter.sources.session_filter import Pattern, compile_pattern

PREFIX = "THOUSANDEYES_"
_UNITS = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
_DURATION = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in _UNITS) + "|0")
_HEADER = re.compile(r"([\w!#$%&'*+.^`|~-]+): *([!-~](?:[ -~]*[!-~])?) *", re.ASCII)
_TABLES = (sessions.SERIES, local_networks.TARGETS, local_networks.AGENTS)
_FAMILIES = "|".join(family.short_name for table in _TABLES for family in table.families)
_SEARCH_KEYS = (
    "agentId|bssid|connection|destinationIp|domain|gateway|location|networkId|nicDriverVersion|"
    "nicModel|platform|proxyTarget|ssid|trigger|visitedSite|vpnTarget"
)


def parse_duration(text: object) -> float:
    """Parse a duration as Prometheus writes it, such as `30s` or `1h30m`, to seconds."""
    match = _DURATION.fullmatch(str(text))
    if not match or not match[0]:
        raise ValueError("must be a duration such as 30s, 5m or 1h30m")
    counts = zip(match.groups(default="0"), _UNITS.values(), strict=True)
    return round(sum(int(count) * seconds for count, seconds in counts), 3)


def format_duration(seconds: float) -> str:
    """Format seconds as Prometheus writes a duration: 90.5 is `1m30s500ms`, 0 is `0s`."""
    text, rest = "", round(seconds * 1000)
    for unit, length in _UNITS.items():
        count, rest = divmod(rest, round(length * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Address to listen on: `host` None means all addresses, `port` 0 means any free port."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def _parse_listen_address(text: object) -> ListenAddress:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]*)):([0-9]{1,5})", str(text))
    if not match or int(match[3]) > 65535:
        raise ValueError("must be host:port, :port or [IPv6]:port, with a port from 0 to 65535")
    return ListenAddress(match[1] or match[2] or None, int(match[3]))


def is_exposed(url: str) -> bool:
    """Whether others can read requests to a URL on the network."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def _base_url(text: str) -> str:
    url = AnyHttpUrl(text)
    if url.username or url.password or url.path != "/" or url.query or url.fragment:
        raise ValueError("must be a URL without user name, path, version and query")
    return str(url).rstrip("/")


def _decode(value: object) -> object:
    """Decode a flag or variable: JSON, or a list that is separated by commas outside of `{1,3}`."""
    if not isinstance(value, str):
        return value
    if value.startswith(("[", "{")):
        with suppress(ValueError):  # a regular expression such as `[a-z]+` is not JSON
            return json.loads(value)
    return [item.strip() for item in re.split(r",(?![^{]*})", value)]


def _compile(text: object) -> Pattern:
    if not isinstance(text, str):
        raise ValueError("must be a regular expression")  # noqa: TRY004  as pydantic requires
    return compile_pattern(text)


def _certificates(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except OSError:  # includes ssl.SSLError
        raise ValueError("must be a readable file with PEM certificates") from None
    return path


def _otlp_endpoint(text: str) -> str:
    url = AnyHttpUrl(text)
    if url.username or url.password or url.fragment:
        raise ValueError("must be a URL without user name; set otlp.headers for authentication")
    return str(url)


def _read_file(path: Path) -> str:
    """Return the text of a secret's file."""
    try:
        return files.read(path).decode("ascii", "replace")
    except OSError as error:
        raise SettingsError([f"cannot read {path}: {error.strerror}"]) from error


def _read_secret(source: SecretStr | Path | None, minimum: int = 1) -> str:
    """Return a secret, or the content of its file."""
    if isinstance(source, Path):
        text = _read_file(source)
    else:
        text = source.get_secret_value() if source else ""
    secret = text.rstrip("\r\n")
    if not re.fullmatch(f"[!#-&(-~]{{{minimum},}}", secret):
        form = "a single line of ASCII characters without spaces and quotes"
        raise SettingsError([f"a secret must be {form}, minimum length {minimum}"])
    return secret


def _read_headers(source: Mapping[str, SecretStr] | Path) -> dict[str, str]:
    """Return HTTP headers, or those of the lines of a file."""
    if isinstance(source, Path):
        lines = _read_file(source).splitlines()
    else:
        lines = [f"{name}: {value.get_secret_value()}" for name, value in source.items()]
    headers = [_HEADER.fullmatch(line) for line in lines]
    if not all(headers):
        raise SettingsError(["headers must be Name: value in ASCII, one on a line of the file"])
    return {header[1]: header[2] for header in headers if header}


def _readable(read: Callable[[Any], object]) -> AfterValidator:
    """Return a validator that accepts what can be read, and does not keep what was read."""

    def validate(source: Any) -> Any:
        read(source)
        return source

    return AfterValidator(validate)


_List = BeforeValidator(_decode)
_Token = _readable(_read_secret)
_Key = _readable(partial(_read_secret, minimum=16))
_Headers = _readable(_read_headers)
Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
Listen = Annotated[ListenAddress, BeforeValidator(_parse_listen_address), PlainSerializer(str)]
PatternText = Annotated[
    Pattern, PlainValidator(_compile), PlainSerializer(lambda compiled: compiled.pattern)
]
Patterns = Annotated[tuple[PatternText, ...], _List]
Strings = Annotated[tuple[str, ...], _List]
AccountGroup = Annotated[str, Field(pattern="^(all|[1-9][0-9]{0,17})$")]
Family = Annotated[str, Field(pattern=f"^(all|standard|none|{_FAMILIES})$")]
SearchKey = Annotated[str, Field(pattern=f"^({_SEARCH_KEYS})$")]


class Group(BaseModel):
    """Settings that belong together. The text below a setting is its description."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _reject_empty(cls, value: object) -> object:
        if value is None or value == "":
            raise ValueError("is empty; remove it to use the default")
        return value

    @model_validator(mode="after")
    def _reject_conflicts(self) -> Self:
        if conflicts := list(self._conflicts()):
            raise ValueError("\n".join(conflicts))
        return self

    def _conflicts(self) -> Iterator[str]:
        """Yield why valid settings are invalid together, with their full names."""
        yield from ()


class ApiSettings(Group):
    """Access to the ThousandEyes API."""

    url: Annotated[str, AfterValidator(_base_url)] = "https://api.thousandeyes.com"
    """Base URL of the ThousandEyes API, without a version."""
    version: Literal["v7", "v6"] = "v7"
    """API version: `v7`, or `v6` (sessions and agent names only)."""
    token: Annotated[SecretStr, _Token] | None = None
    """API token; also `THOUSANDEYES_TOKEN`. Prefer `api.token_file`."""
    token_file: Annotated[FilePath, _Token] | None = None
    """File that contains only the API token; it is read again for every poll."""
    email: Annotated[str, Field(pattern=r"^[^\s:@]+@[^\s:@]+$")] | None = None
    """E-mail address of the token's user, for basic authentication (`v6` only)."""
    account_groups: Annotated[tuple[AccountGroup, ...], _List] = ()
    """IDs of the account groups to poll, or `all`. Default: the token's own account group."""
    timeout: Duration = Field(default=30.0, ge=1, le=60)
    """Read timeout of API requests."""
    ca_file: Annotated[FilePath, AfterValidator(_certificates)] | None = None
    """PEM file of the certificate authorities to trust. Default: those of the system."""
    proxy: Secret[AnyHttpUrl] | None = None
    """HTTP proxy for API requests, such as `http://user:password@proxy:3128`."""
    requests_per_minute: int = Field(default=120, ge=1, le=10_000)
    """Maximum number of API requests per minute. The limit of an organization is 240."""
    allow_insecure: bool = False
    """Allow an `http://` URL of another host, which exposes the token."""

    def _conflicts(self) -> Iterator[str]:
        if self.token and self.token_file:
            yield "api.token and api.token_file are mutually exclusive"
        if self.email and self.version == "v7":
            yield "api.email requires v6 in api.version; v7 uses the token only"
        if is_exposed(self.url) and not self.allow_insecure:
            yield "api.url exposes the token: use https, or set api.allow_insecure to true"


class PollSettings(Group):
    """Polling of sessions."""

    interval: Duration = Field(default=60.0, ge=1, le=3600)
    """Time between two polls."""
    lookback: Duration = Field(default=900.0, ge=1, le=86_400)
    """How long a session is published after its round."""
    overlap: Duration = Field(default=300.0, ge=0, le=86_400)
    """How much of the past each poll reads again, because sessions are committed late."""

    def _conflicts(self) -> Iterator[str]:
        if self.lookback < self.interval:
            yield "poll.lookback must not be shorter than poll.interval"
        if self.lookback <= self.overlap:
            yield "poll.lookback must be longer than poll.overlap"


class AgentsSettings(Group):
    """Polling of agents."""

    interval: Duration = Field(default=300.0, ge=60, le=86_400)
    """Time between two polls."""


class LocalNetworksSettings(Group):
    """Polling of local networks (`v7` only)."""

    enabled: bool = True
    """Whether to poll them."""
    interval: Duration = Field(default=300.0, ge=60, le=3600)
    """Time between two polls. A round takes five minutes."""
    types: Annotated[tuple[TargetType, ...], _List, Field(min_length=1)] = TYPES
    """Targets: `gateway`, `vpn`, `proxy`, `dns`."""


class FilterSettings(Group):
    """Sessions to keep. Patterns are regular expressions of RE2 and match the whole value."""

    include_sites: Patterns = ()
    """Keep only sites that match one of these patterns."""
    exclude_sites: Patterns = ()
    """Drop sites that match one of these patterns."""
    include_agents: Patterns = ()
    """Keep only agent IDs that match one of these patterns."""
    exclude_agents: Patterns = ()
    """Drop agent IDs that match one of these patterns."""
    include_protocols: Patterns = ()
    """Keep only protocols that match one of these patterns."""
    search: Annotated[dict[SearchKey, Strings], _List] = {}
    """Filter that the API applies, its `searchFilters`: lists of values by key."""


class SiteGroup(Group):
    """Sites that are published under one name."""

    pattern: PatternText
    name: str = Field(max_length=256)


class MetricsSettings(Group):
    """Metrics to publish."""

    site_groups: Annotated[tuple[SiteGroup, ...], _List] = ()
    """Ordered list of `{pattern, name}`: a site gets the name of the first pattern it matches."""
    families: Annotated[tuple[Family, ...], _List] = ("all",)
    """Per-agent metrics: `all`, `standard` (fewer on CPU and memory), `none`, or a list."""
    max_series: int = Field(default=500_000, ge=1, le=10_000_000)
    """Maximum number of per-session series (folded above it), and of all others (dropped)."""
    agent_names: Literal["plain", "hashed", "off"] = "plain"
    """Names of agents: `plain`, `hashed` with a key, or `off`."""
    agent_names_key: Annotated[SecretStr, _Key] | None = None
    """Key of hashed names, at least 16 characters. Prefer `metrics.agent_names_key_file`."""
    agent_names_key_file: Annotated[FilePath, _Key] | None = None
    """File that contains only this key."""

    def _conflicts(self) -> Iterator[str]:
        keys = [key for key in (self.agent_names_key, self.agent_names_key_file) if key]
        if len(keys) != (self.agent_names == "hashed"):
            yield (
                "hashed in metrics.agent_names requires metrics.agent_names_key or "
                "metrics.agent_names_key_file, not both; plain and off require neither"
            )


class WebSettings(Group):
    """HTTP server."""

    listen_address: Listen = ListenAddress(None, 9350)
    """Address to listen on: `host:port`, `:port` or `[IPv6]:port`."""
    telemetry_path: str = Field(default="/metrics", pattern=r"^(/[A-Za-z0-9_~][A-Za-z0-9._~-]*)+$")
    """Path of the metrics."""
    config_file: FilePath | None = None
    """TLS and basic authentication, in the format of Prometheus' exporter-toolkit."""
    max_requests: int = Field(default=40, ge=1, le=1000)
    """Maximum number of concurrent requests."""


class OtlpSettings(Group):
    """Push to an OTLP receiver, in addition to scrapes."""

    endpoint: Annotated[str, AfterValidator(_otlp_endpoint)] | None = None
    """Full URL that receives OTLP metrics over HTTP, such as `http://localhost:4318/v1/metrics`."""
    headers: Annotated[dict[str, SecretStr], _List, _Headers] = {}
    """HTTP headers, such as `{"Authorization": "Bearer …"}`. Prefer `otlp.headers_file`."""
    headers_file: Annotated[FilePath, _Headers] | None = None
    """File with a line `Name: value` for each HTTP header; it is read again for every push."""
    interval: Duration = Field(default=60.0, ge=1, le=3600)
    """Time between two pushes, and time limit of a push."""

    def _conflicts(self) -> Iterator[str]:
        if self.headers and self.headers_file:
            yield "otlp.headers and otlp.headers_file are mutually exclusive"


class LogSettings(Group):
    """Log lines on standard error."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    """Minimum level: `debug`, `info`, `warn` or `error`."""
    format: Literal["logfmt", "json"] = "logfmt"
    """Format: `logfmt` or `json`."""


class SimulatorSettings(Group):
    """Simulated API of the commands demo and simulate."""

    listen_address: Listen = ListenAddress("127.0.0.1", 9351)
    """Address to listen on."""
    token: str = Field(default="demo", pattern="^[!-~]{1,256}$")
    """Token that the simulated API accepts."""
    agents: int = Field(default=200, ge=1, le=100_000)
    """Number of agents."""
    sites: int = Field(default=20, ge=1, le=100_000)
    """Number of sites."""
    page_size: int = Field(default=1000, ge=1, le=100_000)
    """Maximum number of records per page."""
    seed: int = Field(default=1, ge=0, le=999_999_999)
    """Random seed: the same seed and time give the same data."""
    faults: Strings = ()
    """API failures to simulate, such as `server_error=0.2`."""


class Settings(BaseSettings):
    """All settings, validated. Durations are seconds. `load` combines the sources."""

    model_config = SettingsConfigDict(
        frozen=True,
        case_sensitive=True,
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        enable_decoding=False,  # the types decode lists
        cli_kebab_case=True,
        cli_use_class_docs_for_groups=True,
    )

    api: ApiSettings = ApiSettings()
    poll: PollSettings = PollSettings()
    agents: AgentsSettings = AgentsSettings()
    local_networks: LocalNetworksSettings = LocalNetworksSettings()
    filter: FilterSettings = FilterSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    otlp: OtlpSettings = OtlpSettings()
    log: LogSettings = LogSettings()
    simulator: SimulatorSettings = SimulatorSettings()


def read_token(settings: Settings) -> str:
    """Return the API token; its file is read again. Raises SettingsError."""
    return _read_secret(settings.api.token or settings.api.token_file)


def read_agent_names_key(settings: Settings) -> str:
    """Return the key of hashed names; its file is read again. Raises SettingsError."""
    return _read_secret(settings.metrics.agent_names_key or settings.metrics.agent_names_key_file)


def read_otlp_headers(settings: Settings) -> dict[str, str]:
    """Return the HTTP headers of pushes; their file is read again. Raises SettingsError."""
    return _read_headers(settings.otlp.headers_file or settings.otlp.headers)
