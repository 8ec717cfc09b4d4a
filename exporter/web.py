"""The HTTP server: sends what is in memory, whatever the API does.

What is sent was made by `exporter.publisher`; only the exporter's own few metrics are written anew, at most once a
second.
"""

import asyncio
import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from exporter import NAME, __version__
from exporter.clock import Clock
from exporter.exposition import Format, Part, Snapshot, deflate, gzip, plain

SLICE = 256 * 1024
"""Bytes written at a time: a slow reader holds no copy of a snapshot, only a place in it."""
WRITE_DEADLINE = 30.0
"""Seconds in which an answer has to be taken."""
OWN_EVERY = 1.0
"""Seconds between two renderings of the exporter's own metrics."""


class Own(Protocol):
    """Who renders the exporter's own metrics."""

    def render(self, format_: Format) -> str:
        """Return their text, with the end mark where the format has one."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the status page says of one account group."""

    aid: str
    name: str
    state: str
    keys: int
    agents: int


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


def application(
    exposition: Exposition,
    *,
    telemetry_path: str,
    max_requests: int,
    healthy: Callable[[], bool],
    ready: Callable[[], bool],
    statuses: Callable[[], Iterable[Status]],
) -> web.Application:
    """Return the application; it is bound to no address yet."""
    scraping = 0

    async def metrics(request: web.Request) -> web.StreamResponse:
        nonlocal scraping
        if scraping >= max_requests:
            return web.Response(status=503, text=f"more than {max_requests} requests at a time: web.max_requests\n")
        scraping += 1
        try:
            return await _send(request, exposition)
        finally:
            scraping -= 1

    async def health(_: web.Request) -> web.Response:
        return _verdict(healthy(), "healthy", "the poller has not come round for two intervals")

    async def readiness(_: web.Request) -> web.Response:
        return _verdict(ready(), "ready", "waiting for the first complete poll of every account group")

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text=_page(statuses(), telemetry_path),
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    app = web.Application(client_max_size=0)
    app.router.add_get(telemetry_path, metrics)
    app.router.add_get("/-/healthy", health)
    app.router.add_get("/-/ready", readiness)
    app.router.add_get("/", page)
    app.on_response_prepare.append(_harden)
    return app


def negotiate(accept: str) -> Format:
    """Return the format that an `Accept` header prefers; the text format for everything else, and never an error."""
    weights = {Format.TEXT: 0.0, Format.OPENMETRICS: 0.0}
    for entry in accept.split(","):
        media, *parameters = (part.strip().lower() for part in entry.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        if media == "application/openmetrics-text" and given.get("version", "1.0.0") in ("1.0.0", "0.0.1"):
            weights[Format.OPENMETRICS] = max(weights[Format.OPENMETRICS], _weight(given))
        elif media == "text/plain" and given.get("version", "0.0.4") == "0.0.4":
            weights[Format.TEXT] = max(weights[Format.TEXT], _weight(given))
    better = weights[Format.OPENMETRICS] >= weights[Format.TEXT] and weights[Format.OPENMETRICS] > 0
    return Format.OPENMETRICS if better else Format.TEXT


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an `Accept-Encoding` header allows gzip."""
    for entry in accept_encoding.split(","):
        coding, *parameters = (part.strip().lower() for part in entry.split(";"))
        if coding in ("gzip", "*"):
            return _weight(dict(parameter.partition("=")[::2] for parameter in parameters)) > 0
    return False


def _weight(parameters: dict[str, str]) -> float:
    try:
        weight = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


async def _send(request: web.Request, exposition: Exposition) -> web.StreamResponse:
    format_ = negotiate(request.headers.get("Accept", ""))
    parts = exposition.parts(format_)
    response = web.StreamResponse(headers={"Content-Type": format_.value, "Vary": "Accept, Accept-Encoding"})
    chunks: Iterable[bytes]
    if accepts_gzip(request.headers.get("Accept-Encoding", "")):
        chunks = gzip(parts)
        response.headers["Content-Encoding"] = "gzip"
        response.content_length = sum(map(len, chunks))
    else:
        chunks = (text for part in parts for text in plain(part, SLICE))
        response.content_length = sum(part.size for part in parts)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        async with asyncio.timeout(WRITE_DEADLINE):
            for chunk in chunks:
                view = memoryview(chunk)
                for start in range(0, len(view), SLICE):
                    await response.write(view[start : start + SLICE])
            await response.write_eof()
    except TimeoutError:
        if request.transport:
            request.transport.abort()
    except ConnectionError:
        pass  # the reader left: nobody is there to be told
    return response


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = NAME


def _verdict(good: bool, word: str, why: str) -> web.Response:
    return web.Response(status=200 if good else 503, text=f"{word if good else why}\n")


def _page(statuses: Iterable[Status], telemetry_path: str) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(each.aid)}</td><td>{html.escape(each.name)}</td><td>{html.escape(each.state)}</td>"
        f"<td>{each.keys}</td><td>{each.agents}</td></tr>"
        for each in statuses
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{NAME}</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: left; padding: .3rem .6rem .3rem 0 }}
</style></head><body><h1>{NAME} {__version__}</h1>
<p><a href="{html.escape(telemetry_path)}">Metrics</a> · <a href="/-/ready">Ready?</a>
· <a href="/-/healthy">Healthy?</a></p>
<table><thead><tr><th>Account group</th><th>Name</th><th>State</th><th>Agents at sites</th><th>Agents</th></tr></thead>
<tbody>{rows or '<tr><td colspan="5">No account group is known yet.</td></tr>'}</tbody></table>
</body></html>
"""
