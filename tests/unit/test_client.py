"""The HTTP client: requests, responses, retries, rejected tokens, pagination."""

import asyncio
import errno
import gzip
import json
import os
import resource
import socket
import threading
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from api_records import results_key
from fake_clock import WALL_START, fake_clock, fake_time
from hypothesis import given
from hypothesis import strategies as st

from exporter import NAME, __version__
from exporter.app import Exporter
from exporter.errors import PollError, Reason
from exporter.metrics.self_metrics import OrganizationLimits, SelfMetrics
from exporter.settings import load
from exporter.sources.agents import AgentsSource
from exporter.thousandeyes.api import VERSIONS
from exporter.thousandeyes.client import (
    AUTH_PAUSE_SECONDS,
    MAX_BODY_BYTES,
    MAX_PAGES,
    Client,
    authorization_header,
    decompress,
)
from exporter.thousandeyes.schema import Request

TOKEN = "canary-9hT2xVq"
BEARER, BASIC = authorization_header(TOKEN), authorization_header(TOKEN, "me@example.com")
SECRETS = (TOKEN, BASIC.removeprefix("Basic "), "proxypass", b64encode(b"user:proxypass").decode())
PATH = "/v7/endpoint/agents"
POST = Request(PATH, body={})
versions = pytest.mark.parametrize("version", VERSIONS)
Script = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def reply(body: bytes = b"{}", status: int = 200, **headers: str) -> Script:
    """Send a response; header `Retry_After` is `Retry-After`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"Content-Type": "application/json"} | named

    async def script(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=named)

    return script


def raw(data: bytes) -> Script:
    """Send bytes and close the connection."""

    async def script(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport
        request.transport.write(data)
        request.transport.close()
        return web.Response()

    return script


@dataclass
class Connection:
    """A client, its metrics, and the requests that its server received."""

    client: Client
    metrics: SelfMetrics
    url: str
    requests: list[web.BaseRequest]

    async def fetch(self, request: Request = POST, time_limit: float = 1e6) -> bytes:
        async with asyncio.timeout(time_limit) as deadline:
            return await self.client.fetch(request, deadline)

    async def failure(self, time_limit: float = 1e6) -> PollError:
        with pytest.raises(PollError) as caught:
            await self.fetch(time_limit=time_limit)
        error: BaseException | None = caught.value
        while error:
            text = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
            assert not [secret for secret in SECRETS if secret in text]
            error = error.__cause__ or error.__context__
        return caught.value

    def count(self, name: str, **labels: str) -> float:
        name = f"thousandeyes_exporter_{name}_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def connected(*scripts: Script, url: str = "", **options: Any) -> AsyncIterator[Connection]:
    """Connect to a server that runs the next script for each request, and then the last one."""
    requests: list[web.BaseRequest] = []
    script = chain(scripts[:-1], repeat(scripts[-1] if scripts else reply()))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        requests.append(request)
        return await next(script)(request)

    async with RawTestServer(handle) as server:
        here = str(server.make_url("")).rstrip("/")
        options = {"authorization": lambda: BEARER, "clock": fake_clock(), **options}
        client = Client(url or here, metrics=(metrics := SelfMetrics(process=False)), **options)
        yield Connection(client, metrics, here, requests)
        await client.close()


# Requests and responses


@fake_time
async def test_sends_requests_with_the_token_of_the_moment() -> None:
    tokens = iter([BEARER, BASIC])
    async with connected(authorization=lambda: next(tokens)) as c:
        await c.fetch(Request(PATH, "59", {"name": "a b&c"}))
        await c.fetch(Request("/v7/filter", body={"a": ["b"]}))
        get, post = c.requests
        assert (get.method, get.raw_path) == ("GET", f"{PATH}?name=a+b%26c&aid=59")
        assert get.headers["Authorization"] == f"Bearer {TOKEN}"
        assert get.headers["User-Agent"] == f"{NAME}/{__version__}"
        assert get.headers["Accept-Encoding"] == "gzip"
        assert get.headers["Accept"].startswith("application/json")
        assert (post.method, post.raw_path) == ("POST", "/v7/filter")
        assert await post.json() == {"a": ["b"]}
        assert post.headers["Content-Type"] == "application/json"
        expected = b64encode(f"me@example.com:{TOKEN}".encode()).decode()
        assert post.headers["Authorization"] == f"Basic {expected}"
        assert c.count("api_requests", route=PATH, code="200") == 1


STATUSES: dict[Reason, tuple[int, ...]] = {
    "content_type": (201, 204, 206), "protocol": (400, 402, 405, 406, 410, 413, 415, 418, 431, 499),
    "redirect": (300, 301, 302, 303, 304, 307, 308), "auth": (401,), "forbidden": (403,),
    "not_found": (404,), "proxy": (407,), "rate_limited": (429,), "maintenance": (503,),
    "server_error": (500, 501, 502, 504, 520, 599, 999),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "statuses"), STATUSES.items())
@fake_time
async def test_each_status_has_a_reason(reason: Reason, statuses: tuple[int, ...]) -> None:
    for status in statuses:
        body = b"" if status in (204, 304) else b"<html>private</html>"
        async with connected(reply(body, status, Location="/elsewhere")) as c:
            error = await c.failure()
            assert error.reason == reason
            assert str(status) in str(error)
            assert "private" not in str(error)
            attempts = {"server_error": 3, "rate_limited": 2}.get(reason, 1)
            assert c.count("api_requests", route=PATH, code=str(status)) == attempts
            assert c.count("api_retries", reason=reason) == attempts - 1


@fake_time
async def test_returns_the_decompressed_body() -> None:
    text = b'{"results": []}' * 1000
    for encoding in ("gzip", " GZIP", "identity"):
        for kind in ("application/hal+json;charset=UTF-8", "APPLICATION/JSON"):
            body = text if encoding == "identity" else gzip.compress(text)
            async with connected(reply(body, Content_Encoding=encoding, Content_Type=kind)) as c:
                assert await c.fetch() == text


def test_rejects_bodies_that_are_not_gzip_or_too_large() -> None:
    whole = gzip.compress(b'{"results": []}' * 100)
    cases: list[tuple[bytes, str, Reason]] = [
        *((whole[:end], "gzip", "decompress") for end in range(1, len(whole))),
        (whole + b"more", "gzip", "decompress"),
        (whole + whole[:-1], "gzip", "decompress"),
        (whole[:30] + b"\xff\xff\xff" + whole[33:], "gzip", "decompress"),
        (whole, "gzip, gzip", "decompress"),
        (b"{}", "br", "decompress"),
        (gzip.compress(bytes(MAX_BODY_BYTES + 1), 1), "gzip", "too_large"),
    ]
    for body, encoding, reason in cases:
        with pytest.raises(PollError) as caught:
            decompress(body, encoding)
        assert caught.value.reason == reason
    half = gzip.compress(bytes(MAX_BODY_BYTES // 2), 1)
    assert len(decompress(half + half, "x-gzip")) == MAX_BODY_BYTES  # of several members
    assert decompress(gzip.compress(b"") * 400_000, "gzip") == b""  # in linear time
    with pytest.raises(PollError, match="exceeds"):
        decompress(half + half + gzip.compress(b"x"), "gzip")


@fake_time
async def test_every_response_updates_the_clock_and_the_limits() -> None:
    date = "Wed, 18 Nov 2026 14:32:30 GMT"
    script = reply(status=404, Date=date, X_Organization_Rate_Limit_Limit="240")
    async with connected(script, clock=fake_clock(skew=3600)) as c:
        await c.failure()
        assert c.client.api_clock.now() == pytest.approx(WALL_START, abs=0.1)
        assert c.metrics.rate_limit == OrganizationLimits(limit=240)


@fake_time
async def test_an_invalid_response_is_not_retried() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    bad_chunk = head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    for data in (b"SSH-2.0-OpenSSH_9.2\r\n", bad_chunk):
        async with connected(raw(data)) as c:
            assert (await c.failure()).reason == "protocol"
            assert len(c.requests) == 1


@fake_time
async def test_names_the_cause_of_a_failed_connection() -> None:
    async with connected(url="http://127.0.0.1:1") as c:
        error = await c.failure()
        assert error.reason == "connect"
        assert os.strerror(errno.ECONNREFUSED).lower() in str(error)
        assert c.count("api_requests", route=PATH, code="error") == 3


@fake_time
async def test_hints_fit_the_cause() -> None:
    limits = {f"X_Organization_Rate_Limit_{name}": "0" for name in ("Limit", "Remaining")}
    async with connected(reply(status=429, **limits)) as c:
        error = await c.failure()
        assert "limit is 0" in str(error)
        assert "poll.interval" not in error.hint
    async with connected(raw(b"SSH-2.0-OpenSSH_9.2\r\n")) as c:
        assert "api.version" not in (await c.failure()).hint
        for options in (
            {},
            {"url": "https://api.example", "proxy": c.url.replace("http", "https")},
        ):
            plain = {"url": c.url.replace("http", "https"), **options}
            async with connected(**plain) as tls:
                error = await tls.failure()
                assert (error.reason, "api.ca_file" in error.hint) == ("tls", False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@fake_time
async def test_too_many_open_files_are_named(host: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o600)
    exporter = Exporter(load([f"--api.token-file={token}"], {}).settings, process=False)
    await asyncio.to_thread(int)  # imports what threads need
    limits, lowest = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(lowest)
    async with connected(url=f"http://{host}:1") as c, asyncio.timeout(1e6) as deadline:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            error = await c.failure()
            with pytest.raises(PollError) as token_error:
                await exporter.client.fetch(POST, deadline)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await exporter.close()
    for each in (error, token_error.value):
        assert (each.reason, "LimitNOFILE" in each.hint) == ("connect", True)


@pytest.mark.parametrize("dead", [7, 49, 90, 200])
@fake_time
async def test_reaches_the_only_address_of_many_that_answers(
    dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listen queue of the others is full, so that their packets are dropped."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        async with connected() as server, connected(url="http://api.example") as c:
            live = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            addresses = [listening.getsockname()] * dead + [live]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in addresses]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            start = asyncio.get_running_loop().time()
            if dead < 100:
                await c.fetch()
                assert asyncio.get_running_loop().time() - start < 10
            else:
                error = await c.failure()
                assert (error.reason, "firewall" in error.hint) == ("timeout", True)


@fake_time
async def test_sends_requests_through_the_proxy_whose_failures_have_their_own_reason() -> None:
    async with connected(reply(), reply(status=407)) as proxy:
        working = proxy.url.replace("://", "://user:proxypass@")
        async with connected(url="http://api.example", proxy=working) as c:
            assert await c.fetch() == b"{}"
        (request,) = proxy.requests
        assert request.raw_path == f"http://api.example{PATH}"
        assert request.headers["Proxy-Authorization"].startswith("Basic ")
        for url in ("http://api.example", "https://api.example"):
            for address in (working, "http://user:proxypass@127.0.0.1:1"):
                async with connected(url=url, proxy=address) as c:
                    assert (await c.failure()).reason == "proxy"


# Retries


@fake_time
async def test_does_not_retry_when_the_deadline_would_pass() -> None:
    for status, time_limit in ((429, 30), (500, 2)):
        async with connected(reply(status=status, Retry_After="30")) as c:
            await c.failure(time_limit)
            assert len(c.requests) == 1


# Tokens


async def test_a_token_that_cannot_be_read_in_time_blocks_one_thread_and_nothing_else() -> None:
    readable, reads = threading.Event(), list[None]()

    def stuck() -> str:
        reads.append(None)
        readable.wait(60)
        return BEARER

    async with connected(authorization=stuck, timeout=0.1) as c:
        assert [(await c.failure()).reason for _ in range(3)] == ["auth"] * 3
        assert (len(reads), c.requests) == (1, [])
        readable.set()
        assert await c.fetch() == b"{}"


@fake_time
async def test_a_rejected_token_is_tried_again_after_a_pause() -> None:
    async with connected(reply(status=401), reply(status=401), reply()) as c:
        for expected in (1, 2):
            assert [(await c.failure()).reason for _ in range(5)] == ["auth"] * 5
            assert len(c.requests) == expected
            await asyncio.sleep(AUTH_PAUSE_SECONDS)
        assert [await c.fetch() for _ in range(3)] == [b"{}"] * 3


@pytest.mark.parametrize("accepted", [True, False])
@fake_time
async def test_one_request_tries_a_rejected_token_for_all(accepted: bool) -> None:
    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return await reply(status=200 if accepted else 401)(request)

    async with connected(reply(status=401), slow) as c:
        await c.failure()
        await asyncio.sleep(AUTH_PAUSE_SECONDS)
        results = await asyncio.gather(*(c.fetch() for _ in range(20)), return_exceptions=True)
        assert [isinstance(result, bytes) for result in results] == [accepted] * 20
        assert len(c.requests) == (21 if accepted else 2)


# Pagination

CURSORS = {"v6": "pageId", "v7": "cursor"}
SAME_LISTING = (
    *("http://api.example{path}?aid=1001&{cursor}=%26aid%3D7%2B", "{path}?{cursor}=%26aid%3D7%2B"),
    *("{path}?{cursor}=%26aid%3D7%2B&from=2017-03-22&other=1#fragment", "?{cursor}=%26aid%3D7%2B"),
)
ELSEWHERE = (
    *("https://api.example{path}?{cursor}=2", "http://api.example:81{path}?{cursor}=2"),
    *("{path}/?{cursor}=2", "{path}%2f?{cursor}=2", "/?{cursor}=2", "http://[::1", "x" * 10_000),
    *("{path}?aid=1002&{cursor}=2", "//example.com{path}?{cursor}=2"),
    *("javascript:alert(1)", "data:application/json,[]", "file:///etc/passwd"),
    *("http://127.0.0.1:99999999/", "http://user:password@"),
)


class LinkedPages(Client):
    """A client of empty pages; `{path}` and `{cursor}` in links are those of the API."""

    def __init__(self, version: str, links: Iterable[str | None]) -> None:
        super().__init__("http://api.example", str, SelfMetrics(process=False))
        self.links, self.queries = iter(links), list[dict[str, str]]()
        self.version = version

    async def fetch(self, request: Request, deadline: asyncio.Timeout) -> bytes:
        assert (request.aid, request.body) == ("1001", {"a": 1})
        self.queries.append({**request.query})
        link, (listing,) = next(self.links), AgentsSource.listings[self.version]
        for name, value in (("path", listing.path), ("cursor", CURSORS[self.version])):
            link = link and link.replace(f"{{{name}}}", value)
        page = {
            "pages": {"next": link},
            "_links": {"next": {"href": link}},
            results_key(listing): [],
        }
        return json.dumps(page).encode()


async def follow(version: str, *links: str | None) -> tuple[list[dict[str, str]], Reason | None]:
    """Read pages with these links; returns the queries and the reason of the failure."""
    client, (listing,) = LinkedPages(version, links), AgentsSource.listings[version]
    request = Request(listing.path, "1001", {"b": "2"}, {"a": 1})
    try:
        async with asyncio.timeout(60) as deadline:
            async for page in client.pages(request, listing, deadline):
                assert page.records == []
    except PollError as error:
        return client.queries, error.reason
    finally:
        await client.close()
    return client.queries, None


@versions
async def test_takes_only_the_cursor_of_a_link_to_the_same_listing(version: str) -> None:
    first = {"b": "2"}
    for link in SAME_LISTING:
        queries, reason = await follow(version, link, None)
        assert (queries, reason) == ([first, {**first, CURSORS[version]: "&aid=7+"}], None)
    for link in ELSEWHERE:
        assert await follow(version, link) == ([first], "pagination_origin")


async def test_links_of_v6_may_omit_the_format_and_have_other_cursors() -> None:
    queries, _ = await follow("v6", "/v6/endpoint-agents?lastRoundId=2", "{path}?page=3", None)
    assert queries[1:] == [{"b": "2", "lastRoundId": "2"}, {"b": "2", "page": "3"}]


@given(link=st.text() | st.from_regex(r"(https?:)?//[^/]*(/.*)?", fullmatch=True))
async def test_any_link_is_followed_or_an_error(link: str) -> None:
    _, reason = await follow("v7", link.replace("{", ""), None)
    assert reason in (None, "pagination_origin", "pagination_loop")


async def test_detects_loops_and_limits_the_number_of_pages() -> None:
    first, *others = (f"{{path}}?{{cursor}}={number}" for number in range(MAX_PAGES))
    cases: list[tuple[list[str | None], Reason | None]] = [
        *(([link], "pagination_loop") for link in ("{path}", "//", "http://", "\x00")),
        ([first, first], "pagination_loop"),
        ([first, others[0], first], "pagination_loop"),
        ([first, *others], "pagination_limit"),
        ([first, *others[:-1], None], None),
    ]
    for links, expected in cases:
        queries, reason = await follow("v7", *links)
        assert (len(queries), reason) == (len(links), expected)
