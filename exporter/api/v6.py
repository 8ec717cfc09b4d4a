"""ThousandEyes API version 6: paths and JSON of the listings that are polled, to records.

Source: the vendor's documentation of version 6 (endpoint user session list, endpoint network sessions list, endpoint
agents, account groups). The vendor ended its support on 2025-05-27. Listings are GET, and POST where they are filtered.
How a request is sent stands in `exporter.api.http`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from exporter.api.wire import Id, Request, Shape, WireAgent, WireNetwork, WireUser, agent, networks, users
from exporter.model import AccountGroup, Agent, NetworkSession, UserSession, label

Time = Annotated[datetime, Meta(tz=False)] | None
"""`yyyy-MM-dd HH:mm:ss`, in UTC without saying so."""

CURSORS = frozenset({"page", "pageId", "lastRoundId"})
"""The parameters of a next link that lead to the next page."""

_SESSIONS = "/v6/endpoint-data/user-sessions"


class _User(WireUser):
    id: Id = msgspec.field(name="userSessionId")
    date: Time = None
    committed: Time = None


class _Network(WireNetwork):
    id: Id = msgspec.field(name="userSessionId")


class _Agent(WireAgent):
    id: Id = msgspec.field(name="agentId")
    agentName: str | None = None
    lastSeen: Time = None


class _AccountGroup(msgspec.Struct, gc=False):
    id: int = msgspec.field(name="aid")
    accountGroupName: str | None = None
    current: int | None = None


def _agents(wire: list[_Agent]) -> list[Agent]:
    return [agent(each, each.id, each.agentName, each.lastSeen) for each in wire]


def _account_groups(wire: list[_AccountGroup]) -> list[AccountGroup]:
    return [AccountGroup(str(each.id), label(each.accountGroupName), bool(each.current)) for each in wire]


def _next(pages: Any) -> object:
    return pages.get("next")


def _shape(results: str, record: type[Any], convert: Any, *times: str) -> Shape[Any]:
    return Shape(results, record, convert, links="pages", next_link=_next, times=times)


USERS: Shape[UserSession] = _shape("userSessions", _User, users, "date", "committed")
NETWORKS: Shape[NetworkSession] = _shape("networkSessions", _Network, networks)
AGENTS: Shape[Agent] = _shape("endpointAgents", _Agent, _agents, "lastSeen")
ACCOUNT_GROUPS: Shape[AccountGroup] = _shape("accountGroups", _AccountGroup, _account_groups)


def user_sessions(aid: str, start: int, end: int, search: Mapping[str, Sequence[str]]) -> Request:
    """Ask for the user sessions between two Unix times, both included."""
    return _listing(f"{_SESSIONS}.json", aid, start, end, search)


def network_sessions(aid: str, start: int, end: int, search: Mapping[str, Sequence[str]]) -> Request:
    """Ask for the network sessions between two Unix times, both included."""
    return _listing(f"{_SESSIONS}/network.json", aid, start, end, search)


def agents(aid: str) -> Request:
    """Ask for the endpoint agents of an account group."""
    return Request("GET", "/v6/endpoint-agents.json", _in(aid))


def account_groups() -> Request:
    """Ask for the account groups that the token may see."""
    return Request("GET", "/v6/account-groups.json", {})


def _listing(path: str, aid: str, start: int, end: int, search: Mapping[str, Sequence[str]]) -> Request:
    query = {**_in(aid), "from": _iso(start), "to": _iso(end)}
    if not search:
        return Request("GET", path, query)
    filters = [{"key": key, "values": values} for key, values in search.items()]
    return Request("POST", path, query, msgspec.json.encode({"searchFilters": filters}))


def _in(aid: str) -> dict[str, str]:
    return {"aid": aid} if aid else {}


def _iso(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S")
