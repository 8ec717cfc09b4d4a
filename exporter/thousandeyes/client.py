"""HTTP client of the ThousandEyes API: authentication, retries, size and time limits, pagination.

Only this module handles the token, and it sends requests only to the configured origin: of the link
to the next page it takes nothing but the cursor.
"""

import asyncio
import io
import math
import random
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeVar

import aiohttp
import stamina
from isal import igzip
from isal.igzip_lib import IsalError
from yarl import URL

from exporter import NAME, __version__
from exporter.clock import ApiClock, Clock
from exporter.errors import PollError, Reason
from exporter.metrics.self_metrics import SelfMetrics
from exporter.thousandeyes.http_errors import status_error, transport_error
from exporter.thousandeyes.rate_limit import RateLimiter
from exporter.thousandeyes.schema import Listing, Page, Request, decode

R = TypeVar("R")
Cursor = frozenset[tuple[str, str]]
"""Query parameters that select a page."""

CONNECT_SECONDS = 10.0
"""Time limit for name resolution, connection and TLS handshake, if that of reads is not shorter."""
ADDRESS_SECONDS = 0.1
"""Time after which the next address of the host is tried as well; the minimum that RFC 8305
recommends, so that 90 addresses that do not answer fit the limit above."""
MAX_BODY_BYTES = 16 * 1024 * 1024
"""Maximum size of a body, compressed and decompressed; 1,000 sessions have about 0.7 MB."""
MAX_PAGES = 1000
"""Maximum number of pages of one listing."""
AUTH_PAUSE_SECONDS = 50.0
"""Time after which a rejected token is tried again. The API blocks addresses with 120 rejections an
hour (API documentation). Shorter than the default interval, so that every poll tries once."""
RETRIED_REASONS: dict[Reason, int] = {
    "dns": 3,
    "connect": 3,
    "timeout": 3,
    "reset": 3,
    "server_error": 3,
    "rate_limited": 2,
}
"""Maximum number of attempts of a request."""
MAX_BACKOFF_SECONDS = 1.0
MAX_RETRIED_SECONDS = 20.0
"""A request that took longer is left to the next poll, so that polls stay on schedule."""
RETRY_RATIO, MAX_SAVED_RETRIES = 0.1, 10.0
"""Each request earns a tenth of a retry: an outage must not multiply requests."""

stamina.instrumentation.set_on_retry_hooks([])  # retries are counted in SelfMetrics


def authorization_header(token: str, email: str = "") -> str:
    """Return the header `Authorization`: a bearer token, or basic authentication (v6 only)."""
    return aiohttp.encode_basic_auth(email, token) if email else f"Bearer {token}"


class Client:
    """A client of one API origin, shared by all account groups. Create it within the event loop."""

    def __init__(  # noqa: PLR0913  each is one setting
        self,
        base_url: str,
        authorization: Callable[[], str],
        metrics: SelfMetrics,
        clock: Clock,
        *,
        timeout: float = 30.0,
        requests_per_minute: int = 120,
        reserve_seconds: float = 180.0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        """Create a client; no request is sent yet.

        Args:
            base_url: Origin of the API, without a version.
            authorization: Returns the header `Authorization`; called in a thread for every request,
                so that a changed token is used at once.
            metrics: Counts requests and retries.
            clock: Clocks of this host.
            timeout: Time limit in seconds for each read; one and a half times that for a request.
            requests_per_minute: Maximum number of requests in any 60 seconds.
            reserve_seconds: See `RateLimiter`.
            ssl_context: TLS settings; the system's CA certificates by default.
            proxy: URL of an HTTP proxy, with or without credentials.
        """
        self.base_url = URL(base_url)
        self.api_clock = ApiClock(clock)
        total = 1.5 * timeout
        self.rate_limiter = RateLimiter(requests_per_minute, self.api_clock, total, reserve_seconds)
        self._monotonic = clock.monotonic
        self._authorization = authorization
        self._reading: asyncio.Future[str] | None = None
        self._timeout = timeout
        self._metrics = metrics
        self._proxy = proxy
        self._saved_retries = MAX_SAVED_RETRIES
        self._rejected = ""
        """The token, if the API rejected it in the last response."""
        self._rejected_until = 0.0
        self._trial = asyncio.Lock()
        connect = min(CONNECT_SECONDS, timeout)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=ssl_context or True,
                limit=16,
                keepalive_timeout=75,
                happy_eyeballs_delay=ADDRESS_SECONDS,
            ),
            timeout=aiohttp.ClientTimeout(total, connect=connect, sock_read=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={
                "User-Agent": f"{NAME}/{__version__}",
                "Accept": "application/json, application/hal+json, application/problem+json",
                "Accept-Encoding": "gzip",
            },
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def pages(
        self, request: Request, listing: Listing[R], deadline: asyncio.Timeout
    ) -> AsyncIterator[Page[R]]:
        """Fetch and decode all pages of a listing.

        Raises:
            PollError: One of the closed reasons; pages may have been returned before.
        """
        cursor: Cursor = frozenset()
        seen = {cursor}
        for _ in range(MAX_PAGES):
            query = {**request.query, **dict(cursor)}
            body = await self.fetch(replace(request, query=query), deadline)
            page = await asyncio.to_thread(decode, body, listing)
            yield page
            if page.next_link is None:
                return
            cursor = self._cursor(page.next_link, request, listing)
            if cursor in seen:
                raise PollError("pagination_loop", f"the pages of {request.path} form a loop")
            seen.add(cursor)
        raise PollError("pagination_limit", f"{request.path} has more than {MAX_PAGES} pages")

    def _cursor(self, link: str, request: Request, listing: Listing[R]) -> Cursor:
        """Return the cursor of a next link, which must lead to the same listing."""
        try:
            url = self.base_url.with_path(request.path).join(URL(link))
            aid = url.query.get("aid", request.aid)
            target = (url.origin(), url.path.removesuffix(".json"), aid)
        except ValueError:
            raise PollError("pagination_origin", "the link to the next page is invalid") from None
        if target != (self.base_url.origin(), request.path.removesuffix(".json"), request.aid):
            raise PollError(
                "pagination_origin",
                f"the next page of {request.path} is on another host, path or account group",
            )
        names = listing.cursor_parameters & url.query.keys()
        return frozenset((name, url.query[name]) for name in names)

    async def fetch(self, request: Request, deadline: asyncio.Timeout) -> bytes:
        """Send a request, with retries, and return the decompressed body.

        Raises:
            PollError: That of the last attempt. There is none after the deadline of the poll.
        """
        self._saved_retries = min(self._saved_retries + RETRY_RATIO, MAX_SAVED_RETRIES)
        attempts, start = 0, 0.0

        def backoff(error: Exception) -> bool | float:
            """Return after how many seconds to try again, or `False`."""
            if not isinstance(error, PollError):
                return False
            pause = self.rate_limiter.paused_for() + random.uniform(0, MAX_BACKOFF_SECONDS)  # noqa: S311
            duration = self._monotonic() - start  # the next attempt may take as long
            end = asyncio.get_running_loop().time() + pause + duration
            if (
                attempts >= RETRIED_REASONS.get(error.reason, 0)
                or duration > MAX_RETRIED_SECONDS
                or end >= (deadline.when() or math.inf)
                or self._saved_retries < 1
            ):
                return False
            self._saved_retries -= 1
            self._metrics.api_retries.labels(error.reason).inc()
            return pause

        async for attempt in stamina.retry_context(backoff, attempts=None, timeout=None):
            with attempt:
                await self.rate_limiter.acquire(deadline, request.priority)
                attempts, start = attempt.num, self._monotonic()
                body = await self._send(request)
        return body

    async def _send(self, request: Request) -> bytes:
        """Send a request once, unless its token was rejected recently."""
        authorization = await self._read_authorization()
        if authorization == self._rejected:
            async with self._trial:  # one request tries the token again, the others wait for it
                if authorization == self._rejected:
                    if self._monotonic() < self._rejected_until:
                        raise PollError("auth", "the API rejected the token less than a minute ago")
                    return await self._exchange(request, authorization)
        return await self._exchange(request, authorization)

    async def _read_authorization(self) -> str:
        """Read the token; of a file that cannot be read in time, one read at most stays pending."""
        if not self._reading or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._authorization))
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(self._reading)
        except TimeoutError:
            raise PollError("auth", f"no token was read within {self._timeout:.0f} s") from None

    async def _exchange(self, request: Request, authorization: str) -> bytes:
        """Return the decompressed body of the response."""
        start, code = self._monotonic(), "error"
        aid = {"aid": request.aid} if request.aid else {}
        try:
            async with self._session.request(
                "GET" if request.body is None else "POST",
                self.base_url.with_path(request.path).with_query({**request.query, **aid}),
                json=request.body,
                headers={"Authorization": authorization},
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                code = str(response.status)
                self._rejected = authorization if response.status == 401 else ""
                self._rejected_until = self._monotonic() + AUTH_PAUSE_SECONDS
                self.api_clock.observe(response.headers.get("Date"))
                self.rate_limiter.observe(response.status, response.headers)
                limits = self._metrics.rate_limit = self.rate_limiter.limits
                if response.status != 200:
                    raise status_error(response.status, request.path, limits)
                return await _read(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = transport_error(error, proxied=self._proxy is not None)
        finally:
            self._metrics.api_requests.labels(request.path, code).inc()
            duration = self._monotonic() - start
            self._metrics.api_request_duration.labels(request.path).observe(duration)
        raise failure  # not in the handler: the cause contains the request and so the token


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the decompressed body."""
    kind = response.content_type  # may contain anything, so it is not logged
    if "json" not in kind:
        shown = "HTML" if "html" in kind else "another content type"
        raise PollError("content_type", f"expected JSON, got {shown}")
    if (response.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return await asyncio.to_thread(decompress, bytes(body), encoding)


def decompress(body: bytes, encoding: str) -> bytes:
    """Decompress a body with the given `Content-Encoding`.

    Raises:
        PollError: `decompress` if it is not valid gzip, `too_large` if it is too large.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise PollError("decompress", "the response has a content encoding other than gzip")
    try:
        file = igzip.IGzipFile(fileobj=io.BytesIO(body))  # type: ignore[no-untyped-call]
        text = file.read(MAX_BODY_BYTES + 1)
    except (OSError, EOFError, IsalError) as error:  # type: ignore[misc]  # its stub is wrong
        raise PollError("decompress", "the response is not valid gzip") from error
    if len(text) > MAX_BODY_BYTES:
        raise _too_large()
    return text


def _too_large() -> PollError:
    return PollError("too_large", f"the response exceeds {MAX_BODY_BYTES} bytes")
