"""What a scraper gets, byte by byte, on a real port; and that no reader disturbs another one."""

import asyncio
import gzip as gzip_module
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from servers import ask, connect, exporting, finished, logging_as, raw, read_reply, simulated, tool, until

from exporter import NAME, web
from exporter import page as people
from exporter import server as http_server
from exporter.aggregate import Rows
from exporter.app import listen
from exporter.clock import Clock
from exporter.exposition import NOTHING, Format, Group, Snapshot, render
from exporter.model import Key
from exporter.server import Server
from exporter.simulator import World
from exporter.values import ListenAddress
from exporter.web import Exposition, accepts_gzip, negotiate

TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


def snapshot(keys: int = 3, value: float = 1.0) -> Snapshot:
    """A snapshot in which every sample has one value."""
    names = [Key(f"agent-{n:07}", "site.example", "https") for n in range(keys)]
    columns = {short: np.full(keys, value) for short in ("latency_seconds", "sessions")}
    return render([Group("7", Rows(names, columns))])


class Own:
    """The exporter's own metrics, which count how often they are rendered."""

    def __init__(self) -> None:
        self.rendered = 0

    def render(self, format_: Format) -> str:
        self.rendered += 1
        end = "# EOF\n" if format_ is OPENMETRICS else ""
        return f"# HELP own How often.\n# TYPE own gauge\nown {self.rendered}\n{end}"


VIEW = people.View("/metrics", 900.0, [], [], 0, 500_000, 0, 0, 120, None, None)


class Stage:
    """A server with everything around it made up."""

    def __init__(self, shown: Snapshot) -> None:
        self.snapshot = shown
        self.own = Own()
        self.now = 100.0
        self.healthy = self.ready = True
        self.view = VIEW
        self.exposition = Exposition(lambda: self.snapshot, self.own, Clock(monotonic=lambda: self.now))
        self.address = ""

    @property
    def metrics(self) -> str:
        return f"{self.address}/metrics"

    async def looked_at(self) -> people.View:
        return self.view


@asynccontextmanager
async def staged(shown: Snapshot | None = None, max_requests: int = 40) -> AsyncIterator[Stage]:
    stage = Stage(shown or snapshot())
    answers = web.site(
        stage.exposition,
        telemetry_path="/metrics",
        max_requests=max_requests,
        healthy=lambda: stage.healthy,
        ready=lambda: stage.ready,
        view=stage.looked_at,
    )
    server = Server(answers)
    try:
        stage.address = await listen(server, ListenAddress("127.0.0.1", 0), "web.listen_address")
        yield stage
    finally:
        await server.close(0.1)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


# Formats.


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        pytest.param(PROMETHEUS, OPENMETRICS, id="prometheus-2"),
        pytest.param(PROMETHEUS_3, OPENMETRICS, id="prometheus-3"),
        pytest.param(f"{PROTOBUF};q=0.7,{PROMETHEUS}", OPENMETRICS, id="prometheus-with-protobuf"),
        pytest.param(PROTOBUF, TEXT, id="protobuf-only"),
        pytest.param("", TEXT, id="empty"),
        pytest.param("*/*", TEXT, id="anything"),
        pytest.param("text/html,application/xhtml+xml,*/*;q=0.8", TEXT, id="browser"),
        pytest.param("text/plain", TEXT, id="text-without-version"),
        pytest.param("text/plain;version=0.0.4", TEXT, id="text"),
        pytest.param("text/plain;version=1.0.0;escaping=allow-utf-8", TEXT, id="text-of-prometheus-3-only"),
        pytest.param("application/openmetrics-text", OPENMETRICS, id="openmetrics-without-version"),
        pytest.param('Application/OpenMetrics-Text; Version="1.0.0"', OPENMETRICS, id="case-and-quotes"),
        pytest.param("application/openmetrics-text;version=0.0.1", TEXT, id="openmetrics-too-old"),
        pytest.param("application/openmetrics-text;version=2.0.0", TEXT, id="openmetrics-too-new"),
        pytest.param("application/openmetrics-text;q=0", TEXT, id="openmetrics-never"),
        pytest.param("application/openmetrics-text;q=0.2,text/plain;q=0.9", TEXT, id="text-preferred"),
        pytest.param("application/openmetrics-text;q=0.2,*/*;q=0.9", TEXT, id="anything-preferred"),
        pytest.param("text/plain;q=0.5,application/openmetrics-text;q=0.5", OPENMETRICS, id="a-tie"),
        pytest.param("text/plain;q=0,application/openmetrics-text;q=0", TEXT, id="nothing-at-all"),
        pytest.param("application/openmetrics-text;q=nan", TEXT, id="weight-nan"),
        pytest.param("application/openmetrics-text;q=-1", TEXT, id="weight-negative"),
        pytest.param("application/openmetrics-text;q=17", TEXT, id="weight-too-big"),
        pytest.param("application/openmetrics-text;q=much", TEXT, id="weight-in-words"),
        pytest.param(";;;,,,;q=,=", TEXT, id="garbage"),
        pytest.param("\xff\xfe, \xe4/\xf6", TEXT, id="latin-1"),
        pytest.param("text/plain," * 730, TEXT, id="8-kilobytes"),
    ],
)
@pytest.mark.fault("S11")
async def test_the_format_follows_the_accept_header_and_is_never_refused(
    stage: Stage, accept: str, format_: Format
) -> None:
    assert negotiate(accept) is format_
    reply = await ask(stage.metrics, Accept=accept)
    assert reply.status == 200
    assert reply.headers["content-type"] == (OPENMETRICS_TYPE if format_ is OPENMETRICS else TEXT_TYPE)
    assert reply.headers["vary"] == "Accept, Accept-Encoding"
    assert reply.text.endswith("# EOF\n") == (format_ is OPENMETRICS)


async def test_two_accept_headers_are_one_list(stage: Stage) -> None:
    head = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/plain;q=0.1\r\n"
    reply = await raw(stage.address, f"{head}Accept: application/openmetrics-text\r\n\r\n".encode())
    assert OPENMETRICS_TYPE.encode() in reply


@pytest.mark.parametrize(
    ("accept_encoding", "zipped"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br, GZIP;q=0.1", True),
        ("*", True),
        ("*;q=0.1", True),
        ("*;q=0, gzip", True),
        ("gzip;q=0, *", False),
        ("gzip;q=0", False),
        ("gzip;q=no", False),
        ("identity", False),
        ("deflate, br", False),
        ("", False),
        (";,=;q", False),
    ],
)
async def test_gzip_is_for_those_who_ask_and_the_text_is_the_same(
    stage: Stage, accept_encoding: str, zipped: bool
) -> None:
    assert accepts_gzip(accept_encoding) == zipped
    reply = await ask(stage.metrics, Accept_Encoding=accept_encoding)
    assert reply.headers.get("content-encoding") == ("gzip" if zipped else None)
    assert reply.text == (await ask(stage.metrics)).text


@pytest.mark.parametrize("format_", Format)
async def test_both_encodings_hold_the_same_text_of_many_slices(format_: Format, monkeypatch: Any) -> None:
    monkeypatch.setattr(http_server, "SLICE", 1000)
    async with staged(snapshot(20_000)) as stage:
        plain = await ask(stage.metrics, Accept=format_.value)
        zipped = await ask(stage.metrics, Accept=format_.value, Accept_Encoding="gzip")
    assert len(plain.body) > 1_000_000 > len(zipped.body)
    assert gzip_module.decompress(zipped.body) == plain.body
    assert plain.text.count("\nthousandeyes_endpoint_latency_seconds{") == 20_000


async def test_nothing_to_show_is_still_an_exposition() -> None:
    async with staged(NOTHING) as stage:
        for encoding in ("gzip", ""):
            assert (await ask(stage.metrics, Accept_Encoding=encoding)).text.count("\n") == 3


@pytest.mark.parametrize("accept", [TEXT_TYPE, OPENMETRICS_TYPE])
@pytest.mark.parametrize("encoding", ["gzip", ""])
@pytest.mark.fault("S17")
async def test_head_tells_what_get_would_and_sends_no_body(stage: Stage, accept: str, encoding: str) -> None:
    got = await ask(stage.metrics, Accept=accept, Accept_Encoding=encoding)
    told = await ask(stage.metrics, method="HEAD", Accept=accept, Accept_Encoding=encoding)
    assert (told.status, told.body) == (200, b"")
    assert {**told.headers, "date": ""} == {**got.headers, "date": ""}
    assert int(told.headers["content-length"]) == len(got.body)


async def test_a_connection_is_used_again_and_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    reader, writer = await connect(stage.address)
    paths = ["/metrics", "/-/healthy", "/nothing", "/metrics"]
    writer.write("".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths).encode())
    assert [(await read_reply(reader)).status for _ in paths] == [200, 200, 404, 200]
    writer.close()


async def test_http_1_0_is_answered_and_closed(stage: Stage) -> None:
    head, _, body = (await raw(stage.address, b"GET /metrics HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in head
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize(
    "headers",
    [
        {"If_None_Match": "*"},
        {"If_Modified_Since": "Sat, 29 Oct 2033 19:43:31 GMT"},
        {"Range": "bytes=0-10"},
        {"X_Prometheus_Scrape_Timeout_Seconds": "0.001"},
        {"X_Prometheus_Scrape_Timeout_Seconds": "1e309"},
        {"Upgrade": "h2c", "Connection": "close, Upgrade, HTTP2-Settings"},
    ],
    ids=str,
)
@pytest.mark.fault("S17")
async def test_other_headers_change_nothing(stage: Stage, headers: dict[str, str]) -> None:
    assert (await ask(stage.metrics, **headers)).body == (await ask(stage.metrics)).body


# What is done once.


def test_the_snapshot_is_sent_as_it_is_and_own_metrics_are_written_once_a_second() -> None:
    stage = Stage(snapshot())
    first = stage.exposition.text(TEXT)
    assert first.parts[0] is stage.snapshot.common
    assert first.parts[1] is stage.snapshot.tails[TEXT]
    assert all(first.gzipped[1 + n] is part.deflated for n, part in enumerate(first.parts))
    assert first.length == len(b"".join(first.gzipped))
    assert all(stage.exposition.text(TEXT) is first for _ in range(100))
    assert stage.own.rendered == 1
    stage.now += 0.99
    assert stage.exposition.text(TEXT) is first
    stage.now += 0.01
    again = stage.exposition.text(TEXT)
    assert [new is old for new, old in zip(again.parts, first.parts, strict=True)] == [True, True, False]
    assert stage.own.rendered == 2
    assert stage.exposition.text(OPENMETRICS).parts[0] is stage.snapshot.common
    assert stage.own.rendered == 3


def test_own_metrics_are_written_anew_for_a_new_snapshot() -> None:
    stage = Stage(snapshot())
    stage.exposition.text(TEXT)
    stage.snapshot = snapshot(4)
    assert stage.exposition.text(TEXT).parts[0] is stage.snapshot.common
    assert stage.own.rendered == 2


def test_nothing_is_kept_of_a_snapshot_that_is_served_no_longer() -> None:
    stage = Stage(snapshot())
    body = stage.snapshot.common.deflated
    counts = [sys.getrefcount(body)]
    for format_ in (TEXT, OPENMETRICS):
        stage.exposition.text(format_)
        counts.append(sys.getrefcount(body))
    before, stage.snapshot = stage.snapshot, snapshot(4)
    stage.exposition.text(TEXT)
    counts.append(sys.getrefcount(body))
    assert [count - counts[0] for count in counts] == [0, 1, 2, 0]
    assert before.common.deflated is body


# Paths and methods.


@pytest.mark.parametrize(
    "path",
    [
        "//metrics", "/metrics/", "/metrics//", "/./metrics", "/x/../metrics", "/../metrics", "/../../etc/passwd",
        "/%2e%2e/metrics", "/%2e/metrics", "/metric%73", "/metrics%2f", "/metrics%00", "/Metrics", "/METRICS",
        "/metrics;x=1", "/metrics.txt", "/-/", "/-/healthy/", "/-/Ready", "/-/reload", "/-/quit", "/debug/pprof/",
        "/index.html", "/favicon.ico", "/metrics/metrics",
    ],
)  # fmt: skip
@pytest.mark.fault("S15")
async def test_everything_else_is_not_found(stage: Stage, path: str) -> None:
    reply = await ask(stage.address, path)
    assert reply.status == 404
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert path.encode() not in reply.body


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_other_methods_are_not_allowed(stage: Stage, method: str, path: str) -> None:
    reply = await ask(stage.address, path, method)
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD"


async def test_every_answer_is_marked_and_none_tells_versions(stage: Stage) -> None:
    for path in ("/metrics", "/-/healthy", "/-/ready", "/", "/nothing"):
        for method in ("GET", "HEAD", "POST"):
            headers = (await ask(stage.address, path, method)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["server"] == NAME
    answer = await raw(stage.address, b"GET /metrics HTTP/1.1\r\nbad header\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"Server: {NAME}\r\n".encode() in answer
    assert b"aiohttp" not in answer
    assert b"Python" not in answer


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """Return what gives the lines that were logged."""
    with logging_as("debug") as lines:
        yield lines


async def test_a_fault_of_ours_is_one_line_and_a_500_that_tells_nothing(stage: Stage, logged: Any) -> None:
    def broken(_: Format) -> str:
        raise RuntimeError("a secret")

    stage.own.render = broken  # type: ignore[method-assign]
    reply = await ask(stage.metrics, Accept="text/html")
    assert reply.status == 500
    assert b"secret" not in reply.body
    (line,) = logged()
    assert "level=error event=request_crashed" in line
    assert "RuntimeError" in line


# Health, readiness, and the page for people.


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
async def test_health_and_readiness_say_yes_with_200_and_no_with_503(stage: Stage, path: str) -> None:
    word = path.rpartition("/")[2]
    reply = await ask(stage.address, path)
    assert (reply.status, reply.text) == (200, f"{word}\n")
    setattr(stage, word, False)
    reply = await ask(stage.address, path)
    assert reply.status == 503
    assert reply.text.count("\n") == 1
    assert (await ask(stage.address, path, "HEAD")).status == 503


async def test_the_page_for_people_comes_with_a_strict_policy(stage: Stage) -> None:
    reply = await ask(stage.address, "/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == people.POLICY
    assert reply.text == people.render(VIEW)


# Many readers, slow readers, readers that leave.


def small_window() -> socket.socket:
    """A socket that takes little before somebody reads."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    return made


async def slow_reader(address: str, head: str = "") -> socket.socket:
    """Ask for the metrics and do not read."""
    sock = small_window()
    host, port = address.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    await asyncio.get_running_loop().sock_sendall(sock, f"GET /metrics HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    return sock


async def test_more_requests_at_a_time_than_are_set_get_503(monkeypatch: Any) -> None:
    async with staged(snapshot(200_000), max_requests=2) as stage:
        slow = [await slow_reader(stage.address) for _ in range(2)]
        await until(lambda: _status(stage, 503))
        assert "web.max_requests" in (await ask(stage.metrics)).text
        assert (await ask(stage.address, "/-/healthy")).status == 200
        slow.pop().close()
        await until(lambda: _status(stage, 200))
        for sock in slow:
            sock.close()


async def _status(stage: Stage, wanted: int) -> bool:
    return (await ask(stage.metrics, method="HEAD")).status == wanted


async def test_a_reader_who_leaves_disturbs_nobody_and_is_not_logged(logged: Any) -> None:
    async with staged(snapshot(200_000)) as stage:
        for head in ("", "Accept-Encoding: gzip\r\n"):
            for _ in range(5):
                (await slow_reader(stage.address, head)).close()
        assert (await ask(stage.metrics)).status == 200
        await asyncio.sleep(0.1)
    assert logged() == []


@pytest.mark.parametrize(("encoding", "most"), [("gzip", 1_200_000), ("identity", 1_200_000)])
@pytest.mark.fault("S04")
async def test_a_slow_reader_costs_no_copy_of_the_snapshot(encoding: str, most: int) -> None:
    async with staged(snapshot(150_000)) as stage:
        head = f"Accept-Encoding: {encoding}\r\n"
        size = int((await ask(stage.metrics, method="HEAD")).headers["content-length"])
        slow = [await slow_reader(stage.address, head) for _ in range(3)]
        await asyncio.sleep(0.2)
        before = resident()
        slow += [await slow_reader(stage.address, head) for _ in range(20)]
        await asyncio.sleep(0.5)
        grown = resident() - before
        for sock in slow:
            sock.close()
    assert size > 25_000_000
    assert grown < 20 * most


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_many_scrapers_at_once_are_all_answered() -> None:
    async with staged(snapshot(20_000), max_requests=40) as stage:
        replies = await asyncio.gather(*(ask(stage.metrics, Accept_Encoding="gzip") for _ in range(40)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1


# The whole text of a real exporter.


@pytest.fixture(params=["v6", "v7"])
async def real(request: Any) -> AsyncIterator[str]:
    """The address of an exporter after two polls, and its API."""
    async with (
        simulated(World(agents=40, sites=8, account_groups=2)) as (simulator, api),
        exporting(api, api__version=request.param, api__account_groups="all") as (exporter, address),
    ):
        simulator.clock = lambda: 60.0 + 1795012350.0
        await asyncio.gather(*(poller.poll() for poller in exporter.pollers.values()))
        await exporter.publisher.build()
        yield address


async def test_the_whole_text_parses_in_both_formats_and_holds_the_same(real: str) -> None:
    text = (await ask(f"{real}/metrics", Accept=TEXT_TYPE)).text
    openmetrics = (await ask(f"{real}/metrics", Accept=OPENMETRICS_TYPE)).text
    families = {family.name: family for family in parse_text(text)}
    strict = {family.name: family for family in parse_openmetrics(openmetrics)}
    assert families.keys() == strict.keys()
    for name, family in families.items():
        if name.startswith("thousandeyes_endpoint_"):
            assert sorted(map(str, family.samples)) == sorted(map(str, strict[name].samples))
        assert (family.type, family.documentation) == (strict[name].type, strict[name].documentation)
    samples = [
        (sample.name, *sorted(sample.labels.items())) for family in families.values() for sample in family.samples
    ]
    assert len(samples) == len(set(samples))
    assert not [
        line for line in text.splitlines() if line.endswith(("NaN", " +Inf", " -Inf")) and not line.startswith("#")
    ]


async def test_promtool_has_nothing_to_say_of_any_metric(real: str, tmp_path: Any) -> None:
    text = (await ask(f"{real}/metrics")).text
    file = tmp_path / "metrics.txt"
    file.write_text(text)
    with file.open() as stdin:
        assert await finished(tool("promtool"), "check", "metrics", stdin=stdin) == (0, "", "")
