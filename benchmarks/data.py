"""Responses of both session listings of API v7, as files: five minutes of a simulated company.

It has five agents for 25 sessions and 20 sites. All sessions are complete, in a round of their own
in their series, and without VPN or proxy, which the references do not publish.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from exporter.simulator import World, v7

AID = "1001"
END = 1_795_012_320
"""Time of the poll, Unix seconds: 2026-11-18 14:32:00 UTC, a Wednesday."""
LAST_ROUND = END - 60
PAGE_SIZE = 1000
LISTINGS = {"users": v7.user_session, "networks": v7.network_session}


def write(folder: Path, sessions: int) -> None:
    """Write the pages of a poll, and in `earlier` those of the poll a minute before."""
    world = World(agents=sessions // 5, sessions_per_minute=sessions // 2)
    found = {
        (each.agent.id, each.site.host, each.round_id): each
        for each in world.sessions(int(AID), END - 300, END - 1, math.inf)
        if each.listed and each.measured and each.destination and each.destination.latency
        if None not in (each.experience_score, each.system.cpu_utilization)
    }
    chosen = Random(1).sample(list(found.values()), sessions)  # noqa: S311
    chosen.sort(key=lambda each: each.date)
    earlier = [each for each in chosen if each.round_id < LAST_ROUND]
    for path, records in ((folder, chosen), (folder / "earlier", earlier)):
        path.mkdir(parents=True)
        for listing, convert in LISTINGS.items():
            for start in range(0, len(records), PAGE_SIZE):
                page = [convert(each) for each in records[start : start + PAGE_SIZE]]
                for record in page:
                    record.pop("vpn", None)
                    record.pop("proxy", None)
                body = msgspec.json.encode({"results": page, "_links": {}})
                (path / f"{listing}-{start:06}.json").write_bytes(body)


def read(folder: Path, listing: str) -> Iterator[bytes]:
    """Yield the pages of a listing."""
    return (path.read_bytes() for path in sorted(folder.glob(f"{listing}-*.json")))
