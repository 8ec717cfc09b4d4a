"""The HTTP client: one request goes out, and its body comes back, or one error with its reason.

What breaks on the way, and what becomes of polls then, stands in tests/faults.
"""

import asyncio
import gc
import gzip
import logging
import random
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pki import Authority, serves, trusts
from raw import Call, Raw, Script, listening, reply, serving
from virtual import START, Instant, Patient, Virtual

from exporter import NAME, __version__
from exporter.api import http as http_module
from exporter.api.budget import RateLimit
from exporter.api.http import ATTEMPTS, AUTH_PAUSE, HEALING, Body, Credentials, Http
from exporter.api.wire import Request
from exporter.errors import PollError, Reason

TOKEN = "canary-9hT2xVq"
GET = Request("GET", "/v7/endpoint/agents", {"aid": "59", "name": "a b&c"})
POST = Request("POST", "/v7/endpoint/test-results/real-user-tests/filter", {}, b'{"searchFilters":{}}')
DATE = "Wed, 18 Nov 2026 14:32:30 GMT"


@dataclass
class Client:
    """A client of a server of bytes, and what it told its observer."""

    http: Http
    raw: Raw
    virtual: Instant
    requests: list[tuple[str, str]] = field(default_factory=list)
    retries: list[Reason] = field(default_factory=list)

    def request(self, route: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((route, code))

    def retry(self, reason: Reason) -> None:
        self.retries.append(reason)

    async def fetch(self, request: Request = POST, left: float = float("inf")) -> bytes:
        return (await self.http.fetch(request, Patient(left))).text()

    async def reason(self, request: Request = POST, left: float = float("inf")) -> Reason:
        """Fetch what can not be fetched, and return why."""
        with pytest.raises(PollError) as caught:
            await self.fetch(request, left)
        keeps_secrets(caught.value)
        return caught.value.reason


@asynccontextmanager
async def client(*scripts: Script, url: str = "", **options: Any) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(serving(*scripts or [reply()], tls=options.pop("server_tls", None)))
        virtual = Instant()
        made: list[Client] = []
        credentials = options.pop("credentials", lambda: Credentials(TOKEN))
        observer = _Observer(made)
        http = Http(url or raw.url, credentials, observer, clock=options.pop("clock", virtual.clock), **options)
        stack.push_async_callback(http.close)
        made.append(Client(http, raw, virtual))
        yield made[0]


class _Observer:
    def __init__(self, made: list[Client]) -> None:
        self.made = made

    def request(self, *told: Any) -> None:
        self.made[0].request(*told)

    def retry(self, *told: Any) -> None:
        self.made[0].retry(*told)


def keeps_secrets(error: BaseException) -> None:
    """Assert that an error, whatever caused it, and all that can be printed of it, holds no secret."""
    told = "".join(traceback.format_exception(error))
    while error:
        told += repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    for secret in (TOKEN, b64encode(f"me@example.com:{TOKEN}".encode()).decode(), "proxy-password"):
        assert secret not in told


@pytest.fixture(autouse=True)
def nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)
    yield
    gc.collect(1)
    assert TOKEN not in caplog.text
    assert not [line for line in caplog.messages if "never retrieved" in line or "Unclosed" in line]


# What goes out.


async def test_a_request_goes_out_as_it_is_meant() -> None:
    async with client(reply('{"a": 1}')) as c:
        assert await c.fetch(GET) == b'{"a": 1}'
        assert await c.fetch(POST) == b'{"a": 1}'
    get, post = c.raw.calls
    assert get.target == "GET /v7/endpoint/agents?aid=59&name=a+b%26c"
    assert (post.target, post.body) == (f"POST {POST.path}", POST.body)
    assert post.header("Content-Type") == "application/json"
    for call in c.raw.calls:
        assert call.header("Authorization") == f"Bearer {TOKEN}"
        assert call.header("User-Agent") == f"{NAME}/{__version__}"
        assert call.header("Accept-Encoding") == "gzip"
        assert "application/json" in (call.header("Accept") or "")
        assert "xml" not in (call.header("Accept") or "")
        assert call.header("Cookie") is None
    assert c.requests == [(GET.path, "200"), (POST.path, "200")]
    assert get.connection == post.connection, "one connection is enough"


async def test_with_an_email_the_authorization_is_basic() -> None:
    async with client(credentials=lambda: Credentials(TOKEN, "me@example.com")) as c:
        await c.fetch()
    assert c.raw.calls[0].header("Authorization") == "Basic " + b64encode(f"me@example.com:{TOKEN}".encode()).decode()


def test_credentials_do_not_show_themselves() -> None:
    assert TOKEN not in repr(Credentials(TOKEN, "me@example.com")) + str([Credentials(TOKEN)])


async def test_a_token_is_asked_for_anew_for_every_request() -> None:
    tokens = iter(["one", "two"])
    async with client(credentials=lambda: Credentials(next(tokens))) as c:
        await c.fetch()
        await c.fetch()
    assert [call.header("Authorization") for call in c.raw.calls] == ["Bearer one", "Bearer two"]


async def test_without_a_token_nothing_is_sent() -> None:
    def unreadable() -> Credentials:
        raise PollError("auth", "api.token_file can not be read")

    async with client(credentials=unreadable) as c:
        assert await c.reason() == "auth"
        assert (c.raw.connections, c.requests) == (0, [])


async def test_the_environment_decides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with client() as c:
        await c.fetch()
    assert c.raw.calls[0].header("Authorization") == f"Bearer {TOKEN}"


# What comes back.

STATUSES: dict[int, Reason] = {
    201: "protocol", 202: "protocol", 204: "protocol", 206: "protocol",
    300: "redirect", 301: "redirect", 302: "redirect", 303: "redirect", 304: "redirect", 307: "redirect",
    308: "redirect",
    400: "protocol", 401: "auth", 402: "protocol", 403: "forbidden", 404: "not_found", 405: "protocol",
    406: "protocol", 407: "proxy", 409: "protocol", 410: "protocol", 413: "protocol", 415: "protocol", 418: "protocol",
    429: "rate_limited", 431: "protocol", 499: "protocol",
    500: "server_error", 501: "server_error", 502: "server_error", 503: "maintenance", 504: "server_error",
    520: "server_error", 599: "server_error", 600: "server_error", 999: "server_error",
}  # fmt: skip


@pytest.mark.parametrize(("status", "reason"), STATUSES.items())
async def test_every_status_has_one_reason(status: int, reason: Reason) -> None:
    page = "" if status in (204, 304) else "<html>secret page</html>"
    async with client(reply(page, status, "text/html")) as c:
        with pytest.raises(PollError, match=str(status)) as caught:
            await c.fetch()
        assert caught.value.reason == reason
        assert "secret page" not in str(caught.value)
        assert POST.path in str(caught.value)
        again = {"server_error": ATTEMPTS, "rate_limited": 2}
        assert c.requests == [(POST.path, str(status))] * again.get(reason, 1)
        assert c.retries == [reason] * (len(c.requests) - 1)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/hal+json;charset=UTF-8",
        "application/problem+json",
        "APPLICATION/JSON; charset=x",
    ],
)
async def test_json_has_many_names(content_type: str) -> None:
    async with client(reply(content_type=content_type)) as c:
        assert await c.fetch() == b"{}"


@pytest.mark.parametrize(
    "content_type", ["text/html", "application/xml", "text/plain", "", ";;;", "a" * 5000, "\xff\xfe"]
)
async def test_anything_else_is_not_read(content_type: str) -> None:
    async with client(reply("<html>please sign in</html>", content_type=content_type)) as c:
        with pytest.raises(PollError) as caught:
            await c.fetch()
        assert caught.value.reason == "content_type"
        assert "sign in" not in str(caught.value)
        assert len(str(caught.value)) < 200


async def test_a_compressed_body_is_decompressed() -> None:
    text = b'{"results": []}' * 1000
    for encoding in ("gzip", "GZIP", " gzip"):
        async with client(reply(gzip.compress(text), Content_Encoding=encoding)) as c:
            assert await c.fetch() == text
    async with client(reply(text, Content_Encoding="identity")) as c:
        assert await c.fetch() == text


GOOD_GZIP = gzip.compress(b'{"results": []}' * 100)


def test_every_cut_of_a_compressed_body_is_an_error() -> None:
    for end in range(len(GOOD_GZIP)):
        with pytest.raises(PollError) as caught:
            Body(GOOD_GZIP[:end], "gzip").text()
        assert caught.value.reason == "decompress"


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_cap_is_on_what_comes_out_of_the_compression(monkeypatch: pytest.MonkeyPatch, extra: int) -> None:
    monkeypatch.setattr(http_module, "MAX_BODY", 100_000)
    async with client(reply(gzip.compress(b" " * (100_000 + extra)), Content_Encoding="gzip")) as c:
        if extra:
            assert await c.reason() == "too_large"
        else:
            assert len(await c.fetch()) == 100_000


async def test_the_clock_and_the_limit_follow_every_reply() -> None:
    limit = {"X_Organization_Rate_Limit_Limit": "240", "X_Organization_Rate_Limit_Remaining": "200"}
    async with client(reply(status=404, Date=DATE, **limit), reply(Date="?")) as c:
        await c.reason()
        assert c.http.api_clock.now() == START
        assert c.http.budget.rate_limit == RateLimit(240, 200)
        c.virtual.now += 5
        await c.fetch()
        assert c.http.api_clock.now() == START + 5


# Trust.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "trusted")


async def test_a_certificate_that_is_trusted(authority: Authority) -> None:
    identity = authority.issue("good", sans="DNS:localhost")
    async with client(reply('{"a": 1}'), server_tls=serves(identity), tls=trusts(authority)) as c:
        assert await c.fetch() == b'{"a": 1}'
    async with client(server_tls=serves(identity)) as c:
        assert await c.reason() == "tls", "the system's authorities do not know this one"
        assert (c.raw.calls, c.retries) == ([], [])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28", id="no cipher in common: an alert that the handshake failed"),
        pytest.param(reply(status=400), id="no TLS: an answer in plain text"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no TLS: another protocol"),
    ],
)
async def test_a_server_with_which_no_handshake_succeeds(answer: bytes) -> None:
    heard = list[bytes]()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(10_000))
        writer.write(answer)
        await reader.read()

    async with listening(answers) as port, client(url=f"https://localhost:{port}") as c:
        assert await c.reason() == "tls"
        assert [each[0] for each in heard] == [0x16], "a handshake, and no word of HTTP"


# Proxies.

PROXY_USER = "user:proxy-password@"


def by_proxy(url: str) -> str:
    return url.replace("://", f"://{PROXY_USER}")


async def test_a_proxy_is_used_where_it_is_set() -> None:
    async with serving(reply('{"a": 1}')) as proxy, client(url="http://api.example", proxy=by_proxy(proxy.url)) as c:
        assert await c.fetch() == b'{"a": 1}'
        assert proxy.targets == [f"POST http://api.example{POST.path}"]
        assert proxy.calls[0].header("Proxy-Authorization") == "Basic " + b64encode(b"user:proxy-password").decode()


async def test_a_proxy_that_has_no_name_or_refuses() -> None:
    async with client(url="http://api.example", proxy=f"http://{PROXY_USER}no-such-host.invalid:3128") as c:
        assert await c.reason() == "proxy"
    async with (
        serving(reply("<html>", 407, "text/html")) as proxy,
        client(url="http://a.example", proxy=proxy.url) as c,
    ):
        assert await c.reason() == "proxy"


# Second attempts.


async def test_nothing_is_tried_again_that_would_come_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    async with client(reply(status=500)) as c:
        assert await c.reason(left=0.5) == "server_error"
        assert (c.virtual.slept, len(c.requests)) == ([], 1)
        assert await c.reason(left=0.6) == "server_error"
        assert (c.virtual.slept, len(c.requests)) == ([0.5], 3)


async def test_what_heals_is_said() -> None:
    assert {"dns", "connect", "timeout", "reset", "server_error"} == HEALING


async def test_nobody_waits_for_the_limit_past_the_deadline() -> None:
    async with client(reply(status=429, Retry_After="30")) as c:
        assert await c.reason(left=30) == "rate_limited"
        assert (c.virtual.slept, len(c.requests)) == ([], 1)


# A token that is refused.


async def test_a_token_that_is_refused_rests_for_a_minute() -> None:
    async with client(reply(status=401)) as c:
        assert [await c.reason() for _ in range(5)] == ["auth"] * 5
        assert len(c.raw.calls) == 1
        c.virtual.now += AUTH_PAUSE
        assert [await c.reason() for _ in range(5)] == ["auth"] * 5
        assert len(c.raw.calls) == 2


async def test_a_token_that_is_good_again_is_good() -> None:
    async with client(reply(status=401), reply('{"a": 1}')) as c:
        assert await c.reason() == "auth"
        c.virtual.now += AUTH_PAUSE
        assert [await c.fetch() for _ in range(3)] == [b'{"a": 1}'] * 3


@pytest.mark.parametrize("good", [True, False])
async def test_after_the_rest_one_asks_for_all_account_groups(good: bool) -> None:
    """The API shuts out an address after 120 refusals in an hour: twenty groups must not make twenty of one."""

    async def slowly(call: Call) -> None:
        await asyncio.sleep(0.02)
        await call.say(reply(status=200 if good else 401))

    async with client(reply(status=401), slowly) as c:
        assert await c.reason() == "auth"
        c.virtual.now += AUTH_PAUSE
        found = await asyncio.gather(*(c.fetch() for _ in range(20)), return_exceptions=True)
        assert len(c.raw.calls) == (21 if good else 2)
        assert [isinstance(each, PollError) for each in found] == [not good] * 20


async def test_the_budget_is_asked_before_every_request() -> None:
    virtual = Virtual()
    async with client(reply(), clock=virtual.clock, requests_per_minute=2) as c:
        asked = [asyncio.create_task(c.fetch()) for _ in range(5)]
        for minute in (2, 4, 5):
            await asyncio.wait(asked[:minute], timeout=5)
            assert [task.done() for task in asked] == [True] * minute + [False] * (5 - minute)
            assert len(c.raw.calls) == minute
            await virtual.advance(60)
