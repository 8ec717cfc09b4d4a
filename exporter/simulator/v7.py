"""How version 7 of the API words things.

Left to others: what there is to tell (world), and who may ask how often (server). The shapes are those of the
ThousandEyes API v7 reference: "Endpoint Test Results", "Endpoint Agents" and "Account Groups".
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from exporter.simulator.wire import (
    JSON,
    PROBLEM,
    Call,
    Filters,
    Kind,
    Payload,
    Position,
    RefusedError,
    Reply,
    Seen,
    checked_filters,
    dump_json,
    read_json,
    without_none,
)
from exporter.simulator.world import HOUR, ROUND, AccountGroup, Agent, Leg, Samples, Session, SystemMetrics

START, END, CURSOR = "startDate", "endDate", "cursor"
HAL = "application/hal+json;charset=UTF-8"
TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests"}


def date(when: float) -> str:
    """Write Unix seconds as an ISO 8601 date-time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def default_range(kind: Kind, now: float) -> tuple[float, float]:
    """Return the last hour for user sessions and the last complete round for networks, which are documented apart."""
    if kind == "sessions":
        return now - HOUR, now
    last = now // ROUND * ROUND - ROUND
    return last, last + ROUND - 1


def fixed_range(_position: Position) -> dict[str, str]:
    """Return nothing: the cursor says it all."""
    return {}


def read_filters(call: Call) -> Filters:
    """Read `{"searchFilters": {key: [value, ...]}}`; an empty body filters nothing."""
    if call.body and not call.headers.get("Content-Type", "").startswith(JSON):
        raise RefusedError(415)
    request = read_json(call.body)
    filters = request.get("searchFilters", {}) if isinstance(request, dict) else None
    if not isinstance(filters, dict):
        raise RefusedError(400, "Failed to read request")
    return checked_filters(filters)


def sessions(kind: Kind, records: list[Session], position: Position, following: str | None) -> Payload:
    """Word one page of real user tests, or of their networks."""
    word = user_session if kind == "sessions" else network_session
    payload: Payload = {"results": [word(record) for record in records]}
    if position.asked:
        payload |= {"startDate": date(position.start), "endDate": date(position.end)}
    return payload | {"_links": {"next": {"href": following}} if following else {}}


def user_session(session: Session) -> Payload:
    """Word one item of the real user tests."""
    return without_none(
        {
            "id": session.id,
            "agentId": session.agent.id,
            "roundId": session.round_id,
            "date": date(session.date),
            "committed": date(session.committed),
            "experienceScore": session.experience_score,
            "numberOfPages": session.pages,
            "visitedSite": session.site.host,
            "protocol": session.site.protocol,
            "port": session.site.port,
            "sourceAddress": session.place.public_ip,
            "organizationName": session.place.organization,
            "pageId": session.page_id,
        }
    )


def network_session(session: Session) -> Payload:
    """Word one item of the networks of real user tests."""
    return without_none(
        {
            "id": session.id,
            "agentId": session.agent.id,
            "roundId": session.round_id,
            "date": date(session.date),
            "destination": _leg(session.destination),
            "vpn": _leg(session.vpn),
            "proxy": _leg(session.proxy),
            "systemMetrics": system_metrics(session.system),
        }
    )


def _leg(leg: Leg | None) -> Payload | None:
    if leg is None:
        return None
    return without_none({"latency": leg.latency, "jitter": leg.jitter, "loss": leg.loss, "target": leg.target})


def system_metrics(system: SystemMetrics) -> Payload:
    """Word the system metrics; v6 has the same."""
    return without_none(
        {
            "startTimeMs": system.start_ms,
            "endTimeMs": system.end_ms,
            "cpuUtilization": system.cpu and _samples(system.cpu),
            "physicalMemoryUsedBytes": _samples(system.memory),
            "physicalMemoryTotalBytes": system.memory_total,
        }
    )


def _samples(samples: Samples) -> Payload:
    return {
        "min": samples.min,
        "max": samples.max,
        "mean": samples.mean,
        "median": samples.median,
        "stdDev": samples.std_dev,
        "count": samples.count,
    }


def agents(call: Call, records: list[Agent], seen: Seen, total: int, following: str | None) -> Payload:
    """Word one page of agents."""
    links = {"self": {"href": call.link()}} | ({"next": {"href": following}} if following else {})
    return {"agents": [agent(call, record, seen) for record in records], "totalAgents": total, "_links": links}


def agent(call: Call, record: Agent, seen: Seen) -> Payload:
    """Word one agent; its users are told only on `expand=clients`, its account group only where groups are mixed."""
    last_seen, deleted = seen(record)
    expand = call.params.get("expand", "").split(",")
    mixed = call.params.get("useAllPermittedAids") == "true"
    place = record.place(int(call.now))
    user = {"userName": record.user_name, "userPrincipalName": f"{record.user_name}@example.com"}
    return without_none(
        {
            "id": record.id,
            "aid": str(record.aid) if mixed else None,
            "name": record.name,
            "computerName": record.computer_name,
            "freeDiskSpaceNormalized": round(1 - record.fill, 2),
            "osVersion": record.hardware.os_version,
            "platform": record.hardware.platform,
            "kernelVersion": record.hardware.kernel_version,
            "manufacturer": record.hardware.manufacturer,
            "model": record.hardware.model,
            "serialNumber": record.serial_number,
            "nicModel": record.hardware.nic_model,
            "nicDriverVersion": record.hardware.nic_driver_version,
            "lastSeen": date(last_seen),
            "status": "enabled",
            "deleted": deleted,
            "version": record.version,
            "targetVersion": "1.213.0" if "targetVersion" in expand else None,
            "createdAt": date(record.created_at),
            "numberOfClients": 1,
            "publicIP": place.public_ip,
            "location": location(record),
            "clients": [{"userProfile": user}] if "clients" in expand else None,
            "totalMemory": f"{record.memory_mb} MB",
            "agentType": "endpoint",
            "asnDetails": {"asNumber": place.as_number, "asName": place.organization},
            "licenseType": record.license_type,
            "tcpDriverAvailable": True,
            "npcapVersion": "1.79" if record.hardware.platform == "windows" else None,
            "_links": {"self": {"href": f"{call.origin}/v7/endpoint/agents/{record.id}"}},
        }
    )


def location(record: Agent) -> Payload:
    """Word where an agent is; v6 has the same."""
    office = record.office
    return {"latitude": office.latitude, "longitude": office.longitude, "locationName": office.location}


def account_groups(call: Call, groups: Sequence[AccountGroup]) -> Payload:
    """Word all account groups; the first is the token's own."""
    return {
        "accountGroups": [
            {
                "aid": str(group.aid),
                "accountGroupName": group.name,
                "organizationName": group.organization,
                "orgId": str(group.organization_id),
                "isCurrentAccountGroup": group is groups[0],
                "isDefaultAccountGroup": group is groups[0],
            }
            for group in groups
        ],
        "_links": {"self": {"href": call.link()}},
    }


def write(_call: Call, kind: Kind, payload: Payload) -> Reply:
    """Encode an answer; the filter calls really answer plain JSON."""
    return Reply(200, dump_json(payload), JSON if kind in {"sessions", "networks"} else HAL)


def refuse(call: Call, status: int, detail: str) -> Reply:
    """Word an error: a problem (RFC 9457) for what is explained, nothing at all for what is not there."""
    if status == 404:
        return Reply(404, content_type="")
    if status not in TITLES:
        return spring_error(call, status, detail)
    problem = {"type": "about:blank", "title": TITLES[status], "status": status, "instance": call.path}
    return Reply(status, dump_json(problem | ({"detail": detail} if detail else {})), PROBLEM)


def spring_error(call: Call, status: int, detail: str) -> Reply:
    """Word an error as the framework behind the API does; v6 has the same."""
    error = {"timestamp": date(call.now), "status": status, "error": detail, "message": detail, "path": call.path}
    return Reply(status, dump_json(error))


def unauthorized(given: str) -> Reply:
    """Return what becomes of a request with these credentials, which are wrong or missing; v6 has the same."""
    if given:
        return Reply(401, dump_json({"error": "invalid_token", "error_description": "Invalid access token"}))
    words = "401 Not Authorized\nPlease ensure that your credentials are correct and that you have API access."
    return Reply(401, dump_json({"errorMessage": words}))


def foreign_group(aid: str) -> RefusedError:
    """Return what becomes of a request for an account group that the token may not see."""
    return RefusedError(403, f"No access to account group {aid}")
