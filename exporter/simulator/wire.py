"""What goes over the wire in every version of the API: a call, a reply, a place in a listing, a refusal.

Left to others: how one version words them (v6, v7), what goes wrong (faults), and the sockets (server).
"""

from __future__ import annotations

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import msgspec

from exporter.simulator.world import AccountGroup, Agent, Session

Payload = dict[str, Any]
Filters = Mapping[str, Sequence[str]]
Kind = Literal["sessions", "networks", "agents", "agent", "groups"]

RATE_LIMIT = "X-Organization-Rate-Limit-Limit"
RATE_REMAINING = "X-Organization-Rate-Limit-Remaining"
RATE_RESET = "X-Organization-Rate-Limit-Reset"
RATE_HEADERS = (RATE_LIMIT, RATE_REMAINING, RATE_RESET)

JSON = "application/json"
PROBLEM = "application/problem+json"


class RefusedError(Exception):
    """A call that is answered with an error: its status, and words for the version's own shape of error."""

    def __init__(self, status: int, detail: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Call:
    """One request, `now` in Unix seconds; `origin` is what the client called the server, such as `http://host:80`."""

    number: int
    now: float
    method: str
    origin: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    peer: str

    def link(self, **changes: str | None) -> str:
        """Return the absolute URL of this request with some parameters changed; `None` takes one away."""
        params = {key: value for key, value in {**self.params, **changes}.items() if value is not None}
        return (
            f"{self.origin}{self.path}?{urlencode(sorted(params.items()))}" if params else f"{self.origin}{self.path}"
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back. A header that is `None` is not sent, not even where all replies carry it.

    `delay` in seconds comes before the first byte; `cut` breaks the connection after the headers, or amid the body.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str | None] = field(default_factory=dict)
    delay: float = 0.0
    cut: Literal["", "headers", "body"] = ""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a listing of sessions, which a cursor holds: the same for all who follow the same links.

    `start` to `end` is the whole range, `now` the time of the first request, so that nothing that is committed while
    the client turns pages moves the rest. The page begins `skip` sessions into round `round_id`. `asked` tells whether
    the client named a range, and `page` counts from 1.
    """

    start: float
    end: float
    now: float
    asked: bool
    round_id: int = 0
    skip: int = 0
    page: int = 1

    def cursor(self) -> str:
        """Return it as an opaque string."""
        return to_cursor([getattr(self, name) for name in self.__slots__])

    @classmethod
    def read(cls, cursor: str) -> Position:
        """Read a cursor back, or refuse it."""
        try:
            return msgspec.convert(dict(zip(cls.__slots__, from_cursor(cursor), strict=True)), cls)
        except ValueError as error:
            raise RefusedError(400, "Failed to deserialize") from error


def to_cursor(value: list[Any]) -> str:
    """Pack a list of plain values into an opaque string."""
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def from_cursor(cursor: str) -> list[Any]:
    """Unpack what `to_cursor` packed, whatever follows a tilde, or refuse it."""
    cursor = cursor.partition("~")[0]
    try:
        value = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise RefusedError(400, "Failed to deserialize") from error
    if not isinstance(value, list):
        raise RefusedError(400, "Failed to deserialize")
    return value


class Version(Protocol):
    """What the server asks of a version of the API; a module of that name is one."""

    START: str
    END: str
    CURSOR: str

    def default_range(self, kind: Kind, now: float) -> tuple[float, float]:
        """Return the range of a listing that was asked for without one."""

    def fixed_range(self, position: Position) -> dict[str, str]:
        """Return the parameters that stand beside the cursor in a link to a next page."""

    def read_filters(self, call: Call) -> Filters:
        """Read the filters in the body of a request."""

    def sessions(self, kind: Kind, records: list[Session], position: Position, following: str | None) -> Payload:
        """Word one page of user sessions or of network sessions."""

    def agents(self, call: Call, records: list[Agent], seen: Seen, total: int, following: str | None) -> Payload:
        """Word one page of agents."""

    def account_groups(self, call: Call, groups: Sequence[AccountGroup]) -> Payload:
        """Word all account groups; the first is the token's own."""

    def write(self, call: Call, kind: Kind, payload: Payload) -> Reply:
        """Encode an answer."""

    def refuse(self, call: Call, status: int, detail: str) -> Reply:
        """Word an error."""

    def foreign_group(self, aid: str) -> RefusedError:
        """Return what becomes of a request for an account group that the token may not see."""


Seen = Callable[[Agent], tuple[int, bool]]
"""Tells of an agent when it was last seen, in Unix seconds, and whether it has been deleted."""


FILTERS: dict[str, Callable[[Session], str | None]] = {
    "agentId": lambda s: s.agent.id,
    "bssid": lambda s: s.place.bssid,
    "connection": lambda s: s.place.connection,
    "destinationIp": lambda s: s.site.address,
    "domain": lambda s: s.site.domain,
    "gateway": lambda s: s.place.gateway,
    "location": lambda s: s.agent.office.location,
    "networkId": lambda s: s.place.id,
    "nicDriverVersion": lambda s: s.agent.hardware.nic_driver_version,
    "nicModel": lambda s: s.agent.hardware.nic_model,
    "platform": lambda s: s.agent.hardware.platform,
    "proxyTarget": lambda s: s.proxy.target if s.proxy else None,
    "ssid": lambda s: s.place.ssid,
    "trigger": lambda s: s.trigger,
    "visitedSite": lambda s: s.site.host,
    "vpnTarget": lambda s: s.vpn.target if s.vpn else None,
}
"""The keys of `searchFilters`, and what each looks at."""


def checked_filters(filters: Mapping[Any, Any]) -> Filters:
    """Return filters whose keys are documented and whose values are lists of strings, or refuse them."""
    for key, values in filters.items():
        if key not in FILTERS:
            raise RefusedError(400, f"Unrecognized field {key!r} in searchFilters")
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise RefusedError(400, f"searchFilters.{key} is not a list of strings")
    return filters


def matches(session: Session, filters: Filters) -> bool:
    """Tell whether a session has one of the values of every key."""
    return all(FILTERS[key](session) in values for key, values in filters.items())


def read_json(body: bytes) -> Any:
    """Decode the body of a request; nothing is an empty object."""
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise RefusedError(400, "Failed to read request") from error


def dump_json(payload: Payload) -> bytes:
    """Encode an answer; what is no Unicode text, such as a lone surrogate, is written as an escape."""
    try:
        return msgspec.json.encode(payload)
    except UnicodeEncodeError:
        return json.dumps(payload).encode()


def compressed(body: bytes) -> bytes:
    """Compress with gzip, in a hurry."""
    packer = zlib.compressobj(level=1, wbits=31)
    return packer.compress(body) + packer.flush()


def without_none(record: Payload) -> Payload:
    """Leave out what is not known: the API does not send it."""
    return {key: value for key, value in record.items() if value is not None}


def instant(text: str) -> float:
    """Read an ISO 8601 time, UTC unless it says otherwise, as Unix seconds, or refuse it."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise RefusedError(400, f"Invalid date: {text!r}") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
