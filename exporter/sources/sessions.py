"""The source `sessions`: visits of agents to sites, with network and system metrics of each.

A session is one visit of one agent to one site: a v6 user session, or a v7 real user test. A second
listing has its network session, with the same id.
"""

# ruff: noqa: E501  one line for each family

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from exporter.labels import sanitize
from exporter.metrics.families import (
    BYTES,
    COUNT,
    MILLISECONDS,
    PERCENT,
    RATIO,
    Family,
    SeriesTable,
    Table,
)
from exporter.sources.aggregate import aggregate
from exporter.sources.results import SessionsResult
from exporter.sources.round_source import RoundsConfig, RoundSource, units
from exporter.sources.rows import Batch, Joined, Key, Row
from exporter.sources.session_filter import SessionFilter
from exporter.sources.site_histograms import SiteHistograms
from exporter.sources.source import Context
from exporter.thousandeyes import v6, v7
from exporter.thousandeyes.schema import Id, Listing, Record, Rejected, Round, parse_time

_CPU = "systemMetrics.cpuUtilization"
_MEMORY = "systemMetrics.physicalMemoryUsedBytes"
_V6 = "API v6 only."
_V7 = "API v7 only."

SERIES = Table(
    ("agent", "site", "protocol"),
    (
        Family("latency_seconds", "Round-trip time to the site", "destination.latency", MILLISECONDS, "mean"),
        Family("jitter_seconds", "Jitter of the round-trip time to the site", "destination.jitter", MILLISECONDS, "mean"),
        Family("loss_ratio", "Packet loss to the site, 0 to 1", "destination.loss", PERCENT, "mean"),
        Family("avg_rtt_seconds", "Average round-trip time to the site", "destination.avgRtt", MILLISECONDS, "mean", _V6),
        Family("max_rtt_seconds", "Maximum round-trip time to the site", "destination.maxRtt", MILLISECONDS, "max", _V6),
        Family("mean_dev_rtt_seconds", "Mean deviation of the round-trip time to the site", "destination.meanDevRtt", MILLISECONDS, "mean", _V6),
        Family("vpn_latency_seconds", "Round-trip time to the VPN gateway", "vpn.latency", MILLISECONDS, "mean", _V7),
        Family("vpn_jitter_seconds", "Jitter of the round-trip time to the VPN gateway", "vpn.jitter", MILLISECONDS, "mean", _V7),
        Family("vpn_loss_ratio", "Packet loss to the VPN gateway, 0 to 1", "vpn.loss", PERCENT, "mean", _V7),
        Family("proxy_latency_seconds", "Round-trip time to the proxy", "proxy.latency", MILLISECONDS, "mean", _V7),
        Family("proxy_jitter_seconds", "Jitter of the round-trip time to the proxy", "proxy.jitter", MILLISECONDS, "mean", _V7),
        Family("proxy_loss_ratio", "Packet loss to the proxy, 0 to 1", "proxy.loss", PERCENT, "mean", _V7),
        Family("cpu_utilization_ratio", "CPU utilization, 0 to 1", f"{_CPU}.mean", RATIO, "weighted_mean"),
        Family("cpu_utilization_min_ratio", "Minimum CPU utilization", f"{_CPU}.min", RATIO, "min", detail=True),
        Family("cpu_utilization_max_ratio", "Maximum CPU utilization", f"{_CPU}.max", RATIO, "max", detail=True),
        Family("cpu_utilization_median_ratio", "Median CPU utilization", f"{_CPU}.median", RATIO, "median", detail=True),
        Family("cpu_utilization_stddev_ratio", "Standard deviation of CPU utilization", f"{_CPU}.stdDev", RATIO, "pooled", detail=True),
        Family("cpu_samples", "Number of CPU utilization samples", f"{_CPU}.count", COUNT, "sum", detail=True),
        Family("memory_used_bytes", "Physical memory in use", f"{_MEMORY}.mean", BYTES, "weighted_mean"),
        Family("memory_used_min_bytes", "Minimum physical memory in use", f"{_MEMORY}.min", BYTES, "min", detail=True),
        Family("memory_used_max_bytes", "Maximum physical memory in use", f"{_MEMORY}.max", BYTES, "max", detail=True),
        Family("memory_used_median_bytes", "Median physical memory in use", f"{_MEMORY}.median", BYTES, "median", detail=True),
        Family("memory_used_stddev_bytes", "Standard deviation of physical memory in use", f"{_MEMORY}.stdDev", BYTES, "pooled", detail=True),
        Family("memory_samples", "Number of memory samples", f"{_MEMORY}.count", COUNT, "sum", detail=True),
        Family("memory_size_bytes", "Physical memory size", "systemMetrics.physicalMemoryTotalBytes", BYTES, "max"),
        Family("experience_score", "Experience score, 0 (worst) to 1 (best)", "experienceScore", RATIO, "mean", "The API also sends 0 if the score could not be computed."),
        Family("pages", "Number of pages visited", "numberOfPages", COUNT, "sum"),
        Family("sessions", "Number of user sessions in the newest round", "", COUNT, "count"),
        Family("round_timestamp_seconds", "Start of the newest round, Unix time", "roundId", COUNT, "round"),
    ),
)  # fmt: skip
"""Per-session gauges."""

_UNITS = units(SERIES)
_USER = {path: unit for path, unit in _UNITS.items() if "." not in path}
_NETWORK = {path: unit for path, unit in _UNITS.items() if "." in path}
FIELDS = tuple(_USER), tuple(_NETWORK)
"""Numeric fields of the user session and of the network session, in the order of `Row.values`."""


class UserRecord(Record[Row]):
    """A user session (v7: real user test)."""

    numbers = _USER
    id: Id
    agent_id: Id
    round_id: Round
    visited_site: str | None = None
    protocol: str | None = None
    date: Any = None
    committed: Any = None

    def convert(self, values: bytes, rejected: Rejected) -> Row:
        """See `Record.convert`."""
        key = sanitize(self.agent_id), sanitize(self.visited_site), sanitize(self.protocol)
        date, committed = parse_time(self.date, rejected), parse_time(self.committed, rejected)
        delay = (committed - date).total_seconds() if date and committed else math.nan
        return Row(self.id, key, int(self.round_id), values, delay)


class NetworkRecord(Record[Row]):
    """A network session (v7: network result of a real user test)."""

    numbers = _NETWORK
    id: Id
    round_id: Round

    def convert(self, values: bytes, rejected: Rejected) -> Row:
        """See `Record.convert`."""
        return Row(self.id, (), int(self.round_id), values)


class _V6UserRecord(UserRecord):
    id: Id = msgspec.field(name="userSessionId")


class _V6NetworkRecord(NetworkRecord):
    id: Id = msgspec.field(name="userSessionId")


_PATH_V6 = "/v6/endpoint-data/user-sessions"
_PATH_V7 = "/v7/endpoint/test-results/real-user-tests"


@dataclass(frozen=True, slots=True)
class SessionsConfig(RoundsConfig):
    """How sessions are polled and aggregated."""

    filter: SessionFilter
    max_sites: int
    """Maximum number of sites of an account group with histograms of their own."""


class SessionsSource(RoundSource):
    """Sessions of one account group."""

    name = "sessions"
    required = True
    priority = 0
    round_seconds = 60
    fields = FIELDS
    record_names = ("user_sessions", "network_sessions")
    listings: ClassVar = {
        "v6": (
            Listing(f"{_PATH_V6}.json", v6.Envelope, "userSessions", _V6UserRecord),
            Listing(f"{_PATH_V6}/network.json", v6.Envelope, "networkSessions", _V6NetworkRecord),
        ),
        "v7": (
            Listing(f"{_PATH_V7}/filter", v7.Envelope, "results", UserRecord),
            Listing(f"{_PATH_V7}/networks/filter", v7.Envelope, "results", NetworkRecord),
        ),
    }
    config: SessionsConfig
    result: SessionsResult

    def __init__(self, aid: str, context: Context, config: SessionsConfig) -> None:
        super().__init__(aid, context, config)
        self.result = SessionsResult()
        self._histograms = SiteHistograms(FIELDS, config.max_sites, config.lookback)
        context.metrics.session_commit_delay.labels(aid)

    def accept(self, batch: Batch, latest: float) -> Batch:
        """See `RoundSource.accept`."""
        return self.config.filter.apply(batch, latest)

    def make_result(
        self, rows: Sequence[Joined], tables: Sequence[SeriesTable], now: float, *, polled: bool
    ) -> SessionsResult:
        """See `RoundSource.make_result`; only a complete poll updates the histograms."""
        if polled:
            self._histograms.observe(rows, now)
        joined = sum(network is not None for _, network in rows)
        counts = {
            "joined": joined,
            "user_only": len(rows) - joined,
            "network_only": len(self.store.second) - joined,
        }
        complete = polled or self.result.complete
        sites = self._histograms.snapshot()
        return SessionsResult(tables, complete, len(rows), rows, sites, counts)

    async def refresh(self, *, polled: bool) -> bool:
        """See `RoundSource.refresh`."""
        changed = await super().refresh(polled=polled)
        for state, count in self.result.counts.items():
            self.metrics.sessions.labels(self.aid, state).set(count)
        return changed


def fold(table: Table, rows: Sequence[Joined], folded: Collection[Key]) -> SeriesTable:
    """Aggregate sessions with some series keys folded into one for each protocol."""
    return aggregate(rows, table, FIELDS, folded=folded)
