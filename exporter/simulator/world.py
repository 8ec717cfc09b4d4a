"""A simulated company: its agents, their local networks, and the sessions at the sites they visit.

Everything is a function of the seed and the time: the same range always has the same records, in
both versions of the API. Field names and units follow the ThousandEyes API v7 reference. Addresses,
names and AS numbers are reserved for documentation and tests (RFC 2544, 2606, 5398 and 5737).

Dashboards and alerts should find the `PROBLEMS` of the company, which sessions and local networks
show alike, and that working from home through the VPN adds latency.
"""

# ruff: noqa: S311, SIM905  pseudo-random numbers, and lists of words

import math
from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from operator import attrgetter
from random import Random
from typing import Any
from uuid import UUID

from msgspec import Struct

HOUR = 3600
DAY = 24 * HOUR
ROUND_SECONDS = 60
MAX_COMMIT_DELAY = 240  # seconds from a session to its commit
FIRST_DEGRADED_SECONDS, DEGRADED_SECONDS = 2400, 1200  # of the first hour, of each later one
BUSY_SECONDS = 600  # agents are busy or idle for this long: sessions come in bursts
BUSY_SESSIONS = (0, 0, 1, 1, 1, 2, 3)  # of a busy agent in one minute, equally likely
NIGHT, DAYTIME, WORKING_HOURS = 0.24, 0.5, 0.75  # share of the agents that are busy
PROBE_ROUND_SECONDS = 300
VPN_MS, VPN_DETOUR_MS, PROXY_MS = 18, 45, 6
TARGETS = {"gateway": 2, "dns": 3, "vpn": VPN_MS, "proxy": PROXY_MS, "unknown": 2}  # distance, ms
SLOW_VPN, OTHER_VPN = "203.0.113.250", "203.0.113.251"
FAILURES = {2: "dns_failure", 12: "certificate_failure"}
PROBLEMS = {
    "degraded_site": "high latency, jitter and loss, and low scores of a site, every hour",
    "slow_gateway": "high latency in an office, at its gateway and to all sites",
    "overloaded_laptop": "full CPU and memory of a laptop",
    "weak_wifi": "a weak signal and packet loss in some homes",
    "slow_vpn": "high latency of a VPN gateway, and through it, from 9:00 to 10:30 UTC",
    "failing_agents": "two agents that cannot measure local networks",
    "lossy_gateway": "packet loss in an office, at its gateway and to all sites",
    "slow_dns": "a slow DNS server in an office",
}
DEFAULT_PROBLEMS = frozenset(PROBLEMS) - {"lossy_gateway", "slow_dns"}


class Network(Struct, frozen=True, gc=False):
    """A network of a laptop, on Ethernet without `ssid` and `bssid`.

    `delay_ms` and up to `jitter_ms` are added to every round trip; a share `loss` of pings, if it
    is not 0, has packet loss.
    """

    id: str
    gateway: str
    public_ip: str
    organization: str
    dns: str
    ssid: str | None = None
    bssid: str | None = None
    blocks_ping: bool = False
    delay_ms: int = 0
    jitter_ms: int = 0
    loss: float = 0.0
    dns_delay_ms: int = 0


class Office(Struct, frozen=True, gc=False):
    """A city; `utc_offset` in hours; `problem` sets `link`, fields of its agents' networks."""

    code: str
    location: str
    utc_offset: float
    problem: str = ""
    link: dict[str, Any] = {}
    proxy: str | None = None
    vpn: str = SLOW_VPN

    def local(self, when: int) -> tuple[int, int]:
        """Return the weekday (0 is Monday) and the hour at Unix time `when`."""
        local = when + int(self.utc_offset * HOUR)
        return (local // DAY + 3) % 7, local % DAY // HOUR

    def activity(self, when: int) -> float:
        """Return the share of its agents that are busy at Unix time `when`."""
        weekday, hour = self.local(when)
        if not 7 <= hour < 20:
            return NIGHT
        if weekday >= 5:
            return NIGHT * 1.2
        return WORKING_HOURS if 9 <= hour < 12 or 13 <= hour < 17 else DAYTIME


OFFICES = (
    Office("LON", "London, England, UK", 0),
    Office("BLR", "Bengaluru, Karnataka, India", 5.5, "slow_gateway", {"delay_ms": 230}),
    Office("SFO", "San Francisco, California, US", -8, vpn=OTHER_VPN),
    Office("BER", "Berlin, Germany", 1, proxy="203.0.113.240"),
    Office("SYD", "Sydney, New South Wales, Australia", 10),
    Office("NYC", "New York, New York, US", -5, "slow_dns", {"dns_delay_ms": 440}, vpn=OTHER_VPN),
    Office("SAO", "São Paulo, Brazil", -3, "lossy_gateway", {"loss": 0.7}, vpn=OTHER_VPN),
    Office("SIN", "Singapore", 8),
)


def _office_network(office: Office, wireless: bool, **link: Any) -> Network:
    n = OFFICES.index(office) + 1
    id_ = f"0a5e{n:08x}" if wireless else f"0a5f{n:08x}"
    wifi = ("Example Office", f"02:00:5e:10:00:{n:02x}") if wireless else ()
    address, dns = f"203.0.113.{n}", f"10.{n}.0.53"
    return Network(id_, f"10.{n}.0.1", address, ORGANIZATION, dns, *wifi, **link)


def _home_network(rng: Random, number: int, wireless: bool, **link: Any) -> Network:
    provider = PROVIDERS[rng.randrange(len(PROVIDERS))]
    id_ = f"{rng.getrandbits(48):012x}"
    gateway = "192.168.1.1" if rng.random() < 0.6 else "192.168.178.1"
    address = f"198.19.{number >> 8 & 255}.{number & 255}"
    wifi = (f"home-{number:05}", f"02:{rng.randbytes(5).hex(':')}") if wireless else ()
    link["blocks_ping"] = number % 10 == 8
    return Network(id_, gateway, address, provider, gateway, *wifi, **link)


class Site:
    """A host that agents visit; `distance_ms` is its normal round-trip time.

    `ping` is `answered`, `blocked` (its sessions have only the address of the destination) or
    `absent` (no `destination` at all).
    """

    def __init__(self, rng: Random, number: int) -> None:
        copy, index = divmod(number, len(HOSTS) * len(DOMAINS))
        name, domain = HOSTS[index % len(HOSTS)], DOMAINS[index // len(HOSTS)]
        self.host = f"{name}{copy + 1 if copy else ''}.{domain}"
        self.protocol = "http" if number % 9 == 7 else "https"
        self.address = f"198.18.{number >> 8 & 255}.{number & 255}"
        self.distance_ms = rng.randrange(8, 60)
        self.ping = {4: "blocked", 11: "absent"}.get(number % 13, "answered")
        self.degraded_at = math.inf

    def degradation(self, when: int) -> float:
        """Return the degree of degradation at Unix time `when`, from 0 (none) to 1."""
        if when < self.degraded_at:
            return 0.0
        hours, elapsed = divmod(when - self.degraded_at, HOUR)
        length = DEGRADED_SECONDS if hours else FIRST_DEGRADED_SECONDS
        phase = max(min(elapsed, DEGRADED_SECONDS // 2), elapsed - length + DEGRADED_SECONDS)
        return math.sin(math.pi * (phase + 60) / 1320) if elapsed < length else 0.0


class Agent:
    """A laptop; `created_at` in Unix seconds, `cpu_load` and `memory_load` from 0 to 1.

    `failure` is why it cannot measure local networks. `hardware` has more fields of the listing.
    """

    def __init__(self, rng: Random, number: int, groups: int, problems: Collection[str]) -> None:
        rank, group = divmod(number, groups)
        first, second = number == 0, number == groups
        self.number = number
        self.aid = 1001 + group
        self.office = OFFICES[rank % len(OFFICES)]
        given, family = rng.choice(GIVEN_NAMES), rng.choice(FAMILY_NAMES)
        kind, *hardware = rng.choice(MACS if rng.random() < 0.4 else PCS)
        self.name = f"{given}-{family}-{kind}".lower()
        self.user_name = f"{given[0]}{family}{number}".lower()
        self.hardware = dict(zip(HARDWARE, hardware, strict=True))
        self.hardware["computerName"] = f"{self.office.code}-{kind[:3].upper()}-{number:05}"
        self.id = str(UUID(int=rng.getrandbits(128), version=4))
        self.hardware["serialNumber"] = f"{rng.getrandbits(40):010X}"
        self.version = rng.choice(VERSIONS)
        self.license_type = "essentials" if rng.random() < 0.25 else "advantage"
        self.memory_mb = 8192 if first else rng.choice((8192, 16384, 16384, 32768))
        self.created_at = 1_700_000_000 + rng.randrange(300) * DAY + rng.randrange(DAY)
        link = self.office.link if self.office.problem in problems else {}
        self.office_network = _office_network(self.office, second or rng.random() < 0.7, **link)
        home_wifi = second or rng.random() < 0.9
        if "weak_wifi" in problems and rank % 25 == 1 and home_wifi:
            link = {**link, "delay_ms": link.get("delay_ms", 0) + 40, "jitter_ms": 35, "loss": 0.6}
        self.home_network = _home_network(rng, number, home_wifi, **link)
        self.office_days = rng.sample(range(5), k=3)
        self.uses_vpn = rng.random() < 0.35 and not (first or second)
        self.reports_cpu = first or rng.random() < 0.92
        self.cpu_load = 0.2 if first else 0.04 + 0.4 * rng.random()
        self.memory_load = 0.5 if first else 0.35 + 0.35 * rng.random()
        self.overloaded = first and "overloaded_laptop" in problems
        if self.overloaded:
            self.cpu_load, self.memory_load = 0.92, 0.96
        failures = FAILURES if "failing_agents" in problems and not group else {}
        self.failure = failures.get(rank)

    def network(self, when: int) -> Network:
        """Return the network that it is connected to at Unix time `when`."""
        weekday, hour = self.office.local(when)
        in_office = 8 <= hour < 18 and weekday in self.office_days
        return self.office_network if in_office else self.home_network

    def vpn(self, network: Network) -> str | None:
        """Return the address of its VPN gateway, `None` where it does not use one."""
        return self.office.vpn if self.uses_vpn and network is self.home_network else None

    def proxy(self, network: Network) -> str | None:
        """Return the address of its proxy, `None` where it does not use one."""
        return self.office.proxy if network is self.office_network else None

    def signal(self, network: Network, when: int) -> int | None:
        """Return the signal strength of its Wi-Fi in dBm, `None` on Ethernet."""
        strength = (-83 if network.jitter_ms else -46 - self.number % 14) + when // HOUR % 5 - 2
        return strength if network.ssid else None


class NetworkMetrics(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Ten pings to one address, in ms and percent; `None` if it does not answer."""

    target: str
    latency: int | None = None
    jitter: int | None = None
    loss: float | None = None
    max_rtt: float | None = None


class Samples(Struct, frozen=True, gc=False, rename="camel"):
    """Summary of `count` samples of one quantity: a ratio from 0 to 1, or bytes."""

    min: float
    max: float
    mean: float
    median: float
    std_dev: float
    count: int


class SystemMetrics(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """CPU and memory of a laptop over ten seconds; old agents do not report CPU."""

    start_time_ms: int
    end_time_ms: int
    physical_memory_used_bytes: Samples
    physical_memory_total_bytes: int
    cpu_utilization: Samples | None = None


class Record(Struct, frozen=True, gc=False, kw_only=True):
    """What sessions and probes have in common; times in Unix seconds."""

    id: str
    agent: Agent
    network: Network
    round_id: int
    date: int
    committed: int
    system: SystemMetrics


class Session(Record, frozen=True, gc=False, kw_only=True):
    """One visit; nearly all are in both listings, user (`listed`) and network (`measured`)."""

    site: Site
    pages: int
    trigger: str
    experience_score: float | None
    destination: NetworkMetrics | None
    vpn: NetworkMetrics | None
    proxy: NetworkMetrics | None
    listed: bool = True
    measured: bool = True


class Probe(Record, frozen=True, gc=False, kw_only=True):
    """Pings to a gateway, DNS server, VPN gateway or proxy; `id` increases with `date`."""

    type: str
    ping: NetworkMetrics


class World:
    """A company of a given seed and size; all times are Unix seconds.

    `groups` maps account group ids to names; the first is that of the token's user. The size of a
    round is `sessions_per_minute` in each account group; by default, it depends on the local time.
    The company has the `problems`, by default all but the lossy gateway and the slow DNS server;
    `()` is a healthy one. Its second site is degraded for 40 minutes from the Unix time
    `degraded_at`, then for 20 minutes of each hour.
    """

    def __init__(
        self,
        seed: int = 1,
        agents: int = 200,
        sites: int = 20,
        account_groups: int = 1,
        sessions_per_minute: int | None = None,
        degraded_at: int = 1200,
        problems: Collection[str] = DEFAULT_PROBLEMS,
    ) -> None:
        self.seed = seed
        self.sessions_per_minute = sessions_per_minute
        self.problems = problems
        names = (f"Example {DEPARTMENTS[n % 10]} {n // 10 + 1}" for n in range(account_groups))
        self.groups = {aid: name.removesuffix(" 1") for aid, name in enumerate(names, 1001)}
        rng = Random(f"{seed}/people")
        self.agents = [Agent(rng, n, account_groups, problems) for n in range(agents)]
        rng = Random(f"{seed}/sites")
        self.sites = [Site(rng, n) for n in range(sites)]
        if "degraded_site" in problems and sites > 1:
            self.sites[1].degraded_at = degraded_at

    def agents_of(self, aid: int) -> list[Agent]:
        """Return the agents of an account group."""
        return self.agents[aid - 1001 :: len(self.groups)]

    def sessions(self, aid: int, start: float, end: float, now: float) -> Iterator[Session]:
        """Yield the sessions of an account group from `start` to `end`, inclusive, by date.

        Sessions that are committed after `now` are left out.
        """
        first = math.floor(start) // ROUND_SECONDS * ROUND_SECONDS
        for round_id in range(first, math.floor(min(end, now)) + 1, ROUND_SECONDS):
            for session in self.round(aid, round_id):
                if start <= session.date <= end and session.committed <= now:
                    yield session

    @lru_cache(32)  # noqa: B019  at most so many rounds keep their worlds alive
    def round(self, aid: int, round_id: int) -> tuple[Session, ...]:
        """Return all sessions of the minute that starts at `round_id`, by date and id."""
        rng = Random(f"{self.seed}/{aid}/{round_id}")
        busy: Iterable[tuple[Agent, int]]
        if self.sessions_per_minute:
            chosen = Counter(rng.choices(self.agents_of(aid), k=self.sessions_per_minute))
            busy = sorted(chosen.items(), key=lambda item: item[0].number)
        else:
            agents = self._busy(aid, round_id)
            busy = ((a, BUSY_SESSIONS[int(rng.random() * len(BUSY_SESSIONS))]) for a in agents)
        found = (s for agent, count in busy for s in self._minute(rng, agent, count, round_id))
        return tuple(sorted(found, key=attrgetter("date", "id")))

    def _busy(self, aid: int, when: int, online: float = math.inf) -> Iterator[Agent]:
        """Yield agents that are busy, and all agents of offices with an activity of `online`."""
        busy = Random(f"{self.seed}/{aid}/busy/{when // BUSY_SECONDS}")
        activity = {office.code: office.activity(when) for office in OFFICES}
        for agent in self.agents_of(aid):
            share = activity[agent.office.code]
            if busy.random() < share or share >= online:
                yield agent

    def probes(self, aid: int, start: float, end: float, now: float) -> Iterator[Probe]:
        """Yield the probes of an account group from `start` to `end`, inclusive, by date and id.

        Probes that are committed after `now` are left out. Agents send probes while they are
        online: in working hours, and when they are busy.
        """
        online = 0.0 if self.sessions_per_minute else DAYTIME
        first = math.floor(start) // PROBE_ROUND_SECONDS * PROBE_ROUND_SECONDS
        for round_id in range(first, math.floor(min(end, now)) + 1, PROBE_ROUND_SECONDS):
            for agent in self._busy(aid, round_id, online):
                date = round_id + PROBE_ROUND_SECONDS * agent.number // len(self.agents)
                if start <= date <= end and not agent.failure:
                    probes = self._probes(agent, round_id, date)
                    yield from (probe for probe in probes if probe.committed <= now)

    def _probes(self, agent: Agent, round_id: int, date: int) -> Iterator[Probe]:
        """Yield the probes of an agent in one round, which have the same system metrics."""
        rng = Random(f"{self.seed}/{agent.id}/{round_id}")
        network = agent.network(round_id)
        common: dict[str, Any] = {"agent": agent, "network": network, "round_id": round_id}
        common |= {"date": date, "system": _system_metrics(rng, agent, date)}
        common["committed"] = date + _commit_delay(rng)
        other = network.gateway if agent.number % 20 == 4 else None
        addresses = network.gateway, network.dns, agent.vpn(network), agent.proxy(network), other
        for n, (type_, address) in enumerate(zip(TARGETS, addresses, strict=True)):
            if address:
                distance_ms = TARGETS[type_] + self._vpn_delay(address, date)
                ping = _ping(rng, network, address, distance_ms, loss=0.002)
                yield Probe(id=f"{agent.number:07}/{n}", type=type_, ping=ping, **common)

    def _vpn_delay(self, address: str | None, when: int) -> int:
        """Return the milliseconds that an overloaded VPN gateway adds to every round trip."""
        slow = address == SLOW_VPN and "slow_vpn" in self.problems
        return 170 if slow and 9 * HOUR <= when % DAY < 10.5 * HOUR else 0

    def _minute(self, rng: Random, agent: Agent, count: int, round_id: int) -> Iterator[Session]:
        """Yield sessions of an agent in one round; most share one period of system metrics."""
        random, network = rng.random, agent.network(round_id)
        gateway, office_proxy = agent.vpn(network), agent.proxy(network)
        system = None
        for _ in range(count):
            date = round_id + int(random() * ROUND_SECONDS)
            if system is None or random() < 0.2:
                system = _system_metrics(rng, agent, date)
            site = self.sites[int(random() ** 1.7 * len(self.sites))]
            degradation, delay_ms = site.degradation(date), self._vpn_delay(gateway, date)
            vpn = _ping(rng, network, gateway, VPN_MS + delay_ms) if gateway else None
            proxy = _ping(rng, network, office_proxy, PROXY_MS) if office_proxy else None
            # The experience score does not depend on whether the site answers pings.
            distance_ms = site.distance_ms + (VPN_DETOUR_MS + delay_ms if vpn else 0)
            ping = _ping(rng, network, site.address, distance_ms, degradation)
            unanswered = NetworkMetrics(site.address) if site.ping == "blocked" else None
            id_, listing = b64encode(rng.randbytes(12), b"Zz").decode()[:8], random()
            yield Session(
                id=f"{agent.aid:05}:{round_id}:{id_}",
                agent=agent,
                network=network,
                site=site,
                round_id=round_id,
                date=date,
                committed=date + _commit_delay(rng),
                pages=1 + int(6 * random() ** 2),
                trigger="auto" if random() < 0.97 else "user",
                experience_score=_score(ping, agent, degradation) if random() < 0.95 else None,
                destination=ping if site.ping == "answered" else unanswered,
                vpn=vpn,
                proxy=proxy,
                system=system,
                listed=not 0.02 <= listing < 0.025,
                measured=listing >= 0.02,
            )


def _commit_delay(rng: Random) -> int:
    late = rng.random() >= 0.98
    return 4 + int((MAX_COMMIT_DELAY - 3) * rng.random()) if late else 1 + int(3 * rng.random())


def _ping(
    rng: Random, network: Network, target: str, ms: int, degradation: float = 0, loss: float = 0.02
) -> NetworkMetrics:
    random = rng.random
    factor = 0.85 + 0.3 * random() + random() ** 12
    delay_ms = 420 * degradation * (0.8 + 0.4 * random())
    latency = int((ms + network.delay_ms) * factor + delay_ms) + 1
    wifi_jitter = network.jitter_ms * random() if network.jitter_ms else 0
    jitter = int(latency * 0.06 * random() + 60 * degradation + wifi_jitter) + 1
    lossy = random() < (network.loss or loss + 0.5 * degradation)
    lost = 1 + int(4 * random() ** 2) if lossy else 0
    max_rtt = int((latency + jitter * (1.2 + 1.5 * random())) * 1024) / 1024
    return NetworkMetrics(target, latency, jitter, 10.0 * lost, max_rtt)


def _score(ping: NetworkMetrics, agent: Agent, degradation: float) -> float:
    penalty = (ping.latency or 0) / 1500 + (ping.jitter or 0) / 500 + (ping.loss or 0.0) / 90
    penalty += 0.2 * degradation + (0.5 if agent.overloaded else 0.0)
    return max(0.02, round(0.98 - penalty, 3))


def _system_metrics(rng: Random, agent: Agent, date: int) -> SystemMetrics:
    end_ms = date * 1000 - int(4000 * rng.random())
    total = agent.memory_mb * 2**20
    used = agent.memory_load + 0.02 * rng.random()
    cpu = None
    if agent.reports_cpu:
        wave = 0.16 + 0.16 * math.sin(date / 1700 + agent.number)  # local networks agree
        load = agent.cpu_load + (1 - agent.cpu_load) * (wave + 0.08 * rng.random())
        cpu = _samples(rng, load, 0.03, 10)
    memory = _samples(rng, used, 0.0004, 11, total)
    return SystemMetrics(end_ms - 10_000 - int(9 * rng.random()), end_ms, memory, total, cpu)


def _samples(rng: Random, mean: float, spread: float, count: int, total: int = 0) -> Samples:
    """Make samples around a mean: a ratio, or a ratio of `total` bytes."""
    low, high = max(0.0, mean - 2 * spread), min(1.0, mean + 2 * spread)
    median = low + (high - low) * (0.4 + 0.2 * rng.random())
    if not total:
        return Samples(low, high, mean, median, spread * (0.6 + 0.4 * rng.random()), count)
    low, high, median = (float(int(ratio * total)) for ratio in (low, high, median))
    return Samples(low, high, mean * total, median, spread * total * 0.8, count)


ORGANIZATION = "Example Corporation"
DEPARTMENTS = (
    "Headquarters Logistics Finance Retail Energy Insurance Research Media Health Foundation"
).split()
HOSTS = (
    "mail crm wiki chat files calendar git intranet video tickets docs erp hr sso analytics learn "
    "travel payroll shop status"
).split()
DOMAINS = ("example.com", "example.net", "example.org")
PROVIDERS = ("Example Fibre", "Example Cable", "Example Telecom", "Example Mobile")
GIVEN_NAMES = (
    "Ada Amir Bianca Chidi Dana Emil Farah Grace Hana Ivan Jorge Keiko Lars Mei Nadia Olu Priya "
    "Quentin Rosa Sven Tomas Uma Vera Yusuf"
).split()
FAMILY_NAMES = (
    "Almeida Becker Castro Diaz Evans Fischer Gupta Haddad Ito Jansen Kowalski Lopez Meyer Nguyen "
    "Okafor Patel Rossi Singh Tanaka Weber"
).split()
VERSIONS = ("1.213.0", "1.213.0", "1.211.1", "1.198.4")
INTEL, APPLE = ("Intel(R) Wi-Fi 6 AX200 160MHz", "22.250.0.9"), ("AirPort Extreme", "1.0")
HARDWARE = ("platform", "osVersion", "nicModel", "nicDriverVersion")
PCS = (
    ("thinkpad", "windows", "Microsoft Windows 11 Enterprise", *INTEL),
    ("latitude", "windows", "Microsoft Windows 11 Enterprise", *INTEL),
    ("elitebook", "windows", "Microsoft Windows 10 Enterprise", *INTEL),
)
MACS = (
    ("macbook", "mac", "Version 15.6.1 (Build 24G90)", *APPLE),
    ("macbook", "mac", "Version 14.7.8 (Build 23H730)", *APPLE),
)
