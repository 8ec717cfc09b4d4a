"""The limit on the number of per-session series."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from exporter.metrics.families import Family
from exporter.render import GroupResult
from exporter.sessions.aggregate import aggregate
from exporter.sessions.model import SeriesKey


def limit_series(
    results: Sequence[GroupResult],
    limit: int,
    published: Iterable[GroupResult],
    families: Sequence[Family],
) -> tuple[Sequence[GroupResult], int]:
    """Fold series above the limit into one series key for each protocol.

    Keys that are already published stay as long as they fit; new keys follow in label order and
    leave space for the folded keys. If published keys leave no space even for these, what would be
    folded into them is dropped.

    Returns:
        The results, and the number of folded series.
    """
    if sum(int(each.sessions.series.samples.sum()) for each in results) <= limit:
        return results, 0
    known = {(each.group.aid, key) for each in published for key in each.sessions.series.keys}
    candidates = [
        (each.group.aid, key, samples)
        for each in results
        for key, samples in zip(
            each.sessions.series.keys, each.sessions.series.samples.tolist(), strict=True
        )
    ]
    candidates.sort(
        key=lambda candidate: candidate[:2] not in known
    )  # stable: label order within both halves
    live = sum(candidate[:2] in known for candidate in candidates)
    totals = np.cumsum([0, *(samples for _, _, samples in candidates)])
    space = limit - len(families) * len({(aid, key.protocol) for aid, key, _ in candidates})
    if totals[live] <= limit:
        space = max(space, int(totals[live]))
    kept = int(np.searchsorted(totals[1:], space, side="right"))
    folded_keys = sorted({(aid, key.protocol) for aid, key, _ in candidates[kept:]})
    dropped_keys = set(folded_keys[(limit - int(totals[kept])) // len(families) :])
    folded: dict[str, set[SeriesKey]] = {}
    for aid, key, _ in candidates[kept:]:
        folded.setdefault(aid, set()).add(key)
    limited = [
        _fold(each, folded[each.group.aid], dropped_keys, families)
        if each.group.aid in folded
        else each
        for each in results
    ]
    return limited, int(totals[-1] - totals[kept])


def _fold(
    result: GroupResult,
    folded: Collection[SeriesKey],
    dropped: Collection[tuple[str, str]],
    families: Sequence[Family],
) -> GroupResult:
    aid, sessions = result.group.aid, result.sessions
    kept = [
        each
        for each in sessions.sessions
        if each[0].key not in folded or (aid, each[0].key.protocol) not in dropped
    ]
    return replace(result, sessions=replace(sessions, series=aggregate(kept, families, folded)))
