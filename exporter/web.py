"""The HTTP server: sends what is in memory, whatever the API does.

What is sent was made by `exporter.publisher`; only the exporter's own few metrics are written anew, at most once a
second. When it starts and stops, and with which address, stands in `exporter.app`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exporter import NAME, log
from exporter.clock import Clock
from exporter.exposition import Format, Part, Snapshot, deflate, gzip, plain
from exporter.page import POLICY, View, render

SLICE = 1024 * 1024
"""Bytes written at a time: a slow reader holds no copy of a snapshot, only a place in it. Smaller ones cost a fast
reader a wake-up each."""
PLAIN = 256 * 1024
"""Bytes decompressed at a time for who takes no gzip."""
WRITE_DEADLINE = 30.0
"""Seconds in which an answer has to be taken."""
IDLE = 9.0
"""Seconds after which a connection is closed that has not sent a request, or not all of it."""
OWN_EVERY = 1.0
"""Seconds between two renderings of the exporter's own metrics."""


class Own(Protocol):
    """Who renders the exporter's own metrics."""

    def render(self, format_: Format) -> str:
        """Return their text, with the end mark where the format has one."""


class Guard(Protocol):
    """Who lets requests in."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What every answer has to carry."""

    async def authorize(self, request: web.BaseRequest) -> web.Response | None:
        """Return the answer to who may not ask, None for all others."""


class Exposition:
    """The answer to a scrape: the snapshot, and the exporter's own metrics behind it."""

    def __init__(self, snapshot: Callable[[], Snapshot], own: Own, clock: Clock) -> None:
        self._snapshot = snapshot
        self._own = own
        self._clock = clock
        self._rendered: dict[Format, tuple[Snapshot, float, list[Part]]] = {}

    def parts(self, format_: Format) -> list[Part]:
        """Return all that is to be sent, as parts of one text."""
        snapshot, now = self._snapshot(), self._clock.monotonic()
        rendered = self._rendered.get(format_)
        if rendered is None or rendered[0] is not snapshot or now - rendered[1] >= OWN_EVERY:
            parts = [snapshot.common, snapshot.tails[format_]]
            parts.append(deflate(self._own.render(format_), parts[-1].crc))
            self._rendered[format_] = rendered = (snapshot, now, parts)
        return rendered[2]


def server(
    exposition: Exposition,
    *,
    telemetry_path: str,
    max_requests: int,
    healthy: Callable[[], bool],
    ready: Callable[[], bool],
    view: Callable[[], Awaitable[View]],
    guard: Guard | None = None,
) -> web.Server:
    """Return the server; it is bound to no address yet."""
    scraping = 0

    async def metrics(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal scraping
        if scraping >= max_requests:
            return web.Response(status=503, text=f"more than {max_requests} requests at a time: web.max_requests\n")
        scraping += 1
        try:
            return await _send(request, exposition)
        finally:
            scraping -= 1

    async def health(_: web.BaseRequest) -> web.StreamResponse:
        return _verdict(healthy(), "healthy", "the poller has not come round for two intervals")

    async def readiness(_: web.BaseRequest) -> web.StreamResponse:
        return _verdict(ready(), "ready", "waiting for the first complete poll of every account group")

    async def page(_: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return web.Response(text=render(await view()), content_type="text/html", headers=headers)

    routes = {telemetry_path: metrics, "/-/healthy": health, "/-/ready": readiness, "/": page}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if guard and (refusal := await guard.authorize(request)) is not None:
            return refusal
        route = routes.get(request.rel_url.raw_path)
        if route is None:
            return web.Response(status=404, text="there is nothing here\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
        return await route(request)

    return web.Server(
        answer,
        request_factory=lambda message, payload, protocol, writer, task: _Request(
            message, payload, protocol, writer, task, asyncio.get_running_loop(), guard=guard
        ),
        access_log=None,
        logger=_Log(),
        keepalive_timeout=IDLE,
        lingering_time=0,  # what comes behind the head of a request is not read, not even to be thrown away
    )


class _Request(web.BaseRequest):
    """A request whose every answer, also to one that is no HTTP, tells neither versions nor lets browsers guess."""

    def __init__(self, *arguments: Any, guard: Guard | None) -> None:
        super().__init__(*arguments)
        self._guard = guard

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Server"] = NAME
        response.headers.update(self._guard.headers if self._guard else {})


class _Log:
    """Writes what aiohttp has to say as one line, without a byte of what a stranger sent."""

    def debug(self, *_: object, exc_info: BaseException | None = None) -> None:
        """Tell what was no HTTP at all, and leave out who came and went."""
        if exc_info:
            self.exception(exc_info=exc_info)

    def exception(self, *_: object, exc_info: BaseException) -> None:
        """Tell what can not be understood from what is a fault of this program."""
        if isinstance(exc_info, HttpProcessingError):
            log.warn("request_not_understood", error=type(exc_info).__name__)
        else:
            log.error("request_crashed", error=type(exc_info).__name__, exc_info=True)


def negotiate(accept: str) -> Format:
    """Return the format that an `Accept` header prefers; the text format for everything else, and never an error."""
    text = openmetrics = 0.0
    for media, parameters, weight in _preferences(accept):
        if media == "application/openmetrics-text" and parameters.get("version", "1.0.0") == "1.0.0":
            openmetrics = max(openmetrics, weight)
        elif media in ("text/plain", "text/*", "*/*") and parameters.get("version", "0.0.4") == "0.0.4":
            text = max(text, weight)
    return Format.OPENMETRICS if 0.0 < openmetrics >= text else Format.TEXT


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an `Accept-Encoding` header allows gzip."""
    weights = {coding: weight for coding, _, weight in _preferences(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0.0


def _preferences(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, parameters and weight of each entry; a weight that is none counts as 0, which is `never`."""
    for entry in header.lower().split(","):
        name, *rest = (part.strip() for part in entry.split(";"))
        parameters = {key.strip(): value.strip(' "') for key, _, value in (part.partition("=") for part in rest)}
        try:
            weight = float(parameters.get("q", "1"))
        except ValueError:
            weight = 0.0
        yield name, parameters, weight if 0.0 <= weight <= 1.0 else 0.0


async def _send(request: web.BaseRequest, exposition: Exposition) -> web.StreamResponse:
    format_ = negotiate(",".join(request.headers.getall("Accept", ())))
    parts = exposition.parts(format_)
    response = web.StreamResponse(headers={"Content-Type": format_.value, "Vary": "Accept, Accept-Encoding"})
    chunks: Iterable[bytes]
    if accepts_gzip(",".join(request.headers.getall("Accept-Encoding", ()))):
        chunks = gzip(parts)
        response.headers["Content-Encoding"] = "gzip"
        response.content_length = sum(map(len, chunks))
    else:
        chunks = (text for part in parts for text in plain(part, PLAIN))
        response.content_length = sum(part.size for part in parts)
    try:
        await response.prepare(request)
        if request.method == "GET" and request.transport:
            async with asyncio.timeout(WRITE_DEADLINE):
                await _write(response, request.transport, chunks)
    except TimeoutError:
        if request.transport:
            request.transport.abort()
    except ConnectionError:
        pass  # the reader left: nobody is there to be told
    return response


async def _write(response: web.StreamResponse, transport: asyncio.Transport, chunks: Iterable[bytes]) -> None:
    """Write a body slice by slice; what is written has left this process before the next one, and before the end."""
    transport.set_write_buffer_limits(1)  # over TLS, 0 would count as full for ever
    last = memoryview(b"")
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), SLICE):
            await response.write(last)
            last = view[start : start + SLICE]
    await response.write_eof(bytes(last))


def _verdict(good: bool, word: str, why: str) -> web.Response:
    return web.Response(status=200 if good else 503, text=f"{word if good else why}\n")
