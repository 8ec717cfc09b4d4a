"""ThousandEyes API version 7: paths and JSON of the listings that are polled, to records.

Source: the OpenAPI description of version 7.0 (endpoint test results, endpoint agents, account groups), published with
the vendor's command line and SDKs. All session listings are `POST …/filter`. How a request is sent stands in
`exporter.api.http`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from exporter.api.wire import Id, Request, Shape, WireAgent, WireNetwork, WireUser, agent, networks, users
from exporter.model import AccountGroup, Agent, NetworkSession, UserSession, label

Time = Annotated[datetime, Meta(tz=True)] | None

CURSORS = frozenset({"cursor"})
"""The parameters of a next link that lead to the next page."""

_SESSIONS = "/v7/endpoint/test-results/real-user-tests"


class _User(WireUser):
    id: Id
    date: Time = None
    committed: Time = None


class _Network(WireNetwork):
    id: Id


class _Agent(WireAgent):
    id: Id
    name: str | None = None
    lastSeen: Time = None


class _AccountGroup(msgspec.Struct, gc=False):
    id: Id = msgspec.field(name="aid")
    accountGroupName: str | None = None
    isCurrentAccountGroup: bool | None = None


def _agents(wire: list[_Agent]) -> list[Agent]:
    return [agent(each, each.id, each.name, each.lastSeen) for each in wire]


def _account_groups(wire: list[_AccountGroup]) -> list[AccountGroup]:
    return [
        AccountGroup(label(each.id), label(each.accountGroupName), bool(each.isCurrentAccountGroup)) for each in wire
    ]


def _next(links: Any) -> object:
    following = links.get("next")
    return None if following in (None, "") else following["href"]


def _shape(results: str, record: type[Any], convert: Any, *times: str) -> Shape[Any]:
    return Shape(results, record, convert, links="_links", next_link=_next, times=times)


USERS: Shape[UserSession] = _shape("results", _User, users, "date", "committed")
NETWORKS: Shape[NetworkSession] = _shape("results", _Network, networks)
AGENTS: Shape[Agent] = _shape("agents", _Agent, _agents, "lastSeen")
ACCOUNT_GROUPS: Shape[AccountGroup] = _shape("accountGroups", _AccountGroup, _account_groups)


def user_sessions(aid: str, start: int, end: int, search: Mapping[str, Sequence[str]]) -> Request:
    """Ask for the user sessions between two Unix times, both included."""
    return _filter(f"{_SESSIONS}/filter", aid, start, end, search)


def network_sessions(aid: str, start: int, end: int, search: Mapping[str, Sequence[str]]) -> Request:
    """Ask for the network sessions between two Unix times, both included."""
    return _filter(f"{_SESSIONS}/networks/filter", aid, start, end, search)


def agents(aid: str) -> Request:
    """Ask for the endpoint agents of an account group."""
    return Request("GET", "/v7/endpoint/agents", _in(aid))


def account_groups() -> Request:
    """Ask for the account groups that the token may see."""
    return Request("GET", "/v7/account-groups", {})


def _filter(path: str, aid: str, start: int, end: int, search: Mapping[str, Sequence[str]]) -> Request:
    between = {"startDate": _iso(start), "endDate": _iso(end)}
    body = {"searchFilters": search} if search else {}
    return Request("POST", path, {**_in(aid), **between}, msgspec.json.encode(body))


def _in(aid: str) -> dict[str, str]:
    return {"aid": aid} if aid else {}


def _iso(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
