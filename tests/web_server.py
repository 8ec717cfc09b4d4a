"""The web server with a made-up state, and requests to it as bytes."""

import asyncio
import functools
import gzip
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pki
from fake_clock import fake_clock

from exporter.account_group import AccountGroup
from exporter.metrics.exposition import Format, Snapshot, compress
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources.results import PollRecord
from exporter.web.app import create_app
from exporter.web.auth import Authenticator
from exporter.web.server import serving
from exporter.web.status import SourceView, StatusView

PASSWORD = "canary-5vTz0"
HASH = "$2b$10$abcdefghijklmnopqrstuu0h6ZmwudnlI1xlMBsd59tEGExmrLxVi"
USERS = f"basic_auth_users:\n  alice: {HASH}\n"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
NOW = 1_795_012_350.0  # 2026-11-18 14:32:30 UTC
POLL = PollRecord(0.2, None, NOW - 12)
JOINS = {"joined": 990, "user_only": 10, "network_only": 4}
SESSIONS = SourceView("sessions", 60.0, [POLL] * 3, NOW + 48, NOW - 12, 1000, joins=JOINS)
GROUP = AccountGroup("1001", "Example")
LIMITS = (16_000, 500_000, 0, 14, 120, 226.0, 240.0)
VIEW = StatusView("/metrics", 900.0, [(GROUP, [SESSIONS])], [], *LIMITS, now=NOW)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@functools.cache
def localhost() -> pki.Identity:
    return pki.shared_authority().issue("server", sans="DNS:localhost", key="rsa")


def install(folder: Path, identity: pki.Identity | None = None) -> None:
    """Copy a certificate, its key and the client CA into a folder."""
    made = identity or localhost()
    shutil.copy(made.certificate, folder / "server.crt")
    shutil.copy(made.key, folder / "server.key")
    shutil.copy(pki.shared_authority().certificate, folder / "ca.crt")


def snapshot(samples: int = 3) -> Snapshot:
    """Make a snapshot; a sample has 75 bytes, half of that compressed."""
    random = Random(1)  # noqa: S311
    lines = [f'a{{agent="{random.getrandbits(240):060x}"}} 1\n' for _ in range(samples)]
    part = compress("".join(lines), 0)
    return Snapshot(part, {each: compress("b 1\n", part.crc) for each in Format})


class FakeState:
    """What the server publishes; each attribute can be set."""

    def __init__(self, published: Snapshot | None = None) -> None:
        self.url = ""
        self.snapshot = published or snapshot()
        self.metrics = SelfMetrics(process=False)
        self.healthy = self.ready = lambda: True

    async def status(self) -> StatusView:
        return VIEW


class Reply(NamedTuple):
    """A response; names of headers in lower case, and the decompressed body."""

    status: int
    headers: dict[str, str]
    text: str


@asynccontextmanager
async def serve(
    state: FakeState | None = None, auth: Authenticator | None = None, max_requests: int = 40
) -> AsyncIterator[str]:
    """Serve on loopback; yields the URL."""
    options: dict[str, Any] = {"telemetry_path": "/metrics", "max_requests": max_requests}
    app = create_app(state or FakeState(), clock=fake_clock(), authenticator=auth, **options)
    async with serving(app, "127.0.0.1", 0, auth) as url:
        yield url


@asynccontextmanager
async def serve_with(
    folder: Path, web_config: str, state: FakeState | None = None
) -> AsyncIterator[str]:
    """Serve with the web configuration file `web.yml` in a folder with certificates."""
    install(folder)
    (folder / "web.yml").write_text(web_config)
    async with serve(state, Authenticator(folder / "web.yml", fake_clock())) as url:
        yield url


@asynccontextmanager
async def connection(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Streams]:
    """Connect to the port of a URL."""
    options = {"ssl": tls, "server_hostname": "localhost" if tls else None}
    reader, writer = await asyncio.open_connection("127.0.0.1", url.rpartition(":")[2], **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def ask(
    streams: Streams, target: str, *headers: tuple[str, str], method: str = "GET"
) -> Reply:
    """Send a request over a connection and read the response."""
    reader, writer = streams
    lines = "".join(f"{name}: {value}\r\n" for name, value in (("Host", "x"), *headers))
    request = f"{method} {target} HTTP/1.1\r\n{lines}\r\n"
    writer.write(request.encode("utf-8", "surrogateescape"))
    status, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    assert len(fields) == len(rest), "a header appears twice"
    body = await reader.readexactly(int(fields["content-length"]) if method != "HEAD" else 0)
    text = gzip.decompress(body) if "content-encoding" in fields else body
    return Reply(int(status.split()[1]), fields, text.decode())


async def get(
    url: str, target: str = "/metrics", *headers: tuple[str, str], **options: Any
) -> Reply:
    """Send a request over a connection of its own; options are `method` and `tls`."""
    async with connection(url, options.pop("tls", None)) as streams:
        return await ask(streams, target, *headers, **options)
