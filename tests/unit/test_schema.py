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
NUMBERS = [("networks", *each) for each in NetworkRecord.numbers.items()]
NUMBERS += [("users", *each) for each in UserRecord.numbers.items()]
OBJECTS = [("networks", f, None) for f in ("vpn", "systemMetrics", "systemMetrics.cpuUtilization")]
both_listings = pytest.mark.parametrize(("version", "listing"), LISTINGS)


def reason(version: str, listing: str, body: bytes | str) -> str:
    """Return why a page fails; the message quotes nothing of it."""
    with pytest.raises(PollError) as caught:
        decode(body.encode() if isinstance(body, str) else body, listing_of(version, listing))
    assert "3fde" not in f"{caught.value} {caught.value.__cause__}"
    return caught.value.reason


def rejected(version: str, listing: str, field: str, literal: str) -> Mapping[str, int]:
    """Return why a value, given as JSON, rejects its record; the neighbors must be decoded."""
    first, second, third = (record(version, listing, number) for number in range(3))
    bad = changed(second, field, "VALUE") if field else "VALUE"
    body = encode(version, listing, first, bad, third).replace('"VALUE"', literal)
    body = body.replace(f'"{field}": MISSING, ', "")
    decoded = decode(body.encode(), listing_of(version, listing))
    assert decoded.records == page(version, listing, first, third).records
    return decoded.rejected


@pytest.mark.parametrize(("listing", "field", "unit"), NUMBERS)
def test_numbers_are_integers_or_floats_within_the_range_of_the_unit(listing, field, unit) -> None:
    whole = record("v7", listing)
    for value in (1, 0, -0.0, 1 / 3, unit.low, unit.high, int(unit.high)):
        (session,) = page("v7", listing, changed(whole, field, value)).records
        assert values(session)[field] == value / unit.divisor
    above = repr(math.nextafter(unit.high, math.inf))
    for literal in (above, "-1", "-5e-324", "1e400", "9" * 5000):
        assert rejected("v7", listing, field, literal) == {"out_of_range": 1}
    for literal in ("true", '"150"', '""', "[]", "{}"):
        assert rejected("v7", listing, field, literal) == {"bad_type": 1}


@pytest.mark.parametrize(("listing", "field", "unit"), NUMBERS + OBJECTS)
def test_null_and_missing_fields_have_no_values(listing, field, unit) -> None:
    whole = record("v7", listing)
    (complete,) = page("v7", listing, whole).records
    expected = {k: v for k, v in values(complete).items() if not f"{k}.".startswith(f"{field}.")}
    for value in (None, ..., *(() if unit else ({},))):
        decoded = page("v7", listing, changed(whole, field, value), whole)
        assert [values(each) for each in decoded.records] == [expected, values(complete)]
        assert not decoded.rejected


@pytest.mark.parametrize("field", ["date", "committed"])
def test_an_invalid_time_costs_only_the_commit_delay(field: str) -> None:
    whole, other = record("v7", "users"), [1_490_183_922_000, True, [], {}, None, ...]
    for value in ("2017-02-30 11:58:42", "2017-03-22T23:59:60Z", "yesterday", "", *other):
        decoded = page("v7", "users", *[changed(whole, field, value)] * 2)
        for user in decoded.records:
            assert math.isnan(user.commit_delay)
            assert values(user) == {"experienceScore": 0.5, "numberOfPages": 3}
        assert decoded.rejected == ({} if value in (None, ...) else {"bad_time": 2})


def test_labels_are_sanitized_or_null() -> None:
    labels = {"agentId": "\x00", "visitedSite": "a\x00b" + "x" * 1000, "protocol": None}
    (user,) = page("v7", "users", record("v7", "users") | labels).records
    agent, site, protocol = user.key
    assert (agent, site[:4], len(site), protocol) == ("\ufffd", "a\ufffdbx", 265, "")


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
    users = listing == "users"
    ids = (id_field(version), "agentId") if users else (id_field(version),)
    others = ("visitedSite", "protocol") if users else [field for _, field, _ in OBJECTS]
    cases = [
        ("", "bad_type", ("null", "[]", "7", '"text"', "true", "[[]]")),
        *((field, *each) for field in ids for each in BAD_ID.items()),
        *(("roundId", *each) for each in BAD_ROUND.items()),
        *((field, "bad_type", ("[]", "7", "true")) for field in others),
    ]
    for field, expected, literals in cases:
        for literal in literals:
            assert rejected(version, listing, field, literal) == {expected: 1}
    (session,) = page(version, listing, changed(record(version, listing), "roundId", 1.0)).records
    assert (session.round, type(session.round)) == (1, int)


def test_a_page_must_be_json() -> None:
    whole = encode("v7", "users", record("v7", "users"))
    bodies: list[str | bytes] = ["", "{", whole + "}", "<html>", whole[:-1], '{"a":' * 100_000]
    bodies += [whole.replace(str(ROUND), "[" * 100_000), whole.replace("3fde", "\\ud800")]
    bodies += [whole.encode("utf-16"), whole.replace("3fde", "\xff").encode("latin-1")]
    bodies += [whole.replace("443", each) for each in ("NaN", "Infinity", "01", "1.", '"\x01"')]
    for body in bodies:
        assert reason("v7", "users", body) == "json"
    decoded = decode(b"\xef\xbb\xbf" + whole.encode(), listing_of("v7", "users"))
    assert len(decoded.records) == 1


@both_listings
def test_a_page_must_be_an_object_with_the_list_and_the_link_of_the_version(version, listing):
    other = encode({"v6": "v7", "v7": "v6"}[version], listing)
    wrong = encode(version, listing).replace("[]", "{}")
    bad: list[Any] = [7, [], [1], True, {}, {"url": "https://example.com"}]
    links = [{"next": value} for value in bad] + [{"next": {"href": value}} for value in bad]
    pages = [encode(version, listing, pages=link, _links=link) for link in (*links, 7, [1], "text")]
    for body in ("[]", "null", "7", '"text"', "{}", other, wrong, *pages):
        assert reason(version, listing, body) == "schema"
    for link in ({"next": None}, {"next": ""}, {}, None):
        assert page(version, listing, {"bad": "record"}, _links=link, pages=link).next_link is None


def test_a_page_of_too_many_or_of_unexpected_records_is_a_schema_error() -> None:
    bad, whole = {"bad": "record"}, {"id": "1", "agentId": "2", "roundId": ROUND}
    for each, limit in ((bad, MAX_INVALID_RECORDS), (whole, MAX_RECORDS + 1)):
        decoded = page("v7", "users", *[each] * (limit - 1))
        assert len(decoded.records) + decoded.rejected.total() == limit - 1
        assert reason("v7", "users", encode("v7", "users", *[each] * limit)) == "schema"
    late = page("v7", "users", whole, *[bad] * MAX_INVALID_RECORDS)
    assert (len(late.records), late.rejected) == (1, {"missing_field": MAX_INVALID_RECORDS})
    crowded = encode("v7", "users", bad, *[whole] * MAX_RECORDS)  # decoded record by record
    assert reason("v7", "users", crowded) == "schema"
