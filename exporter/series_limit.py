"""The limit on the number of series: of sessions, and of all other sources together."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from exporter.metrics.families import SeriesTable
from exporter.render import GroupResult
from exporter.sources.rows import Joined, Key

Fold = Callable[[Sequence[Joined], Collection[Key]], SeriesTable]
"""Aggregates sessions with some keys folded into one for each protocol."""
GroupKey = tuple[str, Key]
"""Account group and key."""


def limit_series(
    results: Sequence[GroupResult], limit: int, published: Iterable[GroupResult], fold: Fold
) -> tuple[Sequence[GroupResult], int, int]:
    """Fold series of sessions above the limit into one series key for each protocol.

    Keys that are already published stay as long as they fit; new keys follow in label order and
    leave space for the folded keys. If published keys leave no space even for these, what would be
    folded into them is dropped.

    Returns:
        The results, the number of their per-session series, and the number of folded series.
    """
    tables = [table for each in results for table in each.sessions.tables]
    total = sum(int(table.samples.sum()) for table in tables)
    if total <= limit:
        return results, total, 0
    counts, known = _count(results, sessions=True), _count(published, sessions=True).keys()
    keys = sorted(counts, key=lambda key: key not in known)  # stable: label order within both
    families = max(len(table.families) for table in tables)
    space = limit - families * len(_protocols(keys))
    live = sum(counts[key] for key in keys if key in known)
    kept, left = _fit(counts, keys, max(space, live) if live <= limit else space)
    dropped = set(_protocols(keys[kept:])[(limit - left) // families :])
    folded: dict[str, set[Key]] = {each.group.aid: set() for each in results}
    for aid, key in keys[kept:]:
        folded[aid].add(key)
    limited = [_fold(each, folded[each.group.aid], dropped, fold) for each in results]
    series = sum(int(table.samples.sum()) for each in limited for table in each.sessions.tables)
    return limited, series, total - left


def limit_agents(results: Sequence[GroupResult], limit: int) -> tuple[Sequence[GroupResult], int]:
    """Drop all series but those of sessions of the agents that exceed the limit, in label order.

    Returns:
        The results and the number of dropped series.
    """
    counts = _count(results, sessions=False)
    agents = sorted(counts)
    kept, left = _fit(counts, agents, limit)
    if kept == len(agents):
        return results, 0
    dropped = set(agents[kept:])
    return [_without(each, dropped) for each in results], counts.total() - left


def _count(results: Iterable[GroupResult], *, sessions: bool) -> Counter[GroupKey]:
    """Return the number of series of each key of sessions, or of each agent in other sources."""
    counts = Counter[GroupKey]()
    for each in results:
        for name, result in each.sources.items():
            for table in result.tables if (name == "sessions") == sessions else ():
                for key, samples in zip(table.keys, table.samples.tolist(), strict=True):
                    counts[each.group.aid, key if sessions else key[:1]] += samples
    return counts


def _fit(counts: Counter[GroupKey], keys: Sequence[GroupKey], space: int) -> tuple[int, int]:
    """Return how many of the first keys fit into the space, and the number of their series."""
    totals = np.cumsum([0, *(counts[key] for key in keys)])
    kept = int(np.searchsorted(totals, max(space, 0), side="right")) - 1
    return kept, int(totals[kept])


def _protocols(keys: Iterable[GroupKey]) -> list[tuple[str, str]]:
    return sorted({(aid, key[-1]) for aid, key in keys})


def _fold(
    group: GroupResult, folded: Collection[Key], dropped: Collection[tuple[str, str]], fold: Fold
) -> GroupResult:
    if not folded:
        return group
    aid, sessions = group.group.aid, group.sessions
    kept = [
        joined
        for joined in sessions.rows
        if joined[0].key not in folded or (aid, joined[0].key[-1]) not in dropped
    ]
    sources = {**group.sources, "sessions": replace(sessions, tables=[fold(kept, folded)])}
    return replace(group, sources=sources)


def _without(group: GroupResult, dropped: Collection[GroupKey]) -> GroupResult:
    sources = dict(group.sources)
    for name, result in group.sources.items():
        if name != "sessions":
            tables = [_rows_without(table, group.group.aid, dropped) for table in result.tables]
            sources[name] = replace(result, tables=tables)
    return replace(group, sources=sources)


def _rows_without(table: SeriesTable, aid: str, dropped: Collection[GroupKey]) -> SeriesTable:
    kept = np.array([(aid, key[:1]) not in dropped for key in table.keys], dtype=bool)
    columns = {name: column[kept] for name, column in table.columns.items()}
    return replace(table, keys=list(compress(table.keys, kept.tolist())), columns=columns)
