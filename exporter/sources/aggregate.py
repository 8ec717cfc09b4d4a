"""Aggregate rows: the newest round of every key, as one value for each family.

Columns are numpy arrays with one element for each row, sorted by key; `reduceat` over the runs of
equal keys aggregates a whole column at once.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from itertools import compress

import numpy as np
import numpy.typing as npt

from exporter.labels import OTHER
from exporter.metrics.families import Aggregation, SeriesTable, Table
from exporter.sources.rows import Floats, Joined, Key, matrix

Ints = npt.NDArray[np.int64]
Fields = Sequence[Sequence[str]]
"""Numeric fields of each listing, in the order of `Row.values`."""
Columns = dict[str, Floats]
"""Field to values, one for each row, in base units."""
Derive = Callable[[Sequence[Key], Columns], None]
"""Changes the columns of rows with these keys."""

PERIOD_FIELDS = ("systemMetrics.startTimeMs", "systemMetrics.endTimeMs")
"""Sampling period of the system metrics. Several rows of an agent repeat it, and it counts once."""


def aggregate(
    rows: Sequence[Joined],
    table: Table,
    fields: Fields,
    derive: Derive = lambda keys, columns: None,
    folded: Collection[Key] = frozenset(),
) -> SeriesTable:
    """Aggregate the rows within the look-back window.

    Args:
        rows: Rows with their partners, in any order, which does not change the result. The key of
            a row begins with the values of the labels of the table; rows with a shorter key do not
            count.
        table: Labels and families of the result.
        fields: Numeric fields of each listing.
        derive: Changes the columns of the newest rounds before they are aggregated.
        folded: Keys that become one key for each last label, with all other labels `__other__`.
    """
    size = len(table.labels)
    rows = [joined for joined in rows if len(joined[0].key) >= size]
    if not rows:
        return SeriesTable(table.labels, table.families, [], {})
    keys = [first.key[:size] for first, _ in rows]
    if folded:
        keys = [(*(size - 1) * [OTHER], key[-1]) if key in folded else key for key in keys]
    codes, unique_keys = _encode(keys)
    rounds = np.array([first.round for first, _ in rows])
    newest = np.zeros(len(unique_keys), np.int64)
    np.maximum.at(newest, codes, rounds)
    selected = rounds == newest[codes]
    rows, codes = list(compress(rows, selected.tolist())), codes[selected]
    owners = _encode([first.key[:1] for first, _ in rows])[0] if folded else codes
    order = _order(rows, codes)
    groups = Groups(codes[order])
    columns = {name: column[order] for name, column in to_columns(rows, fields).items()}
    columns["roundId"] = rounds[selected][order].astype(np.float64)
    _count_periods_once(columns, groups.codes, owners[order])
    derive([rows[index][0].key for index in order.tolist()], columns)
    values = {
        each.short_name: _AGGREGATE[each.aggregation](groups, columns, each.field)
        for each in table.families
    }
    return SeriesTable(table.labels, table.families, unique_keys, values)


def to_columns(rows: Sequence[Joined], fields: Fields) -> Columns:
    """Return the numeric fields of rows and their partners; NaN for what was not sent."""
    columns: Columns = {}
    for position, names in enumerate(fields):
        listing = [joined[position] for joined in rows]
        columns |= zip(names, matrix(listing, len(names)), strict=True)
    return columns


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
    sites = {site: code for code, site in enumerate(sorted({site for _, site, _ in keys}))}
    codes = np.array([sites[site] for _, site, _ in keys], dtype=np.int64)
    agents = Counter(site for _, site in {key[:2] for key in keys})
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


def _encode(keys: Sequence[Key]) -> tuple[Ints, list[Key]]:
    """Return the position of every key among the sorted unique keys, and these."""
    combined = np.zeros(len(keys), dtype=np.int64)
    for position in range(len(keys[0])):
        part = [key[position] for key in keys]  # zip(*keys) is one long step for other threads
        ranks = {value: rank for rank, value in enumerate(sorted(set(part)))}
        combined *= len(ranks)
        combined += np.array([ranks[value] for value in part])
    _, first, codes = np.unique(combined, return_index=True, return_inverse=True)
    return codes.astype(np.int64, copy=False), [keys[index] for index in first.tolist()]


def _order(rows: Sequence[Joined], codes: Ints) -> Ints:
    """Return the positions of rows sorted by code and id.

    The order makes floating-point sums independent of the order of arrival.
    """
    order = np.argsort(codes, kind="stable")
    repeated = np.flatnonzero(np.bincount(codes)[codes[order]] > 1)
    positions = order[repeated].tolist()
    keys = zip(codes[positions].tolist(), (rows[each][0].id for each in positions), strict=True)
    order[repeated] = [position for _, position in sorted(zip(keys, positions, strict=True))]
    return order


def _run_starts(codes: Ints) -> Ints:
    """Return the start of each run of equal codes."""
    return np.flatnonzero(np.diff(codes, prepend=-1))


class Groups:
    """Runs of rows with the same key.

    Each method returns one value for each run and ignores NaN.
    """

    def __init__(self, codes: Ints) -> None:
        self.codes = codes
        self.starts = _run_starts(codes)

    @cached_property
    def sizes(self) -> Floats:
        """Number of rows."""
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


def _count_periods_once(columns: Columns, codes: Ints, owners: Ints) -> None:
    """Keep the system metrics of each period of an agent in its first row, and remove the others.

    Each field comes from the first row of the period that has it. Folded keys combine several
    agents (`owners`), whose periods are independent.
    """
    if PERIOD_FIELDS[0] not in columns:
        return
    start, end = (columns[field] for field in PERIOD_FIELDS)
    order = np.lexsort((end, start, owners, codes))
    same = np.zeros(len(order), dtype=bool)
    same[1:] = True
    for column in (codes, owners, start, end):
        same[1:] &= column[order][1:] == column[order][:-1]
    if not same.any():
        return
    periods = np.cumsum(~same) - 1
    first = order[~same]
    for field, column in columns.items():
        if field.startswith("systemMetrics.") and field not in PERIOD_FIELDS:
            present = np.flatnonzero(~np.isnan(column[order]))
            filled, index = np.unique(periods[present], return_index=True)
            values = column[order[present[index]]]
            column[:] = np.nan
            column[first[filled]] = values


def _sibling(columns: Columns, field: str, name: str) -> Floats:
    return columns[f"{field.rpartition('.')[0]}.{name}"]


_AGGREGATE: dict[Aggregation, Callable[[Groups, Columns, str], Floats]] = {
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
