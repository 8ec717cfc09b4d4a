"""The HTTP endpoints: formats, compression, caching, paths and methods, headers, health, page."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
from fake_clock import fake_clock, fake_time
from structlog.testing import capture_logs
from web_server import FakeState, ask, connection, get, serve, snapshot

from exporter import NAME
from exporter.clock import Clock
from exporter.metrics.exposition import Format
from exporter.web.app import ExpositionCache
from exporter.web.status import CONTENT_SECURITY_POLICY, render

TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS
OM = "application/openmetrics-text"
PROMETHEUS_2 = f"{OM};version=1.0.0,{OM};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*"
PROMETHEUS_3 = (
    f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.6,{OM};version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily"
ACCEPTED = {
    OPENMETRICS: (
        PROMETHEUS_2, PROMETHEUS_3, f"{PROTOBUF};q=0.7,{PROMETHEUS_2}", OM, f"text/plain,{OM}",
        'Application/OpenMetrics-Text; Version="1.0.0"', f"text/plain;q=.5,{OM};q=.5",
    ),
    TEXT: (
        PROTOBUF, "", "*/*", "text/html,application/xhtml+xml,*/*;q=0.8", "text/plain",
        "text/plain;version=1.0.0", f"{OM};version=0.0.1", f"{OM};version=2.0.0", f"{OM};q=0",
        f"{OM};q=.2,text/plain;q=.9", f"{OM};q=.2,*/*;q=.9", f"text/plain;q=0,{OM};q=0",
        f"{OM};q=nan", f"{OM};q=-1", f"{OM};q=17", f"{OM};q=high", ";;;,,,;q=,=",
        "\udcff\udcfe, \udce4/\udcf6", "text/plain," * 730,
    ),
}  # fmt: skip


@pytest.fixture
async def served() -> AsyncIterator[FakeState]:
    state = FakeState()
    async with serve(state) as state.url:
        yield state


@pytest.mark.parametrize(
    ("accept", "expected"), [(each, format_) for format_ in Format for each in ACCEPTED[format_]]
)
async def test_the_format_follows_accept(served: FakeState, accept: str, expected: Format) -> None:
    headers = [("Accept", each) for each in accept.split(",")]
    for reply in (await get(served.url, "/metrics", ("Accept", accept)),
                  await get(served.url, "/metrics", *headers[:100])):  # fmt: skip
        assert reply.status == 200
        assert reply.headers["content-type"] == expected.value
        assert reply.headers["vary"] == "Accept, Accept-Encoding"
        assert reply.text.endswith("# EOF\n") == (expected is OPENMETRICS)


@pytest.mark.parametrize(
    ("accept", "zipped"),
    [
        ("gzip", True), ("gzip, deflate, br, zstd", True), ("br, GZIP;q=0.1", True), ("*", True),
        ("*;q=0, gzip", True), ("gzip;q=0, *", False), ("gzip;q=0", False), ("gzip;q=no", False),
        ("identity", False), ("", False), (";,=;q", False),
    ],
)  # fmt: skip
async def test_gzip_is_sent_if_accepted(served: FakeState, accept: str, zipped: bool) -> None:
    reply = await get(served.url, "/metrics", ("Accept-Encoding", accept))
    assert reply.headers.get("content-encoding") == ("gzip" if zipped else None)
    assert reply.text == (await get(served.url)).text


async def test_a_body_of_many_chunks_is_the_same_in_both_encodings() -> None:
    async with serve(FakeState(snapshot(20_000))) as url:
        plain, zipped = await get(url), await get(url, "/metrics", ("Accept-Encoding", "gzip"))
    assert len(plain.body) > 1_400_000 > len(zipped.body) > 500_000
    assert zipped.text == plain.text
    assert plain.text.count("\na{") == 19_999
    assert "\nb 1\n# HELP thousandeyes_up" in plain.text


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_head_has_the_headers_of_get_and_no_body(served: FakeState, encoding: str) -> None:
    async with connection(served.url) as streams:
        accept = ("Accept-Encoding", encoding)
        head = await ask(streams, "/metrics", accept, method="HEAD")
        get = await ask(streams, "/metrics", accept)
    assert head.status == 200
    assert head.headers | {"date": ""} == get.headers | {"date": ""}


@fake_time
async def test_self_metrics_are_rendered_at_most_once_a_second() -> None:
    state = FakeState()
    cache = ExpositionCache(state, fake_clock())
    first = cache.body(TEXT)
    await asyncio.sleep(0.99)
    assert cache.body(TEXT) is first
    state.metrics.series.set(7)
    await asyncio.sleep(0.01)
    second = cache.body(TEXT)
    snapshot_parts = [state.snapshot.common, state.snapshot.tails[TEXT]]
    assert second.parts[:2] == first.parts[:2] == snapshot_parts
    assert second.parts[2] != first.parts[2]
    assert cache.body(OPENMETRICS).parts[2] != second.parts[2]


def test_a_replaced_snapshot_is_served_at_once_and_not_kept() -> None:
    state = FakeState()
    cache = ExpositionCache(state, Clock())
    old = state.snapshot
    references = sys.getrefcount(old.common)
    for format_ in Format:
        cache.body(format_)
    state.snapshot = snapshot(4)
    assert cache.body(TEXT).parts[0] is state.snapshot.common
    left = sys.getrefcount(old.common)
    assert left == references


@pytest.mark.parametrize("path", ["//metrics", "/x/../metrics", "/metrics%00", "/-/reload"])
async def test_other_paths_are_not_found(served: FakeState, path: str) -> None:
    reply = await get(served.url, path)
    assert (reply.status, reply.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert path.encode() not in reply.body


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_only_get_and_head_are_allowed(served: FakeState, method: str, path: str) -> None:
    reply = await get(served.url, path, method=method)
    allowed = method in ("GET", "HEAD")
    assert reply.status == (404 if path == "/nothing" else 200 if allowed else 405)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["server"] == NAME


@pytest.mark.parametrize("check", ["healthy", "ready"])
async def test_health_checks_fail_with_503_and_one_line(served: FakeState, check: str) -> None:
    reply = await get(served.url, f"/-/{check}")
    assert (reply.status, reply.text) == (200, f"{check}\n")
    setattr(served, check, lambda: False)
    reply = await get(served.url, f"/-/{check}")
    assert (reply.status, reply.text.count("\n")) == (503, 1)


async def test_the_status_page_has_a_strict_content_security_policy(served: FakeState) -> None:
    reply = await get(served.url, "/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert reply.text == render(served.view)


async def test_an_internal_error_is_logged_and_discloses_nothing(served: FakeState) -> None:
    del served.metrics
    with capture_logs() as logs:
        reply = await get(served.url, "/metrics", ("Accept", "text/html"))
    assert (reply.status, reply.headers["server"]) == (500, NAME)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert b"metrics" not in reply.body
    assert [each["event"] for each in logs] == ["request_crashed"]
