"""What a poll leaves: a record of it, and what its source publishes; immutable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from exporter.errors import Reason
from exporter.metrics.families import SeriesTable
from exporter.sources.rows import Joined
from exporter.sources.site_histograms import SiteKey, SiteMetrics


@dataclass(frozen=True, slots=True)
class PollRecord:
    """One finished poll."""

    seconds: float
    reason: Reason | None
    """Why it failed; `None` if it was complete."""
    time: float
    """When it ended, Unix seconds on the API's clock."""


@dataclass(frozen=True, slots=True)
class Result:
    """What any source publishes."""

    tables: Sequence[SeriesTable] = ()
    complete: bool = False
    """Whether a poll has been complete since the start."""
    records: int = 0
    """Number of records that are published."""


@dataclass(frozen=True, slots=True)
class SessionsResult(Result):
    """What sessions publish; their series are the only table."""

    rows: Sequence[Joined] = ()
    """All sessions within the look-back window."""
    sites: Mapping[SiteKey, SiteMetrics] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of `joined`, `user_only` and `network_only` sessions."""
