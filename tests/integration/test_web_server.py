"""The web server: endpoints, time limits, limits, malformed requests, and shutdown."""

import asyncio
import resource
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from fake_clock import fake_clock, fake_time, wall
from pki import client_context
from structlog.testing import capture_logs
from web_server import TLS, VIEW, FakeState, ask, connection, get, serve, serve_with, snapshot

from exporter import NAME
from exporter.metrics.exposition import Format
from exporter.web.app import ExpositionCache
from exporter.web.status import content_security_policy, render

TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS
OM, TEXT_PLAIN = "application/openmetrics-text", "text/plain;version=0.0.4"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.7"
PROMETHEUS_2 = f"{OM};version=1.0.0,{OM};version=0.0.1;q=0.75,{TEXT_PLAIN};q=0.5,*/*;q=0.1"
PROMETHEUS_3 = f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.6,{TEXT_PLAIN};q=0.3,*/*;q=0.2"
ACCEPTED = {
    OPENMETRICS: (
        PROMETHEUS_2, PROMETHEUS_3, f"{PROTOBUF},{PROMETHEUS_2}", f"{TEXT_PLAIN},{OM}",
        'Application/OpenMetrics-Text; Version="1.0.0"', f"text/plain;q=.5,{OM};q=.5",
    ),
    TEXT: (
        PROTOBUF, "", "text/html,*/*;q=0.8", f"{OM};version=0.0.1", f"{OM};q=.2,{TEXT_PLAIN};q=.9",
        f"text/plain;q=0,{OM};q=0", f"{OM};q=17", f"{OM};q=high", ";;;,,,;q=,=", "\udcff, \udce4/x",
    ),
}  # fmt: skip
ENCODINGS = {
    "gzip": True, "gzip, deflate": True, "br, GZIP;q=0.1": True, "*": True,
    "gzip;q=0, *": False, "gzip;q=no": False, "identity": False, "": False, ";,=;q": False,
}  # fmt: skip
PATHS = ("/metrics", "/-/healthy", "/-/ready", "/")
UNKNOWN = ("/nothing", "//metrics", "/x/../metrics", "/metrics%00", "/-/reload")
HOST, GET = b"Host: x\r\n", b"GET /metrics HTTP/1.1\r\n"
PLAIN = GET + HOST + b"\r\n"
GZIP = GET + HOST + b"Accept-Encoding: gzip\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the start of a TLS handshake


@pytest.fixture
async def served() -> AsyncIterator[FakeState]:
    state = FakeState()
    async with serve(state) as state.url:
        yield state


@pytest.mark.parametrize("expected", Format)
async def test_the_format_follows_accept(served: FakeState, expected: Format) -> None:
    for accept in ACCEPTED[expected]:
        reply = await get(served.url, "/metrics", ("Accept", accept))
        assert (reply.status, reply.headers["content-type"]) == (200, expected.value), accept
        assert reply.headers["vary"] == "Accept, Accept-Encoding"
        assert reply.text.endswith("# EOF\n") == (expected is OPENMETRICS)


async def test_gzip_is_sent_if_accepted_and_the_text_is_the_same() -> None:
    async with serve(FakeState(snapshot(20_000))) as url, connection(url) as streams:
        plain = await get(url)
        for accept, zipped in ENCODINGS.items():
            reply = await ask(streams, "/metrics", ("Accept-Encoding", accept))
            head = await ask(streams, "/metrics", ("Accept-Encoding", accept), method="HEAD")
            assert reply.headers.get("content-encoding") == ("gzip" if zipped else None), accept
            assert reply.text == plain.text
            assert (int(reply.headers["content-length"]) < 1_000_000) == zipped
            assert head.headers | {"date": ""} == reply.headers | {"date": ""}
    assert "\nb 1\n# HELP thousandeyes_up" in plain.text


@fake_time
async def test_a_new_snapshot_is_served_at_once_and_self_metrics_after_a_second() -> None:
    state = FakeState()
    cache = ExpositionCache(state, fake_clock())
    before = cache.body(TEXT)
    assert cache.body(TEXT) is before
    state.metrics.series.set(7)
    await asyncio.sleep(1.0)
    assert cache.body(TEXT).parts[2] != before.parts[2] != cache.body(OPENMETRICS).parts[2]
    state.snapshot = snapshot(4)
    assert cache.body(TEXT).parts[0] is state.snapshot.common


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_only_get_and_head_of_known_paths_are_allowed(served: FakeState, method: str) -> None:
    allowed = dict.fromkeys(PATHS, 200 if method in ("GET", "HEAD") else 405)
    for path, status in (allowed | dict.fromkeys(UNKNOWN, 404)).items():
        reply = await get(served.url, path, method=method)
        assert reply.status == status
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["server"] == NAME
        assert status != 404 or path not in reply.text


@pytest.mark.parametrize("check", ["healthy", "ready"])
async def test_health_checks_fail_with_503_and_one_line(served: FakeState, check: str) -> None:
    good = await get(served.url, f"/-/{check}")
    setattr(served, check, lambda: False)
    bad = await get(served.url, f"/-/{check}")
    assert (good.status, good.text) == (200, f"{check}\n")
    assert (bad.status, bad.text.count("\n")) == (503, 1)


async def test_the_status_page_has_a_strict_content_security_policy(served: FakeState) -> None:
    reply = await get(served.url, "/")
    policy = reply.headers["content-security-policy"]
    assert (reply.text, policy) == (render(VIEW), content_security_policy(reply.text))
    assert policy.startswith("default-src 'none';")
    assert ("script" in policy, "unsafe" in policy) == (False, False)


async def test_an_internal_error_is_logged_and_discloses_nothing(served: FakeState) -> None:
    del served.metrics
    with capture_logs() as logs:
        reply = await get(served.url, "/metrics", ("Accept", "text/html"))
    assert (reply.status, reply.headers["server"]) == (500, NAME)
    assert "metrics" not in reply.text
    assert [each["event"] for each in logs] == ["request_crashed"]


@pytest.fixture(scope="module")
def big() -> FakeState:
    """Return a state whose body is larger than the buffers of the kernel, also compressed."""
    return FakeState(snapshot(200_000))


@asynccontextmanager
async def not_reading(url: str, data: bytes = PLAIN) -> AsyncIterator[socket.socket]:
    """Send bytes, as far as they are accepted, over a connection with a small receive window."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        await asyncio.get_running_loop().sock_connect(client, address)
        with suppress(BlockingIOError):
            client.send(data)
        await asyncio.sleep(0.1)
        yield client


INCOMPLETE = {
    "silent": (False, b"", b""),
    "half-sent": (False, GET + HOST + b"X-A: b", b""),
    "trickled": (False, GET, b"x"),
    "trickled-second-request": (False, PLAIN + GET, b"x"),
    "tls-silent": (True, b"", b""),
    "tls-stalled-handshake": (True, HELLO, b""),
    "tls-plain-http": (True, PLAIN, b""),
}


@pytest.mark.parametrize(("tls", "first", "then"), INCOMPLETE.values(), ids=INCOMPLETE)
@fake_time
async def test_an_incomplete_handshake_or_request_ends_the_connection(
    tmp_path: Path, tls: bool, first: bytes, then: bytes
) -> None:
    with capture_logs() as logs:
        server = serve_with(tmp_path, TLS) if tls else serve()
        async with server as url, connection(url) as (reader, writer):
            start = wall()
            writer.write(first)
            reading = asyncio.gather(reader.read(), return_exceptions=True)
            while not reading.done():
                writer.write(then)
                await asyncio.sleep(1.0)
            assert wall() - start < 15.0
    assert logs == []


@fake_time
async def test_a_client_that_does_not_read_makes_room_for_another_scrape(big: FakeState) -> None:
    async with serve(big, max_requests=1) as url, not_reading(url):
        with capture_logs() as logs:
            reply = await get(url)
            assert (reply.status, "web.max_requests" in reply.text) == (503, True)
            assert (await get(url, "/-/healthy")).status == 200
            await asyncio.sleep(1.5)
            assert (await get(url)).status == 200
    assert [each["event"] for each in logs] == ["scrape_refused", "response_aborted"]


@pytest.mark.parametrize(
    ("rate", "seconds", "reason"), [(0, 5.5, "stalled"), (300_000, 30.0, "timeout")]
)
@fake_time
async def test_a_client_that_reads_too_slowly_is_disconnected(
    rate: int, seconds: float, reason: str, big: FakeState
) -> None:
    start = wall()
    with capture_logs() as logs:
        async with serve(big) as url, not_reading(url) as slow:
            while not logs:
                read = 0
                while read < rate:
                    with suppress(BlockingIOError):
                        read += len(slow.recv(65_536))
                    await asyncio.sleep(0)
                await asyncio.sleep(1.0)
            assert wall() - start == pytest.approx(seconds, rel=0.2)
    assert [(each["event"], each["reason"]) for each in logs] == [("response_aborted", reason)]


@pytest.mark.parametrize("data", [GZIP, PLAIN], ids=["gzip", "plain"])
async def test_slow_clients_hold_no_copy_of_the_body(data: bytes, big: FakeState) -> None:
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


MALFORMED = {
    "tls": HELLO + b"canary",
    "two-hosts": GET + HOST + b"Host: canary\r\n",
    "length-and-chunked": GET + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_is_refused_and_none_of_its_bytes_is_logged(data: bytes) -> None:
    async with serve() as url, connection(url) as (reader, writer):
        with capture_logs() as logs:
            writer.write(data + b"\r\n")
            text = await reader.read()
    assert text.split()[1] == b"400"
    assert [each["event"] for each in logs] == ["malformed_request"]
    assert "canary" not in str(logs)


UNSUPPORTED = {
    "upgrade": GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    "connect": b"CONNECT x:1 HTTP/1.1\r\n",
    "body": b"POST /metrics HTTP/1.1\r\nContent-Length: 10000000000\r\n",
}


@pytest.mark.parametrize("data", UNSUPPORTED.values(), ids=UNSUPPORTED)
@fake_time
async def test_nothing_is_read_after_the_headers_of_what_is_not_supported(data: bytes) -> None:
    async with serve() as url, connection(url) as (reader, writer):
        start = wall()
        writer.write(data + HOST + b"\r\n" + PLAIN)
        text = await reader.read()
        assert wall() - start < 1.0
    assert text.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("limit", [pytest.param(128, id="plain"), pytest.param(100, id="tls")])
async def test_a_new_connection_replaces_the_one_that_is_idle_longest(
    tmp_path: Path, limit: int, big: FakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    tls = client_context() if limit == 100 else None
    server = serve_with(tmp_path, TLS, big) if tls else serve(big)
    async with server as url, AsyncExitStack() as stack:
        logs = stack.enter_context(capture_logs())
        busy = await stack.enter_async_context(connection(url, tls))
        busy[1].write(PLAIN)
        await busy[0].readuntil(b"\r\n\r\n")
        new = (connection(url) for _ in range(limit + 10))
        idle = [await stack.enter_async_context(each) for each in new]
        assert (await get(url, "/-/healthy", tls=tls)).status == 200
        assert await busy[0].read(1)
        await asyncio.gather(idle[0][0].read(), return_exceptions=True)
        assert not idle[-1][0].at_eof()
    assert {(event["event"], event["limit"]) for event in logs} == {("too_many_connections", limit)}


async def test_at_shutdown_a_running_scrape_completes(big: FakeState) -> None:
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
