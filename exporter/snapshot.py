"""The snapshot: built from all account groups whenever a result changes, replaced as a whole."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from exporter.account_group import AccountGroup
from exporter.metrics.exposition import Snapshot
from exporter.metrics.self_metrics import SelfMetrics
from exporter.render import GroupResult, render
from exporter.series_limit import Fold, limit_agents, limit_series
from exporter.sources.results import Result

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Publication:
    """A snapshot and what it contains."""

    snapshot: Snapshot
    groups: Sequence[GroupResult] = ()
    """With the series that the limit left."""
    series: int = 0
    """Number of per-session series."""
    dropped: int = 0
    """Number of series folded or dropped by the limit."""


class SnapshotPublisher:
    """Holds the current publication, and replaces it as a whole when results change."""

    def __init__(self, max_series: int, fold: Fold, metrics: SelfMetrics) -> None:
        """Publish nothing yet; `max_series` limits sessions, and all other sources."""
        self.current = Publication(render([]))
        self._max_series = max_series
        self._fold = fold
        self._metrics = metrics
        self._results: dict[str, GroupResult] = {}
        self._changed = asyncio.Event()

    def add(self, group: AccountGroup) -> None:
        """Include an account group, or rename it."""
        result = self._results.get(group.aid, GroupResult(group))
        self._results[group.aid] = replace(result, group=group)
        self._changed.set()

    def remove(self, aid: str) -> None:
        """Exclude an account group."""
        del self._results[aid]
        self._changed.set()

    def update(self, aid: str, source: str, result: Result) -> None:
        """Include a new result of one source; results for removed account groups are ignored."""
        if group := self._results.get(aid):
            self._results[aid] = replace(group, sources={**group.sources, source: result})
            self._changed.set()

    async def run(self) -> None:
        """Publish after every change, forever; changes during one run are published together."""
        while True:
            await self._changed.wait()
            await self.publish()

    async def publish(self) -> None:
        """Replace the current publication."""
        self._changed.clear()
        results = [self._results[aid] for aid in sorted(self._results)]
        try:
            self.current = current = await asyncio.to_thread(self._build, results, self.current)
        except Exception:
            self._changed.set()  # try again
            raise
        self._metrics.series.set(current.series)
        self._metrics.series_dropped.set(current.dropped)
        self._metrics.snapshot_size.set(current.snapshot.size)
        if current.dropped:
            hint = "raise metrics.max_series, or use filters, site groups or metrics.families"
            log.warning("series_folded", series=current.dropped, hint=hint)

    def _build(self, results: Sequence[GroupResult], previous: Publication) -> Publication:
        groups, series, dropped = limit_series(
            results, self._max_series, previous.groups, self._fold
        )
        groups, agents_dropped = limit_agents(groups, self._max_series)
        return Publication(render(groups), groups, series, dropped + agents_dropped)
