"""Aggregate sessions: the newest round of every series key, as one value for each family.

Columns are numpy arrays with one element for each session, sorted by series key; `reduceat` over
the runs of equal keys aggregates a whole column at once.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from exporter.labels import OTHER
from exporter.metrics.families import (
    FAMILIES,
    NETWORK_FIELDS,
    PERIOD_FIELDS,
    USER_FIELDS,
    Aggregation,
    Family,
)
from exporter.sessions.model import SeriesKey
from exporter.sessions.store import JoinedSession

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_COLUMN = {field: index for index, field in enumerate(NETWORK_FIELDS)}
_START, _END = (_COLUMN[field] for field in PERIOD_FIELDS)
_SYSTEM = np.array([i for field, i in _COLUMN.items() if field.startswith("systemMetrics.")])
_NO_VALUES = np.full(len(NETWORK_FIELDS), np.nan).tobytes()


@dataclass(frozen=True, slots=True)
class SeriesTable:
    """What one account group publishes: one row for each series key, one column for each family."""

    keys: list[SeriesKey]
    """Sorted and unique."""
    columns: dict[str, Floats]
    """Short name of the family to one value for each key, in base units; NaN: no sample."""

    @property
    def samples(self) -> Ints:
        """Number of samples of each key."""
        total = np.zeros(len(self.keys), dtype=np.int64)
        for column in self.columns.values():
            total += ~np.isnan(column)
        return total


NO_SERIES = SeriesTable([], {})


def aggregate(
    sessions: Sequence[JoinedSession],
    families: Sequence[Family] = FAMILIES,
    folded: Collection[SeriesKey] = frozenset(),
) -> SeriesTable:
    """Aggregate the sessions within the look-back window.

    Args:
        sessions: Joined sessions, sorted by id.
        families: Columns of the result.
        folded: Series keys that become one key for each protocol, with agent and site `__other__`.
    """
    if not sessions:
        return NO_SERIES
    keys = [user.key for user, _ in sessions]
    if folded:
        keys = [SeriesKey(OTHER, OTHER, key.protocol) if key in folded else key for key in keys]
    codes, unique_keys = _encode(keys)
    rounds = np.fromiter((user.round for user, _ in sessions), np.int64, len(sessions))
    order = np.argsort(codes, kind="stable")
    newest = np.maximum.reduceat(rounds[order], _run_starts(codes[order]))
    order = order[rounds[order] == newest[codes[order]]]
    groups = Groups(codes[order])
    columns = _columns([sessions[index] for index in order.tolist()], groups, rounds[order])
    values = {
        each.short_name: _AGGREGATE[each.aggregation](groups, columns, each.field)
        for each in families
    }
    return SeriesTable(unique_keys, values)


def site_means(
    tables: Sequence[SeriesTable], families: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the number of agents and the means of some families for each site.

    Means are weighted by the number of sessions. The status page shows them.

    Returns:
        Site to `agents` and the families; NaN if nothing was measured or the family is not
        published.
    """
    keys = [key for table in tables for key in table.keys]
    sites = {site: code for code, site in enumerate(sorted({key.site for key in keys}))}
    codes = np.array([sites[key.site] for key in keys], dtype=np.int64)
    agents = Counter(site for _, site in {(key.agent, key.site) for key in keys})
    means: dict[str, dict[str, float]] = {site: {"agents": float(agents[site])} for site in sites}
    sessions = _concatenate(tables, "sessions")
    for family in families:
        values = _concatenate(tables, family)
        weights = np.where(np.isnan(values), 0.0, np.where(np.isnan(sessions), 1.0, sessions))
        totals = np.bincount(codes, np.nan_to_num(values) * weights, len(sites))
        with np.errstate(invalid="ignore"):
            column = totals / np.bincount(codes, weights, len(sites))
        for site, mean in zip(sites, column.tolist(), strict=True):
            means[site][family] = mean
    return means


def _concatenate(tables: Sequence[SeriesTable], family: str) -> Floats:
    columns = [table.columns.get(family, np.full(len(table.keys), np.nan)) for table in tables]
    return np.concatenate([np.empty(0), *columns])


def _encode(keys: list[SeriesKey]) -> tuple[Ints, list[SeriesKey]]:
    """Return the position of every key among the sorted unique keys, and these."""
    parts = [key.agent for key in keys], [key.site for key in keys], [key.protocol for key in keys]
    ranks = [{value: rank for rank, value in enumerate(sorted(set(part)))} for part in parts]
    agents, sites, protocols = (
        np.fromiter((rank[value] for value in part), np.int64, len(part))
        for rank, part in zip(ranks, parts, strict=True)
    )
    combined = (agents * len(ranks[1]) + sites) * len(ranks[2]) + protocols
    _, first, codes = np.unique(combined, return_index=True, return_inverse=True)
    return codes.astype(np.int64, copy=False), [keys[index] for index in first.tolist()]


def _run_starts(codes: Ints) -> Ints:
    """Return the start of each run of equal codes."""
    return np.flatnonzero(np.diff(codes, prepend=-1))


class Groups:
    """Runs of sessions with the same key.

    Each method returns one value for each run and ignores NaN.
    """

    def __init__(self, codes: Ints) -> None:
        self.codes = codes
        self.starts = _run_starts(codes)

    @cached_property
    def sizes(self) -> Floats:
        """Number of sessions."""
        sizes: Floats = np.diff(self.starts, append=len(self.codes)).astype(np.float64)
        return sizes

    def sum(self, values: Floats) -> Floats:
        """Sum; NaN if the run has no value."""
        present = ~np.isnan(values)
        total = np.add.reduceat(np.where(present, values, 0.0), self.starts)
        return np.where(np.logical_or.reduceat(present, self.starts), total, np.nan)

    def max(self, values: Floats) -> Floats:
        """Maximum; NaN if the run has no value."""
        maximum: Floats = np.fmax.reduceat(values, self.starts)
        return maximum

    def min(self, values: Floats) -> Floats:
        """Minimum; NaN if the run has no value."""
        minimum: Floats = np.fmin.reduceat(values, self.starts)
        return minimum

    def mean(self, values: Floats) -> Floats:
        """Mean; NaN if the run has no value."""
        counts = np.add.reduceat(~np.isnan(values), self.starts, dtype=np.float64)
        mean: Floats = self.sum(values) / np.maximum(counts, 1.0)
        return mean

    def weighted_mean(self, values: Floats, weights: Floats) -> Floats:
        """Weighted mean; exactly the value if the run has one, NaN if all weights are 0."""
        return self.sum(values * self._shares(values, weights))

    def pooled(self, deviations: Floats, means: Floats, weights: Floats) -> Floats:
        """Pooled standard deviation: sqrt(Σ nᵢ(sᵢ² + (mᵢ - m)²) / Σ nᵢ).

        m is the weighted mean of the means mᵢ. A missing mean counts as m, because its
        deviation is known.
        """
        means = np.where(np.isnan(deviations), np.nan, means)
        offsets = means - self.weighted_mean(means, weights)[self.codes]
        squares = deviations**2 + np.where(np.isnan(means), 0.0, offsets**2)
        pooled: Floats = np.sqrt(self.sum(squares * self._shares(deviations, weights)))
        return pooled

    def median(self, values: Floats) -> Floats:
        """Median; for an even number of values the mean of the middle two."""
        ranked = values[np.lexsort((values, self.codes))]
        counts = np.add.reduceat((~np.isnan(values)).astype(np.int64), self.starts)
        low = self.starts + np.maximum(counts - 1, 0) // 2
        high = self.starts + np.minimum(counts // 2, self.sizes.astype(np.int64) - 1)
        median: Floats = (ranked[low] + ranked[high]) / 2
        return median

    def _shares(self, values: Floats, weights: Floats) -> Floats:
        """Return the share of each value in the total weight of its run.

        A missing weight is 1; a missing value has no share.
        """
        weights = np.where(np.isnan(values), np.nan, np.where(np.isnan(weights), 1.0, weights))
        with np.errstate(invalid="ignore"):
            shares: Floats = weights / self.sum(weights)[self.codes]
        return shares


def _columns(sessions: Sequence[JoinedSession], groups: Groups, rounds: Ints) -> dict[str, Floats]:
    """Return the fields of the sessions as columns.

    The system metrics of each period count once for each agent; repetitions are NaN.
    """
    packed = b"".join(
        [_NO_VALUES if network is None else network.values for _, network in sessions]
    )
    columns = np.frombuffer(packed).reshape(len(sessions), -1).T.copy()
    ranks: dict[str, int] = {}
    agents = np.array(
        [ranks.setdefault(user.key.agent, len(ranks)) for user, _ in sessions], dtype=np.int64
    )
    duplicates = _duplicates(groups.codes * len(ranks) + agents, columns[_START], columns[_END])
    columns[np.ix_(_SYSTEM, np.flatnonzero(duplicates))] = np.nan
    users = np.array([user.values for user, _ in sessions], dtype=np.float64).T
    return {
        **dict(zip(NETWORK_FIELDS, columns, strict=True)),
        **dict(zip(USER_FIELDS, users, strict=True)),
        "roundId": rounds.astype(np.float64),
    }


def _duplicates(owners: Ints, starts: Floats, ends: Floats) -> npt.NDArray[np.bool_]:
    """Mark every session except the first of the same owner (key and agent) and period.

    Folded keys combine several agents, whose periods are independent.
    """
    order = np.lexsort((ends, starts, owners))
    same = np.zeros(len(order), dtype=bool)
    same[1:] = True
    for column in (owners, starts, ends):
        same[1:] &= column[order][1:] == column[order][:-1]
    duplicates = np.empty_like(same)
    duplicates[order] = same
    return duplicates


def _sibling(columns: dict[str, Floats], field: str, name: str) -> Floats:
    return columns[f"{field.rpartition('.')[0]}.{name}"]


_AGGREGATE: dict[Aggregation, Callable[[Groups, dict[str, Floats], str], Floats]] = {
    "mean": lambda groups, columns, field: groups.mean(columns[field]),
    "max": lambda groups, columns, field: groups.max(columns[field]),
    "min": lambda groups, columns, field: groups.min(columns[field]),
    "sum": lambda groups, columns, field: groups.sum(columns[field]),
    "median": lambda groups, columns, field: groups.median(columns[field]),
    "weighted_mean": lambda groups, columns, field: groups.weighted_mean(
        columns[field], _sibling(columns, field, "count")
    ),
    "pooled": lambda groups, columns, field: groups.pooled(
        columns[field], _sibling(columns, field, "mean"), _sibling(columns, field, "count")
    ),
    "count": lambda groups, columns, field: groups.sizes,
    "round": lambda groups, columns, field: groups.max(columns[field]),
}
