"""Endpoints of version 7 of the API, with the schemas of the ThousandEyes API v7 reference."""

from functools import partial
from typing import Literal

from aiohttp import web
from msgspec import to_builtins
from msgspec.json import decode

from exporter.simulator import api
from exporter.simulator.api import ApiRequest, Payload, iso_date
from exporter.simulator.world import HOUR, ORGANIZATION, Agent, NetworkMetrics, Session, World

AGENT = {"status": "enabled", "deleted": False, "numberOfClients": 1, "agentType": "endpoint"}
NAMES = ("startDate", "endDate", "cursor")  # parameters of listings of sessions
BODY = dict[Literal["searchFilters"], dict[str, list[str]]]


def sessions(request: ApiRequest, world: World, *, network: bool) -> Payload:
    """Return a page of real user tests (default: last hour) or of their networks (last round)."""
    if request.body and not request.headers.get("Content-Type", "").startswith(api.JSON):
        raise web.HTTPUnsupportedMediaType
    now = request.time
    filters = decode(request.body or b"{}", type=BODY).get("searchFilters", {})
    default = api.last_round(now) if network else (now - HOUR, now)
    position, page, next_link = api.session_page(request, world, NAMES, default, filters, network)
    convert = network_session if network else user_session
    payload: Payload = {"results": [convert(session) for session in page], "_links": {}}
    if position.explicit:
        payload |= {"startDate": iso_date(position.start), "endDate": iso_date(position.end)}
    if next_link:
        payload["_links"]["next"] = {"href": str(next_link)}
    return payload


def user_session(session: Session) -> Payload:
    """Return a record of the listing of real user tests."""
    record = {
        "id": session.id,
        "agentId": session.agent.id,
        "roundId": session.round_id,
        "date": iso_date(session.date),
        "committed": iso_date(session.committed),
        "experienceScore": session.experience_score,
        "numberOfPages": session.pages,
        "visitedSite": session.site.host,
        "protocol": session.site.protocol,
        "port": 443 if session.site.protocol == "https" else 80,
        "sourceAddress": session.network.public_ip,
        "organizationName": session.network.organization,
        "pageId": session.page_id,
    }
    return api.without_none(record)


def network_session(session: Session) -> Payload:
    """Return a record of the listing of networks of real user tests."""
    record = {
        "id": session.id,
        "agentId": session.agent.id,
        "roundId": session.round_id,
        "date": iso_date(session.date),
        "destination": _network_metrics(session.destination),
        "vpn": _network_metrics(session.vpn),
        "proxy": _network_metrics(session.proxy),
        "systemMetrics": to_builtins(session.system),
    }
    return api.without_none(record)


def _network_metrics(metrics: NetworkMetrics | None) -> Payload | None:
    record: Payload | None = to_builtins(metrics)
    if record:
        record.pop("maxRtt", None)
    return record


def agents(request: ApiRequest, world: World) -> Payload:
    """Return a page of agents."""
    page, total, next_link = api.agent_page(request, world, "cursor")
    links = {"self": {"href": str(request.url)}}
    if next_link:
        links["next"] = {"href": str(next_link)}
    records = [agent_record(agent, request) for agent in page]
    return {"agents": records, "totalAgents": total, "_links": links}


def agent_record(agent: Agent, request: ApiRequest) -> Payload:
    """Return a record of the listing of agents."""
    user = {"userName": agent.user_name, "userPrincipalName": f"{agent.user_name}@example.com"}
    now = int(request.time)
    network = agent.network(now)
    record: Payload = {
        **AGENT,
        **agent.hardware,
        "id": agent.id,
        "name": agent.name,
        "computerName": agent.computer_name,
        "freeDiskSpaceNormalized": round(1 - agent.memory_load, 2),
        "serialNumber": agent.serial_number,
        "lastSeen": iso_date(now - (now - agent.number) % 60),
        "version": agent.version,
        "createdAt": iso_date(agent.created_at),
        "publicIP": network.public_ip,
        "location": {"locationName": agent.office.location},
        "licenseType": agent.license_type,
        "totalMemory": f"{agent.memory_mb} MB",
        "asnDetails": {"asNumber": network.as_number, "asName": network.organization},
        "_links": {"self": {"href": f"{request.url.origin()}/v7/endpoint/agents/{agent.id}"}},
    }
    if "clients" in request.params.get("expand", "").split(","):
        record["clients"] = [{"userProfile": user}]
    return record


def account_groups(request: ApiRequest, world: World) -> Payload:
    """Return all account groups."""
    records = [
        {
            "aid": str(aid),
            "accountGroupName": name,
            "organizationName": ORGANIZATION,
            "orgId": "7625",
            "isCurrentAccountGroup": aid == min(world.groups),
            "isDefaultAccountGroup": aid == min(world.groups),
        }
        for aid, name in world.groups.items()
    ]
    return {"accountGroups": records, "_links": {"self": {"href": str(request.url)}}}


HAL_JSON = "application/hal+json;charset=UTF-8"
TESTS = "/v7/endpoint/test-results/real-user-tests"
ROUTES: tuple[tuple[str, str, api.Endpoint, str], ...] = (
    ("POST", f"{TESTS}/filter", partial(sessions, network=False), api.JSON),
    ("POST", f"{TESTS}/networks/filter", partial(sessions, network=True), api.JSON),
    ("GET", "/v7/endpoint/agents", agents, HAL_JSON),
    ("GET", "/v7/account-groups", account_groups, HAL_JSON),
)
"""Method, path, endpoint, and the content type that the live API sends."""
