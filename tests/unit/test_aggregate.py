"""Aggregation, compared with a slow and plain implementation of the same rules."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from factories import (
    CPU,
    NETWORK_FIELDS,
    ROUND,
    USER_FIELDS,
    join,
    listings,
    random_values,
    randoms,
    session,
    user,
    values_by_key,
    values_of,
)
from hypothesis import given
from hypothesis import settings as hypothesis

from exporter.labels import OTHER
from exporter.metrics.families import COUNT, Family, Table
from exporter.sources.aggregate import PERIOD_FIELDS, aggregate, site_means
from exporter.sources.rows import Joined, Key, Row
from exporter.sources.sessions import FIELDS, SERIES

Samples = dict[Key, dict[str, float]]


def sessions_table(sessions: Iterable[Joined], selection: Sequence[str] = ("all",), **options):
    """Aggregate sessions."""
    return aggregate(list(sessions), SERIES.select(selection), FIELDS, **options)


def plain_aggregate(sessions: Iterable[Joined], folded: frozenset[Key] = frozenset()) -> Samples:
    """Aggregate key by key and value by value."""
    by_key = defaultdict(list)
    for each in sessions:
        key = each[0].key
        by_key[(OTHER, OTHER, key[2]) if key in folded else key].append(each)
    result = {}
    for key, group in sorted(by_key.items()):
        newest = max(user.round for user, _ in group)
        records, periods = [], {}
        for each in group:
            if each[0].round == newest:
                record = values_of(each)
                system = {field: v for field, v in record.items() if field.startswith("system")}
                period = (each[0].key[0], *(record.get(field) for field in PERIOD_FIELDS))
                if period in periods:
                    periods[period] |= system | periods[period]
                    record = {f: v for f, v in record.items() if f not in system}
                elif None not in period:
                    periods[period] = record
                records.append(record)
        values = {f.short_name: plain_value(f, records, newest) for f in SERIES.families}
        result[key] = {name: value for name, value in values.items() if value is not None}
    return result


def plain_value(family: Family, records: list[dict[str, float]], newest: int) -> float | None:
    if family.aggregation in ("count", "round"):
        return len(records) if family.aggregation == "count" else newest
    known = [record for record in records if family.field in record]
    values = [record[family.field] for record in known]
    parent = family.field.rpartition(".")[0]
    weights = [record.get(f"{parent}.count", 1) for record in known]
    if not values:
        return None
    match family.aggregation:
        case "weighted_mean":
            return weighted_mean(values, weights)
        case "pooled":
            means = [record.get(f"{parent}.mean", math.nan) for record in known]
            center = weighted_mean(means, weights)
            offsets = [0 if math.isnan(m) or center is None else m - center for m in means]
            squares = [s**2 + offset**2 for s, offset in zip(values, offsets, strict=True)]
            variance = weighted_mean(squares, weights)
            return None if variance is None else math.sqrt(variance)
        case "mean" | "median":
            return getattr(statistics, family.aggregation)(values)
    return {"sum": math.fsum, "min": min, "max": max}[family.aggregation](values)


def weighted_mean(values: Iterable[float], weights: Iterable[float]) -> float | None:
    known = [(v, weight) for v, weight in zip(values, weights, strict=True) if not math.isnan(v)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


every_key = [(a, s, p) for a in "ab" for s in "xy" for p in ("http", "https")]


@hypothesis(max_examples=200)
@given(randoms)
def test_agrees_with_the_plain_implementation(rng):
    sessions = join(*listings(rng))
    folded = frozenset(rng.sample(every_key, rng.randrange(len(every_key))))
    actual = values_by_key(sessions_table(sessions, folded=folded))
    expected = plain_aggregate(sessions, folded)
    assert list(actual) == list(expected)
    for key, values in expected.items():
        assert actual[key] == pytest.approx(values, rel=1e-9, abs=1e-9)


@given(randoms)
def test_neither_order_nor_repetition_changes_a_bit(rng):
    both = listings(rng)
    first = sessions_table(join(*both))
    again = sessions_table(join(*(rng.sample(each * 2, 2 * len(each)) for each in both)))
    assert again.keys == first.keys
    columns = zip(first.columns.values(), again.columns.values(), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in columns)


@given(randoms)
def test_a_single_session_gives_exactly_its_values(rng):
    fields = (*USER_FIELDS, *NETWORK_FIELDS)
    values = random_values(rng, fields, lambda: 10 ** rng.uniform(-100, 100))
    families = SERIES.families
    expected = {each.short_name: values[each.field] for each in families if each.field in values}
    expected |= {"sessions": 1.0, "round_timestamp_seconds": float(ROUND)}
    for family in families:
        no_samples = values.get(family.field.rpartition(".")[0] + ".count") == 0
        if family.aggregation in ("weighted_mean", "pooled") and no_samples:
            expected.pop(family.short_name, None)
    assert values_by_key(sessions_table([session(values=values)])) == {user().key: expected}


def test_a_period_counts_once_with_each_field_from_the_first_row_that_has_it():
    period = dict.fromkeys(PERIOD_FIELDS, 1.0)
    cpu = {f"{CPU}.mean": 0.25, f"{CPU}.count": 10.0}
    later = {f"{CPU}.mean": 0.5, f"{CPU}.max": 0.75, f"{CPU}.count": 10.0}
    rows = [session(id_, values=period | v) for id_, v in (("1", {}), ("2", cpu), ("3", later))]
    (values,) = values_by_key(sessions_table(rows)).values()
    expected = {"utilization_ratio": 0.25, "utilization_max_ratio": 0.75, "samples": 10.0}
    expected = {f"cpu_{name}": value for name, value in expected.items()} | {"sessions": 3.0}
    assert values == expected | {"round_timestamp_seconds": ROUND}


def test_the_same_period_of_folded_agents_counts_for_each():
    values = dict.fromkeys(PERIOD_FIELDS, 1.0) | {f"{CPU}.count": 10.0}
    sessions = [session(id_, agent, values=values) for id_, agent in ("1a", "2b", "3b")]
    table = sessions_table(sessions, folded={user.key for user, _ in sessions})
    assert (len(table.keys), table.columns["cpu_samples"].tolist()) == (1, [20.0])


def test_only_the_selected_families_are_computed_and_counted():
    values = {"destination.latency": 1.0, "destination.loss": 0.5}
    sessions = [(user("1", "a"), None), session("2", "b", values=values)]
    table = sessions_table(sessions, ["sessions", "loss_ratio"])
    assert table.columns.keys() == {"loss_ratio", "sessions"}
    assert (table.samples.tolist(), table.samples.dtype) == ([1, 2], np.int64)
    assert (sessions_table([]).keys, sessions_table([]).samples.tolist()) == ([], [])


def test_rows_without_the_last_label_of_a_table_do_not_count_there():
    keys = ("a", "x"), ("a",), ("b",)
    values = [np.array([value]).tobytes() for value in (1.0, 2.0, 4.0)]
    rows = [(Row(str(key), key, ROUND, v), None) for key, v in zip(keys, values, strict=True)]
    families = (Family("x", "X", "x", COUNT, "sum"),)
    cases = [(("agent", "type"), {("a", "x"): 1}), (("agent",), {("a",): 3, ("b",): 4})]
    for labels, expected in cases:
        table = aggregate(rows, Table(labels, families), [["x"]])
        assert {key: value["x"] for key, value in values_by_key(table).items()} == expected


@given(randoms)
def test_site_means_are_weighted_by_sessions_over_all_account_groups(rng):
    tables = [sessions_table(join(*listings(rng))) for _ in range(rng.randrange(4))]
    series = [item for table in tables for item in values_by_key(table).items()]
    means = site_means(tables, ["latency_seconds"])
    assert list(means) == sorted({key[1] for key, _ in series})
    for site, actual in means.items():
        rows = [values for key, values in series if key[1] == site]
        latencies = [values.get("latency_seconds", math.nan) for values in rows]
        expected = weighted_mean(latencies, [values["sessions"] for values in rows])
        expected = math.nan if expected is None else expected
        assert actual["latency_seconds"] == pytest.approx(expected, nan_ok=True)
        assert actual["agents"] == len({key[0] for key, _ in series if key[1] == site})


def test_site_means_weigh_keys_equally_if_sessions_are_not_published():
    losses = [("1", "a", 0.0), ("2", "b", 1.0), ("3", "b", 1.0)]
    sessions = [session(n, agent, values={"destination.loss": loss}) for n, agent, loss in losses]
    table = sessions_table(sessions, ["loss_ratio"])
    means = site_means([table], ["loss_ratio", "pages"])["site.example"]
    no_pages = pytest.approx(math.nan, nan_ok=True)
    assert means == {"agents": 2.0, "loss_ratio": 0.5, "pages": no_pages}
    means = site_means([sessions_table(sessions)], ["loss_ratio"])["site.example"]
    assert means == {"agents": 2.0, "loss_ratio": pytest.approx(2 / 3)}
    assert site_means([], ["loss_ratio"]) == site_means([sessions_table([])], ["loss_ratio"]) == {}
