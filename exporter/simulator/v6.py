"""How version 6 of the API words things.

Left to others: what there is to tell (world), and who may ask how often (server). The shapes are those of the v6
documentation: "Endpoint user session list", "Endpoint network sessions list", "Endpoint agents" and "Account groups".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from exporter.simulator import v7
from exporter.simulator.wire import (
    JSON,
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
from exporter.simulator.world import ROUND, AccountGroup, Agent, Leg, Session

START, END, CURSOR = "from", "to", "pageId"
XML = "application/xml"


def date(when: float) -> str:
    """Write Unix seconds as `yyyy-MM-dd HH:mm:ss` in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))


def default_range(_kind: Kind, now: float) -> tuple[float, float]:
    """Return the last complete round, for both lists."""
    last = now // ROUND * ROUND - ROUND
    return last, last + ROUND - 1


def fixed_range(position: Position) -> dict[str, str]:
    """Return the range as two times: a window has become one by the second page."""
    return {START: date(position.start), END: date(position.end)}


def read_filters(call: Call) -> Filters:
    """Read `{"searchFilters": [{"key": key, "values": [value, ...]}]}`; `Wireless` means `wireless`."""
    request = read_json(call.body)
    listed = request.get("searchFilters", []) if isinstance(request, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise RefusedError(400, "searchFilters is not a list of filters")
    filters = checked_filters({each.get("key"): each.get("values") for each in listed})
    folded = {"connection", "platform", "trigger"}
    return {key: [v.lower() for v in values] if key in folded else values for key, values in filters.items()}


def sessions(kind: Kind, records: list[Session], position: Position, following: str | None) -> Payload:
    """Word one page of user sessions, or of network sessions."""
    payload: Payload = {"from": date(position.start), "to": date(position.end)} if position.asked else {}
    if kind == "sessions":
        payload["userSessions"] = [user_session(record) for record in records]
    else:
        payload["networkSessions"] = [network_session(record) for record in records]
    return payload | {"pages": without_none({"current": position.page, "next": following})}


def user_session(session: Session) -> Payload:
    """Word one user session."""
    view = f"roundId={session.round_id}&scenarioId=sessionDetails&binSize=300000&__aid={session.agent.aid}"
    return without_none(
        {
            "userSessionId": session.id,
            "agentId": session.agent.id,
            "roundId": session.round_id,
            "date": date(session.date),
            "committed": date(session.committed),
            "experienceScore": session.experience_score,
            "numberOfPages": session.pages,
            "visitedSite": session.site.host,
            "protocol": session.site.protocol,
            "port": session.site.port,
            "sourceAddr": session.place.public_ip,
            "orgName": session.place.organization,
            "permalink": f"https://app.thousandeyes.com/view/endpoint-agent/?{view}",
        }
    )


def network_session(session: Session) -> Payload:
    """Word one network session; this version knows of no VPN or proxy."""
    return without_none(
        {
            "userSessionId": session.id,
            "agentId": session.agent.id,
            "roundId": session.round_id,
            "date": date(session.date),
            "destination": _leg(session.destination),
            "systemMetrics": v7.system_metrics(session.system),
        }
    )


def _leg(leg: Leg | None) -> Payload | None:
    if leg is None:
        return None
    return without_none(
        {
            "latency": leg.latency,
            "jitter": leg.jitter,
            "loss": leg.loss,
            "avgRtt": leg.avg_rtt,
            "maxRtt": leg.max_rtt,
            "meanDevRtt": leg.mean_dev_rtt,
            "target": leg.target,
        }
    )


def agents(call: Call, records: list[Agent], seen: Seen, _total: int, following: str | None) -> Payload:
    """Word one page of agents."""
    return {
        "endpointAgents": [agent(call, record, seen) for record in records],
        "pages": without_none({"next": following}),
    }


def agent(call: Call, record: Agent, seen: Seen) -> Payload:
    """Word one agent."""
    last_seen, deleted = seen(record)
    return {
        "agentId": record.id,
        "agentName": record.name,
        "computerName": record.computer_name,
        "osVersion": record.hardware.os_version,
        "kernelVersion": record.hardware.kernel_version,
        "manufacturer": record.hardware.manufacturer,
        "model": record.hardware.model,
        "status": "enabled",
        "deleted": deleted,
        "createdTime": date(record.created_at),
        "lastSeen": date(last_seen),
        "version": record.version,
        "publicIP": record.place(int(call.now)).public_ip,
        "location": v7.location(record),
        "numberOfClients": 1,
        "clients": [{"userProfile": {"userName": record.user_name}}],
        "totalMemory": f"{record.memory_mb} MB",
        "agentType": "enterprise",
        "vpnProfiles": [],
    }


def account_groups(_call: Call, groups: Sequence[AccountGroup]) -> Payload:
    """Word all account groups; the first is the token's own."""
    return {
        "accountGroups": [
            {
                "aid": group.aid,
                "accountGroupName": group.name,
                "organizationName": group.organization,
                "current": int(group is groups[0]),
                "default": int(group is groups[0]),
            }
            for group in groups
        ]
    }


def write(call: Call, _kind: Kind, payload: Payload) -> Reply:
    """Encode an answer: the path decides on the format, else the header, else the parameter, else it is JSON."""
    accept = call.headers.get("Accept", "")
    if call.path.endswith(".json"):
        xml = False
    elif call.path.endswith(".xml") or ("xml" in accept and "json" not in accept and "*" not in accept):
        xml = True
    else:
        xml = call.params.get("format") == "xml"
    if xml:
        return Reply(200, f'<?xml version="1.0" encoding="UTF-8"?>\n{_xml("response", payload)}\n'.encode(), XML)
    return Reply(200, dump_json(payload), JSON)


def _xml(tag: str, value: Any) -> str:
    if isinstance(value, list):
        return "".join(_xml(tag, each) for each in value)
    inside = "".join(_xml(*item) for item in value.items()) if isinstance(value, dict) else escape(str(value))
    return f"<{tag}>{inside}</{tag}>"


def refuse(call: Call, status: int, detail: str) -> Reply:
    """Word an error."""
    if status == 404:
        return Reply(404, content_type="")
    if status in {400, 403, 429}:
        return Reply(status, dump_json({"errorMessage": detail}))
    return v7.spring_error(call, status, detail)


def foreign_group(aid: str) -> RefusedError:
    """Return what becomes of a request for an account group that the token may not see."""
    return RefusedError(400, f"Invalid account group {aid}")
