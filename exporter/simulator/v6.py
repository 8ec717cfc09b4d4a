"""Endpoints of version 6 of the API; most records are those of version 7 with other names."""

from functools import partial
from typing import Literal

from msgspec import Struct
from msgspec.json import decode

from exporter.simulator import api, v7
from exporter.simulator.api import ApiRequest, Convert, Payload
from exporter.simulator.world import Session, World

SESSION = {"id": "userSessionId", "sourceAddress": "sourceAddr", "organizationName": "orgName"}
AGENT = {"id": "agentId", "name": "agentName", "createdAt": "createdTime"}
V7_ONLY = (  # noqa: SIM905
    "vpn proxy platform freeDiskSpaceNormalized serialNumber nicModel nicDriverVersion "
    "asnDetails licenseType batteryMetrics agentExplainabilityFailures networkInterfaceProfiles"
).split()
DATES = ("date", "committed", "lastSeen", "createdAt")


class Filter(Struct):
    """A search filter."""

    key: str
    values: list[str]


BODY = dict[Literal["searchFilters"], list[Filter]]


def results(
    listing: api.Listing, name: str, convert: Convert, request: ApiRequest, world: World
) -> Payload:
    """Return a page of sessions."""
    body = decode(request.body or b"{}", type=BODY)
    filters = {each.key: each.values for each in body.get("searchFilters", [])}
    position, page, next_link = api.page_of(listing, request, world, filters)
    start, end = (_date(api.iso_date(when)) for when in (position.start, position.end))
    time_range = {"from": start, "to": end}
    pages = {"next": str(next_link.update_query(time_range))} if next_link else {}
    return {**time_range, name: [convert(session) for session in page], "pages": pages}


def user_session(session: Session) -> Payload:
    """Return a record of the listing of user sessions."""
    return _converted(v7.user_session(session), SESSION)


def network_session(session: Session) -> Payload:
    """Return a record of the listing of network sessions."""
    record = _converted(v7.network_session(session), SESSION)
    ping = session.destination
    if ping and ping.latency is not None:
        round_trip = {"avgRtt": ping.latency, "maxRtt": ping.max_rtt, "meanDevRtt": ping.jitter}
        record["destination"] |= round_trip
    return record


def _converted(record: Payload, names: dict[str, str]) -> Payload:
    return {
        names.get(name, name): _date(value) if name in DATES else value
        for name, value in record.items()
        if name not in V7_ONLY
    }


def _date(iso_date: str) -> str:
    return iso_date.replace("T", " ").rstrip("Z")


def agents(request: ApiRequest, world: World) -> Payload:
    """Return a page of agents."""
    page, _, next_link = api.agent_page(request, world)
    records = [
        _converted(v7.agent_record(agent, request), AGENT)
        | {"agentType": "enterprise", "clients": [{"userProfile": {"userName": agent.user_name}}]}
        for agent in page
    ]
    return {"endpointAgents": records, "pages": {"next": str(next_link)} if next_link else {}}


def account_groups(_request: ApiRequest, world: World) -> Payload:
    """Return all account groups."""
    records = [
        {"aid": aid, "accountGroupName": name, "current": int(aid == min(world.groups))}
        for aid, name in world.groups.items()
    ]
    return {"accountGroups": records}


USERS = partial(results, api.USER_SESSIONS, "userSessions", user_session)
NETWORKS = partial(results, api.NETWORK_SESSIONS, "networkSessions", network_session)
ENDPOINTS: dict[tuple[str, str], api.Endpoint] = {
    ("GET", "/v6/endpoint-data/user-sessions"): USERS,
    ("POST", "/v6/endpoint-data/user-sessions"): USERS,
    ("GET", "/v6/endpoint-data/user-sessions/network"): NETWORKS,
    ("POST", "/v6/endpoint-data/user-sessions/network"): NETWORKS,
    ("GET", "/v6/endpoint-agents"): agents,
    ("GET", "/v6/account-groups"): account_groups,
}
"""Endpoints by method and path, without the suffix `.json`."""
