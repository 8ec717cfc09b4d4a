"""What the API sends, made to order: one good record of each listing and version, and pages of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from making import measured_by, user

from exporter.api import VERSIONS
from exporter.api.wire import Page, Shape, decode
from exporter.model import NetworkSession, UserSession

PAYLOADS = Path(__file__).parent / "payloads"
LISTINGS = [(version, listing) for version in VERSIONS for listing in ("users", "networks")]
"""Every version, and both listings of it."""
ROUND = 1_490_529_480
"""The round of the examples in the documentation."""

Record = dict[str, Any]


def payload(name: str) -> bytes:
    """Return an example of the documentation."""
    return (PAYLOADS / name).read_bytes()


def shape(version: str, listing: str) -> Shape[Any]:
    """Return how a listing is read."""
    api = VERSIONS[version]
    return {"users": api.USERS, "networks": api.NETWORKS, "agents": api.AGENTS, "groups": api.ACCOUNT_GROUPS}[listing]


def id_name(version: str) -> str:
    """Return what a version calls the id of a session."""
    return "userSessionId" if version == "v6" else "id"


def record(version: str, listing: str, number: int = 0) -> Record:
    """Return a record in which every documented field that is read has a value of its own."""
    at = "2017-03-22 11:58:%02d" if version == "v6" else "2017-03-22T11:58:%02dZ"
    common = {id_name(version): f"07625:{ROUND}:{number:08}", "agentId": "3fde6422", "roundId": ROUND, "date": at % 42}
    if listing == "users":
        return common | {
            "committed": at % 44,
            "experienceScore": 0.5,
            "numberOfPages": 3,
            "visitedSite": "www.thousandeyes.com",
            "protocol": "https",
            "port": 443,
        }
    leg = {"latency": 150, "jitter": 46, "loss": 10.0, "target": "54.208.6.220"}
    statistics = {"min": 0.25, "max": 0.75, "mean": 0.5, "median": 0.375, "stdDev": 0.125, "count": 10}
    return common | {
        "destination": leg | {"avgRtt": 151, "maxRtt": 152.5, "meanDevRtt": 47},
        "vpn": leg,
        "proxy": leg,
        "systemMetrics": {
            "startTimeMs": 1_581_508_857_327,
            "endTimeMs": 1_581_508_867_333,
            "cpuUtilization": statistics,
            "physicalMemoryUsedBytes": {name: value * 2**34 for name, value in statistics.items()} | {"count": 11},
            "physicalMemoryTotalBytes": 2**34,
        },
    }


def changed(record: Record, path: str, value: Any) -> Record:
    """Return a copy of a record with another value at a path such as `destination.loss`; `...` takes it away."""
    copy: Record = json.loads(json.dumps(record))
    *way, last = path.split(".")
    inner = copy
    for name in way:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


def envelope(version: str, listing: str, *records: Any, **others: Any) -> Record:
    """Put records into a page."""
    return {shape(version, listing).results: list(records), **others}


def page(version: str, listing: str, *records: Any, **others: Any) -> Page[Any]:
    """Send records over the wire and read them."""
    return decode(json.dumps(envelope(version, listing, *records, **others)).encode(), shape(version, listing))


def measured(session: UserSession | NetworkSession) -> Mapping[str, float]:
    """Return what a session measured: API field → value in the base unit."""
    return measured_by((session, None) if isinstance(session, UserSession) else (user(session.id), session))
