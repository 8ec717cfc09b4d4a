"""The source `sessions`: query a time range, update the store, compute what is published."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from exporter.clock import ApiClock, poll_deadline
from exporter.metrics.families import Family
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sessions.aggregate import NO_SERIES, SeriesTable, aggregate
from exporter.sessions.filters import SessionFilter
from exporter.sessions.histograms import SiteHistograms, SiteKey, SiteMetrics
from exporter.sessions.model import SessionBatch
from exporter.sessions.store import JoinedSession, SessionStore

T = TypeVar("T")

ROUND_SECONDS = 60
"""Length of a round of sessions; time ranges start on a round."""
TIME_LIMIT_RATIO = 0.95
"""Time limit of a poll as a share of its interval."""


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """How sessions are polled and aggregated; the same for every account group."""

    interval: float
    """Seconds between polls."""
    lookback: float
    """Seconds after its round for which a session is published."""
    overlap: float
    """Seconds of the past that each poll reads again, because sessions are committed late."""
    filter: SessionFilter
    families: tuple[Family, ...]
    max_sites: int
    """Maximum number of sites of an account group with histograms of their own."""


@dataclass(frozen=True, slots=True)
class SessionsResult:
    """What the sessions of one account group publish; computed anew after every poll."""

    sessions: list[JoinedSession] = field(default_factory=list)
    """All sessions within the look-back window."""
    series: SeriesTable = NO_SERIES
    sites: Mapping[SiteKey, SiteMetrics] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of `joined`, `user_only` and `network_only` sessions."""
    complete: bool = False
    """Whether a poll has been complete since the start."""


class SessionsApi(Protocol):
    """Queries sessions."""

    async def sessions(
        self, aid: str, start: int, end: int, deadline: asyncio.Timeout
    ) -> SessionBatch:
        """Return all sessions between two Unix times, inclusive; raises `PollError`."""


class SessionsSource:
    """Sessions of one account group."""

    name = "sessions"
    required = True

    def __init__(
        self,
        aid: str,
        api: SessionsApi,
        api_clock: ApiClock,
        metrics: SelfMetrics,
        config: SessionsConfig,
    ) -> None:
        self.interval = config.interval
        self.result = SessionsResult()
        self._aid = aid
        self._api = api
        self._api_clock = api_clock
        self._metrics = metrics
        self._config = config
        self._store = SessionStore()
        self._histograms = SiteHistograms(config.max_sites)
        self._covered_until: int | None = None
        """End of the range of the last complete poll, Unix seconds on the API's clock."""
        self._lock = asyncio.Lock()
        metrics.session_commit_delay.labels(aid)

    async def poll(self) -> dict[str, object]:
        """Query both listings and store the result; returns fields for the log.

        Raises:
            PollError: The store is unchanged.
        """
        config = self._config
        end = int(self._api_clock.now())
        start = self._range_start(end)
        # The first poll, and the first one after an outage, read more than the others and may take
        # longer.
        usual = config.interval + config.overlap + ROUND_SECONDS
        time_limit = config.interval * max(TIME_LIMIT_RATIO, (end - start) / usual)
        async with poll_deadline(time_limit) as deadline:
            batch = await self._api.sessions(self._aid, start, end, deadline)
        first = self._covered_until is None
        accepted, delays = await self._compute(lambda: self._ingest(batch, end))
        self._covered_until = end
        for reason, count in accepted.rejected.items():
            self._metrics.records_rejected.labels(self._aid, self.name, reason).inc(count)
        if not first:  # sessions of the first poll may have been counted before a restart
            observe = self._metrics.session_commit_delay.labels(self._aid).observe
            for delay in delays:
                if delay >= 0:
                    observe(delay)
        return {
            "user_sessions": len(batch.users),
            "network_sessions": len(batch.networks),
            "new": len(delays),
            "rejected": accepted.rejected.total(),
        }

    async def refresh(self, *, complete: bool) -> None:
        """Expire old sessions and compute the result; only a complete poll updates histograms.

        If that fails, nothing is published rather than something old.
        """
        try:
            self.result, newest_round = await self._compute(lambda: self._build(complete))
        except Exception:
            self.result = SessionsResult()
            raise
        # Not in the thread, which may outlive an account group that is removed.
        for state, count in self.result.counts.items():
            self._metrics.sessions.labels(self._aid, state).set(count)
        if newest_round is not None:
            self._metrics.newest_round.labels(self._aid, self.name).set(newest_round)

    def _range_start(self, end: int) -> int:
        start = end - self._config.lookback
        if self._covered_until is not None and self._covered_until <= end:
            start = max(start, self._covered_until - self._config.overlap)
        return math.floor(start / ROUND_SECONDS) * ROUND_SECONDS

    async def _compute(self, function: Callable[[], T]) -> T:
        """Run a function that uses the store in a thread, one at a time."""
        async with self._lock:
            return await asyncio.to_thread(function)

    def _ingest(self, batch: SessionBatch, end: int) -> tuple[SessionBatch, list[float]]:
        """Store what the filter accepts; return it, and the commit delays of new sessions."""
        accepted = self._config.filter.apply(batch, end)
        known = self._store.users.keys()
        delays = {user.id: user.commit_delay for user in accepted.users if user.id not in known}
        self._store.upsert(accepted.users, accepted.networks)
        return accepted, list(delays.values())

    def _build(self, complete: bool) -> tuple[SessionsResult, int | None]:
        """Return what is published, and the newest round."""
        now = self._api_clock.now()
        self._store.expire(now - self._config.lookback)
        sessions = self._store.join()
        if complete:
            self._histograms.observe(sessions, now)
        result = SessionsResult(
            sessions,
            aggregate(sessions, self._config.families),
            self._histograms.snapshot(),
            self._store.counts(),
            complete or self.result.complete,
        )
        return result, self._store.newest_round()
