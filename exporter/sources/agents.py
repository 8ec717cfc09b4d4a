"""The source `agents`: names, versions and connections of the agents of an account group."""

# ruff: noqa: E501  one line for each family

import asyncio
import hashlib
import hmac
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec
import structlog
from msgspec import Raw, Struct

from exporter.clock import poll_deadline
from exporter.errors import PollError
from exporter.labels import sanitize
from exporter.metrics.families import (
    COUNT,
    DECIBEL_MILLIWATTS,
    MEGABITS_PER_SECOND,
    RATIO,
    Family,
    SeriesTable,
    Table,
)
from exporter.sources.results import Result
from exporter.sources.rows import Key
from exporter.sources.source import TIME_LIMIT_RATIO, Context, Source
from exporter.thousandeyes import v6, v7
from exporter.thousandeyes.schema import Id, Listing, Record, Rejected, parse_time

log = structlog.get_logger()

_INTERFACE = "networkInterfaceProfiles"
_ONE = "Always 1, one series per agent."

INFO = Table(
    ("agent", "agent_name", "platform", "agent_version", "os_version", "location"),
    (Family("agent_info", "Information about an agent", "", COUNT, "last", _ONE),),
)
CONNECTION = Table(
    ("agent", "connection", "isp", "vpn"),
    (Family("agent_connection_info", "Connection of an agent: hardware type of the interface in use, network provider, VPN", f"{_INTERFACE}[].hardwareType, asnDetails.asName, vpnProfiles[].vpnType", COUNT, "last", _ONE),),
)  # fmt: skip
STATE = Table(
    ("agent",),
    (
        Family("agent_last_seen_timestamp_seconds", "When the agent last contacted the API, Unix time", "lastSeen", COUNT, "last"),
        Family("agent_wifi_signal_dbm", "Signal strength of the Wi-Fi in use", f"{_INTERFACE}[].wirelessProfile.rssi", DECIBEL_MILLIWATTS, "last"),
        Family("agent_link_speed_bytes_per_second", "Link speed of the Ethernet in use", f"{_INTERFACE}[].ethernetProfile.linkSpeed", MEGABITS_PER_SECOND, "last"),
        Family("agent_disk_free_ratio", "Free disk space, 0 to 1", "freeDiskSpaceNormalized", RATIO, "last"),
    ),
)  # fmt: skip
FAILURES = Table(
    ("agent", "reason"),
    (Family("agent_measurement_failure", "Why an agent cannot measure", "agentExplainabilityFailures[].reasonCode", COUNT, "last", "Always 1; no series if it can."),),
)  # fmt: skip
TABLES = (INFO, CONNECTION, STATE, FAILURES)

EXPANSIONS = {"expand": f"{_INTERFACE},vpnProfiles"}
"""Query that asks API v7 for interfaces and VPNs."""
MAX_INTERFACES = 100
"""Maximum number of interfaces of an agent that are compared."""
_PREFERENCE = {"ethernet": 0, "wireless": 1, "modem": 2}
"""Which of several interfaces that are connected carries the traffic."""


class Agent(Struct, frozen=True, gc=False):
    """One endpoint agent; empty strings and NaN for what the API did not send."""

    id: str
    name: str
    info: Key
    """The other labels of `INFO`."""
    connection: Key
    """Labels of `CONNECTION`."""
    state: Sequence[float]
    """Values of the families of `STATE`."""
    failures: Sequence[str]
    """Codes of the reasons why it cannot measure."""


class _Details(Struct, gc=False, rename="camel"):
    """What is read of the objects in an agent; each of them has one of these fields."""

    location_name: str | None = None
    as_name: str | None = None
    vpn_type: str | None = None
    reason_code: str | None = None
    rssi: float | None = None
    link_speed: float | None = None


class _Address(Struct, gc=False, rename="camel"):
    """Only whether there is an address is used, so it stays undecoded."""

    ip_address: Raw = Raw(b"null")
    gateway: Raw = Raw(b"null")


class _Interface(Struct, gc=False, rename="camel"):
    hardware_type: str | None = None
    address_profiles: list[_Address] | None = None
    ethernet_profile: _Details | None = None
    wireless_profile: _Details | None = None

    def rank(self) -> tuple[bool, bool, int]:
        """Order of preference; the smallest is the interface in use."""
        addresses = self.address_profiles or ()
        connected = any(_sent(each.ip_address) and _sent(each.gateway) for each in addresses)
        ethernet = self.ethernet_profile
        no_link = ethernet is not None and ethernet.link_speed == 0
        return not connected, no_link, _PREFERENCE.get(self.hardware_type or "", 3)


def _sent(value: Raw) -> bool:
    return bytes(value) not in (b"null", b'""')


class AgentRecord(Record[Agent]):
    """An endpoint agent."""

    id: Id
    name: str | None = None
    platform: str | None = None
    version: str | None = None
    os_version: str | None = None
    location: _Details | None = None
    last_seen: str | None = None
    free_disk_space_normalized: float | None = None
    asn_details: _Details | None = None
    agent_explainability_failures: list[_Details] | None = None
    network_interface_profiles: list[_Interface] | None = None
    vpn_profiles: list[_Details] | None = None

    def convert(self, values: bytes, rejected: Rejected) -> Agent:
        """See `Record.convert`."""
        nothing = _Details()
        interfaces = (self.network_interface_profiles or [_Interface()])[:MAX_INTERFACES]
        interface = min(interfaces, key=_Interface.rank)
        wireless = interface.wireless_profile or nothing
        ethernet = interface.ethernet_profile or nothing
        location, asn = self.location or nothing, self.asn_details or nothing
        vpn = min(sanitize(each.vpn_type) for each in self.vpn_profiles or [nothing])
        info = self.platform, self.version, self.os_version, location.location_name
        time = parse_time(self.last_seen, rejected)
        state = (
            time.timestamp() if time else None,
            wireless.rssi,
            ethernet.link_speed and ethernet.link_speed / MEGABITS_PER_SECOND.divisor,
            self.free_disk_space_normalized,
        )
        failures = {sanitize(each.reason_code) for each in self.agent_explainability_failures or ()}
        return Agent(
            sanitize(self.id),
            sanitize(self.name),
            tuple(map(sanitize, info)),
            (sanitize(interface.hardware_type), sanitize(asn.as_name), vpn),
            tuple(math.nan if value is None else value for value in state),
            tuple(sorted(failures - {""})),
        )


class _V6AgentRecord(AgentRecord):
    id: Id = msgspec.field(name="agentId")
    name: str | None = msgspec.field(name="agentName", default=None)


@dataclass(frozen=True, slots=True)
class AgentsResult(Result):
    """What agents publish."""

    agents: Sequence[Agent] = ()


def agent_names(mode: Literal["plain", "hashed", "off"], key: str = "") -> Callable[[str], str]:
    """Return the function that replaces or removes the name of an agent.

    A hashed name is the first 16 hexadecimal digits of the HMAC-SHA-256 of the name: the same for
    the same key in every replica and after every restart.
    """

    def hashed(name: str) -> str:
        return name and hmac.digest(key.encode(), name.encode(), hashlib.sha256).hex()[:16]

    return {"plain": lambda name: name, "hashed": hashed, "off": lambda name: ""}[mode]


@dataclass(frozen=True, slots=True)
class AgentsConfig:
    """How agents are polled and published."""

    interval: float
    """Seconds between polls."""
    names: Callable[[str], str]
    """Returns the name as it is published."""
    accepts: Callable[[str], bool]
    """Returns whether an agent id is published."""
    publish: bool = True
    """Whether there are metrics by agent."""


class AgentsSource(Source):
    """Agents of one account group; the last complete listing stays published until the next."""

    name = "agents"
    priority = 1
    listings: ClassVar = {
        "v6": (Listing("/v6/endpoint-agents.json", v6.Envelope, "endpointAgents", _V6AgentRecord),),
        "v7": (Listing("/v7/endpoint/agents", v7.Envelope, "agents", AgentRecord),),
    }

    result: AgentsResult

    def __init__(self, aid: str, context: Context, config: AgentsConfig) -> None:
        super().__init__(aid, context, config.interval)
        self.result = AgentsResult()
        self._config = config
        self._expand = context.api.version == "v7"

    async def poll(self) -> dict[str, object]:
        """Query the agents; returns fields for the log. Raises `PollError`."""
        try:
            agents = await self._read()
        except PollError as error:
            if error.status != 400 or not self._expand:
                raise
            self._expand = False
            hint = "connections, Wi-Fi signal, link speed and VPNs of agents are not published"
            log.warning("agents_not_expanded", aid=self.aid, error=str(error), hint=hint)
            agents = await self._read()
        tables = await asyncio.to_thread(self._tables, agents)
        self.result = AgentsResult(tables, True, len(agents), agents)
        return {"agents": len(agents)}

    async def refresh(self, *, polled: bool) -> bool:
        """Do nothing, because agents do not expire; return whether the result has changed."""
        return polled

    async def _read(self) -> list[Agent]:
        """Return the agents that are published, sorted by id, each once."""
        async with poll_deadline(self.interval * TIME_LIMIT_RATIO) as deadline:
            (agents,), rejected = await self._api.read(
                self.listings[self._api.version],
                self.aid,
                deadline,
                parameters=(EXPANSIONS if self._expand else {}, None),
                priority=self.priority,
            )
        self.count_rejected(rejected)
        by_id = {agent.id: agent for agent in agents if self._config.accepts(agent.id)}
        return [by_id[id_] for id_ in sorted(by_id)]

    def _tables(self, agents: Sequence[Agent]) -> list[SeriesTable]:
        if not self._config.publish:
            return []
        name = self._config.names
        tables = [
            INFO.ones([(a.id, name(a.name), *a.info) for a in agents]),
            STATE.series([(a.id,) for a in agents], [a.state for a in agents]),
        ]
        if self._api.version == "v7":
            tables.append(CONNECTION.ones([(a.id, *a.connection) for a in agents]))
            tables.append(FAILURES.ones([(a.id, each) for a in agents for each in a.failures]))
        return tables
