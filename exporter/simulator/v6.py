"""Endpoints of version 6 of the API; most records are those of version 7 with other names."""

from functools import partial
from typing import Literal

from msgspec import Struct
from msgspec.json import decode

from exporter.simulator import api, v7
from exporter.simulator.api import ApiRequest, Payload
from exporter.simulator.world import ORGANIZATION, Agent, Session, World

SESSION = {"id": "userSessionId", "sourceAddress": "sourceAddr", "organizationName": "orgName"}
AGENT = {"id": "agentId", "name": "agentName", "createdAt": "createdTime"}
V7_ONLY = (  # noqa: SIM905
    "pageId vpn proxy platform freeDiskSpaceNormalized serialNumber nicModel nicDriverVersion "
    "asnDetails licenseType batteryMetrics agentExplainabilityFailures networkInterfaceProfiles "
    "_links"
).split()
DATES = ("date", "committed", "lastSeen", "createdAt")
CASE_INSENSITIVE = {"connection", "platform", "trigger"}  # filters: `Wireless` is `wireless`


class Filter(Struct):
    """A search filter."""

    key: str
    values: list[str]


BODY = dict[Literal["searchFilters"], list[Filter]]


def sessions(request: ApiRequest, world: World, *, network: bool) -> Payload:
    """Return a page of user sessions or network sessions."""
    body = decode(request.body or b"{}", type=BODY)
    filters = {each.key: each.values for each in body.get("searchFilters", [])}
    for key in filters.keys() & CASE_INSENSITIVE:
        filters[key] = [value.lower() for value in filters[key]]
    listing, name, convert = NETWORKS if network else USERS
    position, page, next_link = api.page_of(listing, request, world, filters)
    start, end = (_date(api.iso_date(when)) for when in (position.start, position.end))
    time_range = {"from": start, "to": end}
    pages: Payload = {"current": position.page}
    if next_link:
        pages["next"] = str(next_link.update_query(time_range))
    return {**time_range, name: [convert(session) for session in page], "pages": pages}


def user_session(session: Session) -> Payload:
    """Return a record of the listing of user sessions."""
    link = f"https://app.thousandeyes.com/view/endpoint-agent/?roundId={session.round_id}"
    return _converted(v7.user_session(session), SESSION) | {"permalink": link}


def network_session(session: Session) -> Payload:
    """Return a record of the listing of network sessions."""
    record = _converted(v7.network_session(session), SESSION)
    ping = session.destination
    if ping and ping.latency is not None:
        round_trip = {"avgRtt": ping.latency, "maxRtt": ping.max_rtt, "meanDevRtt": ping.jitter}
        record["destination"] |= round_trip
    return record


USERS = api.USER_SESSIONS, "userSessions", user_session
NETWORKS = api.NETWORK_SESSIONS, "networkSessions", network_session


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
    records = [agent_record(agent, request) for agent in page]
    return {"endpointAgents": records, "pages": {"next": str(next_link)} if next_link else {}}


def agent_record(agent: Agent, request: ApiRequest) -> Payload:
    """Return a record of the listing of agents."""
    user = {"userProfile": {"userName": agent.user_name}}
    record = _converted(v7.agent_record(agent, request), AGENT)
    return record | {"agentType": "enterprise", "clients": [user], "vpnProfiles": []}


def account_groups(_request: ApiRequest, world: World) -> Payload:
    """Return all account groups."""
    records = [
        {
            "aid": aid,
            "accountGroupName": name,
            "organizationName": ORGANIZATION,
            "current": int(aid == min(world.groups)),
            "default": int(aid == min(world.groups)),
        }
        for aid, name in world.groups.items()
    ]
    return {"accountGroups": records}


SUFFIX = r"{suffix:(\.json)?}"
SESSIONS = f"/v6/endpoint-data/user-sessions{SUFFIX}"
SESSION_NETWORKS = f"/v6/endpoint-data/user-sessions/network{SUFFIX}"
ROUTES: tuple[tuple[str, str, api.Endpoint, str], ...] = (
    ("GET", SESSIONS, partial(sessions, network=False), api.JSON),
    ("POST", SESSIONS, partial(sessions, network=False), api.JSON),
    ("GET", SESSION_NETWORKS, partial(sessions, network=True), api.JSON),
    ("POST", SESSION_NETWORKS, partial(sessions, network=True), api.JSON),
    ("GET", f"/v6/endpoint-agents{SUFFIX}", agents, api.JSON),
    ("GET", f"/v6/account-groups{SUFFIX}", account_groups, api.JSON),
)
"""Method, path, endpoint, and content type."""
