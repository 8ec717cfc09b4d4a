"""The exporter with all of its components, polled on demand; pages are files.

`poll FOLDER OUTPUT` writes the compressed exposition and prints the CPU seconds. `serve FOLDER
PORT` serves it, and with `poll-and-serve`, one poll follows the other in the meantime.
"""

# ruff: noqa: ASYNC240, T201

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from exporter.thousandeyes.api import Api
from exporter.thousandeyes.schema import Rejected, decode
from exporter.web.app import create_app
from exporter.web.server import serving


class FileApi(Api):
    """Reads pages from files instead of requesting them."""

    folder: Path

    async def read(self, listings: Any, *_: Any, **__: Any) -> tuple[Any, Rejected]:
        """Return all sessions."""
        records: list[list[Any]] = [[], []]
        for found, listing, name in zip(records, listings, ("users", "networks"), strict=True):
            for body in data.read(self.folder, name):
                found.extend((await asyncio.to_thread(decode, body, listing)).records)
        return records, Counter()

    async def account_groups(self, *_: Any) -> list[AccountGroup]:
        """Return one account group without a name."""
        return [AccountGroup(data.AID)]


@asynccontextmanager
async def exporter(url: str, **components: Any) -> AsyncIterator[Exporter]:
    """Create an exporter of one account group; it is not polled yet."""
    flags = {"url": url, "token": "demo", "account-groups": data.AID, "requests-per-minute": 10_000}
    arguments = [f"--api.{name}={value}" for name, value in flags.items()]
    settings = load([*arguments, "--metrics.max-series=10000000"], {}).settings
    log.configure("error", "logfmt")
    exporter = Exporter(settings, **components)
    await exporter.manager.update()
    yield exporter
    await exporter.close()


async def poll(exporter: Exporter, poller: Poller) -> None:
    """Poll once and publish the result."""
    await poller.poll()
    if poller.failure:
        raise poller.failure
    await exporter.publisher.publish()


async def main(command: str, folder: Path, argument: str) -> None:
    """Poll the pages of a minute ago, and run a command with those of now."""
    sys.setswitchinterval(0.0005)  # as the command line does
    now, url = data.LAST_ROUND, "http://127.0.0.1:9"
    async with exporter(url, clock=Clock(wall=lambda: now), api_type=FileApi) as running:
        poller = running.manager.pollers[0]
        FileApi.folder = folder / "earlier"
        for _ in range(2):  # the first poll of a process is not typical
            await poll(running, poller)
        FileApi.folder, now, start = folder, data.END, time.process_time()
        await poll(running, poller)
        if command == "poll":
            print(time.process_time() - start)
            parts = [running.snapshot.common, running.snapshot.tails[Format.TEXT]]
            Path(argument).write_bytes(b"".join(gzip_chunks(parts)))
            return
        app = create_app(running, telemetry_path="/metrics", max_requests=40, clock=running.clock)
        async with serving(app, "127.0.0.1", int(argument)):
            while command == "poll-and-serve":
                await poll(running, poller)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
