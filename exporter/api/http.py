"""The only HTTP client code: one request goes out, its body comes back, or one error with its reason.

It alone holds the token, and sends it to one origin only. What to ask stands in `exporter.api.v6` and
`exporter.api.v7`, what the body means in `exporter.api.wire`.
"""

import asyncio
import random
import ssl
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from isal import isal_zlib
from isal.igzip_lib import IsalError
from yarl import URL

from exporter import NAME, __version__
from exporter.api.budget import Budget, Retries
from exporter.api.wire import Request
from exporter.clock import ApiClock, Clock
from exporter.errors import PollError, Reason

MAX_BODY = 64 * 1024 * 1024
"""Bytes of one page, as it comes and after decompression; a page of 1,000 sessions has about 0.7 MB."""
CONNECT = 10.0
"""Seconds to resolve, connect and shake hands."""
LONG = 2 * CONNECT
"""Seconds of an attempt after which the next one is left to the next poll, which then comes when it should."""
ATTEMPTS = 3
HEALING: frozenset[Reason] = frozenset({"dns", "connect", "timeout", "reset", "server_error"})
"""Reasons that a second attempt may heal."""
AUTH_PAUSE = 50.0
"""Seconds for which a refused token is not tried again: 120 refusals an hour block the address (API documentation).
Less than the default interval, so that every poll tries once."""

_STATUS: dict[int, Reason] = {
    401: "auth", 403: "forbidden", 404: "not_found", 407: "proxy", 429: "rate_limited", 503: "maintenance",
}  # fmt: skip
_ADVICE: dict[Reason, str] = {
    "auth": "the API refused the token: check api.token or api.token_file, and that its user is not locked",
    "forbidden": "the token's user needs 'API access' and 'View endpoint agent data' in this account group",
    "not_found": "the API does not know this path: check api.url and api.version",
    "proxy": "the proxy refused: check api.proxy",
    "rate_limited": "the organization's requests of this minute are used up: lower api.requests_per_minute",
    "maintenance": "the API is in maintenance",
    "redirect": "the API redirects elsewhere, which is not followed: check api.url and api.version",
    "protocol": "the API does not accept this request",
    "server_error": "the API failed",
}


@dataclass(frozen=True, slots=True)
class Body:
    """What came back of one request, not yet decompressed."""

    data: bytes
    encoding: str

    def text(self) -> bytes:
        """Return the decompressed bytes; slow enough for a thread of its own.

        Raises:
            PollError: `decompress` where it is no gzip, `too_large` where it is too much.
        """
        if self.encoding in ("", "identity"):
            return self.data
        if self.encoding != "gzip":
            raise PollError("decompress", f"the API compressed with {self.encoding[:20]!r}, only gzip was offered")
        decompressor = isal_zlib.decompressobj(31)
        try:
            text = decompressor.decompress(self.data, MAX_BODY + 1)
        except IsalError as error:  # type: ignore[misc] # its stub calls it a value
            raise PollError("decompress", "the API sent a body that is not the gzip that it says it is") from error
        if len(text) > MAX_BODY:
            raise PollError("too_large", f"the API sent a page of more than {MAX_BODY} bytes")
        if not decompressor.eof or decompressor.unused_data:
            raise PollError("decompress", "the API sent a gzip body that does not end where it should")
        return text


class Deadline(Protocol):
    """By when a poll has to be done."""

    def remaining(self) -> float:
        """Seconds left."""

    def standing_still(self) -> AbstractContextManager[None]:
        """Let no time pass meanwhile: waiting for our own share of requests is not the API's fault."""


class Observer(Protocol):
    """Who is told of every request; `code` is the status, or `error` where no reply came."""

    def request(self, route: str, code: str, seconds: float) -> None:
        """One request was sent and answered, or not."""

    def retry(self, reason: Reason) -> None:
        """One request will be sent again."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request is authorized with."""

    token: str
    email: str = ""

    def header(self) -> str:
        """Return the `Authorization` header: bearer, or basic where there is an email (v6 only)."""
        if self.email:
            return f"Basic {b64encode(f'{self.email}:{self.token}'.encode()).decode()}"
        return f"Bearer {self.token}"

    def __repr__(self) -> str:
        return "Credentials(<secret>)"


class Http:
    """A client of one origin, for all account groups together."""

    def __init__(
        self,
        url: str,
        credentials: Callable[[], Credentials],
        observer: Observer,
        *,
        timeout: float = 30.0,
        requests_per_minute: int = 120,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make a client; nothing is asked yet.

        Args:
            url: origin of the API, without a version.
            credentials: called for every request, so that a token that was changed on disk is used at once.
            observer: is told of every request.
            timeout: seconds without a byte after which a request is given up; half as much again for all of a reply.
            requests_per_minute: our share of the organization's limit.
            tls: how the API's certificate is checked; the system's authorities by default.
            proxy: address of a proxy, with credentials or without.
            clock: the machine's clocks.
        """
        self.clock = clock or Clock()
        self.api_clock = ApiClock(self.clock)
        self.budget = Budget(requests_per_minute, self.clock, self.api_clock)
        self.origin = URL(url)
        self._credentials = credentials
        self._observer = observer
        self._proxy = proxy
        self._retries = Retries()
        self._refused: Credentials | None = None
        self._refused_until = 0.0
        self._trial = asyncio.Lock()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls or True, limit=16, keepalive_timeout=75),
            timeout=aiohttp.ClientTimeout(
                total=1.5 * timeout, connect=CONNECT, sock_connect=CONNECT, sock_read=timeout
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={
                "User-Agent": f"{NAME}/{__version__}",
                "Accept": "application/json, application/hal+json, application/problem+json",
                "Accept-Encoding": "gzip",
            },
        )

    def succeed(self, before: "Http") -> None:
        """Go on in place of another client: with its clock, and with what it sent of our share."""
        before.budget.adopt(self.budget.per_minute)
        self.api_clock, self.budget, self._retries = before.api_clock, before.budget, before._retries

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def fetch(self, request: Request, deadline: Deadline) -> Body:
        """Send a request, again where that may heal it; its body is still compressed.

        Raises:
            PollError: with one of the closed reasons.
        """
        self._retries.earn()
        attempt = 0
        while True:
            attempt += 1
            with deadline.standing_still():
                await self.budget.take()
            began = self.clock.monotonic()
            try:
                return await self._once(request)
            except PollError as error:
                wait = self._wait(error, attempt)
                took = self.clock.monotonic() - began  # as long as the next attempt may take
                if wait is None or took > LONG or wait + took >= deadline.remaining() or not self._retries.spend():
                    raise
                self._observer.retry(error.reason)
                await self.clock.sleep(wait)

    def _wait(self, error: PollError, attempt: int) -> float | None:
        """Return the seconds before the next attempt; None where there is none."""
        if isinstance(error, _RateLimited):
            return error.wait + random.random() if attempt == 1 else None  # noqa: S311  jitter is no secret
        if error.reason in HEALING and attempt < ATTEMPTS:
            return random.random() * 2.0**attempt / 2  # noqa: S311
        return None

    async def _once(self, request: Request) -> Body:
        credentials = self._credentials()
        if self._is_suspect(credentials):
            async with self._trial:  # one tries again, the others wait for what becomes of it
                if self._is_suspect(credentials):
                    if self.clock.monotonic() < self._refused_until:
                        raise PollError("auth", f"{_ADVICE['auth']} (not tried again within {AUTH_PAUSE:.0f} s)")
                    return await self._exchange(request, credentials)
        return await self._exchange(request, credentials)

    def _is_suspect(self, credentials: Credentials) -> bool:
        return credentials == self._refused

    async def _exchange(self, request: Request, credentials: Credentials) -> Body:
        began = self.clock.monotonic()
        code = "error"
        try:
            async with self._send(request, credentials) as response:
                code = str(response.status)
                self._refused = credentials if code == "401" else None
                self._refused_until = self.clock.monotonic() + AUTH_PAUSE
                self.api_clock.observe(response.headers.get("Date"))
                self.budget.observe(response.headers)
                if response.status != 200:
                    raise self._failure(request, response)
                return await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            failure = PollError(*_reason(error, proxied=bool(self._proxy)))
        finally:
            self._observer.request(request.path, code, self.clock.monotonic() - began)
        raise failure  # not from what caused it: that holds the request, and so the token

    def _send(self, request: Request, credentials: Credentials) -> "aiohttp.client._RequestContextManager":
        headers = {"Authorization": credentials.header()}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        return self._session.request(
            request.method,
            self.origin.with_path(request.path).with_query(dict(request.query)),
            data=request.body,
            headers=headers,
            proxy=self._proxy,
            allow_redirects=False,
            max_redirects=0,
        )

    def _failure(self, request: Request, response: aiohttp.ClientResponse) -> PollError:
        """Return the error of a reply that is not a 200; its body is neither read nor logged."""
        status = response.status
        reason = _STATUS.get(status) or _class(status)
        message = f"{request.method} {request.path} was answered {status}: {_ADVICE[reason]}"
        if status == 429:
            return _RateLimited(message, self.budget.refused(response.headers))
        return PollError(reason, message)


class _RateLimited(PollError):
    """A 429, with the seconds to wait."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__("rate_limited", message)
        self.wait = wait


def _class(status: int) -> Reason:
    if 300 <= status < 400:
        return "redirect"
    return "server_error" if status >= 500 else "protocol"


async def _read(response: aiohttp.ClientResponse) -> Body:
    """Read a body under the cap."""
    if "json" not in response.content_type:
        raise PollError(
            "content_type", f"expected JSON, got {_kind(response.content_type)}: is there a portal or proxy between?"
        )
    if (response.content_length or 0) > MAX_BODY:
        raise PollError("too_large", f"the API announced a page of more than {MAX_BODY} bytes")
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            raise PollError("too_large", f"the API sent a page of more than {MAX_BODY} bytes")
        chunks.append(chunk)
    return Body(b"".join(chunks), response.headers.get("Content-Encoding", "").strip().lower())


def _kind(content_type: str) -> str:
    """Return a type as it is where it is a common one: what else stands there may be a secret said back."""
    common = ("text/html", "text/plain", "text/xml", "application/xml", "application/octet-stream")
    return content_type if content_type in common else "something else"


def _reason(error: Exception, *, proxied: bool) -> tuple[Reason, str]:
    """Map an exception of the transport to its reason and to words that hold no address and no secret."""
    name = type(error).__name__
    table: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Reason, str], ...] = (
        ((aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError), "proxy", "the proxy can not be used"),
        (aiohttp.ClientConnectorDNSError, "dns", "the API's name can not be resolved"),
        ((aiohttp.ClientSSLError, ssl.SSLError), "tls", "no trust in the API's certificate"),
        ((aiohttp.ServerTimeoutError, TimeoutError), "timeout", "the API did not answer in time"),
        (aiohttp.ClientConnectorError, "connect", "no connection to the API"),
        (aiohttp.ClientPayloadError, "reset", "the API's answer broke off"),
        ((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, OSError), "reset", "the connection to the API broke"),
    )
    for kinds, reason, words in table:
        if isinstance(error, kinds):
            connecting = reason in ("dns", "connect") or isinstance(error, aiohttp.ConnectionTimeoutError)
            return ("proxy" if proxied and connecting else reason), f"{words} ({name})"
    return "protocol", f"the API's answer is no HTTP ({name})"
