"""Endpoints of version 7 of the API, with the schemas of the ThousandEyes API v7 reference."""

from functools import partial
from typing import Literal

from msgspec import to_builtins
from msgspec.json import decode

from exporter.simulator import api
from exporter.simulator.api import ApiRequest, Convert, Payload, iso_date
from exporter.simulator.world import ORGANIZATION, SLOW_VPN, Agent, Network, Probe, Session, World

BODY = dict[Literal["searchFilters"], dict[str, list[str]]]


def results(listing: api.Listing, convert: Convert, request: ApiRequest, world: World) -> Payload:
    """Return a page of test results."""
    filters = decode(request.body or b"{}", type=BODY).get("searchFilters", {})
    position, page, next_link = api.page_of(listing, request, world, filters)
    payload: Payload = {"results": [convert(record) for record in page], "_links": {}}
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
    }
    return api.without_none(record)


def network_session(session: Session) -> Payload:
    """Return a record of the listing of networks of real user tests."""
    record = {
        "id": session.id,
        "agentId": session.agent.id,
        "roundId": session.round_id,
        "date": iso_date(session.date),
        "destination": _path(session.destination),
        "vpn": _path(session.vpn),
        "proxy": _path(session.proxy),
        "systemMetrics": to_builtins(session.system),
    }
    return api.without_none(record)


def _path(ping: object) -> Payload | None:
    record: Payload | None = to_builtins(ping)
    if record:
        record.pop("maxRtt", None)
    return record


def local_network(probe: Probe) -> Payload:
    """Return a record of the listing of topologies of local networks."""
    agent, network, ping = probe.agent, probe.network, probe.ping
    latency, jitter, loss = ping.latency or 0, ping.jitter or 0, ping.loss or 0.0
    cpu, memory = probe.system.cpu_utilization, probe.system.physical_memory_used_bytes.mean
    memory /= probe.system.physical_memory_total_bytes
    blocked = network.blocks_ping and ping.target == network.gateway
    signal = agent.signal(network, probe.date)
    icmp = {"avgRtt": latency, "minRtt": latency * 4 // 5, "maxRtt": int(ping.max_rtt or 0)}
    icmp = {} if blocked else icmp | {"meanDevRtt": jitter}
    lost = 10 if blocked else int(loss) // 10
    record: Payload = {
        "agentId": agent.id,
        "networkTopologyId": f"{agent.aid:05}:{network.id}:{probe.round_id}:{agent.id[:8]}",
        "roundId": probe.round_id,
        "date": iso_date(probe.date),
        "type": probe.type,
        "target": ping.target,
        "icmpPing": {**icmp, "loss": 10.0 * lost, "pktsSent": 10, "pktsReceived": 10 - lost},
        "isIcmpBlocked": blocked,
        "systemMetrics": to_builtins(probe.system),
        "agentScore": _score(1 - (0.5 * cpu.mean**3 if cpu else 0) - 0.4 * memory**6),
        "connectionScore": _score(1 if signal is None else signal / 50 + 2),
        "batteryMetrics": _battery(agent, probe.date),
        "platform": agent.hardware["platform"],
    }
    if probe.type in {"gateway", "vpn", "proxy"}:
        record[f"{probe.type}Score"] = _score(1 - latency / 400 - jitter / 200 - loss / 50)
    if blocked or probe.type in {"vpn", "proxy"}:
        record["tcpConnect"] = {"rtt": round(latency * 1.06, 3)}
    if probe.type == "dns":
        record["dnsServerTest"] = {"resolutionTime": 8 + jitter + network.dns_delay_ms}
    return record


def _score(ratio: float) -> Payload:
    score = round(100 * max(0.0, min(1.0, ratio)), 1)
    quality = "great" if score >= 80 else "good" if score >= 50 else "poor"
    return {"score": score, "quality": quality}


def _battery(agent: Agent, when: int) -> Payload:
    """Return the state of a battery, which is full on Ethernet."""
    used = (when / 3600 + agent.number) % 8 / 10 if agent.network(when).ssid else 0
    level = "high" if used < 0.4 else "medium" if used < 0.7 else "low"
    return {"batteryLevel": level, "batteryLevelNormalizedPercent": round(1 - used, 3)}


def agents(request: ApiRequest, world: World) -> Payload:
    """Return a page of agents."""
    page, total, next_link = api.agent_page(request, world)
    links = {"self": {"href": str(request.url)}}
    if next_link:
        links["next"] = {"href": str(next_link)}
    records = [agent_record(agent, request) for agent in page]
    return {"agents": records, "totalAgents": total, "_links": links}


def agent_record(agent: Agent, request: ApiRequest) -> Payload:
    """Return a record of the listing of agents."""
    now = int(request.time)
    network = agent.network(now)
    as_number = 64496 + sum(network.organization.encode()) % 16
    record: Payload = {
        **agent.hardware,
        "agentType": "endpoint",
        "status": "enabled",
        "id": agent.id,
        "name": agent.name,
        "freeDiskSpaceNormalized": round(1 - agent.memory_load, 2),
        "lastSeen": iso_date(now - (now - agent.number) % 60),
        "version": agent.version,
        "createdAt": iso_date(agent.created_at),
        "publicIP": network.public_ip,
        "location": {"locationName": agent.office.location},
        "licenseType": agent.license_type,
        "totalMemory": f"{agent.memory_mb} MB",
        "asnDetails": {"asNumber": as_number, "asName": network.organization},
        "batteryMetrics": _battery(agent, now),
        "agentExplainabilityFailures": [{"reasonCode": agent.failure}] if agent.failure else [],
    }
    expand = request.params.get("expand", "").split(",")
    if "clients" in expand:
        user = {"userName": agent.user_name, "userPrincipalName": f"{agent.user_name}@example.com"}
        record["clients"] = [{"userProfile": user}]
    if "networkInterfaceProfiles" in expand:
        record["networkInterfaceProfiles"] = _interface_profiles(agent, network, now)
    if "vpnProfiles" in expand:
        record["vpnProfiles"] = _vpn_profiles(agent, network)
    return record


def _interface_profiles(agent: Agent, network: Network, now: int) -> list[Payload]:
    """Return the network interfaces of an agent; only the one in use has a gateway."""
    rssi = agent.signal(network, now)
    wifi = {"ssid": network.ssid, "bssid": network.bssid, "channel": 36, "rssi": rssi}
    cable = {"linkSpeed": 100 if agent.number % 7 == 0 else 1000}
    address = f"{network.gateway.rpartition('.')[0]}.{agent.number % 250 + 2}"
    gateway = {"gateway": network.gateway, "routerHardwareAddress": "02:00:5e:10:01:01"}
    vpns = [p["vpnClientAddresses"][0] for p in _vpn_profiles(agent, network)]
    found = [_interface("virtual", vpn, {}) for vpn in vpns]
    if network.ssid:
        return [*found, _interface("wireless", address, gateway) | {"wirelessProfile": wifi}]
    used = _interface("ethernet", address, gateway) | {"ethernetProfile": cable}
    return [_interface("wireless", "169.254.7.7", {}), used, *found]  # a wireless one is idle


def _interface(kind: str, ip: str, gateway: Payload) -> Payload:
    address = {"addressType": "unique-local", "ipAddress": ip, "prefixLength": 24, **gateway}
    return {"interfaceName": f"{kind}0", "hardwareType": kind, "addressProfiles": [address]}


def _vpn_profiles(agent: Agent, network: Network) -> list[Payload]:
    if not (gateway := agent.vpn(network)):
        return []
    profile = {
        "interfaceName": "virtual0",
        "vpnType": "cisco-anyconnect" if gateway == SLOW_VPN else "palo-alto-globalprotect",
        "vpnGatewayAddress": gateway,
        "vpnClientAddresses": [f"10.100.{agent.number >> 8 & 255}.{agent.number & 255}"],
        "vpnClientNetworkRange": ["10.100.0.0/16"],
    }
    return [profile]


def account_groups(request: ApiRequest, world: World) -> Payload:
    """Return all account groups."""
    records = [
        {
            "aid": str(aid),
            "accountGroupName": name,
            "organizationName": ORGANIZATION,
            "isCurrentAccountGroup": aid == min(world.groups),
        }
        for aid, name in world.groups.items()
    ]
    return {"accountGroups": records, "_links": {"self": {"href": str(request.url)}}}


TESTS = "/v7/endpoint/test-results"
USERS = partial(results, api.USER_SESSIONS, user_session)
NETWORKS = partial(results, api.NETWORK_SESSIONS, network_session)
PROBES = partial(results, api.PROBES, local_network)
ENDPOINTS: dict[tuple[str, str], api.Endpoint] = {
    ("POST", f"{TESTS}/real-user-tests/filter"): USERS,
    ("POST", f"{TESTS}/real-user-tests/networks/filter"): NETWORKS,
    ("POST", f"{TESTS}/local-networks/topologies/filter"): PROBES,
    ("GET", "/v7/endpoint/agents"): agents,
    ("GET", "/v7/account-groups"): account_groups,
}
"""Endpoints by method and path."""
