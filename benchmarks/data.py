"""Responses of both session listings of API v7, as files: five minutes of a simulated company.

It has five agents for 25 sessions and 20 sites. All sessions are complete and without VPN or proxy,
which the references do not publish. The same arguments give the same bytes.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from exporter.simulator import World, v7
from exporter.simulator.world import Session

AID = "1001"
END = 1_763_728_200
"""Time of the poll, Unix seconds; the start of a minute."""
LAST_ROUND = END - 60
SECONDS = 300
PAGE_SIZE = 1000
LISTINGS = {"users": v7.user_session, "networks": v7.network_session}


def write(folder: Path, sessions: int) -> None:
    """Write the pages of a poll, and in `earlier` those of the poll a minute before."""
    world = World(agents=sessions // 5, sessions_per_minute=sessions // 2)
    found = world.sessions(int(AID), END - SECONDS, END - 1, math.inf)
    chosen = Random(1).sample([each for each in found if _is_complete(each)], sessions)  # noqa: S311
    chosen.sort(key=lambda each: each.date)
    _write_pages(folder, chosen)
    _write_pages(folder / "earlier", [each for each in chosen if each.round_id < LAST_ROUND])


def read(folder: Path, listing: str) -> Iterator[bytes]:
    """Yield the pages of a listing."""
    return (path.read_bytes() for path in sorted(folder.glob(f"{listing}-*.json")))


def _is_complete(session: Session) -> bool:
    target, values = session.destination, (session.experience_score, session.system.cpu_utilization)
    both = session.listed and session.measured
    return bool(both and target and target.latency) and None not in values


def _write_pages(folder: Path, sessions: list[Session]) -> None:
    folder.mkdir(parents=True)
    for listing, convert in LISTINGS.items():
        for start in range(0, len(sessions), PAGE_SIZE):
            records = [convert(each) for each in sessions[start : start + PAGE_SIZE]]
            for record in records:
                record.pop("vpn", None)
                record.pop("proxy", None)
            path = folder / f"{listing}-{start:06}.json"
            path.write_bytes(msgspec.json.encode({"results": records, "_links": {}}))
