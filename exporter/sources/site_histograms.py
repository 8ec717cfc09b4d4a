"""Histograms and session counters of each site, accumulated since the start of the process."""

# ruff: noqa: E501  one line for each family

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

import numpy as np

from exporter.labels import OTHER
from exporter.metrics.families import MILLISECONDS, PERCENT, PREFIX, RATIO, Family
from exporter.sources.aggregate import Fields, to_columns
from exporter.sources.rows import Joined, Key, SeenIds

_LATENCY = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_JITTER = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
_LOSS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SCORE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

HISTOGRAMS: tuple[Family, ...] = (
    Family("site_latency_seconds", "Round-trip time to the site", "destination.latency", MILLISECONDS, "last", buckets=_LATENCY),
    Family("site_jitter_seconds", "Jitter of the round-trip time to the site", "destination.jitter", MILLISECONDS, "last", buckets=_JITTER),
    Family("site_loss_ratio", "Packet loss to the site, 0 to 1", "destination.loss", PERCENT, "last", buckets=_LOSS),
    Family("site_experience_score", "Experience score, 0 (worst) to 1 (best)", "experienceScore", RATIO, "last", buckets=_SCORE),
)  # fmt: skip
"""Per-site histograms, with the labels `site` and `protocol`."""
SITE_SESSIONS = PREFIX + "site_sessions"
SITE_SESSIONS_HELP = (
    "Complete sessions (user session and network session joined), each counted once."
)

RETENTION_SECONDS = 86_400
"""How long the counters of a site without sessions are kept; bounds memory if sites keep
changing."""


class SiteKey(NamedTuple):
    """Labels of one series of a per-site family, within an account group."""

    site: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """One histogram of one site."""

    buckets: tuple[int, ...]
    """Cumulative counts, one for each upper bound and one for infinity."""
    sum: float

    def plus(self, buckets: Sequence[int], total: float) -> "Histogram":
        """Return the histogram with more observations."""
        return Histogram(tuple(map(add, self.buckets, buckets)), self.sum + total)


@dataclass(frozen=True, slots=True)
class SiteMetrics:
    """Counters of one site."""

    sessions: int
    histograms: tuple[Histogram, ...]
    """In the order of `HISTOGRAMS`."""


_NO_SESSIONS = SiteMetrics(
    0, tuple(Histogram((0,) * (len(each.buckets) + 1), 0.0) for each in HISTOGRAMS)
)


class SiteHistograms:
    """Observes each session once, by id, when it is first seen complete.

    The first call of `observe` only marks the sessions as known, so that a restart counts nothing
    twice. The counters of a site are published at zero before anything is counted, so that `rate()`
    sees the first increase.
    """

    def __init__(self, fields: Fields, max_sites: int, lookback: float = 900.0) -> None:
        """Create an empty set.

        Args:
            fields: Numeric fields of user sessions and network sessions.
            max_sites: Sites beyond this number are counted under `__other__`.
            lookback: Seconds for which sessions stay; their ids are known for twice as long.
        """
        self._fields = fields
        self._max_sites = max_sites
        self._sites: dict[SiteKey, SiteMetrics] = {}
        self._last_session: dict[SiteKey, float] = {}
        self._observed = SeenIds(2 * lookback)
        self._started = False

    def observe(self, sessions: Sequence[Joined], now: float) -> None:
        """Count the complete sessions that were not counted before.

        Args:
            sessions: All sessions within the look-back window.
            now: Unix time.
        """
        published = set(self._sites)
        folded: dict[Key, SiteKey] = {}
        for key in sorted({user.key[1:] for user, _ in sessions}):
            folded[key] = site = self._fold(SiteKey(*key))
            self._sites.setdefault(site, _NO_SESSIONS)
            self._last_session[site] = now
        countable = {key for key, site in folded.items() if site in published or not self._started}
        complete = [each for each in sessions if each[1] and each[0].key[1:] in countable]
        ids = {user.id for user in self._observed.add(user for user, _ in complete)}
        if self._started and ids:
            self._count([each for each in complete if each[0].id in ids], folded)
        self._started = True
        for site, last_session in list(self._last_session.items()):
            if last_session <= now - RETENTION_SECONDS:
                del self._sites[site], self._last_session[site]

    def snapshot(self) -> dict[SiteKey, SiteMetrics]:
        """Return the counters of all sites, sorted by site and protocol."""
        return dict(sorted(self._sites.items()))

    def _count(self, sessions: Sequence[Joined], sites: Mapping[Key, SiteKey]) -> None:
        positions: dict[SiteKey, int] = {}
        owner = [sites[user.key[1:]] for user, _ in sessions]
        codes = np.array([positions.setdefault(site, len(positions)) for site in owner])
        columns = to_columns(sessions, self._fields)
        increases = []
        for family in HISTOGRAMS:
            values, size = columns[family.field], len(family.buckets) + 1
            present = ~np.isnan(values)
            owners, values = codes[present], values[present]
            cells = owners * size + np.searchsorted(family.buckets, values, side="left")
            counts = np.bincount(cells, minlength=len(positions) * size).reshape(-1, size)
            sums = np.bincount(owners, values, len(positions))
            increases.append((counts.cumsum(axis=1).tolist(), sums.tolist()))
        sessions_of = np.bincount(codes).tolist()
        for site, position in positions.items():
            old = self._sites[site]
            histograms = [
                histogram.plus(counts[position], sums[position])
                for histogram, (counts, sums) in zip(old.histograms, increases, strict=True)
            ]
            self._sites[site] = SiteMetrics(old.sessions + sessions_of[position], tuple(histograms))

    def _fold(self, site: SiteKey) -> SiteKey:
        """Return the site itself, or the key under which it is counted above the limit.

        Protocols are folded as well if they alone would exceed the limit again.
        """
        if site not in self._sites and len(self._sites) >= self._max_sites:
            site = SiteKey(OTHER, site.protocol)
            if site not in self._sites and len(self._sites) >= 2 * self._max_sites:
                site = SiteKey(OTHER, OTHER)
        return site
