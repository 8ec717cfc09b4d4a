"""Aggregation, compared with a slow and plain implementation of the same rules."""

import math

import numpy as np
import pytest
from api_records import samples
from expected_values import Record, aggregated, weighted_mean
from factories import ROUND, join, listings, randoms, values_by_key, values_of
from hypothesis import given
from hypothesis import settings as hypothesis

from exporter.labels import OTHER
from exporter.metrics.families import COUNT, Family, Table
from exporter.sources.aggregate import aggregate, site_means
from exporter.sources.rows import Row
from exporter.sources.sessions import FIELDS, SERIES

every_key = [(a, s, p) for a in "ab" for s in "xy" for p in ("http", "https")]


@hypothesis(max_examples=200)
@given(randoms)
def test_agrees_with_the_plain_implementation(rng):
    sessions, folded = join(*listings(rng)), rng.sample(every_key, rng.randrange(len(every_key)))
    records = [
        Record((OTHER, OTHER, k[2]) if k in folded else k, k[0], user.round, values_of((user, n)))
        for user, n in sessions
        for k in [user.key]
    ]
    actual = samples([aggregate(sessions, SERIES, FIELDS, folded=frozenset(folded))])
    expected = aggregated(records, SERIES.families)
    assert [key[1:] for key in actual if key[0] == "sessions"] == sorted({r.key for r in records})
    assert actual == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(randoms)
def test_neither_order_nor_repetition_changes_a_bit(rng):
    both = listings(rng)
    first = aggregate(join(*both), SERIES, FIELDS)
    repeated = (rng.sample(each * 2, 2 * len(each)) for each in both)
    again = aggregate(join(*repeated), SERIES, FIELDS)
    assert again.keys == first.keys
    columns = zip(first.columns.values(), again.columns.values(), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in columns)


def test_rows_without_the_last_label_do_not_count_and_need_no_system_metrics():
    table = Table(("a", "b"), (Family("x", "X", "x", COUNT, "sum"),))
    rows = [(Row("1", key, ROUND, np.ones(1).tobytes()), None) for key in (("a",), ("a", "b"))]
    assert samples([aggregate(rows, table, [["x"]])]) == {("x", "a", "b"): 1}


@given(randoms)
def test_site_means_are_weighted_by_sessions_over_all_account_groups(rng):
    selected = SERIES.select(rng.choice((["all"], ["latency_seconds"])))
    tables = [aggregate(join(*listings(rng)), selected, FIELDS) for _ in range(rng.randrange(4))]
    series = [item for table in tables for item in values_by_key(table).items()]
    means = site_means(tables, ["latency_seconds", "pages"])
    assert list(means) == sorted({key[1] for key, _ in series})
    for site, actual in means.items():
        rows = [values for key, values in series if key[1] == site]
        weights = [values.get("sessions", 1.0) for values in rows]  # unless it is not published
        assert actual.pop("agents") == len({key[0] for key, _ in series if key[1] == site})
        for name, mean in actual.items():
            expected = weighted_mean([values.get(name, math.nan) for values in rows], weights)
            assert mean == pytest.approx(math.nan if expected is None else expected, nan_ok=True)
