"""The HTTP client: one request goes out, and its body comes back, or one error with its reason."""

import asyncio
import gc
import gzip
import logging
import random
import ssl
import traceback
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pki import Authority, Identity
from raw import Call, Raw, Script, listening, reply, serving
from virtual import START, Instant, Patient, Virtual

from exporter import NAME, __version__
from exporter.api import http as http_module
from exporter.api.budget import RateLimit
from exporter.api.http import ATTEMPTS, AUTH_PAUSE, HEALING, MAX_BODY, Body, Credentials, Http
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


async def test_cookies_are_never_sent_back() -> None:
    async with client(reply(Set_Cookie="tracking=1; Path=/")) as c:
        for _ in range(3):
            await c.fetch()
    assert [call.header("Cookie") for call in c.raw.calls] == [None] * 3


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
    "location",
    ["/v7/elsewhere", "http://127.0.0.1:1/", "//example.com/", "", "http://[::1", "\xff", "https://localhost/"],
)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(status: int, location: str) -> None:
    async with serving(reply()) as other, client(reply(status=status, Location=location or other.url)) as c:
        assert await c.reason() == "redirect"
        assert (len(c.raw.calls), other.connections) == (1, 0)


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


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b'{"results": []}'),
        ("gzip", b""),
        ("gzip", GOOD_GZIP[:-1]),
        ("gzip", GOOD_GZIP[:20]),
        ("gzip", GOOD_GZIP + b"more"),
        ("gzip", GOOD_GZIP + GOOD_GZIP),
        ("gzip", GOOD_GZIP[:30] + b"\xff\xff\xff" + GOOD_GZIP[33:]),
        ("gzip", GOOD_GZIP[:-8] + b"\0\0\0\0" + GOOD_GZIP[-4:]),
        ("gzip", zlib.compress(b"{}")),
        ("deflate", zlib.compress(b"{}")),
        ("br", b"\x0b\x01\x80{}\x03"),
        ("zstd", b"(\xb5/\xfd\x04\x00"),
        ("gzip, gzip", gzip.compress(GOOD_GZIP)),
        ("x" * 5000, b"{}"),
    ],
)
async def test_a_body_that_is_not_compressed_as_it_says_is_an_error(encoding: str, body: bytes) -> None:
    async with client(reply(body, Content_Encoding=encoding)) as c:
        assert await c.reason() == "decompress"
        assert (c.retries, c.requests) == ([], [(POST.path, "200")])


def test_every_cut_of_a_compressed_body_is_an_error() -> None:
    for end in range(len(GOOD_GZIP)):
        with pytest.raises(PollError) as caught:
            Body(GOOD_GZIP[:end], "gzip").text()
        assert caught.value.reason == "decompress"


async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    async def announce(call: Call) -> None:
        await call.say(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {10**10}\r\n\r\n".encode()
        )
        await asyncio.sleep(60)

    async with client(announce) as c:
        assert await c.reason() == "too_large"


async def test_a_body_without_end_is_read_up_to_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "MAX_BODY", 100_000)

    async def endless(call: Call) -> None:
        await call.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await call.say(b"2710\r\n" + b" " * 10_000 + b"\r\n")

    async with client(endless) as c:
        assert await c.reason() == "too_large"


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_cap_is_on_what_comes_out_of_the_compression(monkeypatch: pytest.MonkeyPatch, extra: int) -> None:
    monkeypatch.setattr(http_module, "MAX_BODY", 100_000)
    async with client(reply(gzip.compress(b" " * (100_000 + extra)), Content_Encoding="gzip")) as c:
        if extra:
            assert await c.reason() == "too_large"
        else:
            assert len(await c.fetch()) == 100_000


def test_a_bomb_takes_no_more_memory_than_the_cap() -> None:
    bomb = gzip.compress(b"\0" * (MAX_BODY + 1), 1)
    assert len(bomb) < MAX_BODY / 100
    with pytest.raises(PollError) as caught:
        Body(bomb, "gzip").text()
    assert caught.value.reason == "too_large"


async def test_the_clock_and_the_limit_follow_every_reply() -> None:
    limit = {"X_Organization_Rate_Limit_Limit": "240", "X_Organization_Rate_Limit_Remaining": "200"}
    async with client(reply(status=404, Date=DATE, **limit), reply(Date="?")) as c:
        await c.reason()
        assert c.http.api_clock.now() == START
        assert c.http.budget.rate_limit == RateLimit(240, 200)
        c.virtual.now += 5
        await c.fetch()
        assert c.http.api_clock.now() == START + 5


# What breaks on the way.

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def says(*pieces: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.say(*pieces)
        call.close()

    return script


def resets(*pieces: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.say(*pieces)
        await asyncio.sleep(0.02)
        call.reset()

    return script


BROKEN: dict[str, Script] = {
    "reset before the head": resets(),
    "reset in the head": resets(HEAD[:20]),
    "reset after the head": resets(HEAD + b"Content-Length: 100\r\n\r\n"),
    "reset in the body": resets(HEAD + b"Content-Length: 100\r\n\r\n{"),
    "reset between chunks": resets(CHUNKED + b"2\r\n{}\r\n"),
    "hung up before the head": says(),
    "hung up in the head": says(HEAD[:20]),
    "hung up in the body": says(HEAD + b"Content-Length: 100\r\n\r\n{"),
    "hung up before the last chunk": says(CHUNKED + b"2\r\n{}\r\n"),
}
NO_HTTP: dict[str, Script] = {
    "a chunk without a size": says(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk of a negative size": says(CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n"),
    "bytes of another protocol": says(b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n"),
    "no status line": says(b"{}\r\n\r\n"),
    "a status of four digits": says(b"HTTP/1.1 2000 OK\r\n\r\n"),
    "a header of 9 kB": says(HEAD + b"X: " + b"a" * 9000 + b"\r\n\r\n"),
    "200 headers": says(HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n"),
    "a reason of 64 kB": says(b"HTTP/1.1 200 " + b"a" * 65536 + b"\r\n\r\n"),
    "trailers without end": says(CHUNKED + b"2\r\n{}\r\n0\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(100_000))),
    "two lengths": says(HEAD + b"Content-Length: 5\r\nContent-Length: 2\r\n\r\n{}"),
    "a length with a sign": says(HEAD + b"Content-Length: +2\r\n\r\n{}"),
    "a length beyond all": says(HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}"),
    "a length and chunks": says(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "another protocol on request": says(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
}


@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
async def test_a_connection_that_breaks_is_a_reset_and_tried_again(script: Script, request_: Request) -> None:
    async with client(script) as c:
        assert await c.reason(request_) == "reset"
        assert c.retries == ["reset"] * (ATTEMPTS - 1)
    async with client(script, reply('{"a": 1}')) as c:
        assert await c.fetch(request_) == b'{"a": 1}'


@pytest.mark.parametrize("script", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_http_is_not_tried_again(script: Script) -> None:
    async with client(script, reply('{"a": 1}')) as c:
        with pytest.raises(PollError) as caught:
            await c.fetch()
        keeps_secrets(caught.value)
        assert (caught.value.reason, c.retries) == ("protocol", [])
        assert len(str(caught.value)) < 200, "what was sent instead is not repeated"
        assert await c.fetch() == b'{"a": 1}'


async def test_two_answers_at_once_do_not_shift_the_next_one() -> None:
    async with client(reply('{"a": 1}') + reply('{"smuggled": 1}'), reply('{"a": 2}')) as c:
        assert [await c.fetch(), await c.fetch()] == [b'{"a": 1}', b'{"a": 2}']
        assert [call.connection for call in c.raw.calls] == [0, 1]


async def test_an_idle_connection_that_was_closed_costs_nothing() -> None:
    """The other end hangs up while nothing is asked, or in the moment in which something is."""

    async def last(call: Call) -> None:
        await call.say(reply())
        call.close()

    async with client(last, reply()) as c:
        await c.fetch()
        await asyncio.sleep(0.05)
        await c.fetch()
        assert c.retries == []

    async def hangs_up(call: Call) -> None:
        call.close()

    async with client(reply(), hangs_up, reply()) as c:
        await c.fetch()
        await c.fetch()
        assert c.retries == ["reset"]


async def test_nobody_listens() -> None:
    async with serving(reply()) as gone:
        url = gone.url
    async with client(url=url) as c:
        assert await c.reason() == "connect"
        assert c.requests == [(POST.path, "error")] * ATTEMPTS


async def test_a_name_that_is_none() -> None:
    async with client(url="http://no-such-host.invalid") as c:
        assert await c.reason() == "dns"
        assert c.retries == ["dns"] * (ATTEMPTS - 1)


# Time limits, in real time: short ones.


async def silence(call: Call) -> None:
    await asyncio.sleep(60)


async def half_an_answer(call: Call) -> None:
    await call.say(HEAD + b"Content-Length: 100\r\n\r\n{")
    await asyncio.sleep(60)


async def trickle(call: Call) -> None:
    await call.say(HEAD + b"Content-Length: 1000\r\n\r\n", *[b" "] * 1000, every=0.02)


async def trickling_head(call: Call) -> None:
    await call.say(*(b"HTTP/1.1 103 Early Hints\r\n\r\n" for _ in range(1000)), every=0.02)


@pytest.mark.parametrize("script", [silence, half_an_answer, trickle, trickling_head])
async def test_an_answer_that_takes_too_long_is_given_up(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "ATTEMPTS", 1)
    async with client(script, timeout=0.1) as c:
        async with asyncio.timeout(2):
            assert await c.reason() == "timeout"
        await asyncio.sleep(0)
        assert not c.http._session.connector._conns, "such a connection is not used again"  # type: ignore[union-attr]


async def test_a_handshake_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "CONNECT", 0.1)
    monkeypatch.setattr(http_module, "ATTEMPTS", 1)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(mute) as port, client(url=f"https://127.0.0.1:{port}") as c:
        async with asyncio.timeout(2):
            assert await c.reason() == "timeout"


# Trust.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "trusted")


def serves(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def trusts(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


async def test_a_certificate_that_is_trusted(authority: Authority) -> None:
    identity = authority.issue("good", sans="DNS:localhost")
    async with client(reply('{"a": 1}'), server_tls=serves(identity), tls=trusts(authority)) as c:
        assert await c.fetch() == b'{"a": 1}'
    async with client(server_tls=serves(identity)) as c:
        assert await c.reason() == "tls", "the system's authorities do not know this one"
        assert (c.raw.calls, c.retries) == ([], [])


@pytest.mark.parametrize(
    "certificate",
    [
        {"name": "wrong-host", "sans": "DNS:api.example.net"},
        {"name": "no-host"},
        {"name": "expired", "until": "2021"},
        {"name": "not-yet-valid", "since": "2039"},
        {"name": "weak", "key": "weak"},
    ],
    ids=lambda certificate: certificate["name"],
)
async def test_a_certificate_that_is_not_good_enough(authority: Authority, certificate: dict[str, str]) -> None:
    named = {"sans": "DNS:localhost"} if certificate["name"] != "no-host" else {}
    identity = authority.issue(**{**named, **certificate})
    async with client(server_tls=serves(identity), tls=trusts(authority)) as c:
        assert await c.reason() == "tls"
        assert (c.raw.calls, c.retries) == ([], []), "nothing was said to a stranger"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="old TLS only: an alert that the version is too new"),
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


async def test_a_proxy_that_can_not_be_reached() -> None:
    async with serving(reply()) as gone:
        url = gone.url
    async with client(url="http://api.example", proxy=by_proxy(url)) as c:
        assert await c.reason() == "proxy"
    async with client(url="http://api.example", proxy=f"http://{PROXY_USER}no-such-host.invalid:3128") as c:
        assert await c.reason() == "proxy"


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses(status: int) -> None:
    async with serving(reply("<html>", status, "text/html")) as proxy:
        async with client(url="https://api.example", proxy=by_proxy(proxy.url)) as c:
            assert await c.reason() == "proxy"
        assert proxy.targets[0] == "CONNECT api.example:443"
        assert TOKEN not in str([call.head for call in proxy.calls])
    async with (
        serving(reply("<html>", 407, "text/html")) as proxy,
        client(url="http://a.example", proxy=proxy.url) as c,
    ):
        assert await c.reason() == "proxy"


async def test_a_proxy_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "CONNECT", 0.1)
    async with serving(silence) as proxy, client(url="https://api.example", proxy=by_proxy(proxy.url)) as c:
        async with asyncio.timeout(2):
            assert await c.reason() == "proxy"


# Second attempts.


async def test_what_may_heal_is_tried_again_after_a_random_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for share in (0.0, 0.5, 0.999):
        monkeypatch.setattr(random, "random", lambda share=share: share)
        async with client(reply(status=500), reply(status=502), reply('{"a": 1}')) as c:
            assert await c.fetch() == b'{"a": 1}'
            assert c.virtual.slept == [share * 1.0, share * 2.0]
            assert c.retries == ["server_error", "server_error"]


async def test_second_attempts_run_out_when_everything_fails() -> None:
    async with client(reply(status=500), requests_per_minute=1000) as c:
        for _ in range(100):
            await c.reason()
        assert 110 <= len(c.requests) <= 121, "ten that were saved, and a tenth of the first attempts"


async def test_nothing_is_tried_again_that_would_come_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    async with client(reply(status=500)) as c:
        assert await c.reason(left=0.5) == "server_error"
        assert (c.virtual.slept, len(c.requests)) == ([], 1)
        assert await c.reason(left=0.6) == "server_error"
        assert (c.virtual.slept, len(c.requests)) == ([0.5], 3)


async def test_what_heals_is_said() -> None:
    assert {"dns", "connect", "timeout", "reset", "server_error"} == HEALING


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "7"}, 7),
        ({"X_Organization_Rate_Limit_Reset": str(START + 20)}, 20),
        ({"Retry_After": "7", "X_Organization_Rate_Limit_Reset": str(START + 20)}, 20),
        ({}, 60),
        ({"Retry_After": "0"}, 1),
        ({"Retry_After": "1000000000000"}, 90),
    ],
)
async def test_a_refusal_for_the_limit_is_waited_for_and_tried_once_more(headers: dict[str, str], wait: float) -> None:
    async with client(reply(status=429, Date=DATE, **headers), reply('{"a": 1}', Date=DATE)) as c:
        assert await c.fetch() == b'{"a": 1}'
        assert wait <= sum(c.virtual.slept) < wait + 1
        assert c.retries == ["rate_limited"]
    async with client(reply(status=429, Date=DATE, **headers)) as c:
        assert await c.reason() == "rate_limited"
        assert len(c.requests) == 2


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


async def test_another_token_is_tried_at_once() -> None:
    tokens = [TOKEN]
    async with client(reply(status=401), reply('{"a": 1}'), credentials=lambda: Credentials(tokens[0])) as c:
        assert await c.reason() == "auth"
        tokens[0] = "rotated"
        assert await c.fetch() == b'{"a": 1}'


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
