"""Sessions to rows, held to a slow and plain account of the same rules."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import ROUND, Pair, joined, measured_by, measurements, network, pair, sessions, user
from msgspec.structs import astuple

from exporter.aggregate import NO_ROWS, Rows, aggregate, by_site
from exporter.metrics import FAMILIES, NETWORK_FIELDS, OTHER, PERIOD_FIELDS, Family, select
from exporter.model import Key

CPU = "systemMetrics.cpuUtilization"
MEMORY = "systemMetrics.physicalMemoryUsedBytes"
KEY = Key("agent", "site.example", "https")

Samples = dict[Key, dict[str, float]]


def samples(rows: Rows) -> Samples:
    """Return what is published: key, short name of the family, value."""
    return {
        key: {short: float(column[index]) for short, column in rows.columns.items() if not math.isnan(column[index])}
        for index, key in enumerate(rows.keys)
    }


def plainly(pairs: list[Pair], folded: frozenset[Key] = frozenset()) -> Samples:
    """Aggregate as the rules say it: one key after another, one number after another."""
    by_key = defaultdict(list)
    for session in pairs:
        key = session[0].key
        by_key[Key(OTHER, OTHER, key.protocol) if key in folded else key].append(session)
    published = {}
    for key, group in by_key.items():
        newest = max(one.round for one, _ in group)
        records, periods = [], set()
        for session in group:
            if session[0].round == newest:
                record = measured_by(session)
                period = (session[0].key.agent, *(record.get(field) for field in PERIOD_FIELDS))
                if period in periods:
                    record = {field: value for field, value in record.items() if not field.startswith("systemMetrics")}
                elif None not in period:
                    periods.add(period)
                records.append(record)
        numbers = {family.short: number(family, records, newest) for family in FAMILIES}
        published[key] = {short: value for short, value in numbers.items() if value is not None}
    return published


def number(family: Family, records: list[dict[str, float]], newest: int) -> float | None:
    """Return one sample, or None where there is none."""
    if family.over == "count":
        return len(records)
    if family.over == "round":
        return newest
    known = [record for record in records if family.field in record]
    values = [record[family.field] for record in known]
    parent = family.field.rpartition(".")[0]
    weights = [record.get(f"{parent}.count", 1) for record in known]
    means = [record.get(f"{parent}.mean") for record in known]
    ways: dict[str, Callable[[], float | None]] = {
        "mean": lambda: statistics.fmean(values),
        "median": lambda: statistics.median(values),
        "sum": lambda: math.fsum(values),
        "min": lambda: min(values),
        "max": lambda: max(values),
        "weighted_mean": lambda: weighted(values, weights),
        "pooled": lambda: pooled(values, means, weights),
    }
    return ways[family.over]() if values else None


def weighted(values: list[float], weights: list[float]) -> float | None:
    products = math.fsum(value * weight for value, weight in zip(values, weights, strict=True))
    return products / sum(weights) if sum(weights) else None


def pooled(deviations: list[float], means: list[float | None], weights: list[float]) -> float | None:
    known = [(mean, weight) for mean, weight in zip(means, weights, strict=True) if mean is not None]
    centre = weighted([mean for mean, _ in known], [weight for _, weight in known])
    squares = [
        deviation**2 + (0 if mean is None or centre is None else (mean - centre) ** 2)
        for deviation, mean in zip(deviations, means, strict=True)
    ]
    variance = weighted(squares, weights)
    return None if variance is None else math.sqrt(variance)


def assert_close(found: Samples, expected: Samples) -> None:
    assert list(found) == sorted(expected)
    for key, numbers in expected.items():
        assert found[key].keys() == numbers.keys()
        for short, expected_number in numbers.items():
            assert math.isclose(found[key][short], expected_number, rel_tol=1e-9, abs_tol=1e-9), (key, short)


@given(sessions())
def test_the_fast_aggregation_gives_what_the_plain_one_gives(both):
    pairs = joined(*both)
    assert_close(samples(aggregate(pairs)), plainly(pairs))


@given(sessions(), st.sets(st.sampled_from([Key(a, s, "https") for a in "ab" for s in "xy"])))
def test_what_is_folded_is_aggregated_as_one_key_in_which_every_agent_has_its_own_periods(both, folded):
    pairs = joined(*both)
    assert_close(samples(aggregate(pairs, folded=folded)), plainly(pairs, frozenset(folded)))


@given(sessions(), st.randoms(use_true_random=False))
def test_the_order_in_which_sessions_came_changes_no_bit(both, random):
    users, networks = both
    rows = aggregate(joined(users, networks))
    shuffled = aggregate(joined(random.sample(users, len(users)), random.sample(networks, len(networks))))
    assert shuffled.keys == rows.keys
    assert {short: column.tobytes() for short, column in shuffled.columns.items()} == {
        short: column.tobytes() for short, column in rows.columns.items()
    }


@given(sessions())
def test_sessions_that_come_twice_count_once(both):
    users, networks = both
    assert samples(aggregate(joined(users * 2, networks * 2))) == samples(aggregate(joined(users, networks)))


@given(measurements)
def test_a_single_session_gives_exactly_its_values(measured):
    counts = {short: measured.get(f"{parent}.count") for short, parent in (("cpu", CPU), ("memory", MEMORY))}
    expected = {family.short: measured[family.field] for family in FAMILIES if family.field in measured}
    expected |= {"sessions": 1.0, "round_timestamp_seconds": float(ROUND)}
    for family in FAMILIES:
        if family.over in ("weighted_mean", "pooled") and counts[family.short.partition("_")[0]] == 0:
            expected.pop(family.short, None)  # a mean over no samples is none
    assert samples(aggregate([pair(measured=measured)])) == {KEY: expected}


def test_nothing_gives_no_rows():
    assert aggregate([]) is NO_ROWS
    assert NO_ROWS.samples.tolist() == []


def test_every_key_has_its_own_newest_round():
    pairs = [
        pair("1", "a", start=ROUND, measured={"destination.latency": 1.0}),
        pair("2", "a", start=ROUND + 60, measured={"destination.latency": 3.0}),
        pair("3", "b", start=ROUND, measured={"destination.latency": 5.0}),
    ]
    found = {key.agent: numbers for key, numbers in samples(aggregate(pairs)).items()}
    assert found == {
        "a": {"latency_seconds": 3.0, "sessions": 1.0, "round_timestamp_seconds": ROUND + 60.0},
        "b": {"latency_seconds": 5.0, "sessions": 1.0, "round_timestamp_seconds": float(ROUND)},
    }


def test_a_session_without_its_network_session_still_counts():
    pairs = [(user("1", measured={"experienceScore": 0.5}), None), pair("2", measured={"destination.latency": 0.2})]
    assert samples(aggregate(pairs))[KEY] == {
        "latency_seconds": 0.2,
        "experience_score": 0.5,
        "sessions": 2.0,
        "round_timestamp_seconds": float(ROUND),
    }


@pytest.mark.parametrize("field", NETWORK_FIELDS)
def test_a_value_that_no_session_has_gives_no_sample_and_the_others_stay(field):
    everything = dict.fromkeys(NETWORK_FIELDS, 0.25)
    complete = samples(aggregate([pair(measured=everything)]))[KEY]
    without = samples(aggregate([pair(measured={key: 0.25 for key in everything if key != field})]))[KEY]
    gone = {family.short for family in FAMILIES if family.field == field}
    assert without == {short: value for short, value in complete.items() if short not in gone}


def system(**numbers: float) -> dict[str, float]:
    return {f"{CPU}.{name}": value for name, value in numbers.items()}


def test_a_period_that_two_sessions_share_counts_once():
    one, two, other = ({PERIOD_FIELDS[0]: start, PERIOD_FIELDS[1]: start + 10} for start in (1.0, 1.0, 2.0))
    pairs = [
        pair("1", measured=one | system(mean=0.2, count=10.0) | {f"{MEMORY}.count": 5.0, "destination.latency": 1.0}),
        pair("2", measured=two | system(mean=0.2, count=10.0) | {f"{MEMORY}.count": 5.0, "destination.latency": 3.0}),
        pair("3", measured=other | system(mean=0.8, count=30.0)),
    ]
    found = samples(aggregate(pairs))[KEY]
    assert (found["cpu_samples"], found["memory_samples"]) == (40.0, 5.0)
    assert found["cpu_utilization_ratio"] == pytest.approx((0.2 * 10 + 0.8 * 30) / 40)
    assert found["latency_seconds"] == 2.0  # only the system metrics are of the period


def test_the_same_period_of_two_agents_counts_for_both_when_they_are_folded():
    period = dict(zip(PERIOD_FIELDS, (1.0, 2.0), strict=True))
    pairs = [
        pair("1", "a", measured=period | system(mean=0.2)),
        pair("2", "b", measured=period | system(mean=0.6)),
        pair("3", "b", "other.example", measured=period | system(mean=0.6)),
    ]
    folded = {one.key for one, _ in pairs}
    found = samples(aggregate(pairs, folded=folded))
    assert list(found) == [Key(OTHER, OTHER, "https")]
    assert found[Key(OTHER, OTHER, "https")]["cpu_utilization_ratio"] == pytest.approx(0.4)


def test_a_period_that_is_not_known_is_nobody_elses():
    pairs = [pair(id_, measured=system(count=10.0) | {PERIOD_FIELDS[0]: 1.0}) for id_ in "12"]
    assert samples(aggregate(pairs))[KEY]["cpu_samples"] == 20.0


def test_a_missing_count_weighs_one():
    pairs = [pair("1", measured=system(mean=0.1, count=3.0)), pair("2", measured=system(mean=0.5))]
    assert samples(aggregate(pairs))[KEY]["cpu_utilization_ratio"] == pytest.approx((0.1 * 3 + 0.5) / 4)


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two():
    pairs = [pair(str(index), measured=system(median=value)) for index, value in enumerate((0.9, 0.1, 0.2, 0.4))]
    assert samples(aggregate(pairs))[KEY]["cpu_utilization_median_ratio"] == pytest.approx(0.3)


def test_deviations_are_pooled_around_the_common_mean():
    pairs = [
        pair("1", measured=system(stdDev=0.1, mean=0.2, count=10.0)),
        pair("2", measured=system(stdDev=0.3, mean=0.6, count=30.0)),
    ]
    pairs.append(pair("3", measured=system(mean=0.9, count=50.0)))  # a mean alone moves nothing
    variance = (10 * (0.1**2 + (0.2 - 0.5) ** 2) + 30 * (0.3**2 + (0.6 - 0.5) ** 2)) / 40
    assert samples(aggregate(pairs))[KEY]["cpu_utilization_stddev_ratio"] == pytest.approx(math.sqrt(variance))


def test_a_deviation_whose_mean_is_missing_is_pooled_as_if_it_lay_at_the_common_mean():
    pairs = [pair("1", measured=system(stdDev=0.1)), pair("2", measured=system(stdDev=0.3, mean=0.6))]
    expected = math.sqrt((0.1**2 + 0.3**2) / 2)
    assert samples(aggregate(pairs))[KEY]["cpu_utilization_stddev_ratio"] == pytest.approx(expected)


def test_only_the_chosen_families_are_computed():
    rows = aggregate([pair(measured={"destination.loss": 0.5})], select(["sessions", "loss_ratio"]))
    assert {short: column.tolist() for short, column in rows.columns.items()} == {
        "loss_ratio": [0.5],
        "sessions": [1.0],
    }


def test_the_samples_of_every_key_are_counted():
    pairs = [
        pair("1", "a", measured={"destination.loss": 0.5}),
        (user("2", "b"), None),
        (user("3", "b"), network("3", measured={"destination.latency": 1.0, "destination.loss": 0.0})),
    ]
    rows = aggregate(pairs)
    assert rows.samples.tolist() == [3, 4]
    assert rows.samples.dtype == np.int64


def test_keys_are_sorted_by_agent_site_and_protocol_whatever_they_are():
    keys = [Key(a, s, p) for a in ("", "ä", "b\n") for s in ("y", "") for p in ("https", "http")]
    pairs = [pair(f"{index:02}", *astuple(key)) for index, key in enumerate(keys)]
    assert aggregate(pairs).keys == sorted(keys)


@given(st.lists(sessions(), max_size=3))
def test_a_site_is_the_mean_of_its_keys_by_their_sessions_over_all_account_groups(groups):
    rows = [aggregate(joined(*both)) for both in groups]
    published = [(key, numbers) for each in rows for key, numbers in samples(each).items()]
    found = by_site(rows, ["latency_seconds"])
    assert list(found) == sorted({key.site for key, _ in published})
    for site, numbers in found.items():
        known = [
            (n["latency_seconds"], n["sessions"]) for key, n in published if key.site == site and "latency_seconds" in n
        ]
        expected = weighted([value for value, _ in known], [weight for _, weight in known])
        assert numbers["agents"] == len({key.agent for key, _ in published if key.site == site})
        assert numbers["latency_seconds"] == pytest.approx(math.nan if expected is None else expected, nan_ok=True)


def test_of_a_site_whose_number_of_sessions_is_not_published_every_key_weighs_the_same():
    lost = [("1", "a", 0.0), ("2", "b", 1.0), ("3", "b", 1.0)]
    pairs = [pair(id_, agent, measured={"destination.loss": loss}) for id_, agent, loss in lost]
    rows = aggregate(pairs, select(["loss_ratio"]))
    assert by_site([rows], ["loss_ratio"]) == {"site.example": {"agents": 2.0, "loss_ratio": 0.5}}
    assert math.isnan(by_site([rows], ["latency_seconds"])["site.example"]["latency_seconds"])


def test_nothing_has_no_sites():
    assert by_site([], ["loss_ratio"]) == by_site([NO_ROWS], ["loss_ratio"]) == {}
