"""The HTTP client: requests, responses, retries, rejected tokens, pagination."""

import asyncio
import gzip
import json
import os
import resource
import socket
import threading
import traceback
from base64 import b64decode, b64encode
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, repeat
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from api_records import results_key
from failures.harness import full_listen_queue
from fake_clock import WALL_START, fake_clock, fake_time
from hypothesis import given
from hypothesis import strategies as st

from exporter.app import Exporter
from exporter.errors import HINTS, PollError
from exporter.metrics.self_metrics import OrganizationLimits, SelfMetrics
from exporter.settings import load
from exporter.sources.agents import AgentsSource
from exporter.thousandeyes.client import (
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
PATH, LIMIT = "/v7/endpoint/agents", "X-Organization-Rate-Limit-Limit"
POST = Request(PATH, body={})


async def reply(request, *, body=b"{}", status=200, headers=None, delay=0.0):
    """Send a response after some seconds."""
    await asyncio.sleep(delay)
    headers = {"Content-Type": "application/json"} | (headers or {})
    return web.Response(body=body, status=status, headers=headers)


async def raw(request, *, data):
    """Send bytes and close the connection."""
    request.transport.write(data)
    request.transport.close()
    return web.Response()


class Connection:
    """A client, and a server that runs the next script for each request, and then the last one."""

    def __init__(self, *scripts):
        self.scripts = chain(scripts[:-1], repeat(scripts[-1] if scripts else reply))
        self.requests, self.metrics = [], SelfMetrics(process=False)

    async def handle(self, request):
        await request.read()
        self.requests.append(request)
        return await next(self.scripts)(request)

    async def fetch(self, request=POST, time_limit=1e6):
        async with asyncio.timeout(time_limit) as deadline:
            return await self.client.fetch(request, deadline)

    async def failure(self, time_limit=1e6):
        with pytest.raises(PollError) as caught:
            await self.fetch(time_limit=time_limit)
        error = caught.value
        while error:
            text = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
            assert not [secret for secret in SECRETS if secret in text]
            error = error.__cause__ or error.__context__
        return caught.value

    def count(self, name, **labels):
        name = f"thousandeyes_exporter_{name}_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def connected(*scripts, url="", authorization=lambda: BEARER, skew=0.0, **options):
    """Connect a client, to its server unless there is a URL."""
    c = Connection(*scripts)
    async with RawTestServer(c.handle) as server:
        c.url = str(server.make_url("")).rstrip("/")
        c.client = Client(url or c.url, authorization, c.metrics, fake_clock(skew), **options)
        yield c
        await c.client.close()


@fake_time
async def test_sends_requests_with_the_token_of_the_moment_and_learns_time_and_limit():
    tokens = iter([BEARER, BASIC])
    script = partial(reply, headers={"Date": "Wed, 18 Nov 2026 14:32:30 GMT", LIMIT: "240"})
    async with connected(script, authorization=lambda: next(tokens), skew=3600) as c:
        await c.fetch(Request(PATH, "59", {"name": "a b&c"}))
        assert c.client.api_clock.now() == pytest.approx(WALL_START, abs=0.1)
        assert c.metrics.rate_limit == OrganizationLimits(limit=240)
        await c.fetch(Request("/v7/filter", body={"a": ["b"]}))
        get, post = c.requests
        assert (get.method, get.raw_path) == ("GET", f"{PATH}?name=a+b%26c&aid=59")
        assert get.headers["Authorization"] == f"Bearer {TOKEN}"
        assert get.headers["Accept-Encoding"] == "gzip"
        assert get.headers["Accept"].startswith("application/json")
        assert (post.method, post.raw_path) == ("POST", "/v7/filter")
        assert await post.json() == {"a": ["b"]}
        assert b64decode(post.headers["Authorization"][6:]).decode() == f"me@example.com:{TOKEN}"


STATUSES = {
    "content_type": (201, 204, 206), "protocol": (400, 402, 405, 406, 410, 413, 415, 418, 431, 499),
    "redirect": (300, 301, 302, 303, 304, 307, 308), "auth": (401,), "forbidden": (403,),
    "not_found": (404,), "proxy": (407,), "rate_limited": (429,), "maintenance": (503,),
    "server_error": (500, 501, 502, 504, 520, 599),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "statuses"), STATUSES.items())
@fake_time
async def test_each_status_has_a_reason(reason, statuses):
    for status in statuses:
        body = b"" if status in (204, 304) else b"<html>private</html>"
        headers = {"Location": "/elsewhere", LIMIT: "0"}
        async with connected(partial(reply, body=body, status=status, headers=headers)) as c:
            error = await c.failure()
            assert (error.reason, error.status) == (reason, status)
            assert "private" not in str(error)
            assert ("limit is 0" in str(error)) == ("raise" in error.hint) == (status == 429)
            attempts = {"server_error": 3, "rate_limited": 2}.get(reason, 1)
            assert c.count("api_requests", route=PATH, code=str(status)) == attempts
            assert c.count("api_retries", reason=reason) == attempts - 1


def test_bodies_are_gzip_and_not_too_large():
    whole = gzip.compress(b'{"results": []}' * 100)
    half = gzip.compress(bytes(MAX_BODY_BYTES // 2), 1)
    cases = [
        *((whole[:end], "gzip", "decompress") for end in range(1, len(whole))),
        (whole + b"more", "gzip", "decompress"),
        (whole + whole[:-1], "gzip", "decompress"),
        (whole[:30] + b"\xff\xff\xff" + whole[33:], "gzip", "decompress"),
        (whole, "gzip, gzip", "decompress"),
        (b"{}", "br", "decompress"),
        (half + half + gzip.compress(b"x"), "gzip", "too_large"),
    ]
    for body, encoding, reason in cases:
        with pytest.raises(PollError) as caught:
            decompress(body, encoding)
        assert caught.value.reason == reason
    assert len(decompress(half + half, "x-gzip")) == MAX_BODY_BYTES  # of several members
    assert decompress(gzip.compress(b"") * 400_000, "gzip") == b""  # in linear time
    assert decompress(b"{}", "identity") == b"{}"


CHUNK = b"HTTP/1.1 200 OK\r\nContent-Type: a/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
PROXY = "http://user:proxypass@"
FAILURES = [  # script of a server at HOST, URL, proxy; reason, part of the message, default hint
    (partial(raw, data=b"SSH-2.0-OpenSSH_9.2\r\n"), "http://HOST", None, "protocol", "", False),
    (partial(raw, data=CHUNK), "http://HOST", None, "protocol", "", False),
    (reply, "https://HOST", None, "tls", "", False),
    (reply, "https://api.example", "https://HOST", "tls", "", False),
    (reply, "http://127.0.0.1:1", None, "connect", "refused", True),
    (reply, "http://api.example", None, "dns", "", True),
    (reply, "https://api.example", f"{PROXY}127.0.0.1:1", "proxy", "refused", True),
    (partial(reply, status=407), "https://api.example", f"{PROXY}HOST", "proxy", "407", True),
]


@pytest.mark.parametrize(("script", "url", "proxy", "reason", "message", "default"), FAILURES)
@fake_time
async def test_failed_connections(script, url, proxy, reason, message, default, monkeypatch):
    async with connected(script) as server:
        monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror))
        host = server.url.removeprefix("http://")
        url, proxy = url.replace("HOST", host), proxy and proxy.replace("HOST", host)
        async with connected(url=url, proxy=proxy) as c:
            error = await c.failure()
            assert (error.reason, error.hint == HINTS[reason]) == (reason, default)
            assert message in str(error)
            retries = 2 if reason in ("connect", "dns") else 0
            assert c.count("api_retries", reason=reason) == retries
    assert all(("Proxy-Authorization" in each.headers) == bool(proxy) for each in server.requests)


URLS = [f"token=x --api.url=http://{host}:1" for host in ("127.0.0.1", "localhost")]


@pytest.mark.parametrize("flags", [*URLS, "token-file=TOKEN"])
@fake_time
async def test_too_many_open_files_are_named(flags, tmp_path):
    (tmp_path / "token").write_text("x")
    arguments = f"--api.{flags}".replace("TOKEN", str(tmp_path / "token")).split()
    exporter = Exporter(load(arguments, {}).settings, clock=fake_clock(), process=False)
    await asyncio.to_thread(int)  # imports what threads need
    limits, lowest = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        async with asyncio.timeout(1e6) as deadline:
            with pytest.raises(PollError) as caught:
                await exporter.client.fetch(POST, deadline)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await exporter.close()
    assert (caught.value.reason, "LimitNOFILE" in caught.value.hint) == ("connect", True)


@fake_time
async def test_reaches_the_only_address_of_many_that_answers(monkeypatch):
    async with connected() as server, connected(url="http://api.example") as c:
        with full_listen_queue() as full:
            ports = [full] * 90 + [int(server.url.rpartition(":")[2])]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", n)) for n in ports]
            monkeypatch.setattr(socket, "getaddrinfo", Mock(return_value=found))
            assert await c.fetch() == b"{}"


@pytest.mark.parametrize(
    ("status", "delay", "limit"), [(429, 0, 30), (500, 10, 19), (500, 21, 1e6)]
)
@fake_time
async def test_no_retry_after_the_deadline_or_a_slow_request(status, delay, limit):
    script = partial(reply, status=status, headers={"Retry-After": "30"}, delay=delay)
    async with connected(script) as c:
        await c.failure(limit)
        assert len(c.requests) == 1


async def test_a_token_that_cannot_be_read_in_time_blocks_one_thread_and_nothing_else():
    readable, reads = threading.Event(), []

    def stuck():
        reads.append(None)
        readable.wait(60)
        return BEARER

    async with connected(authorization=stuck, timeout=0.3) as c:
        assert [(await c.failure()).reason for _ in range(3)] == ["auth"] * 3
        assert (len(reads), c.requests) == (1, [])
        readable.set()
        assert await c.fetch() == b"{}"


async def follow(*links, version="v7"):
    """Read pages with these links, in which `HERE` is the server; returns queries and failure."""
    (listing,), reason, remaining = AgentsSource.listings[version], None, iter(links)
    request = Request(listing.path, "1001", {"b": "2"}, {"a": 1})

    async def script(request):
        assert (request.method, request.path) == ("POST", listing.path)
        url = next(remaining)
        url = url and url.replace("HERE", f"http://{request.host}")
        page = {"_links": {"next": {"href": url}}, "pages": {"next": url}, results_key(listing): []}
        return await reply(request, body=json.dumps(page).encode())

    async with connected(script) as c, asyncio.timeout(1e6) as deadline:
        try:
            async for page in c.client.pages(request, listing, deadline):
                assert page.records == []
        except PollError as error:
            reason = error.reason
    return [dict(each.query) for each in c.requests], reason


@pytest.mark.parametrize(
    ("link", "version", "cursor"),
    [
        (f"HERE{PATH}?aid=1001&cursor=%26aid%3D7%2B", "v7", {"cursor": "&aid=7+"}),
        (f"{PATH}?cursor=2&from=2017-03-22&other=1#fragment", "v7", {"cursor": "2"}),
        ("?cursor=2&pageId=3", "v7", {"cursor": "2"}),
        ("/v6/endpoint-agents.json?pageId=2&cursor=3", "v6", {"pageId": "2"}),
        ("HERE/v6/endpoint-agents?lastRoundId=2&page=3", "v6", {"lastRoundId": "2", "page": "3"}),
    ],
)
@fake_time
async def test_takes_only_the_cursor_of_a_link(link, version, cursor):
    first = {"b": "2", "aid": "1001"}
    assert await follow(link, None, version=version) == ([first, first | cursor], None)


ELSEWHERE = [
    *(f"http://127.0.0.1:1{PATH}?cursor=2", f"https://127.0.0.1{PATH}?cursor=2", "http://[::1"),
    *(f"{PATH}/?cursor=2", f"{PATH}%2f?cursor=2", "/?cursor=2", f"//example.com{PATH}?cursor=2"),
    *(f"{PATH}?aid=1002&cursor=2", "http://user:password@", "http://127.0.0.1:99999999/"),
]
PAGES = [f"?cursor={number}" for number in range(MAX_PAGES)]


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        *(([link], "pagination_origin") for link in ELSEWHERE),
        *(([link], "pagination_loop") for link in (PATH, "//", "http://", "\x00")),
        ([*PAGES[:2], PAGES[0]], "pagination_loop"),
        (PAGES, "pagination_limit"),
        ([*PAGES[:-1], None], None),
    ],
)
@fake_time
async def test_does_not_follow_links_elsewhere_or_forever(links, expected):
    queries, reason = await follow(*links)
    assert (len(queries), reason) == (len(links), expected)


@given(link=st.text() | st.from_regex(r"(https?:)?//[^/]*(/.*)?", fullmatch=True))
@fake_time
async def test_any_link_is_followed_or_an_error(link):
    _, reason = await follow(link, None)
    assert reason in (None, "pagination_origin", "pagination_loop")
