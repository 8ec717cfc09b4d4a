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
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from system import servers
from system.servers import AFTERNOON, SPEED, Receiver, Server

from exporter import log
from exporter.app import Exporter
from exporter.clock import Clock
from exporter.settings import load
from exporter.simulator import Simulator, World
from exporter.simulator.world import DEFAULT_PROBLEMS
from exporter.web.app import create_app
from exporter.web.server import serving

MIDNIGHT = AFTERNOON // 86400 * 86400


def row(payload: Mapping[str, Any], clock: Callable[[float], float]) -> str:
    """Format what Alertmanager sent as a row of the table."""
    alerts = [each["labels"] for each in payload["alerts"]]
    keys = ("site", "location", "vpn")
    places = {each[key] for each in alerts for key in keys if each.get(key)}
    agents = {each["agent"] for each in alerts if "agent" in each}
    about = ", ".join(sorted(places)) or (f"{len(agents)} agents" if agents else "exporter")
    names = {each["alertname"].removeprefix("ThousandEyes") for each in alerts}
    first = min(datetime.fromisoformat(each["startsAt"]) for each in payload["alerts"]).timestamp()
    times = (datetime.fromtimestamp(clock(each), UTC) for each in (first, payload["received"]))
    cells = [f"{each:%H:%M}" for each in times]
    cells += [payload["receiver"].removeprefix("thousandeyes-"), payload["status"]]
    return f"| {' | '.join([*cells, ', '.join(sorted(names)), about])} |"


@asynccontextmanager
async def simulated_day(
    folder: Path, world: World, hour: float
) -> AsyncIterator[tuple[Simulator, Server, Receiver, Callable[[float], float]]]:
    """Run all programs from an hour of the day on.

    Yields the API, Alertmanager, what it sends, and the company's time by real time.
    """
    start, began = MIDNIGHT + 3600 * hour, time.time()

    def clock(real: float) -> float:
        return start + SPEED * (real - began)

    fast = Clock(lambda: SPEED * time.monotonic(), lambda: clock(time.time()))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        api, url = await enter(servers.simulator(world, clock=fast.wall))
        flags = servers.flags(url, poll__interval="1s")
        exporter = Exporter(load(flags, {}).settings, clock=fast)
        stack.push_async_callback(exporter.close)
        app = create_app(exporter, telemetry_path="/metrics", max_requests=40, clock=fast)
        address = urlsplit(await enter(serving(app, "127.0.0.1", 0))).netloc
        polling = asyncio.create_task(exporter.run())
        stack.callback(polling.cancel)
        alertmanager, receiver = await enter(servers.alertmanager(folder))
        now = f"({start} + {SPEED} * (time() - {began}))"
        await enter(servers.fast_prometheus(folder, address, alertmanager, now))
        yield api, alertmanager, receiver, clock


async def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", type=float, default=0, metavar="HOUR")
    parser.add_argument("--hours", type=float, default=24.5)
    parser.add_argument("--healthy", action="store_true")
    options = parser.parse_args()
    log.configure("error", "logfmt")
    world = World(agents=60, sites=6, problems=() if options.healthy else DEFAULT_PROBLEMS)
    with TemporaryDirectory() as folder:
        async with simulated_day(Path(folder), world, options.start) as (*_, receiver, clock):
            end = MIDNIGHT + 3600 * (options.start + options.hours)
            await asyncio.sleep((end - clock(time.time())) / SPEED)
    found = receiver.notifications
    print(f"{len(found)} notifications in {options.hours} hours (times in UTC)\n")
    print("| fired | sent | receiver | status | alerts | about |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(*(row(each, clock) for each in found), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
