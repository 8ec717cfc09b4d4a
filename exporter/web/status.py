"""Status page: whether polls succeed, since when they fail, and why data may be missing.

Pure: a view goes in, HTML comes out. Times are Unix seconds on the API's clock, durations seconds.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from exporter import NAME, __version__
from exporter.account_group import AccountGroup
from exporter.errors import PollError
from exporter.sources.results import PollRecord

if TYPE_CHECKING:
    import jinja2

DOCS = "https://github.com/thousandeyes-exporter/thousandeyes-exporter"
FIRST_SITES = 20
"""Rows of the table of sites that are always visible."""


class Quantity(NamedTuple):
    """A column of the table of sites; the limit is a threshold of an alert, in base units."""

    title: str
    unit: str
    factor: float
    digits: int
    beyond: Literal["<", ">"]
    limit: float

    def exceeded(self, value: float) -> bool:
        """Whether a value is beyond the limit; false for NaN."""
        return value < self.limit if self.beyond == "<" else value > self.limit


QUANTITIES = {
    "experience_score": Quantity("Score", "", 1, 2, "<", 0.5),
    "loss_ratio": Quantity("Loss", "%", 100, 1, ">", 0.05),
    "latency_seconds": Quantity("Latency", " ms", 1000, 0, ">", 0.3),
    "jitter_seconds": Quantity("Jitter", " ms", 1000, 0, ">", 0.05),
}
"""By short name of the metric; the first one orders the sites."""


@dataclass(frozen=True, slots=True)
class SourceView:
    """One source of an account group."""

    source: str
    interval: float
    polls: Sequence[PollRecord]
    """The newest last."""
    next_poll: float
    last_success: float | None
    """End of the last complete poll; `None` before the first one."""
    records: int
    """Number of records that are published."""
    failure: PollError | None = None
    """Why the last poll failed; `None` if it was complete."""
    joins: Mapping[str, int] = field(default_factory=dict)
    """Number of `joined`, `user_only` and `network_only` sessions; empty for other sources."""
    note: str = ""
    """What else to know about the polls."""

    @property
    def failed(self) -> int:
        """Number of polls that failed since the last complete one."""
        newest_first = enumerate(reversed(self.polls))
        return next((n for n, poll in newest_first if not poll.reason), len(self.polls))


@dataclass(frozen=True, slots=True)
class SiteView:
    """One site now: means by short name of the metric, in base units; NaN if not measured."""

    site: str
    agents: int
    means: Mapping[str, float]

    @property
    def state(self) -> str:
        """Which means are beyond their limits; empty if nothing was measured."""
        if all(map(math.isnan, self.means.values())):
            return ""
        beyond = [each for name, each in QUANTITIES.items() if each.exceeded(self.means[name])]
        words = (f"{'low' if each.beyond == '<' else 'high'} {each.title}" for each in beyond)
        return ", ".join(words).capitalize() or "OK"


@dataclass(frozen=True, slots=True)
class StatusView:
    """Everything that the page shows."""

    telemetry_path: str
    lookback: float
    account_groups: Sequence[tuple[AccountGroup, Sequence[SourceView]]]
    sites: Sequence[SiteView]
    series: int
    series_limit: int
    series_dropped: int
    requests: int
    requests_limit: int
    """Requests in the last minute, and their configured maximum per minute."""
    remaining: float | None
    limit: float | None
    """Requests that the organization has left, and is granted, per minute; `None` if unknown."""
    failure: PollError | None = None
    """Why the account groups could not be listed; `None` if they were, or not queried yet."""
    next_listing: float = 0.0
    """When the account groups are listed next."""
    settings: Sequence[tuple[str, str, str]] = ()
    """Name, value and origin of all settings, without secrets."""
    now: float = 0.0


def render(view: StatusView) -> str:
    """Return the page."""
    return _template().render(view=view)


def content_security_policy(page: str) -> str:
    """Return the policy of a page: nothing but its own style, by its hash, and its icon."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; style-src 'sha256-{digest}'"
    )


def worst_first(sites: Sequence[SiteView]) -> list[SiteView]:
    """Sort sites by experience score; those without one are last."""
    first = next(iter(QUANTITIES))
    return sorted(sites, key=lambda x: (2 if math.isnan(n := x.means[first]) else n, x.site))


def _axis(seconds: float) -> float:
    """Return the end of an axis: the next 1, 2 or 5 times a power of 10."""
    power = 10.0 ** math.floor(math.log10(max(seconds, 0.01)))
    return next(n * power for n in (1, 2, 5, 10) if seconds <= n * power)


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


def _utc(seconds: float, unit: Literal["m", "s"] = "s") -> str:
    text = np.datetime_as_string(np.datetime64(int(seconds), "s"), unit=unit)
    return str(text).replace("T", " ")


_FILTERS = {"axis": _axis, "duration": _duration, "number": _number, "utc": _utc}
_GLOBALS = {"name": NAME, "version": __version__, "documentation": DOCS, "rows": FIRST_SITES}


@cache
def _template() -> "jinja2.Template":
    import jinja2  # noqa: PLC0415  start time and memory of exporters whose page nobody reads

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("exporter", "web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS, worst_first=worst_first)
    return environment.get_template("status.html", globals=_GLOBALS | {"quantities": QUANTITIES})
