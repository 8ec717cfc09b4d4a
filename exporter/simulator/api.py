"""What both versions of the API have in common: time ranges, pages, filters, and errors."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import dropwhile, islice
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from yarl import URL

from exporter.simulator.world import DAY, HOUR, ROUND_SECONDS, Agent, Session, World

T = TypeVar("T")
Payload = dict[str, Any]

RETENTION = 30 * DAY
UNITS = {"": 1, "s": 1, "m": 60, "h": HOUR, "d": DAY, "w": 7 * DAY}
JSON, PROBLEM_JSON = "application/json", "application/problem+json"
TITLES = {400: "Bad Request", 403: "Forbidden", 429: "Too Many Requests"}


@dataclass(slots=True)
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
    status: int = 0
    """Status of the response."""
    cursor: tuple[str, str] = ("", "")
    """Name and value of the parameter with the cursor of the page, on a first page too."""


Endpoint = Callable[[ApiRequest, World], Payload]
"""Returns the payload for a request; raises `ValueError` if the status is 400."""


class Position(NamedTuple):
    """Content of a cursor: a time range, and the date and id of the first session of the page.

    `now` is the time of the first request: sessions that are committed later do not shift pages.
    `explicit` is whether that request specified the range.
    """

    start: float
    end: float
    now: float
    explicit: bool
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


def session_page(
    request: ApiRequest,
    world: World,
    names: tuple[str, str, str],
    default: tuple[float, float],
    filters: Mapping[str, list[str]],
    network: bool,
) -> tuple[Position, list[Session], URL | None]:
    """Return a page's position, its user or network sessions, and the link to the next page."""
    if unknown := filters.keys() - FILTERS.keys():
        raise ValueError(f"Unrecognized field {min(unknown)!r} in searchFilters")
    cursor = request.params.get(names[2])
    position = from_cursor(cursor, Position) if cursor else _range(request, names, default)
    request.cursor = names[2], to_cursor(position)
    first = position.date, position.id
    start = max(position.start, position.date)
    aid = account_group(request, world)
    sessions = world.sessions(aid, start, position.end, position.now)
    rest = dropwhile(lambda s: (s.date, s.id) < first, sessions)
    listing = (s for s in rest if (s.measured if network else s.listed) and matches(s, filters))
    page = list(islice(listing, request.page_size + 1))
    if len(page) <= request.page_size:
        return position, page, None
    beyond = page.pop()
    following = position._replace(page=position.page + 1, date=beyond.date, id=beyond.id)
    url = request.url.without_query_params("window", *names)
    return position, page, url.update_query({names[2]: to_cursor(following)})


def _range(request: ApiRequest, names: tuple[str, ...], default: tuple[float, float]) -> Position:
    """Return the first page of the time range of a request."""
    now = request.time
    start, end, window = map(request.params.get, (*names[:2], "window"))
    if window and (start or end):
        raise ValueError(f"window cannot be combined with {names[0]} and {names[1]}")
    if end and not start:
        raise ValueError(f"{names[1]} requires {names[0]}")
    first, last = default
    if window:
        unit = window.lstrip("0123456789")
        if unit not in UNITS:
            raise ValueError(f"Invalid window: {window!r}")
        first, last = now - int(window.removesuffix(unit)) * UNITS[unit], now
    elif start:
        first, last = _timestamp(start), _timestamp(end) if end else now
    return Position(max(first, now - RETENTION), last, now, explicit=bool(window or start))


def _timestamp(text: str) -> float:
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def last_round(now: float) -> tuple[float, float]:
    """Return the time range of the last complete round."""
    start = now // ROUND_SECONDS * ROUND_SECONDS - ROUND_SECONDS
    return start, start + ROUND_SECONDS - 1


def agent_page(
    request: ApiRequest, world: World, cursor_name: str
) -> tuple[list[Agent], int, URL | None]:
    """Return a page of agents, their total number, and the link to the next page."""
    listing = world.agents_of(account_group(request, world), request.time)
    size = int(request.params.get("max", request.page_size))
    cursor = request.params.get(cursor_name, to_cursor(-1))
    request.cursor = cursor_name, cursor
    last = from_cursor(cursor, int)
    rest = [agent for agent in listing if agent.number > last]
    page = rest[: max(1, size)]
    if len(rest) == len(page):
        return page, len(listing), None
    return page, len(listing), request.url.update_query({cursor_name: to_cursor(page[-1].number)})


def to_cursor(value: object) -> str:
    """Encode a cursor."""
    return urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def from_cursor(cursor: str, type_: type[T]) -> T:
    """Decode a cursor."""
    return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=type_)


FILTERS: dict[str, Callable[[Session], str | None]] = {
    "agentId": lambda s: s.agent.id,
    "bssid": lambda s: s.network.bssid,
    "connection": lambda s: "wireless" if s.network.ssid else "ethernet",
    "destinationIp": lambda s: s.site.address,
    "domain": lambda s: s.site.host.partition(".")[2],
    "gateway": lambda s: s.network.gateway,
    "location": lambda s: s.agent.office.location,
    "networkId": lambda s: s.network.id,
    "nicDriverVersion": lambda s: s.agent.hardware["nicDriverVersion"],
    "nicModel": lambda s: s.agent.hardware["nicModel"],
    "platform": lambda s: s.agent.hardware["platform"],
    "proxyTarget": lambda s: s.proxy.target if s.proxy else None,
    "ssid": lambda s: s.network.ssid,
    "trigger": lambda s: s.trigger,
    "visitedSite": lambda s: s.site.host,
    "vpnTarget": lambda s: s.vpn.target if s.vpn else None,
}
"""The keys of `searchFilters`, and what each one is compared with."""


def matches(session: Session, filters: Mapping[str, list[str]]) -> bool:
    """Return whether a session has one of the values of each filter."""
    return all(FILTERS[key](session) in values for key, values in filters.items())


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
    """Return an error in the format that the API uses for the version and the status."""
    if status == 404:
        return web.Response(status=404, headers={"Content-Type": ""})
    if status == 401 and request.headers.get("Authorization"):
        error: Payload = {"error": "invalid_token", "error_description": "Invalid access token"}
    elif status == 401:
        error = {"errorMessage": "401 Not Authorized\nPlease ensure your credentials are correct."}
    elif status in TITLES and request.is_v6:
        error = {"errorMessage": detail}
    elif status in TITLES:
        problem: Payload = {"type": "about:blank", "title": TITLES[status], "status": status}
        problem |= {"detail": detail, "instance": request.path}
        return json_response(problem, status, PROBLEM_JSON)
    else:
        error = {"timestamp": iso_date(request.time), "status": status, "error": detail}
        error |= {"message": detail, "path": request.path}
    return json_response(error, status)
