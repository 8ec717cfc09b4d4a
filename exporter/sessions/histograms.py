"""Histograms and session counters of each site, accumulated since the start of the process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.labels import OTHER
from exporter.metrics.families import HISTOGRAMS, NETWORK_FIELDS, USER_FIELDS, HistogramFamily
from exporter.sessions.model import NetworkSession, UserSession
from exporter.sessions.store import JoinedSession

RETENTION_SECONDS = 86_400
"""How long the counters of a site without sessions are kept; bounds memory if sites keep
changing."""


class SiteKey(NamedTuple):
    """Labels of one series of a per-site family, within an account group."""

    site: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Published state of one histogram of one site."""

    buckets: tuple[int, ...]
    """Cumulative counts, one for each upper bound and one for infinity."""
    sum: float


@dataclass(frozen=True, slots=True)
class SiteMetrics:
    """Published state of one site."""

    sessions: int
    histograms: tuple[Histogram, ...]
    """In the order of `exporter.metrics.families.HISTOGRAMS`."""


class _Accumulator:
    """Mutable counters of one site."""

    def __init__(self) -> None:
        self.sessions = 0
        self.buckets = [np.zeros(len(family.buckets) + 1, dtype=np.int64) for family in HISTOGRAMS]
        self.sums = [0.0] * len(HISTOGRAMS)
        self.last_session = 0.0

    def observe(self, sessions: Sequence[tuple[UserSession, NetworkSession]]) -> None:
        self.sessions += len(sessions)
        for index, family in enumerate(HISTOGRAMS):
            values = _values(family, sessions)
            positions = np.searchsorted(family.buckets, values, side="left")
            self.buckets[index] += np.bincount(positions, minlength=len(family.buckets) + 1)
            self.sums[index] += float(values.sum())

    def snapshot(self) -> SiteMetrics:
        cumulative = (tuple(np.cumsum(buckets).tolist()) for buckets in self.buckets)
        return SiteMetrics(self.sessions, tuple(map(Histogram, cumulative, self.sums)))


class SiteHistograms:
    """Observes each session once, by id, when it is first seen complete.

    The first call of `observe` only marks the sessions as known, so that a restart counts nothing
    twice. The counters of a site are published at zero before anything is counted, so that `rate()`
    sees the first increase.
    """

    def __init__(self, max_sites: int) -> None:
        """Create an empty set; sites beyond `max_sites` are counted under `__other__`."""
        self._max_sites = max_sites
        self._sites: dict[SiteKey, _Accumulator] = {}
        self._observed: set[str] = set()
        self._started = False

    def observe(self, sessions: Sequence[JoinedSession], now: float) -> None:
        """Count the complete sessions that were not counted before.

        Args:
            sessions: All sessions within the look-back window, sorted by id.
            now: Unix time.
        """
        published = set(self._sites)
        for site in sorted({_site(user) for user, _ in sessions}):
            self._sites.setdefault(self._fold(site), _Accumulator()).last_session = now
        new: dict[SiteKey, list[tuple[UserSession, NetworkSession]]] = {}
        for user, network in sessions:
            site = self._fold(_site(user))
            if (
                network
                and user.id not in self._observed
                and (site in published or not self._started)
            ):
                new.setdefault(site, []).append((user, network))
        if self._started:
            for site, complete in new.items():
                self._sites[site].observe(complete)
        self._observed |= {user.id for complete in new.values() for user, _ in complete}
        self._observed &= {user.id for user, _ in sessions}
        self._started = True
        self._sites = {
            site: each
            for site, each in self._sites.items()
            if each.last_session > now - RETENTION_SECONDS
        }

    def snapshot(self) -> dict[SiteKey, SiteMetrics]:
        """Return the counters of all sites, sorted by site and protocol."""
        return {site: self._sites[site].snapshot() for site in sorted(self._sites)}

    def _fold(self, site: SiteKey) -> SiteKey:
        """Return the site itself, or the key under which it is counted above the limit.

        Protocols are folded as well if they alone would exceed the limit again.
        """
        if site not in self._sites and len(self._sites) >= self._max_sites:
            site = SiteKey(OTHER, site.protocol)
            if site not in self._sites and len(self._sites) >= 2 * self._max_sites:
                site = SiteKey(OTHER, OTHER)
        return site


def _site(user: UserSession) -> SiteKey:
    return SiteKey(user.key.site, user.key.protocol)


def _values(
    family: HistogramFamily, sessions: Sequence[tuple[UserSession, NetworkSession]]
) -> npt.NDArray[np.float64]:
    """Return the values of one field in base units, without sessions that have none."""
    if family.field in USER_FIELDS:
        index = USER_FIELDS.index(family.field)
        values: npt.NDArray[np.float64] = np.array([user.values[index] for user, _ in sessions])
    else:
        matrix = np.frombuffer(b"".join([network.values for _, network in sessions]))
        values = matrix.reshape(len(sessions), -1)[:, NETWORK_FIELDS.index(family.field)]
    return values[~np.isnan(values)]
