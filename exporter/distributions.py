"""Counters of every site's sessions since the start: histograms, and how many there were.

Which sessions are inside the look-back stands in `exporter.store`; how counters are written in `exporter.exposition`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.metrics import DISTRIBUTIONS, NETWORK_FIELDS, OTHER, USER_FIELDS, Distribution
from exporter.model import NetworkSession, UserSession

FORGET_AFTER = 86_400
"""Seconds without a session after which a site's counters go; without this a year of one-day sites would stay."""


class Site(NamedTuple):
    """What one series of a per-site family is about, inside an account group."""

    site: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """One site's values of one distribution."""

    buckets: tuple[int, ...]
    """Observations at most each upper bound and at most infinity: cumulative, as they are published."""
    sum: float


@dataclass(frozen=True, slots=True)
class SiteCounters:
    """All that is published of one site."""

    sessions: int
    histograms: tuple[Histogram, ...]
    """In the order of `exporter.metrics.DISTRIBUTIONS`."""


class _Counts:
    """The counters of one site, while they count."""

    def __init__(self) -> None:
        self.sessions = 0
        self.buckets = [np.zeros(len(each.buckets) + 1, dtype=np.int64) for each in DISTRIBUTIONS]
        self.sums = [0.0] * len(DISTRIBUTIONS)
        self.last_session = 0.0

    def frozen(self) -> SiteCounters:
        histograms = (
            Histogram(tuple(np.cumsum(buckets).tolist()), total)
            for buckets, total in zip(self.buckets, self.sums, strict=True)
        )
        return SiteCounters(self.sessions, tuple(histograms))


class Distributions:
    """Every session is observed once, by its id, when it is first seen complete.

    The first poll only marks what it sees, so that a restart counts nothing twice. A site's counters are published at
    zero before anything is counted on them, so that the first increase is seen by `rate()`.
    """

    def __init__(self, max_sites: int) -> None:
        self._max_sites = max_sites
        self._sites: dict[Site, _Counts] = {}
        self._seen: set[str] = set()
        self._started = False

    def observe(self, sessions: list[tuple[UserSession, NetworkSession | None]], now: float) -> None:
        """Count the complete sessions that were not counted yet.

        `sessions` are all that are inside the look-back, in the order of their ids; `now` is Unix time. Beyond
        `max_sites` new sites are counted under `__other__`, and protocols that would be as many again as well.
        """
        known = set(self._sites)
        for site in sorted({_site(user) for user, _ in sessions}):
            self._sites.setdefault(self._counted_as(site), _Counts()).last_session = now
        complete = [(user, network) for user, network in sessions if network is not None]
        fresh = [
            pair for pair in complete if pair[0].id not in self._seen and self._counted_as(_site(pair[0])) in known
        ]
        if self._started:
            self._count(fresh)
            self._seen.update(user.id for user, _ in fresh)
            self._seen = {user.id for user, _ in sessions if user.id in self._seen}
        else:
            self._seen = {user.id for user, _ in complete}
            self._started = True
        self._sites = {site: counts for site, counts in self._sites.items() if counts.last_session > now - FORGET_AFTER}

    def adopt(self, max_sites: int) -> None:
        """Give room to another number of sites."""
        self._max_sites = max_sites

    def begin(self) -> None:
        """Only mark what is seen next, as at the start: it may hold what was counted before."""
        self._started = False

    def published(self) -> dict[Site, SiteCounters]:
        """Return the counters of every site, sorted by site and protocol."""
        return {site: self._sites[site].frozen() for site in sorted(self._sites)}

    def _counted_as(self, site: Site) -> Site:
        """Return the site, or what it is folded into where there is no room for it."""
        if site not in self._sites and len(self._sites) >= self._max_sites:
            site = Site(OTHER, site.protocol)
            if site not in self._sites and len(self._sites) >= 2 * self._max_sites:
                site = Site(OTHER, OTHER)
        return site

    def _count(self, sessions: list[tuple[UserSession, NetworkSession]]) -> None:
        by_site: dict[Site, list[tuple[UserSession, NetworkSession]]] = {}
        for pair in sessions:
            by_site.setdefault(self._counted_as(_site(pair[0])), []).append(pair)
        for site, pairs in by_site.items():
            counts = self._sites[site]
            counts.sessions += len(pairs)
            for index, distribution in enumerate(DISTRIBUTIONS):
                values = _values(distribution, pairs)
                places = np.searchsorted(distribution.buckets, values, side="left")
                counts.buckets[index] += np.bincount(places, minlength=len(distribution.buckets) + 1)
                counts.sums[index] += float(values.sum())


def _site(user: UserSession) -> Site:
    return Site(user.key.site, user.key.protocol)


def _values(distribution: Distribution, pairs: list[tuple[UserSession, NetworkSession]]) -> npt.NDArray[np.float64]:
    """Return what the sessions measured of one distribution, base unit; sessions without a value are left out."""
    if distribution.field in USER_FIELDS:
        column = USER_FIELDS.index(distribution.field)
        values: npt.NDArray[np.float64] = np.array([user.values[column] for user, _ in pairs])
    else:
        matrix = np.frombuffer(b"".join([network.values for _, network in pairs]))
        values = matrix.reshape(len(pairs), -1)[:, NETWORK_FIELDS.index(distribution.field)]
    return values[np.flatnonzero(~np.isnan(values))]
