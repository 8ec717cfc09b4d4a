"""Connections to the web server: time limits, limits, malformed requests, and shutdown."""

import asyncio
import os
import resource
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fake_clock import fake_clock, fake_time
from pki import client_context
from structlog.testing import capture_logs
from web_server import TLS, FakeState, connection, get, head, install, serve, snapshot

from exporter import NAME
from exporter.web.auth import Authenticator

HOST = b"Host: x\r\n"
GET = b"GET /metrics HTTP/1.1\r\n"
GZIP, PLAIN = (
    GET + HOST + b"Accept-Encoding: %b\r\n\r\n" % each for each in (b"gzip", b"identity")
)
ENCODINGS = pytest.mark.parametrize("data", [GZIP, PLAIN], ids=["gzip", "plain"])
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""Start of a TLS handshake."""


@pytest.fixture(scope="module")
def big() -> FakeState:
    """Return a state whose body is larger than the buffers of the kernel, also compressed."""
    return FakeState(snapshot(200_000))


def now() -> float:
    return asyncio.get_running_loop().time()


def open_files() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208


@asynccontextmanager
async def not_reading(url: str, data: bytes = PLAIN) -> AsyncIterator[socket.socket]:
    """Send bytes, as far as they are accepted, over a connection with a small receive window."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", urlsplit(url).port))
        with suppress(BlockingIOError):
            client.send(data)
        await asyncio.sleep(0.1)
        yield client


@pytest.mark.parametrize(
    ("first", "then"),
    [(b"", b""), (GET + HOST + b"X-A: b", b""), (GET, b"x"), (GET + HOST + b"\r\n" + GET, b"x")],
    ids=["silent", "incomplete-request", "one-byte-per-second", "incomplete-second-request"],
)
@fake_time
async def test_an_incomplete_request_ends_the_connection(first: bytes, then: bytes) -> None:
    async with serve() as url, connection(url) as (reader, writer):
        start = now()
        writer.write(first)
        reading = asyncio.create_task(reader.read())
        while not reading.done():
            writer.write(then)
            await asyncio.sleep(1.0)
        assert now() - start < 15.0


@pytest.mark.parametrize(
    ("data", "seconds"),
    [(b"", 15.0), (HELLO, 15.0), (GZIP, 1.0)],
    ids=["silent", "stalled-handshake", "plain-http"],
)
@fake_time
async def test_an_incomplete_handshake_ends(tmp_path: Path, data: bytes, seconds: float) -> None:
    install(tmp_path)
    (tmp_path / "web.yml").write_text(TLS)
    async with AsyncExitStack() as stack:
        logs = stack.enter_context(capture_logs())
        auth = Authenticator(tmp_path / "web.yml", fake_clock())
        url = await stack.enter_async_context(serve(auth=auth))
        clients = [await stack.enter_async_context(connection(url)) for _ in range(50)]
        start = now()
        for _, writer in clients:
            writer.write(data)
        assert (await get(url, tls=client_context())).status == 200
        await asyncio.gather(*(reader.read() for reader, _ in clients), return_exceptions=True)
        assert now() - start < seconds
        assert logs == []


@ENCODINGS
@fake_time
async def test_a_client_that_does_not_read_makes_room_for_another_scrape(
    data: bytes, big: FakeState
) -> None:
    async with serve(big, max_requests=1) as url, not_reading(url, data):
        with capture_logs() as logs:
            reply = await get(url)
            assert (reply.status, "web.max_requests" in reply.text) == (503, True)
            assert (await get(url, "/-/healthy")).status == 200
            await asyncio.sleep(1.5)
            assert (await get(url)).status == 200
    assert [each["event"] for each in logs] == ["scrape_refused", "response_aborted"]


@pytest.mark.parametrize(
    ("rate", "low", "high", "reason"), [(0, 4.0, 7.0, "stalled"), (300_000, 25.0, 35.0, "timeout")]
)
@fake_time
async def test_a_client_that_reads_too_slowly_is_disconnected(
    rate: int, low: float, high: float, reason: str, big: FakeState
) -> None:
    start = now()
    with capture_logs() as logs:
        async with serve(big) as url, not_reading(url) as slow:
            while not logs:
                read = 0
                while read < rate:
                    try:
                        read += len(slow.recv(65_536))
                    except BlockingIOError:
                        await asyncio.sleep(0)
                await asyncio.sleep(1.0)
            assert low < now() - start < high
    assert [(each["event"], each["reason"]) for each in logs] == [("response_aborted", reason)]


@pytest.mark.parametrize("last", [b"", b"malformed\r\n\r\n"])
@fake_time
async def test_a_client_that_never_reads_is_disconnected(last: bytes) -> None:
    files = open_files()
    async with serve() as url, not_reading(url, head("/nothing") * 2000 + last):
        await asyncio.sleep(60.0)
        assert open_files() == files + 2  # the listening socket, and the client's


@ENCODINGS
async def test_slow_clients_hold_no_copy_of_the_body_and_disconnect_unlogged(
    data: bytes, big: FakeState
) -> None:
    with capture_logs() as logs:
        async with serve(big) as url, AsyncExitStack() as stack:
            await get(url, method="HEAD")
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            for _ in range(10):
                await stack.enter_async_context(not_reading(url, data))
            assert tracemalloc.get_traced_memory()[1] < 10 * 600_000
            await stack.aclose()
            assert (await get(url)).status == 200
    assert logs == []


UNUSUAL = {
    "http-1.0": (b"GET / HTTP/1.0\r\n", 200),
    "absolute-url": (b"GET http://x/metrics?y HTTP/1.1\r\n" + HOST, 200),
    "bad-url": (b"GET http://[::1/ HTTP/1.1\r\n" + HOST, 400),
    "options": (b"OPTIONS * HTTP/1.1\r\n" + HOST, 404),
    "bad-host": (b"GET / HTTP/1.1\r\nHost: canary/x\r\n", 400),
    "ip-address": (b"GET / HTTP/1.1\r\nHost: [::1]:9350\r\n", 200),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03canary", 400),
    "garbage": (b"\xde\xad\xbe\xef canary\r\n", 400),
    "unknown-method": (b"CANARY / HTTP/1.1\r\n" + HOST, 400),
    "no-host": (GET, 400),
    "two-hosts": (GET + HOST + HOST, 400),
    "expect": (GET + HOST + b"Expect: canary\r\n", 417),
    "200-headers": (GET + HOST + b"Canary: y\r\n" * 200, 400),
    "long-header": (GET + HOST + b"X: " + b"canary" * 1500 + b"\r\n", 400),
    "length-and-chunked": (GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
    "folded-header": (GET + HOST + b"A: b\r\n canary\r\n", 400),
    "bare-line-feed": (GET + HOST + b"A: canary\n", 400),
}


@pytest.mark.parametrize(("data", "status"), UNUSUAL.values(), ids=UNUSUAL)
async def test_no_byte_of_an_unusual_request_is_logged(data: bytes, status: int) -> None:
    async with serve() as url, connection(url) as (reader, writer):
        with capture_logs() as logs:
            writer.write(data + b"Connection: close\r\n\r\n")
            text = await reader.read()
        assert (await get(url, "/-/healthy")).status == 200
    assert text.split()[1] == str(status).encode()
    assert f"\r\nServer: {NAME}\r\n".encode() in text
    assert "canary" not in str(logs).lower()
    assert [event["event"] for event in logs] == ["malformed_request"] * (status == 400)


@pytest.mark.parametrize(
    "data", [GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"CONNECT x:1 HTTP/1.1\r\n"]
)
async def test_nothing_is_read_after_a_request_for_another_protocol(data: bytes) -> None:
    async with serve() as url, connection(url) as (reader, writer):
        writer.write(data + HOST + b"\r\n" + PLAIN)
        text = await reader.read()
    assert text.count(b"HTTP/1.1 ") == text.count(b"\r\nConnection: close\r\n") == 1


async def test_a_request_body_is_not_read() -> None:
    async with serve() as url, connection(url) as (reader, writer):
        writer.write(b"POST /metrics HTTP/1.1\r\n" + HOST + b"Content-Length: 10000000000\r\n\r\n")
        assert b" 405 " in await reader.readline()
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(1000):
                writer.write(b"x" * 100_000)
                await writer.drain()


@pytest.mark.parametrize(
    ("text", "limit"), [("http_server_config: {}", 128), (TLS, 100)], ids=["plain", "handshakes"]
)
async def test_a_new_connection_replaces_the_one_that_is_idle_longest(
    tmp_path: Path, text: str, limit: int, big: FakeState
) -> None:
    install(tmp_path)
    (tmp_path / "web.yml").write_text(text)
    tls = client_context() if text == TLS else None
    async with AsyncExitStack() as stack:
        auth = Authenticator(tmp_path / "web.yml", fake_clock())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resource, "getrlimit", lambda _: (256, 256))
            url = await stack.enter_async_context(serve(big, auth))
        logs = stack.enter_context(capture_logs())
        busy = await stack.enter_async_context(connection(url, tls))
        busy[1].write(PLAIN)
        await busy[0].readuntil(b"\r\n\r\n")
        new = [stack.enter_async_context(connection(url)) for _ in range(limit + 10)]
        idle = [await each for each in new]
        assert (await get(url, "/-/healthy", tls=tls)).status == 200
        assert await busy[0].read(1)
        await asyncio.gather(idle[0][0].read(), return_exceptions=True)
        assert not idle[-1][0].at_eof()
    assert {(event["event"], event["limit"]) for event in logs} == {("too_many_connections", limit)}
    assert len(logs) == (11 if tls else 12)


async def test_at_shutdown_a_running_scrape_completes_and_connections_are_refused(
    big: FakeState,
) -> None:
    server = serve(big)
    url = await server.__aenter__()
    async with connection(url) as (idle, _), connection(url) as (reader, writer):
        writer.write(PLAIN)
        headers = await reader.readuntil(b"\r\n\r\n")
        stop = asyncio.create_task(server.__aexit__(None, None, None))
        assert await idle.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await get(url)
        assert not stop.done()
        await reader.readexactly(int(headers.partition(b"Content-Length: ")[2].split()[0]))
        assert await reader.read() == b""
        await stop
