"""Faults of the simulated API that only tests need. `FAULTS` has them and the simulator's own."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from exporter.simulator import FAULTS as OPERATORS_FAULTS
from exporter.simulator import Fault, parse_faults
from exporter.simulator.api import ApiRequest, Payload
from exporter.simulator.faults import (
    FORBIDDEN,
    LISTINGS,
    RATE_LIMIT_HEADERS,
    error,
    fixed,
    links,
    records,
)


def faults(*specs: str) -> tuple[Fault, ...]:
    """Return faults by name, with a share and a schedule as in the setting `simulator.faults`."""
    return parse_faults(specs, FAULTS)


MISSING = object()
DAMAGE: tuple[tuple[str, Any], ...] = (
    ("id", MISSING),
    ("agentId", 12),
    ("roundId", "yesterday"),
    ("roundId", 253_402_300_740),  # the last minute of the year 9999
    ("numberOfPages", "3"),
    ("experienceScore", 1.5),
    ("destination.latency", -1),
    ("destination", "unreachable"),
    ("systemMetrics.cpuUtilization.mean", 1.5),
    ("name", 7),
    ("agentName", 7),
    ("type", 7),
    ("icmpPing.avgRtt", -1),
    ("icmpPing.loss", 101),
    ("agentScore.score", 101),
    ("batteryMetrics.batteryLevelNormalizedPercent", 1.5),
)
"""Fields that records may have, and values that are wrong for them."""


def _bad_records(_request: ApiRequest, payload: Payload) -> None:
    for n, record in enumerate(records(payload)[::4]):
        path, value = DAMAGE[n % len(DAMAGE)]
        *parents, field = path.split(".")
        target = record
        for name in parents:
            target = target.get(name) or {}
        if field == "id" and "userSessionId" in target:
            field = "userSessionId"
        if value is MISSING:
            target.pop(field, None)
        elif field in target:
            target[field] = value


def _next_loop(request: ApiRequest, payload: Payload, host: str | None = None) -> None:
    """Set the link of a listing to the requested page, with its cursor."""
    if LISTINGS & payload.keys():
        name, cursor = request.cursor
        url = request.url.update_query({name: cursor})
        href = str(url.with_host(host) if host else url)
        links(payload)["next"] = href if request.is_v6 else {"href": href}


def with_headers(
    headers: dict[str, str],
) -> Callable[[web.Request, web.Response], Awaitable[web.StreamResponse]]:
    """Return a function that changes headers; an empty value removes a header."""

    async def change(_request: web.Request, response: web.Response) -> web.Response:
        for name, value in headers.items():
            response.headers.pop(name, None)
            if value:
                response.headers[name] = value
        return response

    return change


NOT_JSON = fixed(200, '{"results": [oops]', "application/json")
GZIP = with_headers({"Content-Encoding": "gzip"})
ELSEWHERE = error(301, "Moved", {"Location": "/v7/elsewhere"})
OTHER_HOST = partial(_next_loop, host="api.example.net")
BARE = with_headers(dict.fromkeys(RATE_LIMIT_HEADERS, ""))


def _forbidden_group(request: ApiRequest) -> web.Response | None:
    return error(403, FORBIDDEN)(request) if request.params.get("aid") == "1002" else None


def _no_expand(request: ApiRequest) -> web.Response | None:
    return error(400, "Unknown expand")(request) if "expand" in request.params else None


NO_EXPAND = Fault("no_expand", "400 for requests with `expand`", _no_expand)
TEST_FAULTS = (
    Fault("forbidden", "403", error(403, FORBIDDEN)),
    Fault("forbidden_group", "403 for account group 1002 only", _forbidden_group),
    Fault("not_found", "404 with an empty body", error(404)),
    Fault("rate_limited_bare", "429 without rate limit headers", error(429), response=BARE),
    Fault("redirect", "301 to /v7/elsewhere", ELSEWHERE),
    Fault("not_json", "200 with invalid JSON", NOT_JSON),
    Fault("bad_gzip", "plain body with Content-Encoding: gzip", response=GZIP),
    Fault("no_rate_headers", "no rate limit headers", response=BARE),
    Fault("bad_date", "invalid Date header", response=with_headers({"Date": "today"})),
    Fault("bad_records", "a field of every fourth record is missing or wrong", None, _bad_records),
    Fault("next_loop", "pages link to themselves", None, _next_loop),
    Fault("next_other_host", "next page on another host", None, OTHER_HOST),
)
FAULTS: dict[str, Fault] = OPERATORS_FAULTS | {fault.name: fault for fault in TEST_FAULTS}
