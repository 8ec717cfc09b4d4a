"""Sessions to rows: for every key the newest round that it has, and that round's sessions as one number a family.

Pure: neither clock nor I/O. How rows are written stands in `exporter.exposition`. What goes over all sessions is
written with generators, between whose steps other threads run, where a call on a list would keep them waiting.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from exporter.metrics import FAMILIES, NETWORK_FIELDS, OTHER, PERIOD_FIELDS, USER_FIELDS, Family
from exporter.model import Key, NetworkSession, UserSession

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STEP = 4096
"""Sessions that are copied in one go: nothing else runs meanwhile."""
_COLUMN = {field: index for index, field in enumerate(NETWORK_FIELDS)}
_START, _END = (_COLUMN[field] for field in PERIOD_FIELDS)
_SYSTEM = np.array([index for field, index in _COLUMN.items() if field.startswith("systemMetrics.")])
_UNMEASURED = np.full(len(NETWORK_FIELDS), np.nan).tobytes()


@dataclass(frozen=True, slots=True)
class Rows:
    """What one account group publishes: one row a key, one column a family."""

    keys: list[Key]
    """Sorted and unique."""
    columns: dict[str, Floats]
    """Short name of the family → one value a key in base units; NaN: no sample."""

    @property
    def samples(self) -> Ints:
        """How many samples each key has."""
        present = np.zeros(len(self.keys), dtype=np.int64)
        for column in self.columns.values():
            present += ~np.isnan(column)
        return present


NO_ROWS = Rows([], {})


def aggregate(
    sessions: Sequence[tuple[UserSession, NetworkSession | None]],
    families: Sequence[Family] = FAMILIES,
    folded: Collection[Key] = frozenset(),
) -> Rows:
    """Aggregate sessions, in the order of their ids, to one row a key.

    Keys in `folded` become one key a protocol, with agent and site `__other__`, before anything is computed.
    """
    if not sessions:
        return NO_ROWS
    keys = [user.key for user, _ in sessions]
    if folded:
        keys = [Key(OTHER, OTHER, key.protocol) if key in folded else key for key in keys]
    codes, names = _rank(keys)
    rounds = np.fromiter((user.round for user, _ in sessions), np.int64, len(sessions))
    order = np.argsort(codes, kind="stable")
    newest = np.maximum.reduceat(rounds[order], _starts(codes[order]))
    order = order[rounds[order] == newest[codes[order]]]
    groups = Groups(codes[order])
    chosen = [sessions[index] for index in order.tolist()]
    columns = _columns(chosen, groups, rounds[order])
    return Rows(names, {family.short: _OVER[family.over](groups, columns, family.field) for family in families})


def by_site(rows: Sequence[Rows], families: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return for every site, over account groups and protocols, its `agents` and the means of gauges by sessions.

    NaN where nothing was measured, or the family is not published. For people who look, not for Prometheus.
    """
    keys = [key for each in rows for key in each.keys]
    ranks = {site: rank for rank, site in enumerate(sorted({key.site for key in keys}))}
    codes = np.array([ranks[key.site] for key in keys], dtype=np.int64)
    agents = Counter(site for _, site in {(key.agent, key.site) for key in keys})
    means: dict[str, dict[str, float]] = {site: {"agents": float(agents[site])} for site in ranks}
    sessions = _all(rows, "sessions")
    for family in families:
        values = _all(rows, family)
        weights = np.where(np.isnan(values), 0.0, np.where(np.isnan(sessions), 1.0, sessions))
        weighed = np.bincount(codes, np.nan_to_num(values) * weights, len(ranks))
        with np.errstate(invalid="ignore"):
            column = weighed / np.bincount(codes, weights, len(ranks))
        for site, mean in zip(ranks, column.tolist(), strict=True):
            means[site][family] = mean
    return means


def _all(rows: Sequence[Rows], family: str) -> Floats:
    """Return one family of all account groups as one column."""
    absent = [each.columns.get(family, np.full(len(each.keys), np.nan)) for each in rows]
    return np.concatenate([np.empty(0), *absent])


def _rank(keys: list[Key]) -> tuple[Ints, list[Key]]:
    """Return for every key its place among the sorted unique keys, and those."""
    parts = [key.agent for key in keys], [key.site for key in keys], [key.protocol for key in keys]
    ranks = [{name: rank for rank, name in enumerate(sorted({name for name in part}))} for part in parts]  # noqa: C416
    agents, sites, protocols = (
        np.fromiter((rank[name] for name in part), np.int64, len(part)) for rank, part in zip(ranks, parts, strict=True)
    )
    joint = (agents * len(ranks[1]) + sites) * len(ranks[2]) + protocols
    _, first, codes = np.unique(joint, return_index=True, return_inverse=True)
    return codes.astype(np.int64, copy=False), [keys[index] for index in first.tolist()]


def _starts(codes: Ints) -> Ints:
    """Return where each run of equal codes begins."""
    return np.flatnonzero(np.diff(codes, prepend=-1))


class Groups:
    """Runs of sessions with one key, and what can be computed over each: one number a group, NaN ignored."""

    def __init__(self, codes: Ints) -> None:
        self.codes = codes
        self.starts = _starts(codes)

    @cached_property
    def sizes(self) -> Floats:
        """Sessions in each group."""
        return np.diff(self.starts, append=len(self.codes)).astype(np.float64)

    def sum(self, values: Floats) -> Floats:
        """Sum; NaN where the group has no value."""
        present = ~np.isnan(values)
        total = np.add.reduceat(np.where(present, values, 0.0), self.starts)
        return np.where(np.logical_or.reduceat(present, self.starts), total, np.nan)

    def max(self, values: Floats) -> Floats:
        """Maximum; NaN where the group has no value."""
        return np.fmax.reduceat(values, self.starts)

    def min(self, values: Floats) -> Floats:
        """Minimum; NaN where the group has no value."""
        return np.fmin.reduceat(values, self.starts)

    def mean(self, values: Floats) -> Floats:
        """Mean; NaN where the group has no value."""
        return self.sum(values) / np.maximum(np.add.reduceat(~np.isnan(values), self.starts, dtype=np.float64), 1.0)

    def weighted_mean(self, values: Floats, weights: Floats) -> Floats:
        """Mean by weights; exactly the value where the group has one, NaN where all weights are 0."""
        return self.sum(values * self._shares(values, weights))

    def pooled(self, deviations: Floats, means: Floats, weights: Floats) -> Floats:
        """Pool standard deviations: sqrt(Σ nᵢ(sᵢ² + (mᵢ - m)²) / Σ nᵢ), m the weighted mean of the means mᵢ.

        A missing mean is taken to be m: the deviation itself is still known.
        """
        means = np.where(np.isnan(deviations), np.nan, means)
        offset = means - self.weighted_mean(means, weights)[self.codes]
        squares = deviations**2 + np.where(np.isnan(means), 0.0, offset**2)
        spread: Floats = np.sqrt(self.sum(squares * self._shares(deviations, weights)))
        return spread

    def median(self, values: Floats) -> Floats:
        """Median; of an even number of values the mean of the middle two."""
        ranked = values[np.lexsort((values, self.codes))]
        present = np.add.reduceat((~np.isnan(values)).astype(np.int64), self.starts)
        low = self.starts + np.maximum(present - 1, 0) // 2
        high = self.starts + np.minimum(present // 2, self.sizes.astype(np.int64) - 1)
        middle: Floats = (ranked[low] + ranked[high]) / 2
        return middle

    def _shares(self, values: Floats, weights: Floats) -> Floats:
        """Return each value's share of its group's weight: a missing weight is 1, a missing value has no share."""
        weighed = np.where(np.isnan(values), np.nan, np.where(np.isnan(weights), 1.0, weights))
        with np.errstate(invalid="ignore"):
            shares: Floats = weighed / self.sum(weighed)[self.codes]
        return shares


def _columns(
    sessions: list[tuple[UserSession, NetworkSession | None]], groups: Groups, rounds: Ints
) -> dict[str, Floats]:
    """Return the measured fields of the sessions as columns, every period's system metrics once an agent and group."""
    columns = np.empty((len(NETWORK_FIELDS), len(sessions)))
    for start in range(0, len(sessions), STEP):
        some = [_UNMEASURED if network is None else network.values for _, network in sessions[start : start + STEP]]
        columns[:, start : start + STEP] = np.frombuffer(b"".join(some)).reshape(len(some), -1).T
    ranks: dict[str, int] = {}
    ranked = (ranks.setdefault(user.key.agent, len(ranks)) for user, _ in sessions)
    agents = np.fromiter(ranked, np.int64, len(sessions))
    repeated = _repeated(columns[_START], columns[_END], groups.codes * len(ranks) + agents)
    columns[np.ix_(_SYSTEM, np.flatnonzero(repeated))] = np.nan
    users = [
        np.fromiter((user.values[column] for user, _ in sessions), np.float64, len(sessions))
        for column in range(len(USER_FIELDS))
    ]
    return {
        **dict(zip(NETWORK_FIELDS, columns, strict=True)),
        **dict(zip(USER_FIELDS, users, strict=True)),
        "roundId": rounds.astype(np.float64),
    }


def _repeated(starts: Floats, ends: Floats, owners: Ints) -> npt.NDArray[np.bool_]:
    """Mark the sessions whose period another session of the same owner had before."""
    order = np.lexsort((ends, starts, owners))
    same = np.zeros(len(order), dtype=bool)
    same[1:] = True
    for column in (owners, starts, ends):
        same[1:] &= column[order][1:] == column[order][:-1]
    repeated = np.empty_like(same)
    repeated[order] = same
    return repeated


_Over = Callable[[Groups, dict[str, Floats], str], Floats]


def _sibling(columns: dict[str, Floats], field: str, name: str) -> Floats:
    return columns[f"{field.rpartition('.')[0]}.{name}"]


_OVER: dict[str, _Over] = {
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
