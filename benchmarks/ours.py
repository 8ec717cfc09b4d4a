"""The exporter with all of its components, polled on demand.

`poll FOLDER OUTPUT` polls pages in files, writes the compressed exposition and prints the CPU
seconds. `serve FOLDER PORT` serves it, and with `poll-and-serve`, it polls again and again.
"""

# ruff: noqa: T201

import asyncio
import gzip
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import data
from exporter import log
from exporter.account_group import AccountGroup
from exporter.app import Exporter
from exporter.clock import Clock
from exporter.metrics.exposition import Format, gzip_chunks
from exporter.poller import Poller
from exporter.settings import load
from exporter.simulator import Simulator, World
from exporter.thousandeyes.api import Api
from exporter.thousandeyes.schema import Listing, Request, decode
from exporter.web.app import create_app
from exporter.web.server import serving

FLAGS = ("--api.token=demo", "--api.requests-per-minute=10000", "--metrics.max-series=10000000")


@dataclass
class Files:
    """Reads pages from files, instead of a client."""

    folder: Path

    async def pages(self, request: Request, listing: Listing[Any], _: Any) -> AsyncIterator[Any]:
        """Yield all pages of a listing."""
        for body in data.read(self.folder, "networks" if "networks" in request.path else "users"):
            yield await asyncio.to_thread(decode, body, listing)


class PolledExporter(Exporter):
    """An exporter of one account group, with a clock that is set."""

    simulator: Simulator

    def __init__(self, now: float, *flags: str, client: Any = None) -> None:
        log.configure("error", "logfmt")
        self.now = now
        clock = Clock(lambda: self.now, lambda: self.now)
        super().__init__(load([*FLAGS, *flags], {}).settings, clock=clock)
        self.api = Api(client or self.client, "v7")
        self.publisher.add(AccountGroup(data.AID))
        self.pollers = self._create_pollers(data.AID)

    async def poll(self, *pollers: Poller) -> None:
        """Poll once, by default all sources, and publish the result."""
        for each in pollers or self.pollers:
            await each.poll()
            if each.failure:
                raise each.failure
        await self.publisher.publish()

    def compressed(self) -> bytes:
        """Return the current snapshot."""
        return b"".join(gzip_chunks([self.snapshot.common, self.snapshot.tails[Format.TEXT]]))

    def text(self) -> str:
        """Return what a scrape returns."""
        return gzip.decompress(self.compressed()).decode() + self.metrics.render(Format.TEXT)


@asynccontextmanager
async def simulated(agents: int, now: float, *flags: str) -> AsyncIterator[PolledExporter]:
    """Run an exporter of a simulated company with the same clock; it is not polled yet."""
    simulator = Simulator(World(agents=agents), clock=lambda: now, rate_limit=1_000_000)
    exporter = PolledExporter(now, f"--api.url={await simulator.start()}", *flags)
    simulator.clock, exporter.simulator = lambda: exporter.now, simulator
    yield exporter
    await exporter.close()
    await simulator.stop()


async def main(command: str, folder: Path, argument: str) -> None:
    """Poll the pages of a minute ago, and run a command with those of now."""
    sys.setswitchinterval(0.0005)  # as the command line does
    files = Files(folder / "earlier")
    exporter = PolledExporter(data.LAST_ROUND, client=files)
    sessions = exporter.pollers[0]
    for _ in range(4):  # the garbage collector runs completely in the first polls of a process
        await exporter.poll(sessions)
    files.folder, exporter.now, start = folder, data.END, time.process_time()
    await exporter.poll(sessions)
    if command == "poll":
        print(time.process_time() - start)
        Path(argument).write_bytes(exporter.compressed())  # noqa: ASYNC240
    else:
        app = create_app(exporter, telemetry_path="/metrics", max_requests=40, clock=Clock())
        async with serving(app, "127.0.0.1", int(argument)):
            while command == "poll-and-serve":
                await exporter.poll(sessions)
            await asyncio.Event().wait()
    await exporter.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
