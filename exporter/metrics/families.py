"""Metric families: units, aggregations, HELP texts, and tables of series.

Each source has a table of families, one line for each; decoding, aggregation, exposition,
documentation and the checks of dashboards and rules are derived from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

PREFIX = "thousandeyes_endpoint_"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of the API, its conversion to a base unit, and its valid range."""

    api: str
    """Name of the API's unit; empty if it is the base unit."""
    base: str
    divisor: float
    """API value / divisor = value in the base unit."""
    low: float
    high: float
    """Inclusive bounds of the API value; a record with a value outside is rejected."""


MILLISECONDS = Unit("milliseconds", "seconds", 1000.0, 0.0, 1e6)
PERCENT = Unit("percent", "ratio", 100.0, 0.0, 100.0)
RATIO = Unit("", "ratio", 1.0, 0.0, 1.0)
BYTES = Unit("", "bytes", 1.0, 0.0, 2.0**60)
COUNT = Unit("", "", 1.0, 0.0, 2.0**53)
BOOLEAN = Unit("", "0 or 1", 1.0, 0.0, 1.0)
SCORE = Unit("0 to 100", "ratio", 100.0, 0.0, 100.0)
DECIBEL_MILLIWATTS = Unit("", "dBm", 1.0, -300.0, 100.0)
MEGABITS_PER_SECOND = Unit("Mbit/s", "bytes per second", 8e-6, 0.0, 1e9)
EPOCH_MILLISECONDS = Unit("milliseconds since 1970", "seconds", 1000.0, 0.0, 2.0**53)

Aggregation = Literal[
    "mean", "max", "min", "sum", "median", "weighted_mean", "pooled", "count", "round", "last"
]
DESCRIPTIONS: dict[Aggregation, str] = {
    "mean": "mean",
    "max": "maximum",
    "min": "minimum",
    "sum": "sum",
    "median": "median of the medians",
    "weighted_mean": "mean weighted by count",
    "pooled": "pooled",
    "count": "",
    "round": "",
    "last": "",
}
"""How the records of the newest round of a series become one value; `last` has no rounds."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family: a gauge, or a histogram with buckets."""

    short_name: str
    """Name without the common prefix, as in the setting `metrics.families`."""
    description: str
    field: str
    """Path of the API field in a record."""
    unit: Unit
    aggregation: Aggregation
    note: str = ""
    detail: bool = False
    """Whether `metrics.families: standard` omits it."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram in the base unit, ascending, without infinity."""

    @property
    def name(self) -> str:
        """Full metric name."""
        return PREFIX + self.short_name

    @property
    def help(self) -> str:
        """HELP text: description, API field, conversion, aggregation."""
        unit = self.unit
        conversion = f", {unit.api} to {unit.base}" if unit.api else ""
        source = f" (API field {self.field}{conversion})" if self.field else ""
        aggregation = DESCRIPTIONS[self.aggregation]
        over = f": {aggregation} over the newest round" if aggregation else ""
        if self.buckets:
            over = ": each complete session is observed once"
        return f"{self.description}{source}{over}.{' ' + self.note if self.note else ''}"


@dataclass(frozen=True, slots=True)
class Table:
    """Families with the same labels."""

    labels: tuple[str, ...]
    """Names of the labels besides `aid`."""
    families: tuple[Family, ...]

    def select(self, selection: Sequence[str]) -> "Table":
        """Return the table with the selected families.

        Args:
            selection: Short names, `all`, `standard` (without detail), `none`, or a list of these.
        """
        everything, standard = "all" in selection, "standard" in selection
        families = (
            family
            for family in self.families
            if everything or (standard and not family.detail) or family.short_name in selection
        )
        return Table(self.labels, tuple(families))

    def ones(self, keys: Sequence[tuple[str, ...]]) -> "SeriesTable":
        """Return series of which each has the value 1 in all families."""
        return self.series(keys, np.ones((len(keys), len(self.families))))

    def series(
        self, keys: Sequence[tuple[str, ...]], rows: Sequence[Sequence[float]] | Floats
    ) -> "SeriesTable":
        """Return series with a row of values for each key, in the order of the families."""
        columns = np.reshape(rows, (len(keys), len(self.families))).astype(np.float64).T
        names = [family.short_name for family in self.families]
        return SeriesTable(self.labels, self.families, keys, dict(zip(names, columns, strict=True)))


@dataclass(frozen=True, slots=True)
class SeriesTable:
    """Series of one account group: one row for each key, one column for each family."""

    labels: tuple[str, ...]
    families: tuple[Family, ...]
    keys: Sequence[tuple[str, ...]]
    """Values of the labels; sorted and unique."""
    columns: dict[str, Floats]
    """Short name of the family to one value for each key, in base units; NaN: no sample."""

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Number of samples of each key."""
        total = np.zeros(len(self.keys), dtype=np.int64)
        for column in self.columns.values():
            total += ~np.isnan(column)
        return total
