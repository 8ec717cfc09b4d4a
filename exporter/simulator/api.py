"""What both versions of the API have in common: time ranges, pages, filters, and errors."""

import gzip
import math
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import dropwhile, islice
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from yarl import URL

from exporter.simulator.world import HOUR, Agent, World

Payload = dict[str, Any]
JSON, HAL_JSON = "application/json", "application/hal+json;charset=UTF-8"
NAMES = ("startDate", "endDate", "cursor"), ("from", "to", "pageId")
"""Names of the parameters of listings, of v7 and v6."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request; `time` in Unix seconds on the simulator's clock, `number` counts from 0.

    `params` has the query parameters; the values of a repeated one are joined with commas.
    """

    number: int
    time: float
    method: str
    url: URL
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    is_v6: bool
    page_size: int


Convert = Callable[[Any], Payload]
Endpoint = Callable[[ApiRequest, World], Payload]
"""Returns the payload for a request; raises `ValueError` if the status is 400."""


class Position(NamedTuple):
    """Content of a cursor: a time range, and the date and id of the first session of the page.

    `now` is the time of the first request: sessions that are committed later do not shift pages.
    """

    start: float
    end: float
    now: float
    date: int = 0
    id: str = ""


def account_group(request: ApiRequest, world: World) -> int:
    """Return the id of a request's account group, by default that of the token's user."""
    aid = int(request.params.get("aid", min(world.groups)))
    if aid not in world.groups:
        error = web.HTTPBadRequest if request.is_v6 else web.HTTPForbidden
        raise error(text=f"No access to account group {aid}")
    return aid


class Listing(NamedTuple):
    """A listing of records; `records` is a method of `World`."""

    records: Callable[[World, int, float, float, float], Iterator[Any]]
    accepts: Callable[[Any], bool]
    filters: Mapping[str, Callable[[Any], str | None]]
    max_seconds: float = math.inf


def page_of(
    listing: Listing, request: ApiRequest, world: World, filters: Mapping[str, list[str]]
) -> tuple[Position, list[Any], URL | None]:
    """Return a page's position, its records, and the link to the next page."""
    if unknown := filters.keys() - listing.filters.keys():
        raise ValueError(f"Unrecognized field {min(unknown)!r} in searchFilters")
    names = NAMES[request.is_v6]
    if cursor := request.params.get(names[2]):
        position = msgspec.json.decode(urlsafe_b64decode(cursor), type=Position)
    else:
        position = _range(request, *names[:2])
    if position.end - position.start > listing.max_seconds:
        raise ValueError(f"The time range is longer than {listing.max_seconds / HOUR:g} hours")
    start = max(position.start, position.date)
    records = listing.records(
        world, account_group(request, world), start, position.end, position.now
    )
    rest = dropwhile(lambda r: (r.date, r.id) < (position.date, position.id), records)
    tests = [(listing.filters[key], values) for key, values in filters.items()]
    accepted = filter(listing.accepts, rest)
    found = (r for r in accepted if all(field(r) in values for field, values in tests))
    page = list(islice(found, request.page_size + 1))
    if len(page) <= request.page_size:
        return position, page, None
    beyond = page.pop()
    following = position._replace(date=beyond.date, id=beyond.id)
    following_cursor = urlsafe_b64encode(msgspec.json.encode(following)).decode()
    url = request.url.without_query_params(*names)
    return position, page, url.update_query({names[2]: following_cursor})


def _range(request: ApiRequest, first: str, last: str) -> Position:
    """Return the first page of a time range, which must be explicit: defaults differ by listing."""
    if first not in request.params:
        raise ValueError(f"{first} is missing")
    times = (request.params.get(name, iso_date(request.time)) for name in (first, last))
    start, end = (datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp() for t in times)
    return Position(start, end, request.time)


def agent_page(request: ApiRequest, world: World) -> tuple[list[Agent], int, URL | None]:
    """Return a page of agents, their total number, and the link to the next page."""
    listing = world.agents_of(account_group(request, world))
    name = NAMES[request.is_v6][2]
    start = int(request.params.get(name, 0))
    end = start + request.page_size
    link = request.url.update_query({name: end}) if end < len(listing) else None
    return listing[start:end], len(listing), link


FILTERS: dict[str, Callable[[Any], str | None]] = {
    "agentId": lambda r: r.agent.id,
    "bssid": lambda r: r.network.bssid,
    "connection": lambda r: "wireless" if r.network.ssid else "ethernet",
    "gateway": lambda r: r.network.gateway,
    "location": lambda r: r.agent.office.location,
    "networkId": lambda r: r.network.id,
    "nicDriverVersion": lambda r: r.agent.hardware["nicDriverVersion"],
    "nicModel": lambda r: r.agent.hardware["nicModel"],
    "platform": lambda r: r.agent.hardware["platform"],
    "proxyTarget": lambda r: r.agent.proxy(r.network),
    "ssid": lambda r: r.network.ssid,
    "vpnTarget": lambda r: r.agent.vpn(r.network),
}
"""The keys of `searchFilters` of all listings, and what each one is compared with."""
SESSION_FILTERS: dict[str, Callable[[Any], str | None]] = FILTERS | {
    "destinationIp": lambda s: s.site.address,
    "domain": lambda s: s.site.host.partition(".")[2],
    "trigger": lambda s: s.trigger,
    "visitedSite": lambda s: s.site.host,
}
PROBE_FILTERS = FILTERS | {"type": attrgetter("type")}
USER_SESSIONS = Listing(World.sessions, attrgetter("listed"), SESSION_FILTERS)
NETWORK_SESSIONS = Listing(World.sessions, attrgetter("measured"), SESSION_FILTERS)
PROBES = Listing(World.probes, bool, PROBE_FILTERS, 12 * HOUR)


def without_none(record: Payload) -> Payload:
    """Return a record without unknown values: the API does not send them."""
    return {name: value for name, value in record.items() if value is not None}


def iso_date(when: float) -> str:
    """Format Unix seconds as an ISO 8601 date, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def json_response(payload: Payload, request: ApiRequest) -> web.Response:
    """Encode the payload of a successful request, compressed if the client accepts gzip."""
    body = msgspec.json.encode(payload)
    headers = {"Content-Type": JSON if request.is_v6 or request.method == "POST" else HAL_JSON}
    if "gzip" in request.headers.get("Accept-Encoding", "") and len(body) > 1024:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 1)
    return web.Response(body=body, headers=headers)


def error_response(request: ApiRequest, status: int, detail: str) -> web.Response:
    """Return an error in the format of the API version."""
    if status == 404:
        return web.Response(status=404)
    payload: Payload = {"errorMessage": detail}
    headers = {"Content-Type": JSON}
    if not request.is_v6 and status != 401:
        payload = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        headers = {"Content-Type": "application/problem+json"}
    return web.Response(body=msgspec.json.encode(payload), status=status, headers=headers)
