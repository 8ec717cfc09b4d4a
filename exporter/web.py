"""What is answered over HTTP: what is in memory, whatever the API does.

What is sent was made by `exporter.publisher`; only the exporter's own few metrics are written anew, at most once a
second. How requests come and answers go stands in `exporter.server`.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

from exporter.clock import Clock
from exporter.exposition import Format, Part, Snapshot, deflate, gzip, plain
from exporter.page import POLICY, View, render
from exporter.server import Answer, Answers, Request, said

PLAIN = 256 * 1024
"""Bytes decompressed at a time for who takes no gzip."""
OWN_EVERY = 1.0
"""Seconds between two renderings of the exporter's own metrics."""


class Own(Protocol):
    """Who renders the exporter's own metrics."""

    def render(self, format_: Format) -> str:
        """Return their text, with the end mark where the format has one."""


class Guard(Protocol):
    """Who lets requests in."""

    async def authorize(self, request: Request) -> Answer | None:
        """Return the answer to who may not ask, None for all others."""


@dataclass(frozen=True, slots=True)
class Text:
    """All that is sent for one format: the snapshot, and the exporter's own metrics behind it."""

    parts: list[Part]
    gzipped: list[bytes]
    length: int
    """Bytes of `gzipped`."""


class Exposition:
    """The answer to a scrape, made at most once a second."""

    def __init__(self, snapshot: Callable[[], Snapshot], own: Own, clock: Clock) -> None:
        self._snapshot = snapshot
        self._own = own
        self._clock = clock
        self._of: Snapshot | None = None
        self._texts: dict[Format, tuple[float, Text]] = {}

    def text(self, format_: Format) -> Text:
        """Return all that is to be sent."""
        snapshot, now = self._snapshot(), self._clock.monotonic()
        if snapshot is not self._of:  # nothing is kept of the one before it, whoever asked for which format
            self._of, self._texts = snapshot, {}
        made = self._texts.get(format_)
        if made is None or now - made[0] >= OWN_EVERY:
            parts = [snapshot.common, snapshot.tails[format_]]
            parts.append(deflate(self._own.render(format_), parts[-1].crc))
            gzipped = gzip(parts)
            self._texts[format_] = made = now, Text(parts, gzipped, sum(map(len, gzipped)))
        return made[1]


def site(
    exposition: Exposition,
    *,
    telemetry_path: str,
    max_requests: int,
    healthy: Callable[[], bool],
    ready: Callable[[], bool],
    view: Callable[[], Awaitable[View]],
    guard: Guard | None = None,
) -> Answers:
    """Return what answers every request; `max_requests` scrapes at a time, and a 503 for one more."""
    scraping = 0

    def scraped() -> None:
        nonlocal scraping
        scraping -= 1

    def metrics(request: Request) -> Answer:
        nonlocal scraping
        if scraping >= max_requests:
            return said(503, f"more than {max_requests} requests at a time: web.max_requests\n")
        answer = _scrape(request, exposition, scraped)
        scraping += 1
        return answer

    def health(_: Request) -> Answer:
        return _verdict(healthy(), "healthy", "the poller has not come round for two intervals")

    def readiness(_: Request) -> Answer:
        return _verdict(ready(), "ready", "waiting for the first complete poll of every account group")

    async def page(_: Request) -> Answer:
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return said(200, render(await view()), "text/html; charset=utf-8", **headers)

    routes: dict[str, Answers] = {telemetry_path: metrics, "/-/healthy": health, "/-/ready": readiness, "/": page}

    def answer(request: Request) -> Answer | Awaitable[Answer]:
        route = routes.get(request.path)
        if route is None:
            return said(404, "there is nothing here\n")
        if request.method not in ("GET", "HEAD"):
            return said(405, "only GET and HEAD\n", Allow="GET, HEAD")
        return route(request)

    async def guarded(request: Request) -> Answer:
        refusal = await cast("Guard", guard).authorize(request)
        found = answer(request) if refusal is None else refusal
        return found if isinstance(found, Answer) else await found

    return guarded if guard else answer


@lru_cache(64)
def negotiate(accept: str) -> Format:
    """Return the format that an `Accept` header prefers; the text format for everything else, and never an error."""
    text = openmetrics = 0.0
    for media, parameters, weight in _preferences(accept):
        if media == "application/openmetrics-text" and parameters.get("version", "1.0.0") == "1.0.0":
            openmetrics = max(openmetrics, weight)
        elif media in ("text/plain", "text/*", "*/*") and parameters.get("version", "0.0.4") == "0.0.4":
            text = max(text, weight)
    return Format.OPENMETRICS if 0.0 < openmetrics >= text else Format.TEXT


@lru_cache(64)
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


def _scrape(request: Request, exposition: Exposition, sent: Callable[[], None]) -> Answer:
    format_ = negotiate(",".join(request.all("accept")))
    text = exposition.text(format_)
    if accepts_gzip(",".join(request.all("accept-encoding"))):
        return Answer(200, _GZIPPED[format_], text.length, [text.gzipped], sent)
    pieces = ([piece] for part in text.parts for piece in plain(part, PLAIN))
    return Answer(200, _PLAIN[format_], sum(part.size for part in text.parts), pieces, sent)


_PLAIN = {format_: {"Content-Type": format_.value, "Vary": "Accept, Accept-Encoding"} for format_ in Format}
_GZIPPED = {format_: {**headers, "Content-Encoding": "gzip"} for format_, headers in _PLAIN.items()}


def _verdict(good: bool, word: str, why: str) -> Answer:
    return said(200 if good else 503, f"{word if good else why}\n")
