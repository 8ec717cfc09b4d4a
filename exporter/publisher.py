"""All account groups together: the cap on series, and the snapshot that is served.

How a snapshot is written stands in `exporter.exposition`, how it is sent in `exporter.web`.
"""

import asyncio
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporter.aggregate import Rows, aggregate
from exporter.api import Threaded
from exporter.exposition import NOTHING, Group, Snapshot, render
from exporter.metrics import OTHER, Family
from exporter.model import Agent, Key
from exporter.poller import Result

_LIBRARY = ctypes.CDLL(None)
STEP = 512
"""Sessions that are freed at once: nothing else runs meanwhile."""
PublishedRows = tuple[tuple[str, Rows], ...]
Published = frozenset[tuple[str, Key]]
"""Account group and key of everything that has series of its own."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One snapshot, and what the cap made of it."""

    snapshot: Snapshot = NOTHING
    rows: PublishedRows = ()
    """Account groups, and what of them has series."""
    dropped: int = 0
    """Series that were folded."""
    complete: frozenset[str] = frozenset()
    """Account groups that had a complete poll, which the snapshot holds."""

    @property
    def keys(self) -> Published:
        """Everything that has series of its own; costly, and only asked for when there is too much."""
        return frozenset((aid, key) for aid, rows in self.rows for key in rows.keys if key.agent != OTHER)


@dataclass(frozen=True, slots=True)
class Publishing:
    """What is published of all that is known."""

    families: Sequence[Family]
    max_series: int
    names: Callable[[Agent], Agent]
    """Shows or hides the names of agents."""


class Publisher:
    """Builds the snapshot whenever a result is new: one at a time, and several results in one where they come fast."""

    def __init__(
        self,
        publishing: Publishing,
        *,
        swapped: Callable[[Publication], None],
        threaded: Threaded = asyncio.to_thread,
    ) -> None:
        """Make a publisher that serves nothing yet."""
        self.publication = Publication()
        self._publishing = publishing
        self._swapped = swapped
        self._threaded = threaded
        self._results: dict[str, Result] = {}
        self._retired: list[Result | PublishedRows] = []
        """What is no longer published."""
        self._changed = asyncio.Event()

    def publish(self, result: Result) -> None:
        """Take in what is new of one account group."""
        if result.aid in self._results:
            self._retired.append(self._results[result.aid])
        self._results[result.aid] = result
        self._changed.set()

    def adopt(self, publishing: Publishing) -> None:
        """Publish in another way from now on."""
        self._publishing = publishing
        self._changed.set()

    def forget(self, aid: str) -> None:
        """Leave out an account group that is no longer polled."""
        if self._results.pop(aid, None):
            self._changed.set()

    async def run(self) -> None:
        """Build a snapshot after every change, for ever."""
        while True:
            await self._changed.wait()
            await self.build()

    async def build(self) -> None:
        """Build the snapshot of all that is known now, and swap it in."""
        self._changed.clear()
        results = [self._results[aid] for aid in sorted(self._results)]
        retired, self._retired = self._retired, []
        before = self.publication
        self.publication = await self._threaded(self._build, results, before, retired)
        self._retired.append(before.rows)
        self._swapped(self.publication)

    def _build(self, results: list[Result], before: Publication, retired: list[Result | PublishedRows]) -> Publication:
        publishing = self._publishing
        _free(retired)
        results, dropped = cap(results, publishing.max_series, before, publishing.families)
        groups = [
            # Who wants no series by agent, wants no agents.
            Group(
                each.aid,
                each.rows,
                each.sites,
                [publishing.names(agent) for agent in each.agents if publishing.families],
            )
            for each in results
        ]
        complete = frozenset(each.aid for each in results if each.complete)
        rows = tuple((each.aid, each.rows) for each in results)
        snapshot = render(groups, publishing.families)
        give_back()
        return Publication(snapshot, rows, dropped, complete)


def give_back() -> None:
    """Give the system what is free: the C library keeps it otherwise, and one large poll would cost memory for ever."""
    if trim := getattr(_LIBRARY, "malloc_trim", None):  # glibc has it, others need none
        trim(0)


def _free(retired: list[Result | PublishedRows]) -> None:
    """Free what nobody needs: a hundred thousand sessions take their time, so not on the event loop, nor at once."""
    while retired:
        each = retired.pop()
        lists: list[list[Any]] = [rows.keys for _, rows in each] if isinstance(each, tuple) else [each.pairs]
        left = [item for some in lists for item in some]
        del each, lists
        while left:
            del left[-STEP:]


def cap(results: list[Result], limit: int, before: Publication, families: Sequence[Family]) -> tuple[list[Result], int]:
    """Fold what is above the limit into one key a protocol; return the results and the number of folded series.

    Keys that were published `before` stay as long as there is room for them; new ones come in the order of their
    labels, and leave room for the keys that are folded into. Where live keys leave no room even for those, what would
    be folded into them is left out.
    """
    if sum(int(each.rows.samples.sum()) for each in results) <= limit:
        return results, 0
    published = before.keys
    live: list[tuple[str, Key, int]] = []
    new: list[tuple[str, Key, int]] = []
    for each in results:
        for key, samples in zip(each.rows.keys, each.rows.samples.tolist(), strict=True):
            (live if (each.aid, key) in published else new).append((each.aid, key, samples))
    candidates = live + new
    sizes = np.cumsum([0, *(samples for _, _, samples in candidates)])
    room = limit - len(families) * len({(aid, key.protocol) for aid, key, _ in candidates})
    if sizes[len(live)] <= limit:
        room = max(room, int(sizes[len(live)]))
    kept = int(np.searchsorted(sizes[1:], room, side="right"))
    others = sorted({(aid, key.protocol) for aid, key, _ in candidates[kept:]})
    homeless = set(others[(limit - int(sizes[kept])) // len(families) :])
    folded: dict[str, set[Key]] = {}
    for aid, key, _ in candidates[kept:]:
        folded.setdefault(aid, set()).add(key)

    def rebuilt(result: Result) -> Result:
        keys, pairs = folded[result.aid], result.pairs
        if homeless:
            pairs = [
                pair for pair in pairs if pair[0].key not in keys or (result.aid, pair[0].key.protocol) not in homeless
            ]
        return replace(result, rows=aggregate(pairs, families, keys))

    capped = [rebuilt(each) if each.aid in folded else each for each in results]
    return capped, int(sizes[-1] - sizes[kept])
