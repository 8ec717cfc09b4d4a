"""The limit on the number of series: of sessions, and of all other sources together."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from exporter.metrics.families import SeriesTable
from exporter.render import GroupResult
from exporter.sources.rows import Joined, Key

Fold = Callable[[Sequence[Joined], Collection[Key]], SeriesTable]
"""Aggregates sessions with some keys folded into one for each protocol."""


def limit_series(
    results: Sequence[GroupResult], limit: int, published: Iterable[GroupResult], fold: Fold
) -> tuple[Sequence[GroupResult], int, int]:
    """Fold series above the limit into one series key for each protocol.

    Keys that are already published stay as long as they fit; new keys follow in label order and
    leave space for the folded keys. If published keys leave no space even for these, what would be
    folded into them is dropped.

    Returns:
        The results, the number of their per-session series, and the number of folded series.
    """
    tables = [(each.group.aid, table) for each in results for table in each.sessions.tables]
    total = sum(int(table.samples.sum()) for _, table in tables)
    if total <= limit:
        return results, total, 0
    families = max(len(table.families) for _, table in tables)
    known = {
        (each.group.aid, key)
        for each in published
        for table in each.sessions.tables
        for key in table.keys
    }
    candidates = [
        (aid, key, samples)
        for aid, table in tables
        for key, samples in zip(table.keys, table.samples.tolist(), strict=True)
    ]
    candidates.sort(
        key=lambda candidate: candidate[:2] not in known
    )  # stable: label order within both halves
    live = sum(candidate[:2] in known for candidate in candidates)
    totals = np.cumsum([0, *(samples for _, _, samples in candidates)])
    space = limit - families * len({(aid, key[-1]) for aid, key, _ in candidates})
    if totals[live] <= limit:
        space = max(space, int(totals[live]))
    kept = int(np.searchsorted(totals[1:], space, side="right"))
    folded_keys = sorted({(aid, key[-1]) for aid, key, _ in candidates[kept:]})
    dropped_keys = set(folded_keys[(limit - int(totals[kept])) // families :])
    folded: dict[str, set[Key]] = {}
    for aid, key, _ in candidates[kept:]:
        folded.setdefault(aid, set()).add(key)
    limited = [
        _fold(each, folded[each.group.aid], dropped_keys, fold)
        if each.group.aid in folded
        else each
        for each in results
    ]
    left = sum(int(t.samples.sum()) for each in limited for t in each.sessions.tables)
    return limited, left, int(totals[-1] - totals[kept])


def _fold(
    result: GroupResult, folded: Collection[Key], dropped: Collection[tuple[str, str]], fold: Fold
) -> GroupResult:
    aid, sessions = result.group.aid, result.sessions
    kept = [
        joined
        for joined in sessions.rows
        if joined[0].key not in folded or (aid, joined[0].key[-1]) not in dropped
    ]
    sources = {**result.sources, "sessions": replace(sessions, tables=[fold(kept, folded)])}
    return replace(result, sources=sources)


def limit_agents(results: Sequence[GroupResult], limit: int) -> tuple[Sequence[GroupResult], int]:
    """Drop all series but those of sessions of the agents that exceed the limit, in label order.

    Returns:
        The results and the number of dropped series.
    """
    counts = Counter[tuple[str, str]]()
    for each in results:
        for table in _other_tables(each):
            for (agent, *_), samples in zip(table.keys, table.samples.tolist(), strict=True):
                counts[each.group.aid, agent] += samples
    total = counts.total()
    if total <= limit:
        return results, 0
    agents = sorted(counts)
    totals = np.cumsum([counts[agent] for agent in agents])
    kept = int(np.searchsorted(totals, limit, side="right"))
    dropped = set(agents[kept:])
    limited = [
        replace(
            each,
            sources={
                name: result
                if name == "sessions"
                else replace(
                    result, tables=[_without(t, each.group.aid, dropped) for t in result.tables]
                )
                for name, result in each.sources.items()
            },
        )
        for each in results
    ]
    return limited, total - (int(totals[kept - 1]) if kept else 0)


def _other_tables(result: GroupResult) -> Iterator[SeriesTable]:
    for name, each in result.sources.items():
        if name != "sessions":
            yield from each.tables


def _without(table: SeriesTable, aid: str, dropped: Collection[tuple[str, str]]) -> SeriesTable:
    kept = np.array([(aid, key[0]) not in dropped for key in table.keys], dtype=bool)
    columns = {name: column[kept] for name, column in table.columns.items()}
    return replace(table, keys=list(compress(table.keys, kept.tolist())), columns=columns)
