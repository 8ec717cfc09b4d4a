"""Synthetic responses of both session listings of API v7, as files.

They have the shape of the examples in the API documentation: a fifth as many agents as sessions, 20
sites, 1,000 sessions a page, five minutes of sessions. The same arguments give the same bytes.
"""

# ruff: noqa: S311  not a secret

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec

AID = "1001"
END = 1_763_728_200
"""Time of the poll, Unix seconds; the start of a minute."""
LAST_ROUND = END - 60
SECONDS = 300
PAGE_SIZE = 1000
LISTINGS = ("users", "networks")
Record = dict[str, Any]
Visit = tuple[Record, Record]  # user session and network session


def write(folder: Path, sessions: int) -> None:
    """Write the pages of a poll, and in `earlier` those of the poll a minute before."""
    rng = Random(sessions)
    periods = {  # of an agent; its sessions share them
        str(UUID(int=rng.getrandbits(128), version=4)): [_system_metrics(rng) for _ in range(4)]
        for _ in range(sessions // 5)
    }
    agents = list(periods.items())
    dates = sorted(rng.randrange(END - SECONDS, END) for _ in range(sessions))
    visits = [_visit(rng, *rng.choice(agents), date) for date in dates]
    _write_pages(folder, visits)
    _write_pages(folder / "earlier", [v for v in visits if v[0]["roundId"] < LAST_ROUND])


def read(folder: Path, listing: str) -> Iterator[bytes]:
    """Yield the pages of a listing."""
    return (path.read_bytes() for path in sorted(folder.glob(f"{listing}-*.json")))


def _write_pages(folder: Path, visits: Sequence[Visit]) -> None:
    folder.mkdir(parents=True)
    for listing, records in zip(LISTINGS, zip(*visits, strict=True), strict=True):
        for page, start in enumerate(range(0, len(records), PAGE_SIZE)):
            link = {"next": {"href": f"https://api.example.com/v7/{listing}?cursor={page + 1}"}}
            results = records[start : start + PAGE_SIZE]
            body = msgspec.json.encode({"_links": link, "results": results})
            (folder / f"{listing}-{page:03}.json").write_bytes(body)


def _visit(rng: Random, agent: str, periods: list[Record], date: int) -> Visit:
    site = int(rng.random() ** 2.6 * 20)
    common = {
        "id": f"07625:{date}:{rng.getrandbits(40):010x}",
        "agentId": agent,
        "roundId": date - date % 60,
        "date": datetime.fromtimestamp(date, UTC),
    }
    user = {
        "committed": datetime.fromtimestamp(date + rng.randrange(60), UTC),
        "experienceScore": round(rng.random(), 3),
        "sourceAddress": f"2001:db8:{rng.getrandbits(16):x}::{rng.getrandbits(16):x}",
        "organizationName": "Example Access Network of the Metropolitan Area",
        "visitedSite": f"app{site:02}.example.com",
        "pageId": f"{rng.getrandbits(40):010x}",
        "protocol": "https" if site else "http",
        "numberOfPages": rng.randint(1, 6),
        "port": 443 if site else 80,
    }
    destination = {
        "loss": rng.randrange(50) / 10,
        "jitter": rng.randrange(40),
        "latency": rng.randrange(8, 128),
        "target": f"2001:db8:5bd1:e995::7334:{site}",
    }
    network = {"destination": destination, "systemMetrics": rng.choice(periods)}
    return common | user, common | network


def _system_metrics(rng: Random) -> Record:
    start = 1000 * (END - rng.randrange(SECONDS)) + rng.randrange(1000)
    return {
        "startTimeMs": start,
        "endTimeMs": start + 10_006,
        "cpuUtilization": _statistics(rng, 0.7, 4),
        "physicalMemoryUsedBytes": _statistics(rng, 2.0**33, 0),
        "physicalMemoryTotalBytes": 2**34,
    }


def _statistics(rng: Random, limit: float, digits: int) -> Record:
    low, median, mean, high = sorted(rng.uniform(0, limit) for _ in range(4))
    values = {"min": round(low, digits), "max": round(high, digits), "mean": mean, "median": median}
    return {**values, "stdDev": high / 9, "count": rng.randrange(100, 160)}
