"""What both versions of the API have in common: time ranges, pages, filters, and errors."""

import math
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import dropwhile, islice
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from yarl import URL

from exporter.simulator.world import DAY, HOUR, Agent, World

T = TypeVar("T")
Payload = dict[str, Any]
Filters = Mapping[str, list[str]]

RETENTION = 30 * DAY
JSON, PROBLEM_JSON = "application/json", "application/problem+json"
NAMES = ("startDate", "endDate", "cursor"), ("from", "to", "pageId")
"""Names of the parameters of listings, of v7 and v6."""


@dataclass(slots=True)
class ApiRequest:
    """One request; `time` in Unix seconds on the simulator's clock, `number` counts from 0.

    `params` has the query parameters; the values of a repeated one are joined with commas.
    """

    number: int
    time: float
    url: URL
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    is_v6: bool
    page_size: int
    status: int = 0
    """Status of the response."""
    cursor: tuple[str, str] = ("", "")
    """Name and value of the parameter with the cursor of the page, on a first page too."""


Endpoint = Callable[[ApiRequest, World], Payload]
"""Returns the payload for a request; raises `ValueError` if the status is 400."""


class Position(NamedTuple):
    """Content of a cursor: a time range, and the date and id of the first session of the page.

    `now` is the time of the first request: sessions that are committed later do not shift pages.
    """

    start: float
    end: float
    now: float
    page: int = 1
    date: int = 0
    id: str = ""


def account_group(request: ApiRequest, world: World) -> int:
    """Return the id of a request's account group, by default that of the token's user."""
    aids = {str(aid): aid for aid in world.groups}
    aid = request.params.get("aid", next(iter(aids)))
    if aid not in aids:
        error = web.HTTPBadRequest if request.is_v6 else web.HTTPForbidden
        raise error(text=f"No access to account group {aid}")
    return aids[aid]


class Listing(NamedTuple):
    """A listing of records; `records` is a method of `World`."""

    records: Callable[[World, int, float, float, float], Iterator[Any]]
    accepts: Callable[[Any], bool]
    filters: Mapping[str, Callable[[Any], str | None]]
    max_seconds: float = math.inf


def page_of(
    listing: Listing, request: ApiRequest, world: World, filters: Filters
) -> tuple[Position, list[Any], URL | None]:
    """Return a page's position, its records, and the link to the next page."""
    if unknown := filters.keys() - listing.filters.keys():
        raise ValueError(f"Unrecognized field {min(unknown)!r} in searchFilters")
    names = NAMES[request.is_v6]
    cursor = request.params.get(names[2])
    position = from_cursor(cursor, Position) if cursor else _range(request, *names[:2])
    if position.end - position.start > listing.max_seconds:
        raise ValueError(f"The time range is longer than {listing.max_seconds / HOUR:g} hours")
    request.cursor = names[2], to_cursor(position)
    first = position.date, position.id
    start = max(position.start, position.date)
    aid = account_group(request, world)
    records = listing.records(world, aid, start, position.end, position.now)
    rest = dropwhile(lambda r: (r.date, r.id) < first, records)
    tests = [(listing.filters[key], values) for key, values in filters.items()]
    accepted = filter(listing.accepts, rest)
    found = (r for r in accepted if all(field(r) in values for field, values in tests))
    page = list(islice(found, request.page_size + 1))
    if len(page) <= request.page_size:
        return position, page, None
    beyond = page.pop()
    following = position._replace(page=position.page + 1, date=beyond.date, id=beyond.id)
    url = request.url.without_query_params(*names)
    return position, page, url.update_query({names[2]: to_cursor(following)})


def _range(request: ApiRequest, first: str, last: str) -> Position:
    """Return the first page of a time range, which must be explicit: defaults differ by listing."""
    if first not in request.params:
        raise ValueError(f"{first} is missing")
    start, end = _timestamp(request.params[first]), request.time
    if last in request.params:
        end = _timestamp(request.params[last])
    return Position(max(start, request.time - RETENTION), end, request.time)


def _timestamp(text: str) -> float:
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def agent_page(request: ApiRequest, world: World) -> tuple[list[Agent], int, URL | None]:
    """Return a page of agents, their total number, and the link to the next page."""
    listing = world.agents_of(account_group(request, world))
    name = NAMES[request.is_v6][2]
    cursor = request.params.get(name, to_cursor(0))
    request.cursor = name, cursor
    start = from_cursor(cursor, int)
    end = start + request.page_size
    link = request.url.update_query({name: to_cursor(end)}) if end < len(listing) else None
    return listing[start:end], len(listing), link


def to_cursor(value: object) -> str:
    """Encode a cursor."""
    return urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def from_cursor(cursor: str, type_: type[T]) -> T:
    """Decode a cursor."""
    return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=type_)


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


def json_response(payload: Payload, status: int = 200, content_type: str = JSON) -> web.Response:
    """Encode a payload."""
    body, headers = msgspec.json.encode(payload), {"Content-Type": content_type}
    return web.Response(status=status, body=body, headers=headers)


def error_response(request: ApiRequest, status: int, detail: str) -> web.Response:
    """Return an error in the format of the API version."""
    if status == 404:
        return web.Response(status=404)
    if request.is_v6 or status == 401:
        return json_response({"errorMessage": detail}, status)
    problem: Payload = {"type": "about:blank", "title": HTTPStatus(status).phrase}
    problem |= {"status": status, "detail": detail, "instance": request.path}
    return json_response(problem, status, PROBLEM_JSON)
