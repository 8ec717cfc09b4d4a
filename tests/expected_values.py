"""What is published, calculated in plain Python: of records, and of a simulated company.

Names are without prefix. Times are Unix seconds.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from exporter.metrics.families import Family, Unit
from exporter.simulator import World, v6, v7
from exporter.sources.aggregate import PERIOD_FIELDS
from exporter.sources.local_networks import AGENTS, TARGETS, TYPES, TopologyRecord
from exporter.sources.sessions import SERIES, NetworkRecord, UserRecord

Values = dict[tuple[str, ...], float]
"""By name of the family and values of the labels."""
SESSION = {**UserRecord.numbers, **NetworkRecord.numbers}


class Record(NamedTuple):
    """A record of a round; values by API field in base units."""

    key: tuple[str, ...]
    agent: str
    round: int
    values: Mapping[str, float]


def aggregated(records: Iterable[Record], families: Sequence[Family]) -> Values:
    """Aggregate the newest round of each key, value by value."""
    by_key = defaultdict(list)
    for record in records:
        by_key[record.key].append(record)
    found: Values = {}
    for key, group in sorted(by_key.items()):
        newest = max(record.round for record in group)
        rows, periods = [], dict[Any, dict[str, float]]()
        for record in group:
            if record.round == newest:
                row = dict(record.values)
                system = {field: v for field, v in row.items() if field.startswith("system")}
                period = (record.agent, *(row.get(field) for field in PERIOD_FIELDS))
                if period in periods:  # counts once
                    periods[period] |= system | periods[period]
                    row = {field: value for field, value in row.items() if field not in system}
                elif None not in period:
                    periods[period] = row
                rows.append(row)
        for family in families:
            value = _aggregated(family, rows, newest)
            if value is not None:
                found[family.short_name, *key] = value
    return found


def _aggregated(family: Family, rows: list[dict[str, float]], newest: int) -> float | None:
    if family.aggregation in ("count", "round"):
        return len(rows) if family.aggregation == "count" else newest
    known = [row for row in rows if family.field in row]
    values = [row[family.field] for row in known]
    parent = family.field.rpartition(".")[0]
    weights = [row.get(f"{parent}.count", 1) for row in known]
    if not values:
        return None
    match family.aggregation:
        case "weighted_mean":
            return weighted_mean(values, weights)
        case "pooled":
            means = [row.get(f"{parent}.mean", math.nan) for row in known]
            center = weighted_mean(means, weights)
            offsets = [0 if math.isnan(m) or center is None else m - center for m in means]
            squares = [s**2 + offset**2 for s, offset in zip(values, offsets, strict=True)]
            variance = weighted_mean(squares, weights)
            return None if variance is None else math.sqrt(variance)
    functions = {"mean": statistics.fmean, "median": statistics.median, "sum": math.fsum}
    return {**functions, "min": min, "max": max}[family.aggregation](values)


def weighted_mean(values: Iterable[float], weights: Iterable[float]) -> float | None:
    """Return the mean of the values that are not NaN; `None` without any weight."""
    known = [(v, weight) for v, weight in zip(values, weights, strict=True) if not math.isnan(v)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def of_sessions(
    world: World, version: str, first: float, end: float, now: float, aid: int = 1001
) -> Values:
    """Return values by name, account group, agent, site and protocol; `first` is a round."""
    api, records = {"v6": v6, "v7": v7}[version], []
    for each in world.sessions(aid, first, end, now):
        if each.listed and each.round_id >= first:
            sent = api.user_session(each) | (api.network_session(each) if each.measured else {})
            key = str(aid), each.agent.id, each.site.host, each.site.protocol
            records.append(Record(key, each.agent.id, each.round_id, _values(sent, SESSION)))
    return aggregated(records, SERIES.families)


def of_local_networks(world: World, now: float, lookback: float = 900) -> Values:
    """Return values by name, agent, and type of target, which is empty for those of the agent."""
    targets, agents = [], []
    for probe in world.probes(1001, now - lookback, now, now):
        if probe.round_id >= now - lookback:
            values = _values(v7.local_network(probe), TopologyRecord.numbers)
            agent, round_ = probe.agent.id, probe.round_id
            agents.append(Record((agent, ""), agent, round_, values))
            if f"{probe.type}Score.score" in values:
                values[TARGETS.families[-1].field] = values[f"{probe.type}Score.score"]
            if values["isIcmpBlocked"]:
                del values["icmpPing.loss"]
            if probe.type in TYPES:
                targets.append(Record((agent, probe.type), agent, round_, values))
    return aggregated(targets, TARGETS.families) | aggregated(agents, AGENTS.families)


def _values(sent: Any, units: Mapping[str, Unit]) -> dict[str, float]:
    values = {}
    for path, unit in units.items():
        value = sent
        for name in path.split("."):
            value = (value or {}).get(name)
        if value is not None:
            values[path] = value / unit.divisor
    return values
