"""What a real Alertmanager sends in a simulated day: `python tests/system/notifications.py`.

The simulated API, the exporter, Prometheus and Alertmanager run with the shipped configuration.
All durations in it are divided by 60, and the simulated company lives 60 times as fast: a day takes
24 minutes. The output is a table of all notifications; times are those of the company.

Alertmanager forgets a group without alerts after up to 30 seconds, which are half an hour here: the
next alert of the group waits for `group_interval` instead of `group_wait`.
"""

# ruff: noqa: T201

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from system import servers
from system.servers import AFTERNOON, SPEED, Receiver, Server

from exporter.simulator import Simulator, World

MIDNIGHT = AFTERNOON // 86400 * 86400


@dataclass(frozen=True)
class Notification:
    """One message to a receiver; times in seconds since midnight."""

    started: float
    """When the first of the alerts began to fire."""
    sent: float
    receiver: str
    status: str
    alerts: frozenset[str]
    about: str
    """The site, location or VPN, or the number of agents."""

    def __str__(self) -> str:
        """Format a line of the table."""
        times = (divmod(int(each) // 60, 60) for each in (self.started, self.sent))
        cells = [f"{hours:02}:{minutes:02}" for hours, minutes in times]
        cells += [self.receiver, self.status, ", ".join(sorted(self.alerts)), self.about]
        return f"| {' | '.join(cells)} |"


def notification(payload: Mapping[str, Any], began: float, start: float) -> Notification:
    """Read what Alertmanager sent to a webhook; `start` is the time of day at `began`."""
    alerts = [each["labels"] for each in payload["alerts"]]
    keys = ("site", "location", "vpn")
    places = {each[key] for each in alerts for key in keys if each.get(key)}
    agents = {each["agent"] for each in alerts if "agent" in each}
    about = ", ".join(sorted(places)) or (f"{len(agents)} agents" if agents else "exporter")
    names = frozenset(each["alertname"].removeprefix("ThousandEyes") for each in alerts)
    receiver = payload["receiver"].removeprefix("thousandeyes-")
    first = min(datetime.fromisoformat(each["startsAt"]) for each in payload["alerts"]).timestamp()
    started, sent = (start + SPEED * (each - began) for each in (first, payload["received"]))
    return Notification(started, sent, receiver, payload["status"], names, about)


@asynccontextmanager
async def simulated_day(
    folder: Path, world: World, start: float
) -> AsyncIterator[tuple[Simulator, Server, Receiver]]:
    """Run all programs from a time of the day on, in seconds since midnight.

    Yields the API, Alertmanager, and what it sends.
    """
    began = time.time()
    address = f"127.0.0.1:{servers.free_port()}"
    clock = f"({MIDNIGHT + start} + {SPEED} * (time() - {began}))"
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        api, url = await enter(
            servers.simulator(world, clock=lambda: MIDNIGHT + start + SPEED * (time.time() - began))
        )
        await enter(servers.exporter(url, address, poll__interval="1s", speed=str(SPEED)))
        alertmanager, receiver = await enter(servers.alertmanager(folder))
        await enter(servers.fast_prometheus(folder, address, alertmanager, clock))
        yield api, alertmanager, receiver


async def day(world: World, start: float, seconds: float) -> list[Notification]:
    """Return what was sent in a part of the day, which begins `start` seconds after midnight."""
    began = time.time()
    with TemporaryDirectory() as folder:
        async with simulated_day(Path(folder), world, start) as (_, _, receiver):
            await asyncio.sleep(began + seconds / SPEED - time.time())
    return [notification(each, began, start) for each in receiver.notifications]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", type=float, default=0, metavar="HOUR")
    parser.add_argument("--hours", type=float, default=24.5)
    parser.add_argument("--agents", type=int, default=60)
    parser.add_argument("--sites", type=int, default=6)
    parser.add_argument("--healthy", action="store_true")
    options = parser.parse_args()
    date = datetime.fromtimestamp(MIDNIGHT, UTC).date()
    problems = {"problems": ()} if options.healthy else {}
    world = World(agents=options.agents, sites=options.sites, **problems)
    found = asyncio.run(day(world, 3600 * options.start, 3600 * options.hours))
    print(f"{len(found)} notifications on {date} (UTC), in {options.hours} hours\n")
    print("| fired | sent | receiver | status | alerts | about |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(*found, sep="\n")


if __name__ == "__main__":
    main()
