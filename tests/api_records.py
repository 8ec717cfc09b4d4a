"""JSON records as the API sends them, of both versions, and pages of them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factories import join, user, values_of

from exporter.sessions.aggregate import aggregate
from exporter.sessions.model import NetworkSession, SeriesKey, UserSession
from exporter.thousandeyes.api import VERSIONS
from exporter.thousandeyes.schema import Listing, Page, decode

PAYLOADS = Path(__file__).parent / "payloads"
ROUND = 1_490_529_480
"""Round of the examples in the documentation of v6."""

Record = dict[str, Any]


def payload(name: str) -> bytes:
    return (PAYLOADS / name).read_bytes()


def listing_of(version: str, listing: str) -> Listing[Any]:
    api = VERSIONS[version]
    return api.USER_SESSIONS if listing == "users" else api.NETWORK_SESSIONS


def id_field(version: str) -> str:
    return "userSessionId" if version == "v6" else "id"


def record(version: str, listing: str, number: int = 0) -> Record:
    """Return a record in which all documented fields have values."""
    date, committed = ("2017-03-22 11:58:42", "2017-03-22 11:58:44")
    if version == "v7":
        date, committed = (f"{time.replace(' ', 'T')}Z" for time in (date, committed))
    common = {
        id_field(version): f"07625:{ROUND}:{number}",
        "agentId": "3fde6422",
        "roundId": ROUND,
        "date": date,
    }
    if listing == "users":
        return common | {
            "committed": committed,
            "experienceScore": 0.5,
            "numberOfPages": 3,
            "visitedSite": "www.thousandeyes.com",
            "protocol": "https",
            "port": 443,
        }
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


def changed(record: Record, path: str, value: Any) -> Record:
    """Return a copy with another value at a path like `destination.loss`; `...` removes it."""
    copy: Record = json.loads(json.dumps(record))
    *parents, last = path.split(".")
    inner = copy
    for name in parents:
        inner = inner[name]
    inner[last] = value
    if value is ...:
        del inner[last]
    return copy


def encode(version: str, listing: str, *records: Any, **envelope: Any) -> str:
    return json.dumps({listing_of(version, listing).results: list(records), **envelope})


def page(version: str, listing: str, *records: Any, **envelope: Any) -> Page[Any]:
    body = encode(version, listing, *records, **envelope)
    return decode(body.encode(), listing_of(version, listing))


def published(version: str, users: str, networks: str) -> dict[SeriesKey, dict[str, float]]:
    """Return the values that examples of the documentation publish, by family."""
    user_page = decode(payload(users), VERSIONS[version].USER_SESSIONS)
    network_page = decode(payload(networks), VERSIONS[version].NETWORK_SESSIONS)
    assert not user_page.rejected + network_page.rejected
    table = aggregate(join(user_page.records, network_page.records))
    columns = table.columns.items()
    return {
        key: {name: column[row] for name, column in columns if not math.isnan(column[row])}
        for row, key in enumerate(table.keys)
    }


def values(session: UserSession | NetworkSession) -> Mapping[str, float]:
    if isinstance(session, UserSession):
        return values_of((session, None))
    return values_of((user(session.id), session))
