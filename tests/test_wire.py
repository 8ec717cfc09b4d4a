"""Pages of JSON to records: what is taken as it is, what costs its record, and what costs the poll.

What becomes of polls of bad data stands in tests/faults.
"""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wires import LISTINGS, ROUND, changed, envelope, id_name, measured, page, record, shape

from exporter.api import VERSIONS
from exporter.api.wire import decode
from exporter.errors import REASONS, REJECTIONS, PollError
from exporter.metrics import NETWORK_FIELDS, UNITS, USER_FIELDS
from exporter.model import Key

listings = pytest.mark.parametrize(("version", "listing"), LISTINGS, ids=["-".join(each) for each in LISTINGS])
versions = pytest.mark.parametrize("version", VERSIONS)
numbers = pytest.mark.parametrize(
    ("listing", "field"),
    [("networks", field) for field in NETWORK_FIELDS] + [("users", field) for field in USER_FIELDS],
)


def read(version: str, listing: str, body: bytes | str) -> Any:
    return decode(body.encode() if isinstance(body, str) else body, shape(version, listing))


def reason(version: str, listing: str, body: bytes | str) -> str:
    """Read what can not be read, and return why."""
    with pytest.raises(PollError) as caught:
        read(version, listing, body)
    return caught.value.reason


def text(version: str, listing: str, *records: Any, **others: Any) -> str:
    return json.dumps(envelope(version, listing, *records, **others))


# Values.


@versions
def test_every_documented_number_arrives_in_base_units(version: str) -> None:
    (network,) = page(version, "networks", record(version, "networks")).records
    leg = {"latency": 0.15, "jitter": 0.046, "loss": 0.1}
    expected = {f"{path}.{name}": value for path in ("destination", "vpn", "proxy") for name, value in leg.items()}
    expected |= {"destination.avgRtt": 0.151, "destination.maxRtt": 0.1525, "destination.meanDevRtt": 0.047}
    system = {"min": 0.25, "max": 0.75, "mean": 0.5, "median": 0.375, "stdDev": 0.125}
    expected |= {f"systemMetrics.cpuUtilization.{name}": value for name, value in system.items()}
    expected |= {f"systemMetrics.physicalMemoryUsedBytes.{name}": v * 2**34 for name, v in system.items()}
    expected |= {"systemMetrics.cpuUtilization.count": 10, "systemMetrics.physicalMemoryUsedBytes.count": 11}
    expected |= {"systemMetrics.physicalMemoryTotalBytes": 2**34}
    expected |= {"systemMetrics.startTimeMs": 1_581_508_857.327, "systemMetrics.endTimeMs": 1_581_508_867.333}
    assert measured(network) == expected
    assert (network.id, network.round) == (f"07625:{ROUND}:00000000", ROUND)


@versions
def test_a_user_session_has_its_key_its_round_its_values_and_its_delay(version: str) -> None:
    (user,) = page(version, "users", record(version, "users")).records
    assert user.key == Key("3fde6422", "www.thousandeyes.com", "https")
    assert type(user.key).__name__ == "Key"
    assert (user.id, user.round, user.commit_delay) == (f"07625:{ROUND}:00000000", ROUND, 2.0)
    assert measured(user) == {"experienceScore": 0.5, "numberOfPages": 3}


@versions
@numbers
def test_an_integer_may_come_as_a_float_and_the_other_way_round(version: str, listing: str, field: str) -> None:
    for value in (1, 1.0, 0, -0.0):
        (session,) = page(version, listing, changed(record(version, listing), field, value)).records
        assert measured(session)[field] == value / UNITS[field].divisor


@settings(deadline=None)
@given(st.floats(0, 1e6))
def test_milliseconds_become_seconds_with_one_rounding(latency: float) -> None:
    (session,) = page("v7", "networks", changed(record("v7", "networks"), "destination.latency", latency)).records
    assert measured(session)["destination.latency"] == latency / 1000


@listings
def test_an_empty_listing_is_an_answer(version: str, listing: str) -> None:
    found = page(version, listing)
    assert (found.records, found.next, found.rejected.total()) == ([], None, 0)


def backwards(value: Any) -> Any:
    return {name: backwards(value[name]) for name in reversed(value)} if isinstance(value, dict) else value


@listings
def test_the_order_of_fields_does_not_matter(version: str, listing: str) -> None:
    whole = record(version, listing)
    assert page(version, listing, backwards(whole)).records == page(version, listing, whole).records


# Records that cost themselves.

BAD: list[tuple[str, Any, str]] = [
    ("true", True, "bad_type"),
    ("negative", -1, "out_of_range"),
    ("a little negative", -5e-324, "out_of_range"),
    ("too much", 1e300, "out_of_range"),
    ("more than any integer", 10**400, "non_finite"),
    ("NaN", math.nan, "non_finite"),
    ("infinite", math.inf, "non_finite"),
    ("infinite below", -math.inf, "non_finite"),
]


def costs_itself(version: str, listing: str, damaged: str, why: str) -> None:
    """Assert that one record on a page is rejected, and that its neighbours are not."""
    good = [record(version, listing, number) for number in (1, 2)]
    body = text(version, listing, good[0], "DAMAGED", good[1]).replace('"DAMAGED"', damaged)
    found = read(version, listing, body)
    assert found.records == page(version, listing, *good).records
    assert found.rejected == {why: 1}


@versions
@numbers
@pytest.mark.parametrize(("value", "why"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_a_number_that_is_none_costs_its_record(version: str, listing: str, field: str, value: Any, why: str) -> None:
    costs_itself(
        version,
        listing,
        json.dumps(changed(record(version, listing), field, "VALUE")).replace('"VALUE"', _json(value)),
        why,
    )


def _json(value: Any) -> str:
    return "1" + "0" * 400 if value == 10**400 else json.dumps(value)


@listings
@pytest.mark.parametrize(
    ("literal", "why"),
    [
        ("1e400", "non_finite"), ("-1e400", "non_finite"), ("NaN", "non_finite"), ("Infinity", "non_finite"),
        ("-Infinity", "non_finite"), ("9" * 5000, "non_finite"), ("-" + "9" * 25, "out_of_range"),
    ],
)  # fmt: skip
def test_literals_that_are_no_number_cost_their_record(version: str, listing: str, literal: str, why: str) -> None:
    field = "experienceScore" if listing == "users" else "destination.latency"
    costs_itself(
        version, listing, json.dumps(changed(record(version, listing), field, "VALUE")).replace('"VALUE"', literal), why
    )


@listings
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (..., "missing_id"), (None, "missing_id"), ("", "missing_id"), (12, "bad_type"), (True, "bad_type"),
        (["a"], "bad_type"), ({}, "bad_type"), ("x" * 257, "bad_label"),
    ],
)  # fmt: skip
def test_a_session_without_an_id_is_none(version: str, listing: str, value: Any, why: str) -> None:
    costs_itself(version, listing, json.dumps(changed(record(version, listing), id_name(version), value)), why)


@versions
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (..., "missing_field"), (None, "missing_field"), ("", "missing_field"), (12, "bad_type"), (False, "bad_type"),
        ([], "bad_type"), ("x" * 257, "bad_label"),
    ],
)  # fmt: skip
def test_a_session_without_an_agent_is_none(version: str, value: Any, why: str) -> None:
    costs_itself(version, "users", json.dumps(changed(record(version, "users"), "agentId", value)), why)
    assert page(version, "networks", changed(record(version, "networks"), "agentId", value)).records, "nobody needs it"


@listings
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (..., "missing_field"), (None, "missing_field"), (0, "bad_time"), (-60, "bad_time"), (60.5, "bad_time"),
        (2**60, "bad_time"), ("yesterday", "bad_time"), ("1490529480", "bad_time"), (True, "bad_time"),
        ([], "bad_time"), ({}, "bad_time"),
    ],
)  # fmt: skip
def test_a_session_without_a_round_is_none(version: str, listing: str, value: Any, why: str) -> None:
    costs_itself(version, listing, json.dumps(changed(record(version, listing), "roundId", value)), why)


@listings
def test_a_round_may_come_as_a_float(version: str, listing: str) -> None:
    (session,) = page(version, listing, changed(record(version, listing), "roundId", float(ROUND))).records
    assert (session.round, type(session.round)) == (ROUND, int)


@listings
@pytest.mark.parametrize("junk", ["null", "[]", "7", '"text"', "true", "[[]]", "NaN"])
def test_what_is_no_object_is_no_record(version: str, listing: str, junk: str) -> None:
    costs_itself(version, listing, junk, "non_finite" if junk == "NaN" else "bad_type")


@versions
@pytest.mark.parametrize("field", ["destination", "vpn", "proxy", "systemMetrics", "systemMetrics.cpuUtilization"])
@pytest.mark.parametrize("value", [[], "unreachable", 0, True])
def test_something_else_than_an_object_costs_its_record(version: str, field: str, value: Any) -> None:
    costs_itself(version, "networks", json.dumps(changed(record(version, "networks"), field, value)), "bad_type")


@versions
def test_both_times_may_be_none_at_once(version: str) -> None:
    bad = changed(changed(record(version, "users"), "date", "?"), "committed", 7)
    found = page(version, "users", bad)
    assert (len(found.records), found.rejected) == (1, {"bad_time": 2})


@versions
@pytest.mark.parametrize("field", ["date", "committed"])
@pytest.mark.parametrize("value", [..., None])
def test_without_both_times_there_is_no_delay(version: str, field: str, value: Any) -> None:
    found = page(version, "users", changed(record(version, "users"), field, value))
    assert math.isnan(found.records[0].commit_delay)
    assert not found.rejected


@versions
@pytest.mark.parametrize("value", [7, True, [], {}])
def test_a_site_that_is_no_text_costs_its_record(version: str, value: Any) -> None:
    costs_itself(version, "users", json.dumps(changed(record(version, "users"), "visitedSite", value)), "bad_type")


# Pages that cost the poll.


@listings
@pytest.mark.parametrize(
    "body", ["", " ", "\ufeff", "{", "}", "{}{}", "{} x", "<html>", '{"results": [{"id": oops, ]', "nul"]
)
def test_what_is_no_json_is_no_page(version: str, listing: str, body: str) -> None:
    assert reason(version, listing, body) == "json"


def test_the_keys_that_are_named_are_few_and_printable() -> None:
    keys = ["\x1b[31m", "half \ud800", "x" * 10_000, *map(str, range(100))]
    with pytest.raises(PollError) as caught:
        read("v7", "users", json.dumps(dict.fromkeys(keys)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


# The way to the next page.


def links(version: str, following: Any) -> dict[str, Any]:
    return {"pages": {"current": 1, "next": following}} if version == "v6" else {"_links": {"next": following}}


@listings
def test_the_last_page_says_so_in_many_ways(version: str, listing: str) -> None:
    ends: list[dict[str, Any]] = [{}, {"_links": None, "pages": None}, {"_links": {}, "pages": {}}]
    ends += [links(version, None), links(version, "")]
    ends += [links(version, {"href": None}), links(version, {"href": ""})] if version == "v7" else []
    for end in ends:
        assert page(version, listing, **end).next is None


@listings
def test_the_next_page_is_where_it_is_said_to_be(version: str, listing: str) -> None:
    link = "https://api.thousandeyes.com/next?cursor=1"
    following = link if version == "v6" else {"href": link, "templated": True}
    for junk in ({}, {"results": [7]}):
        assert (
            page(version, listing, **{**junk, **links(version, following), shape(version, listing).results: []}).next
            == link
        )
    assert page(version, listing, {}, **links(version, following)).next == link, "also where records are bad"


@listings
@pytest.mark.parametrize("value", [7, "text", [], [1], True])
def test_links_of_another_form_are_an_error(version: str, listing: str, value: Any) -> None:
    assert reason(version, listing, text(version, listing, _links=value, pages=value)) == "schema"


# Anything at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@listings
@settings(deadline=None)
@given(st.data())
def test_whatever_comes_is_read_or_has_a_reason(version: str, listing: str, data: st.DataObject) -> None:
    good = [record(version, listing, number) for number in range(3)]
    damaged = good[1]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(damaged)))
        damaged = changed(damaged, path, data.draw(JSON | st.just(...)))
    found = page(version, listing, good[0], damaged, good[2])
    assert [found.records[0], found.records[-1]] == page(version, listing, good[0], good[2]).records
    assert set(found.rejected) <= set(REJECTIONS)
    for session in found.records:
        values = session.values if listing == "users" else struct.unpack(f"{len(NETWORK_FIELDS)}d", session.values)
        assert not any(map(math.isinf, values))


def _paths(record: dict[str, Any], above: str = "") -> list[str]:
    inner = [
        path for name, value in record.items() if isinstance(value, dict) for path in _paths(value, f"{above}{name}.")
    ]
    return [*(above + name for name in record), *inner]


@listings
@settings(deadline=None)
@given(st.data())
def test_bytes_that_are_changed_are_read_or_have_a_reason(version: str, listing: str, data: st.DataObject) -> None:
    body = bytearray(text(version, listing, record(version, listing), **links(version, None)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = read(version, listing, bytes(body))
    except PollError as error:
        assert error.reason in REASONS  # noqa: PT017  most are one or the other
    else:
        assert set(found.rejected) <= set(REJECTIONS)
