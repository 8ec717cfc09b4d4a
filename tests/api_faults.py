"""Faults of the simulated API that only tests need. `FAULTS` has them and the simulator's own."""

import asyncio
from functools import partial
from itertools import cycle
from typing import Any
from zlib import crc32

from aiohttp import web

from exporter.simulator import FAULTS as OPERATORS_FAULTS
from exporter.simulator import Fault, parse_faults
from exporter.simulator.api import JSON, ApiRequest, Payload
from exporter.simulator.faults import FORBIDDEN, RATE_LIMIT_HEADERS, error, fixed, records


def faults(*specs: str) -> tuple[Fault, ...]:
    """Return faults by name, with a share and a schedule as in the setting `simulator.faults`."""
    return parse_faults(specs, FAULTS)


DAMAGE: tuple[tuple[str, Any], ...] = (
    ("agentId", 12),
    ("roundId", "yesterday"),
    ("roundId", 253_402_300_740),  # the last minute of the year 9999
    ("agentId", None),
    ("experienceScore", 1.5),
    ("destination", {"loss": 101}),
    ("systemMetrics", "busy"),
    ("icmpPing", {"avgRtt": -1}),
    ("name", 7),
)
"""Fields that records may have, and values that are wrong for them."""


def _bad_records(_request: ApiRequest, payload: Payload) -> None:
    for record, (name, value) in zip(records(payload)[::4], cycle(DAMAGE), strict=False):
        if name in record:
            record[name] = value


def _empty(request: ApiRequest, payload: Payload, paths: str = "") -> None:
    if paths in request.path and (found := records(payload)):
        found.clear()
        payload["pages"] = payload["_links"] = {}


def _masked(_request: ApiRequest, payload: Payload) -> None:
    """Replace names with numbers, like for users without the permission to identify agents."""
    for record in records(payload):
        for name in {"visitedSite", "name", "agentName", "computerName"} & record.keys():
            record[name] = str(crc32(record[name].encode()))


def _next_loop(request: ApiRequest, payload: Payload, host: str | None = None) -> None:
    """Set the link of a listing to the requested page."""
    if records(payload):
        href = str(request.url.with_host(host) if host else request.url)
        payload["pages"], payload["_links"] = {"next": href}, {"next": {"href": href}}


def with_headers(headers: dict[str, str]):
    """Return a function that changes headers; an empty value removes a header."""

    async def change(_request: web.Request, response: web.Response) -> web.Response:
        for name, value in headers.items():
            response.headers.pop(name, None)
            if value:
                response.headers[name] = value
        return response

    return change


def sends(*pieces: bytes, pause: float = 0.0):
    """Return a function that sends a header and these pieces of a body, and then disconnects."""

    async def send(request: web.Request, response: web.Response) -> web.Response:
        assert request.transport
        for piece in (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", *pieces):
            request.transport.write(piece)
            await asyncio.sleep(pause)
        request.transport.abort()
        return response

    return send


def _forbidden_group(request: ApiRequest) -> web.Response | None:
    return error(403, FORBIDDEN)(request) if request.params.get("aid") == "1002" else None


BARE = with_headers(dict.fromkeys(RATE_LIMIT_HEADERS, ""))
NOT_JSON = fixed(200, '{"results": [{"id": "1"', JSON)
OTHER_SCHEMA = fixed(200, '{"other": []}', JSON)
GZIP = with_headers({"Content-Encoding": "gzip"})
ELSEWHERE = error(301, "Moved", {"Location": "/v7/elsewhere"})
OTHER_HOST = partial(_next_loop, host="api.example.net")
TRICKLE = sends(b"Content-Length: 1000\r\n\r\n", *[b" "] * 999, pause=0.2)
TEST_FAULTS = (
    Fault("forbidden", "403", error(403, FORBIDDEN)),
    Fault("forbidden_group", "403 for account group 1002 only", _forbidden_group),
    Fault("not_found", "404 with an empty body", error(404)),
    Fault("rate_limited_bare", "429 without rate limit headers", error(429), response=BARE),
    Fault("redirect", "301 to /v7/elsewhere", ELSEWHERE),
    Fault("not_json", "200 with invalid JSON", NOT_JSON),
    Fault("other_schema", "200 with the JSON of another API", OTHER_SCHEMA),
    Fault("bad_gzip", "plain body with Content-Encoding: gzip", NOT_JSON, response=GZIP),
    Fault("trickle", "200, and five bytes in a second", response=TRICKLE),
    Fault("endless", "200 with 10 GB", response=sends(b"Content-Length: 10000000000\r\n\r\n")),
    Fault("cut", "200 with half of a body", response=sends(b"Content-Length: 2\r\n\r\n{")),
    Fault("no_rate_headers", "no rate limit headers", response=BARE),
    Fault("bad_date", "invalid Date header", response=with_headers({"Date": "today"})),
    Fault("bad_records", "a field of every fourth record is missing or wrong", None, _bad_records),
    Fault("empty", "listings without records", None, _empty),
    Fault("no_networks", "no network sessions", None, partial(_empty, paths="/network")),
    Fault("masked", "numbers instead of names of agents and sites", None, _masked),
    Fault("next_loop", "pages link to themselves", None, _next_loop),
    Fault("next_other_host", "next page on another host", None, OTHER_HOST),
)
FAULTS: dict[str, Fault] = OPERATORS_FAULTS | {fault.name: fault for fault in TEST_FAULTS}
