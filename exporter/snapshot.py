"""The snapshot: built from all account groups whenever a result changes, replaced as a whole."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from exporter.inventory import AccountGroup, AgentNames
from exporter.metrics.exposition import Snapshot
from exporter.metrics.families import Family
from exporter.metrics.self_metrics import SelfMetrics
from exporter.render import GroupResult, render
from exporter.series_limit import limit_series

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Publication:
    """A snapshot and what it contains."""

    snapshot: Snapshot
    groups: Sequence[GroupResult] = ()
    """With the series that the limit left."""
    dropped: int = 0
    """Number of series folded by the limit."""


class SnapshotPublisher:
    """Holds the current publication, and replaces it as a whole when results change."""

    def __init__(
        self,
        families: Sequence[Family],
        max_series: int,
        agent_names: AgentNames,
        metrics: SelfMetrics,
    ) -> None:
        self.current = Publication(render([], families))
        self._families = families
        self._max_series = max_series
        self._agent_names = agent_names
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

    def update(self, aid: str, source: str, result: Any) -> None:
        """Include a new result of one source; results for removed account groups are ignored."""
        if aid in self._results:
            self._results[aid] = replace(self._results[aid], **{source: result})
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
        self._metrics.series.set(current.snapshot.series)
        self._metrics.series_dropped.set(current.dropped)
        self._metrics.snapshot_size.set(current.snapshot.size)
        if current.dropped:
            hint = "raise metrics.max_series, or use filters, site groups or metrics.families"
            log.warning("series_folded", series=current.dropped, hint=hint)

    def _build(self, results: Sequence[GroupResult], previous: Publication) -> Publication:
        groups, dropped = limit_series(results, self._max_series, previous.groups, self._families)
        agents = self._agent_names if self._families else None  # `none`: nothing by agent
        return Publication(render(groups, self._families, agents), groups, dropped)
