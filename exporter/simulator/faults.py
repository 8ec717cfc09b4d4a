"""Faults that the simulated API has on request.

A fault responds **instead** of the API, changes a **payload** before it is encoded, or changes how
a **response** is sent. When it applies depends on the time, the seed and the request's number.
"""

# ruff: noqa: S311  pseudo-random numbers are the point here

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random

from aiohttp import web

from exporter.simulator.api import ApiRequest, Payload, error_response
from exporter.simulator.world import DAY, HOUR

RATE_LIMIT_HEADERS = [f"X-Organization-Rate-Limit-{x}" for x in ("Limit", "Remaining", "Reset")]
UNITS = {"s": 1, "m": 60, "h": HOUR, "d": DAY}
LISTINGS = {"results", "userSessions", "networkSessions", "agents", "endpointAgents"}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and when it applies: to a share of the requests, between two times.

    `instead` returns `None` for requests that it does not concern. `payload` changes a payload in
    place. `response` changes a response, delays it, or sends a part of it. `start` and `end` are
    seconds since the simulator started, or since midnight UTC if `daily`.
    """

    name: str
    help: str
    instead: Callable[[ApiRequest], web.Response | None] | None = None
    payload: Callable[[ApiRequest, Payload], None] | None = None
    response: Callable[[web.Request, web.Response], Awaitable[web.StreamResponse]] | None = None
    share: float = 1.0
    start: float = 0.0
    end: float = math.inf
    daily: bool = False

    def applies(self, request: ApiRequest, elapsed: float, seed: int) -> bool:
        """Return whether it applies to a request, `elapsed` seconds after the simulator's start."""
        when = request.time % DAY if self.daily else elapsed
        scheduled = self.start <= when < self.end
        if self.end <= self.start:  # over midnight
            scheduled = when >= self.start or when < self.end
        return scheduled and Random(f"{seed}/{self.name}/{request.number}").random() < self.share


def records(payload: Payload) -> list[Payload]:
    """Return the records of a listing of sessions or agents; an empty list for other payloads."""
    return next((payload[key] for key in LISTINGS & payload.keys()), [])


def fixed(status: int, body: str, content_type: str) -> Callable[[ApiRequest], web.Response]:
    """Return a function that returns the same response for all requests."""
    headers = {"Content-Type": content_type}
    return lambda _request: web.Response(status=status, body=body.encode(), headers=headers)


def error(
    status: int, detail: str = "", headers: Mapping[str, str] | None = None, paths: str = ""
) -> Callable[[ApiRequest], web.Response | None]:
    """Return a function that returns an error for all requests, or for paths with a pattern."""

    def respond(request: ApiRequest) -> web.Response | None:
        response = error_response(request, status, detail)
        response.headers.update(headers or {})
        return response if re.search(paths, request.path) else None

    return respond


async def _slow(_request: web.Request, response: web.Response) -> web.Response:
    await asyncio.sleep(5)
    return response


async def _hang(_request: web.Request, response: web.Response) -> web.Response:
    await asyncio.Event().wait()
    return response


async def _reset(request: web.Request, response: web.Response) -> web.Response:
    if request.transport:
        request.transport.abort()
    return response


FORBIDDEN = "Insufficient permissions"
RATE_LIMITED = error(429, "Exhausted rate limit", {RATE_LIMIT_HEADERS[1]: "0"})
MAINTENANCE = "Please bear with us, the ThousandEyes API is currently in maintenance mode."
PORTAL = "<!DOCTYPE html><title>Welcome</title><h1>Please sign in</h1>\n"
OPERATORS_FAULTS = (
    Fault("unauthorized", "401, as for an expired token", instead=error(401)),
    Fault("forbidden_agents", "403 for agents", instead=error(403, FORBIDDEN, paths="agents")),
    Fault("rate_limited", "429 with the time of the reset", instead=RATE_LIMITED),
    Fault("server_error", "500", instead=error(500, "Internal Server Error")),
    Fault("maintenance", "503", instead=fixed(503, MAINTENANCE, "text/plain")),
    Fault("slow", "responses take 5 seconds", response=_slow),
    Fault("hang", "no responses", response=_hang),
    Fault("reset", "connections are closed without a response", response=_reset),
    Fault("html", "200 with the page of a captive portal", fixed(200, PORTAL, "text/html")),
)
FAULTS = {fault.name: fault for fault in OPERATORS_FAULTS}

SPEC = re.compile(
    r"(?P<name>\w+)(=(?P<share>0?\.\d*[1-9]\d*|1(\.0)?))?"
    r"(@((?P<start>\d+[smhd])(\+(?P<length>\d+[smhd]))?|(?P<from>\d\d:\d\d)-(?P<to>\d\d:\d\d)))?"
)
SYNTAX = "NAME, NAME=0.2, NAME@10m+5m, NAME@09:00-09:30, NAME=0.5@10m+5m"


def parse_faults(specs: Iterable[str], faults: Mapping[str, Fault] = FAULTS) -> tuple[Fault, ...]:
    """Parse faults such as `server_error=0.2`, `rate_limited@10m+5m`, `unauthorized@09:00-09:30`.

    Raises:
        ValueError: Invalid syntax, or unknown name.
    """
    return tuple(_parse(spec.strip(), faults) for spec in specs)


def _parse(spec: str, faults: Mapping[str, Fault]) -> Fault:
    match = SPEC.fullmatch(spec)
    if not match:
        raise ValueError(f"invalid fault {spec!r}: expected {SYNTAX}")
    name = match["name"]
    if name not in faults:
        raise ValueError(f"unknown fault {name!r}: expected {', '.join(faults)}")
    daily = bool(match["from"])
    start = _seconds(match["start"] or match["from"] or "0s")
    end = _seconds(match["to"]) if daily else math.inf
    if match["length"]:
        end = start + _seconds(match["length"])
    share = float(match["share"] or 1)
    return replace(faults[name], share=share, start=start, end=end, daily=daily)


def _seconds(text: str) -> int:
    hours, colon, minutes = text.partition(":")
    return int(hours) * HOUR + int(minutes) * 60 if colon else int(text[:-1]) * UNITS[text[-1]]
