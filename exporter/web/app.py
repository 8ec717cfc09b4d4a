"""HTTP endpoints: metrics, health checks and the status page."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from exporter.clock import Clock
from exporter.metrics.exposition import Format, Part, Snapshot, compress, gzip_chunks, plain_chunks
from exporter.metrics.self_metrics import SelfMetrics
from exporter.web.auth import Authenticator
from exporter.web.negotiation import accepts_gzip, select_format
from exporter.web.server import HEADERS, Connection
from exporter.web.status import StatusView, content_security_policy, render

CHUNK_SIZE = 1024 * 1024
"""Bytes that are sent to one client before others are served."""
WRITE_TIMEOUT = 30.0
"""Seconds that a client has for reading a scrape."""
MIN_STALL = 1.0
"""Seconds without progress after which a response makes room for another scrape."""
SELF_METRICS_TTL = 1.0
"""Seconds for which rendered metrics of the exporter itself are reused."""
log = structlog.get_logger()


class State(Protocol):
    """What the endpoints publish."""

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot."""

    @property
    def metrics(self) -> SelfMetrics:
        """The exporter's own metrics."""

    def healthy(self) -> bool:
        """Whether all polling loops have run within the last two intervals."""

    def ready(self) -> bool:
        """Whether the snapshot contains a complete poll of sessions of every account group."""

    async def status(self) -> StatusView:
        """Return what the status page shows."""


@dataclass(frozen=True, slots=True)
class Body:
    """Response body in one format."""

    parts: list[Part]

    def size(self, *, gzip: bool) -> int:
        """Size in bytes."""
        return sum(
            map(len, gzip_chunks(self.parts)) if gzip else [each.size for each in self.parts]
        )

    def chunks(self, *, gzip: bool) -> Iterator[bytes | memoryview]:
        """Yield the body in chunks of at most `CHUNK_SIZE`."""
        plain = (text for part in self.parts for text in plain_chunks(part, CHUNK_SIZE))
        for data in gzip_chunks(self.parts) if gzip else plain:
            for start in range(0, len(data), CHUNK_SIZE):
                yield memoryview(data)[start : start + CHUNK_SIZE]


class ExpositionCache:
    """The body in each format: the snapshot followed by the exporter's own metrics."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state, self._clock = state, clock
        self._snapshot: Snapshot | None = None
        self._bodies: dict[Format, tuple[float, Body]] = {}

    def body(self, format_: Format) -> Body:
        """Return the body to send."""
        snapshot, now = self._state.snapshot, self._clock.monotonic()
        if snapshot is not self._snapshot:  # keeps no old snapshot in memory
            self._snapshot, self._bodies = snapshot, {}
        cached = self._bodies.get(format_)
        if cached is None or now - cached[0] >= SELF_METRICS_TTL:
            parts = [snapshot.common, snapshot.tails[format_]]
            parts.append(compress(self._state.metrics.render(format_), parts[-1].crc))
            self._bodies[format_] = cached = now, Body(parts)
        return cached[1]


def create_app(
    state: State,
    *,
    telemetry_path: str,
    max_requests: int,
    clock: Clock,
    authenticator: Authenticator | None = None,
) -> web.Application:
    """Create the application; more than `max_requests` concurrent scrapes get status 503."""
    cache = ExpositionCache(state, clock)
    scrapes: set[Connection] = set()

    async def metrics(request: web.Request) -> web.StreamResponse:
        if len(scrapes) >= max_requests:
            stalled = max(scrapes, key=Connection.stalled_for)
            if stalled.stalled_for() < MIN_STALL:
                log.warning("scrape_refused", limit=max_requests, hint="raise web.max_requests")
                text = f"limit of {max_requests} concurrent scrapes reached (web.max_requests)\n"
                raise web.HTTPServiceUnavailable(text=text)
            scrapes.remove(stalled)
            stalled.abort("max_requests")
        connection = cast("Connection", request.protocol)
        scrapes.add(connection)
        try:
            return await _send_metrics(request, connection, cache)
        finally:
            scrapes.discard(connection)

    async def healthy(_: web.Request) -> web.Response:
        return _check(state.healthy(), "healthy", "no poll cycle within the last two intervals")

    async def ready(_: web.Request) -> web.Response:
        problem = "waiting for the first complete poll of sessions of every account group"
        return _check(state.ready(), "ready", problem)

    async def status_page(_: web.Request) -> web.Response:
        text = await asyncio.to_thread(render, await state.status())
        headers = {"Content-Security-Policy": content_security_policy(text)}
        return web.Response(text=text, content_type="text/html", headers=headers)

    @web.middleware
    async def allow(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        connection.is_busy = True
        try:
            if authenticator:
                await authenticator.authorize(request)
            return await handler(request)
        finally:
            connection.is_busy = False
            connection.touch()

    async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
        # What follows may not be a request.
        if "Upgrade" in request.headers or request.method == "CONNECT":
            response.headers["Connection"] = "close"
            response.force_close()
        response.headers.update(authenticator.config().headers if authenticator else {})

    app = web.Application(middlewares=[allow])
    app.on_response_prepare.append(add_headers)
    app.add_routes([
        web.get(telemetry_path, metrics),
        web.get("/-/healthy", healthy),
        web.get("/-/ready", ready),
        web.get("/", status_page),
    ])  # fmt: skip
    return app


async def _send_metrics(
    request: web.Request, connection: Connection, cache: ExpositionCache
) -> web.StreamResponse:
    format_ = select_format(request.headers.get("Accept", ""))
    gzip = accepts_gzip(request.headers.get("Accept-Encoding", ""))
    body = cache.body(format_)
    headers = {"Content-Type": format_.value, "Vary": "Accept, Accept-Encoding"}
    response = web.StreamResponse(headers=headers)
    response.content_length = body.size(gzip=gzip)
    if gzip:
        response.headers["Content-Encoding"] = "gzip"
    try:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await response.prepare(request)
            for chunk in body.chunks(gzip=gzip) if request.method == "GET" else ():
                await response.write(chunk)
                await asyncio.sleep(0)
            await response.write_eof()
    except TimeoutError:
        connection.abort("timeout")
    except ConnectionError:
        pass  # the client has disconnected
    return response


def _check(passed: bool, text: str, problem: str) -> web.Response:
    return web.Response(status=200 if passed else 503, text=f"{text if passed else problem}\n")
