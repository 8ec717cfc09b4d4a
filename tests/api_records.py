"""JSON records as the API sends them, of both versions, and pages of them."""

import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from factories import join, user, values_by_key, values_of

from exporter.metrics.families import SeriesTable
from exporter.sources.aggregate import aggregate
from exporter.sources.rows import Key, Row
from exporter.sources.sessions import FIELDS, SERIES, SessionsSource
from exporter.thousandeyes.api import Api, Version
from exporter.thousandeyes.schema import Listing, Page, Request, decode

ROUND = 1_490_529_480
"""Round of the examples in the documentation of v6."""


def payload(name: str) -> bytes:
    return (Path(__file__).parent / "payloads" / name).read_bytes()


def listing_of(version: str, listing: str) -> Listing[Any]:
    users, networks = SessionsSource.listings[version]
    return users if listing == "users" else networks


def results_key(listing: Listing[Any]) -> str:
    """Return the key of the list of records in the envelope."""
    fields = msgspec.structs.fields(listing.decode_page.__self__.type)  # type: ignore[attr-defined]
    return {each.name: each.encode_name for each in fields}["results"]


def id_field(version: str) -> str:
    return "userSessionId" if version == "v6" else "id"


def record(version: str, listing: str, number: int = 0) -> dict[str, Any]:
    """Return a record in which all documented fields have values."""
    date = "2017-03-22T11:58:42Z" if version == "v7" else "2017-03-22 11:58:42"
    common = {id_field(version): f"07625:{ROUND}:{number}", "agentId": "3fde6422", "date": date}
    common |= {"roundId": ROUND}
    if listing == "users":
        site = {"visitedSite": "www.thousandeyes.com", "protocol": "https", "port": 443}
        committed = date.replace(":42", ":44")
        values = {"experienceScore": 0.5, "numberOfPages": 3}
        return common | site | values | {"committed": committed}
    path = {"latency": 150, "jitter": 46, "loss": 10.0, "target": "54.208.6.220"}
    cpu = {"min": 0.25, "max": 0.75, "mean": 0.5, "median": 0.375, "stdDev": 0.125}
    return common | {
        "destination": path | {"avgRtt": 151, "maxRtt": 152.5, "meanDevRtt": 47},
        "vpn": path,
        "proxy": path,
        "systemMetrics": {
            "startTimeMs": 1_581_508_857_327,
            "endTimeMs": 1_581_508_867_333,
            "cpuUtilization": cpu | {"count": 10},
            "physicalMemoryUsedBytes": {k: v * 2**34 for k, v in cpu.items()} | {"count": 11},
            "physicalMemoryTotalBytes": 2**34,
        },
    }


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with another value at a path like `destination.loss`; `...` removes it."""
    copy: dict[str, Any] = json.loads(json.dumps(record))
    *parents, last = path.split(".")
    inner = copy
    for name in parents:
        inner = inner[name]
    inner[last] = value
    if value is ...:
        del inner[last]
    return copy


def encode(version: str, listing: str, *records: Any, **envelope: Any) -> str:
    return json.dumps({results_key(listing_of(version, listing)): list(records), **envelope})


def page(version: str, listing: str, *records: Any, **envelope: Any) -> Page[Any]:
    body = encode(version, listing, *records, **envelope)
    return decode(body.encode(), listing_of(version, listing))


def published(version: str, users: str, networks: str) -> dict[Key, dict[str, float]]:
    """Return the values that examples of the documentation publish, by family."""
    names, listings = (users, networks), SessionsSource.listings[version]
    pages = [decode(payload(name), each) for name, each in zip(names, listings, strict=True)]
    assert not any(page.rejected for page in pages)
    return values_by_key(aggregate(join(*(page.records for page in pages)), SERIES, FIELDS))


def values(row: Row) -> Mapping[str, float]:
    """Return the values of a user session or, without labels, of a network session."""
    return values_of((row, None) if row.key else (user(row.id), row))


class FakeApi(Api):
    """Answers every request with records, a body, or an error."""

    def __init__(self, version: Version = "v7") -> None:
        super().__init__(self, version)  # type: ignore[arg-type]  # it has `pages`
        self.answers: list[Any] = []
        """One for each request; the last one stays."""
        self.requests: list[Request] = []

    async def pages(self, request: Request, listing: Listing[Any], _: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        body = answer if isinstance(answer, bytes) else json.dumps({results_key(listing): answer})
        yield decode(body if isinstance(body, bytes) else body.encode(), listing)


def samples(tables: Iterable[SeriesTable]) -> dict[tuple[str, ...], float]:
    """Return the samples of tables: short name and label values to value."""
    return {
        (name, *key): value
        for table in tables
        for name, column in table.columns.items()
        for key, value in zip(table.keys, column.tolist(), strict=True)
        if not math.isnan(value)
    }
