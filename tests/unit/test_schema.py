"""Decoding of pages: valid records, what rejects a record, and what fails the poll."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from api_records import ROUND, changed, encode, id_field, listing_of, page, record, values

from exporter.errors import PollError
from exporter.sources.sessions import NetworkRecord, UserRecord
from exporter.thousandeyes.api import VERSIONS
from exporter.thousandeyes.schema import MAX_INVALID_RECORDS, MAX_RECORDS, decode

LISTINGS = [(version, listing) for version in VERSIONS for listing in ("users", "networks")]
UNITS = {**UserRecord.numbers, **NetworkRecord.numbers}
NUMBERS = [("networks", f) for f in NetworkRecord.numbers]
NUMBERS += [("users", f) for f in UserRecord.numbers]
OBJECTS = [("networks", f) for f in ("vpn", "systemMetrics", "systemMetrics.cpuUtilization")]
both_listings = pytest.mark.parametrize(("version", "listing"), LISTINGS)
both_versions = pytest.mark.parametrize("version", VERSIONS)


def reason(version: str, listing: str, body: bytes | str) -> str:
    """Return why a page fails; the message quotes nothing of it."""
    with pytest.raises(PollError) as caught:
        decode(body.encode() if isinstance(body, str) else body, listing_of(version, listing))
    assert "3fde" not in f"{caught.value} {caught.value.__cause__}"
    return caught.value.reason


def page_with(version: str, listing: str, field: str, literal: str) -> str:
    """Return a page of three records; a field of the second has a value given as JSON."""
    first, second, third = (record(version, listing, number) for number in range(3))
    bad = changed(second, field, "VALUE") if field else "VALUE"
    body = encode(version, listing, first, bad, third).replace('"VALUE"', literal)
    return body.replace(f'"{field}": MISSING, ', "")


def rejected(version: str, listing: str, field: str, literal: str) -> Mapping[str, int]:
    """Return why a value rejects its record; the neighbors must be decoded."""
    body = page_with(version, listing, field, literal).encode()
    decoded = decode(body, listing_of(version, listing))
    neighbors = [record(version, listing, number) for number in (0, 2)]
    assert decoded.records == page(version, listing, *neighbors).records
    return decoded.rejected


# Values


@both_versions
def test_decodes_a_user_session(version: str) -> None:
    whole = record(version, "users") | {"roundId": float(ROUND)}
    (user,) = page(version, "users", whole).records
    assert user.key == ("3fde6422", "www.thousandeyes.com", "https")
    assert (user.id, user.round, user.commit_delay) == (f"07625:{ROUND}:0", ROUND, 2.0)
    assert type(user.round) is int
    assert values(user) == {"experienceScore": 0.5, "numberOfPages": 3}


def test_labels_are_sanitized_and_may_be_null() -> None:
    whole = record("v7", "users") | {"visitedSite": "a\x00b" + "x" * 1000, "protocol": None}
    (user,) = page("v7", "users", whole).records
    assert user.key[1].startswith("a\N{REPLACEMENT CHARACTER}bx")
    assert (len(user.key[1]), user.key[2]) == (265, "")


@both_versions
@pytest.mark.parametrize(("listing", "field"), NUMBERS)
def test_numbers_are_integers_or_floats_within_the_range_of_the_unit(
    version: str, listing: str, field: str
) -> None:
    unit, whole = UNITS[field], record(version, listing)
    for value in (1, 1.0, 0, -0.0, 1 / 3, 0.1, unit.low, unit.high, int(unit.high)):
        (session,) = page(version, listing, changed(whole, field, value)).records
        assert values(session)[field] == value / unit.divisor
    above = repr(math.nextafter(unit.high, math.inf))
    for literal in (above, "-1", "-5e-324", "1e300", "1e400", "-1e400", "9" * 5000):
        assert rejected(version, listing, field, literal) == {"out_of_range": 1}
    for literal in ("true", '"150"', '""', "[]", "{}"):
        assert rejected(version, listing, field, literal) == {"bad_type": 1}


@both_versions
@pytest.mark.parametrize(("listing", "field"), NUMBERS + OBJECTS)
def test_null_and_missing_fields_have_no_values(version: str, listing: str, field: str) -> None:
    whole = record(version, listing)
    (complete,) = page(version, listing, whole).records
    expected = {k: v for k, v in values(complete).items() if not f"{k}.".startswith(f"{field}.")}
    empty: list[Any] = [None, ..., {}] if ("networks", field) in OBJECTS else [None, ...]
    for value in empty:
        decoded = page(version, listing, changed(whole, field, value), whole)
        assert [values(each) for each in decoded.records] == [expected, values(complete)]
        assert not decoded.rejected


# Times


@both_versions
@pytest.mark.parametrize("field", ["date", "committed"])
def test_an_invalid_time_costs_only_the_commit_delay(version: str, field: str) -> None:
    whole = record(version, "users")
    texts = ["2017-02-30 11:58:42", "2017-03-22T23:59:60Z", "0000-01-01", "yesterday", ""]
    others: list[Any] = [1_490_183_922_000, True, [], {}, None, ...]
    for value in (*texts, *others):
        decoded = page(version, "users", *[changed(whole, field, value)] * 2)
        for user in decoded.records:
            assert math.isnan(user.commit_delay)
            assert values(user) == {"experienceScore": 0.5, "numberOfPages": 3}
        assert decoded.rejected == ({} if value in (None, ...) else {"bad_time": 2})


def test_times_have_any_time_zone_and_are_utc_without_one() -> None:
    times = {"date": "2017-03-22T13:58:42+02:00", "committed": "2017-03-22 11:58:43.5"}
    assert page("v7", "users", record("v7", "users") | times).records[0].commit_delay == 1.5


# Rejected records

BAD_ID = {
    "missing_field": ("MISSING", "null", '""'),
    "bad_type": ("12", "true", '["a"]', "{}"),
    "out_of_range": (f'"{"x" * 257}"',),
}
BAD_ROUND = {
    "missing_field": ("MISSING", "null"),
    "bad_time": ("0", "-60", "60.5", "1e18", '"1490529480"', '"yesterday"', "true", "[]", "{}"),
}


@both_listings
def test_rejects_records_with_invalid_fields(version: str, listing: str) -> None:
    cases: list[tuple[str, str, tuple[str, ...]]] = [
        ("", "bad_type", ("null", "[]", "7", '"text"', "true", "[[]]")),
        *((id_field(version), *each) for each in BAD_ID.items()),
        *(("roundId", *each) for each in BAD_ROUND.items()),
    ]
    if listing == "users":
        cases += [("agentId", *each) for each in BAD_ID.items()]
        texts = ("visitedSite", "protocol")
        cases += [(field, "bad_type", ("[]", "7", "true", "{}")) for field in texts]
    else:
        cases += [(field, "bad_type", ("[]", "7", "true", '"text"')) for _, field in OBJECTS]
    for field, expected, literals in cases:
        for literal in literals:
            assert rejected(version, listing, field, literal) == {expected: 1}
    assert len(page(version, listing, changed(record(version, listing), "roundId", 1)).records) == 1


# Failed pages


@both_listings
def test_a_page_must_be_json(version: str, listing: str) -> None:
    whole = encode(version, listing, record(version, listing))
    bodies: list[str | bytes] = ["", "{", whole + "}", "<html>", whole[:-1], '{"a":' * 100_000]
    bodies += [whole.replace(str(ROUND), "[" * 100_000), whole.replace("3fde", "\\ud800")]
    bodies += [whole.encode("utf-16"), whole.replace("3fde", "\xff").encode("latin-1")]
    for body in bodies:
        assert reason(version, listing, body) == "json"
    for literal in ("NaN", "Infinity", "01", "1.", '"\x01"', '"\\x"'):
        assert reason(version, listing, page_with(version, listing, "date", literal)) == "json"
    decoded = decode(b"\xef\xbb\xbf" + whole.encode(), listing_of(version, listing))
    assert len(decoded.records) == 1


@both_listings
def test_a_page_must_be_an_object_with_the_list_of_the_version(version: str, listing: str) -> None:
    other = encode({"v6": "v7", "v7": "v6"}[version], listing)
    wrong = encode(version, listing).replace("[]", "{}")
    for body in ("[]", "null", "7", '"text"', "{}", other, wrong):
        assert reason(version, listing, body) == "schema"


@both_listings
def test_returns_the_link_to_the_next_page(version: str, listing: str) -> None:
    url, bad = "https://api.thousandeyes.com/next?cursor=1", {"bad": "record"}
    for href in (url, "", None):
        link = {"_links": {"next": {"href": href}}, "pages": {"next": href}}
        assert page(version, listing, bad, **link).next_link == (href or None)
    for end in ({"next": None}, {"next": ""}, {}, None):
        assert page(version, listing, _links=end, pages=end).next_link is None


@both_listings
def test_a_link_of_another_type_is_a_schema_error(version: str, listing: str) -> None:
    bad: list[Any] = [7, [], [1], True, {}, {"url": "https://example.com"}]
    links = [{"next": value} for value in bad] + [{"next": {"href": value}} for value in bad]
    for value in (*links, 7, [1], True, "text"):
        body = encode(version, listing, pages=value, _links=value)
        assert reason(version, listing, body) == "schema"


def test_a_page_of_too_many_or_of_unexpected_records_is_a_schema_error() -> None:
    bad = '{"bad": "record"}'
    whole = f'{{"id": "1", "agentId": "2", "roundId": {ROUND}}}'

    def body(*records: str) -> str:
        return f'{{"results": [{",".join(records)}]}}'

    for each, limit in ((bad, MAX_INVALID_RECORDS), (whole, MAX_RECORDS + 1)):
        decoded = decode(body(*[each] * (limit - 1)).encode(), listing_of("v7", "users"))
        assert len(decoded.records) + decoded.rejected.total() == limit - 1
        assert reason("v7", "users", body(*[each] * limit)) == "schema"
    late = decode(body(whole, *[bad] * MAX_INVALID_RECORDS).encode(), listing_of("v7", "users"))
    assert (len(late.records), late.rejected) == (1, {"missing_field": MAX_INVALID_RECORDS})
    crowded = body(bad, *[whole] * MAX_RECORDS)  # decoded record by record
    assert reason("v7", "users", crowded) == "schema"
