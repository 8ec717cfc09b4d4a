"""Rows: the records of measurement rounds in base units, the same for every API version."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from exporter.errors import RejectionReason

Key = tuple[str, ...]
"""Values of the labels of a series, within an account group."""
Floats = npt.NDArray[np.float64]


class Row(msgspec.Struct, frozen=True, gc=False):
    """One record of a listing."""

    id: str
    """Identifies what was measured; two listings are joined on it."""
    key: Key
    """Values of the labels; empty in a listing that is joined to another one."""
    round: int
    """Start of the measurement round, Unix seconds."""
    values: bytes
    """Numeric fields of the listing in base units, as packed native doubles; NaN for what the API
    did not send. Packed, 100,000 network sessions take 27 MB, and one join makes them a matrix."""
    commit_delay: float = math.nan
    """Seconds from the measurement to its commit; NaN if one of the two times is unknown."""


Joined = tuple[Row, Row | None]
"""A row of the first listing, and the row of the second one with the same id, if there is one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows that one poll read."""

    listings: Sequence[list[Row]]
    """One list for each listing of the source."""
    rejected: Counter[RejectionReason]


class RowStore:
    """The rows of one source within the look-back window, by id; nothing derived is stored.

    A row that is read again and has changed replaces the stored one.
    """

    def __init__(self) -> None:
        self.first: dict[str, Row] = {}
        self.second: dict[str, Row] = {}
        """The rows that are joined to the first ones; empty if the source has one listing."""

    def upsert(self, listings: Sequence[Iterable[Row]]) -> None:
        """Insert or replace the rows of a complete poll."""
        for stored, rows in zip((self.first, self.second), listings, strict=False):
            for row in rows:
                # If all rows were replaced, freeing the old ones would delay the event loop.
                if stored.get(row.id) != row:
                    stored[row.id] = row

    def expire(self, before: float) -> bool:
        """Remove the rows whose round started before a Unix time; return whether there were any."""
        expired = False
        for rows in (self.first, self.second):
            old = [id_ for id_, row in rows.items() if row.round < before]
            for id_ in old:
                del rows[id_]
            expired |= bool(old)
        return expired

    def join(self) -> list[Joined]:
        """Return all rows of the first listing with their partners, in the order of arrival."""
        second = self.second
        return [(row, second.get(id_)) for id_, row in self.first.items()]

    def newest_round(self) -> int | None:
        """Return the start of the newest round of the first listing, Unix seconds, or `None`."""
        return max((row.round for row in self.first.values()), default=None)


class SeenIds:
    """Ids of the rows that were seen, so that none is new twice, whatever the API's clock does.

    Ids are kept for some time before the newest round, and no older row is new. A row does not
    change its round.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._rounds: dict[int, set[str]] = {}
        self._oldest = -math.inf

    def add(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that are new, each id once, and remember them."""
        new = []
        for row in rows:
            if row.round >= self._oldest:
                ids = self._rounds.setdefault(row.round, set())
                if row.id not in ids:
                    ids.add(row.id)
                    new.append(row)
        newest = max(self._rounds, default=-math.inf)
        self._oldest = max(self._oldest, newest - self._seconds)
        for expired in [round_ for round_ in self._rounds if round_ < self._oldest]:
            del self._rounds[expired]
        return new


def matrix(rows: Sequence[Row | None], width: int) -> Floats:
    """Return the values of rows: one column for each row; NaN where there is none."""
    missing = np.full(width, np.nan).tobytes()
    packed = b"".join([missing if row is None else row.values for row in rows])
    values: Floats = np.frombuffer(packed).reshape(len(rows), width).T.copy()
    return values
