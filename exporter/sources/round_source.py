"""A source whose records belong to measurement rounds: query a time range, store, aggregate."""

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from exporter.clock import poll_deadline
from exporter.errors import PollError
from exporter.metrics.families import COUNT, EPOCH_MILLISECONDS, SeriesTable, Table, Unit
from exporter.sources.aggregate import PERIOD_FIELDS, Columns, Fields, aggregate
from exporter.sources.results import Result
from exporter.sources.rows import Batch, Joined, Key, Row, RowStore, SeenIds
from exporter.sources.source import TIME_LIMIT_RATIO, Context, Source
from exporter.thousandeyes.schema import Search, describe

T = TypeVar("T")

MIN_INVALID_RECORDS = 10
"""A poll that reads at least so many records, all of them invalid, fails."""
CLOCK_SKEW_SECONDS = 60
"""How long after the end of the requested range a round may start: the clocks of the API's servers
differ."""


@dataclass(frozen=True, slots=True)
class RoundsConfig:
    """How a source is polled and aggregated; the same for every account group."""

    interval: float
    """Seconds between polls."""
    lookback: float
    """Seconds after its round for which a row is published."""
    overlap: float
    """Seconds of the past that each poll reads again, because records are committed late."""
    tables: Sequence[Table]
    """What is published."""
    search: Search
    """Filter that the API applies."""


def units(*tables: Table) -> dict[str, Unit]:
    """Return the units of the numeric fields of tables, and of weights and sampling periods."""
    found: dict[str, Unit] = {}
    for family in (family for table in tables for family in table.families):
        if family.aggregation not in ("count", "round"):
            found |= dict.fromkeys(family.field.split(", "), family.unit)
        if family.aggregation == "weighted_mean":
            found[f"{family.field.rpartition('.')[0]}.count"] = COUNT
    return found | dict.fromkeys(PERIOD_FIELDS, EPOCH_MILLISECONDS)


class RoundSource(Source):
    """A source of rows, with one listing, or two that are joined on the ids of rows."""

    round_seconds: ClassVar[int]
    """Length of a round; time ranges start on a round."""
    fields: ClassVar[Fields]
    """Numeric fields of each listing."""
    record_names: ClassVar[Sequence[str]]
    """What the log calls the records of each listing."""

    def __init__(self, aid: str, context: Context, config: RoundsConfig) -> None:
        super().__init__(aid, context, config.interval)
        self.config = config
        self.store = RowStore()
        self._seen = SeenIds(2 * config.lookback)
        self.result = Result()
        self._api_clock = context.api_clock
        self._covered_until: int | None = None
        """End of the range of the last complete poll, Unix seconds on the API's clock."""
        self._lock = asyncio.Lock()

    @abstractmethod
    def accept(self, batch: Batch, latest: float) -> Batch:
        """Return the rows to store, with all others counted in `rejected`.

        Args:
            batch: What the API returned.
            latest: A round that starts after this Unix time has an invalid time.
        """

    def derive(self, keys: Sequence[Key], columns: Columns) -> None:
        """Change the columns of the newest rounds before they are aggregated."""

    def make_result(
        self, rows: Sequence[Joined], tables: Sequence[SeriesTable], now: float, *, polled: bool
    ) -> Result:
        """Return what is published; `polled`: directly after a complete poll."""
        return Result(tables, polled or self.result.complete, len(rows))

    async def poll(self) -> dict[str, object]:
        """Query the listings and store the rows; returns fields for the log.

        Raises:
            PollError: The store is unchanged.
        """
        config = self.config
        end = int(self._api_clock.now())
        start = self._range_start(end)
        # The first poll, and the first one after an outage, read more than the others and may take
        # longer.
        usual = config.interval + config.overlap + self.round_seconds
        time_limit = config.interval * max(TIME_LIMIT_RATIO, (end - start) / usual)
        listings = self.listings[self._api.version]
        parameters = self._api.parameters(start, end, config.search)
        async with poll_deadline(time_limit) as deadline:
            batch = Batch(
                *await self._api.read(
                    listings, self.aid, deadline, parameters=parameters, priority=self.priority
                )
            )
            # Within the time limit, and without the lock, because expiry must not wait for it.
            accepted = await asyncio.to_thread(self.accept, batch, end + CLOCK_SKEW_SECONDS)
        if not any(batch.listings) and batch.rejected.total() >= MIN_INVALID_RECORDS:
            raise PollError("schema", f"all of the records are invalid: {describe(batch.rejected)}")
        first = self._covered_until is None
        new = await self._compute(lambda: self._ingest(accepted.listings, end))
        self._covered_until = end
        self.count_rejected(accepted.rejected)
        if not first:  # those of the first poll may have been observed before a restart
            for delay in (row.commit_delay for row in new if row.commit_delay >= 0):
                self.metrics.session_commit_delay.labels(self.aid).observe(delay)
        read = map(len, batch.listings)
        return {
            **dict(zip(self.record_names, read, strict=True)),
            "new": len(new),
            "rejected": accepted.rejected.total(),
        }

    async def refresh(self, *, polled: bool) -> bool:
        """Expire old rows and compute the result; return whether it can have changed.

        If that fails, nothing is published rather than something old.
        """
        try:
            result, newest = await self._compute(lambda: self._build(polled))
        except Exception:
            self.result = type(self.result)()
            raise
        if newest is not None:  # not in the thread, which may outlive a removed account group
            self.metrics.newest_round.labels(self.aid, self.name).set(newest)
        changed, self.result = result is not self.result, result
        return changed

    def _range_start(self, end: int) -> int:
        start = end - self.config.lookback
        if self._covered_until is not None and self._covered_until <= end:
            start = max(start, self._covered_until - self.config.overlap)
        return math.floor(start / self.round_seconds) * self.round_seconds

    async def _compute(self, function: Callable[[], T]) -> T:
        """Run a function that uses the store in a thread, one at a time."""
        async with self._lock:
            return await asyncio.to_thread(function)

    def _ingest(self, listings: Sequence[list[Row]], end: int) -> list[Row]:
        """Store rows; return those of the first listing within the look-back that are new."""
        oldest = end - self.config.lookback
        new = self._seen.add(row for row in listings[0] if row.round >= oldest)
        self.store.upsert(listings)
        return new

    def _build(self, polled: bool) -> tuple[Result, int | None]:
        """Return what is published, and the newest round."""
        now = self._api_clock.now()
        expired = self.store.expire(now - self.config.lookback)
        if not (polled or expired):
            return self.result, None
        rows = self.store.join()
        tables = [aggregate(rows, table, self.fields, self.derive) for table in self.config.tables]
        return self.make_result(rows, tables, now, polled=polled), self.store.newest_round()
