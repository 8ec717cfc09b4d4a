"""The web server with a made-up state, and requests to it as bytes."""

import asyncio
import functools
import gzip
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pki

from exporter.clock import Clock
from exporter.metrics.exposition import Format, Snapshot, Writer, compress
from exporter.metrics.self_metrics import SelfMetrics
from exporter.web.app import create_app
from exporter.web.auth import Authenticator
from exporter.web.server import serving
from exporter.web.status import StatusView

PASSWORD = "canary-5vTz0"
HASH = "$2b$10$abcdefghijklmnopqrstuu0h6ZmwudnlI1xlMBsd59tEGExmrLxVi"
USERS = f"basic_auth_users:\n  alice: {HASH}\n"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@functools.cache
def localhost() -> pki.Identity:
    return pki.shared_authority().issue("server", sans="DNS:localhost", key="rsa")


def install(folder: Path, identity: pki.Identity | None = None, file: str = "") -> None:
    """Copy a certificate, its key and the client CA, or one of them, into a folder."""
    made = identity or localhost()
    authority = pki.shared_authority().certificate
    files = {"server.crt": made.certificate, "server.key": made.key, "ca.crt": authority}
    for name in [file] if file else files:
        shutil.copy(files[name], folder / name)


def snapshot(samples: int = 3) -> Snapshot:
    """Make a snapshot; a sample has 75 bytes, half of that compressed."""
    random, writer = Random(1), Writer()  # noqa: S311
    for _ in range(samples):
        writer.write(f'a{{agent="{random.getrandbits(240):060x}"}} 1\n')
    part = writer.part()
    return Snapshot(part, {each: compress("b 1\n", part.crc) for each in Format})


class FakeState:
    """What the server publishes; each attribute can be set."""

    def __init__(self, published: Snapshot | None = None) -> None:
        self.url = ""
        self.snapshot = published or snapshot()
        self.metrics = SelfMetrics(process=False)
        self.healthy = self.ready = lambda: True
        self.view = StatusView("/metrics", 900.0, (), (), 0, 500_000, 0, 0, 120, None, None)

    async def status(self) -> StatusView:
        return self.view


@dataclass
class Reply:
    """A response; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The decompressed body."""
        zipped = self.headers.get("content-encoding") == "gzip"
        return (gzip.decompress(self.body) if zipped else self.body).decode()


@asynccontextmanager
async def serve(
    state: FakeState | None = None, auth: Authenticator | None = None, port: int = 0, **options: Any
) -> AsyncIterator[str]:
    """Serve on loopback; yields the URL. An option is `max_requests`."""
    options = {"telemetry_path": "/metrics", "max_requests": 40, "clock": Clock(), **options}
    app = create_app(state or FakeState(), authenticator=auth, **options)
    async with serving(app, "127.0.0.1", port, auth) as url:
        yield url


@asynccontextmanager
async def connection(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Streams]:
    """Connect to the port of a URL."""
    name = "localhost" if tls else None
    port = urlsplit(url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def head(target: str, method: str = "GET", *headers: tuple[str, str]) -> bytes:
    """Format a request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (("Host", "x"), *headers))
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")


async def ask(
    streams: Streams, target: str, *headers: tuple[str, str], method: str = "GET"
) -> Reply:
    """Send a request over a connection and read the response."""
    streams[1].write(head(target, method, *headers))
    lines = (await streams[0].readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(fields) == len(lines), "a header appears twice"
    size = 0 if method == "HEAD" else int(fields["content-length"])
    return Reply(int(lines[0].split()[1]), fields, await streams[0].readexactly(size))


async def get(
    url: str, target: str = "/metrics", *headers: tuple[str, str], **options: Any
) -> Reply:
    """Send a request over a connection of its own; options are `method` and `tls`."""
    async with connection(url, options.pop("tls", None)) as streams:
        return await ask(streams, target, *headers, **options)
