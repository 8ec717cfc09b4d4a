"""Status page: whether polls succeed, since when they fail, and why data may be missing.

Pure: a view goes in, HTML comes out.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import jinja2

from exporter import NAME, __version__
from exporter.errors import HINTS, Reason

DOCS = "https://github.com/thousandeyes-exporter/thousandeyes-exporter"


@dataclass(frozen=True, slots=True)
class PollView:
    """One finished poll."""

    seconds: float
    reason: Reason | None
    """Why it failed; `None` if it was complete."""


@dataclass(frozen=True, slots=True)
class SourceView:
    """The polls of one source of an account group."""

    source: str
    polls: Sequence[PollView]
    """The newest last."""
    age: float | None
    """Seconds since the end of the last complete poll's time range; `None` before the first one."""
    error: str
    """Why the last poll failed; empty if it was complete."""

    @property
    def failed(self) -> int:
        """Number of polls that failed since the last complete one."""
        newest_first = enumerate(reversed(self.polls))
        return next((n for n, poll in newest_first if not poll.reason), len(self.polls))


@dataclass(frozen=True, slots=True)
class AccountGroupView:
    """One account group: its polls, numbers of sessions by join state, and number of agents."""

    aid: str
    name: str
    sources: Sequence[SourceView]
    joined: int
    user_only: int
    network_only: int
    agents: int


@dataclass(frozen=True, slots=True)
class SiteView:
    """One site now: means over its sessions in base units, NaN for what was not measured."""

    site: str
    agents: int
    latency: float
    loss: float
    score: float


@dataclass(frozen=True, slots=True)
class StatusView:
    """Everything that the page shows."""

    telemetry_path: str
    lookback: float
    """Seconds."""
    account_groups: Sequence[AccountGroupView]
    sites: Sequence[SiteView]
    """The worst sites, in the order in which they are shown."""
    series: int
    series_limit: int
    series_dropped: int
    requests: int
    """Requests in the last minute."""
    requests_limit: int
    """Configured maximum number of requests per minute."""
    remaining: float | None
    limit: float | None
    """Requests that the organization has left, and is granted, per minute; `None` if unknown."""
    error: str = ""
    """Why the account groups could not be listed; empty if they were, or not queried yet."""


def render(view: StatusView) -> str:
    """Return the page."""
    return _ENVIRONMENT.get_template("status.html").render(view=view)


def worst_sites(sites: Sequence[SiteView], count: int = 10) -> list[SiteView]:
    """Return the worst sites: by the worst of their ranks in latency, loss and experience score."""
    ranks: dict[SiteView, int] = {}
    for field, worst_first in (("latency", True), ("loss", True), ("score", False)):
        value = attrgetter(field)
        measured = [each for each in sites if not math.isnan(value(each))]
        for rank, each in enumerate(sorted(measured, key=value, reverse=worst_first)):
            ranks[each] = min(ranks.get(each, rank), rank)
    return sorted(ranks, key=lambda each: (ranks[each], each.site))[:count]


def _duration(seconds: float) -> str:
    count, unit = max(int(seconds), 0), "second"
    if count >= 7200:
        count, unit = count // 3600, "hour"
    elif count >= 120:
        count, unit = count // 60, "minute"
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _number(value: float | None, unit: str = "", factor: float = 1, digits: int = 0) -> str:
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    return f"{value * factor:,.{digits}f}{unit}"


_LOADER = jinja2.PackageLoader("exporter", "web")
_ENVIRONMENT = jinja2.Environment(
    loader=_LOADER,
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(duration=_duration, number=_number)
_ENVIRONMENT.globals.update(name=NAME, version=__version__, documentation=DOCS, hints=HINTS)
_SOURCE, *_ = _LOADER.get_source(_ENVIRONMENT, "status.html")
_STYLE = _SOURCE.partition("<style>")[2].partition("</style>")[0]
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; style-src 'sha256-"
    f"{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)
"""The policy of the page: nothing but its own style, by its hash, and its icon."""
