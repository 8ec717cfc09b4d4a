"""A simulated company: its agents, the sites that they visit, and the sessions of every minute.

Everything is a function of the seed and the time. The sessions of a minute depend on the seed, the
account group and the minute alone: the same range always has the same sessions, in both versions of
the API. Field names and units follow the ThousandEyes API v7 reference. Addresses, names and AS
numbers are reserved for documentation and tests (RFC 2544, 2606, 5398 and 5737).

What dashboards and alerts should find:

- one site is **degraded** for 20 minutes of each hour: high latency, jitter and loss, low scores;
- one office has a **slow** link, all day and to all sites;
- one laptop is **overloaded**: its CPU and memory are full;
- one agent has **bad Wi-Fi**: packet loss of 10 % or more in most sessions;
- working from home through the **VPN** adds latency.
"""

# ruff: noqa: S311, SIM905  pseudo-random numbers, and lists of words

import math
from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from functools import lru_cache
from operator import attrgetter
from random import Random
from uuid import UUID

from msgspec import Struct, structs

HOUR = 3600
DAY = 24 * HOUR
ROUND_SECONDS = 60
SESSION_SECONDS = 120  # in which the number of pages of a session grows
MAX_COMMIT_DELAY = 240  # seconds from a session to its commit
DEGRADED_SECONDS = 1200  # of each hour
BUSY_SECONDS = 600  # agents are busy or idle for this long: sessions come in bursts
BUSY_SESSIONS = (0, 0, 1, 1, 1, 2, 3)  # of a busy agent in one minute, equally likely
NIGHT, DAYTIME, WORKING_HOURS = 0.24, 0.5, 0.75  # share of the agents that are busy
CACHED_ROUNDS = 32
VPN_GATEWAY, VPN_DETOUR_MS = "203.0.113.250", 45


class Network(Struct, frozen=True, gc=False):
    """A network that a laptop is connected to; `ssid` and `bssid` are `None` on Ethernet."""

    id: str
    gateway: str
    public_ip: str
    as_number: int
    organization: str
    ssid: str | None = None
    bssid: str | None = None


class Office(Struct, frozen=True, gc=False):
    """A city; `utc_offset` in hours, `delay_ms` is what its link adds to every round trip."""

    code: str
    location: str
    utc_offset: float
    delay_ms: int = 0
    proxy: str | None = None

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
    Office("BLR", "Bengaluru, Karnataka, India", 5.5, delay_ms=230),
    Office("SFO", "San Francisco, California, US", -8),
    Office("BER", "Berlin, Germany", 1, proxy="203.0.113.240"),
    Office("SYD", "Sydney, New South Wales, Australia", 10),
    Office("NYC", "New York, New York, US", -5),
    Office("SAO", "São Paulo, Brazil", -3),
    Office("SIN", "Singapore", 8),
)


def _office_network(office: Office, wireless: bool) -> Network:
    n = OFFICES.index(office) + 1
    id_ = f"0a5e{n:08x}" if wireless else f"0a5f{n:08x}"
    wifi = ("Example Office", f"02:00:5e:10:00:{n:02x}") if wireless else ()
    return Network(id_, f"10.{n}.0.1", f"203.0.113.{n}", 64496, ORGANIZATION, *wifi)


def _home_network(rng: Random, number: int, wireless: bool) -> Network:
    provider = rng.randrange(len(PROVIDERS))
    id_ = f"{rng.getrandbits(48):012x}"
    gateway = "192.168.1.1" if rng.random() < 0.6 else "192.168.178.1"
    address = f"198.19.{number >> 8 & 255}.{number & 255}"
    wifi = (f"home-{number:05}", f"02:{rng.randbytes(5).hex(':')}") if wireless else ()
    return Network(id_, gateway, address, 64497 + provider, PROVIDERS[provider], *wifi)


class Site:
    """A host that agents visit; `distance_ms` is its normal round-trip time.

    `ping` is `answered`, `blocked` (its sessions have only the address of the destination) or
    `absent` (no `destination` at all). The second site is degraded from the second `degraded_at` of
    each hour; for others, this is `None`.
    """

    def __init__(self, rng: Random, number: int, degraded_at: int) -> None:
        copy, index = divmod(number, len(HOSTS) * len(DOMAINS))
        name, domain = HOSTS[index % len(HOSTS)], DOMAINS[index // len(HOSTS)]
        self.host = f"{name}{copy + 1 if copy else ''}.{domain}"
        self.protocol = "http" if number % 9 == 7 else "https"
        self.address = f"198.18.{number >> 8 & 255}.{number & 255}"
        self.distance_ms = rng.randrange(8, 60)
        self.ping = {4: "blocked", 11: "absent"}.get(number % 13, "answered")
        self.degraded_at = degraded_at if number == 1 else None

    def degradation(self, when: int) -> float:
        """Return the degree of degradation at Unix time `when`, from 0 (none) to 1."""
        if self.degraded_at is None:
            return 0.0
        elapsed = (when - self.degraded_at) % HOUR
        return math.sin(math.pi * (elapsed + 60) / 1320) if elapsed < DEGRADED_SECONDS else 0.0


class Agent:
    """A laptop; `created_at` in Unix seconds, `cpu_load` and `memory_load` from 0 to 1.

    In the first account group, the first is overloaded, and the second has bad Wi-Fi. `hardware`
    has further fields of the listing of agents.
    """

    def __init__(self, rng: Random, number: int, account_groups: int) -> None:
        self.number = number
        self.aid = 1001 + number % account_groups
        self.overloaded = number == 0
        self.bad_wifi = number == account_groups
        self.office = OFFICES[number // account_groups % len(OFFICES)]
        given, family = rng.choice(GIVEN_NAMES), rng.choice(FAMILY_NAMES)
        kind, *hardware = rng.choice(MACS if rng.random() < 0.4 else PCS)
        self.name = f"{given}-{family}-{kind}".lower()
        self.computer_name = f"{self.office.code}-{kind[:3].upper()}-{number:05}"
        self.user_name = f"{given[0]}{family}{number}".lower()
        self.hardware = dict(zip(HARDWARE, hardware, strict=True))
        self.id = str(UUID(int=rng.getrandbits(128), version=4))
        self.serial_number = f"{rng.getrandbits(40):010X}"
        self.version = rng.choice(VERSIONS)
        self.license_type = "essentials" if rng.random() < 0.25 else "advantage"
        self.memory_mb = 8192 if self.overloaded else rng.choice((8192, 16384, 16384, 32768))
        self.created_at = 1_700_000_000 + rng.randrange(300) * DAY + rng.randrange(DAY)
        self.office_network = _office_network(self.office, self.bad_wifi or rng.random() < 0.7)
        self.home_network = _home_network(rng, number, self.bad_wifi or rng.random() < 0.9)
        self.office_days = rng.sample(range(5), k=3)
        self.uses_vpn = rng.random() < 0.35 and not (self.overloaded or self.bad_wifi)
        self.reports_cpu = self.overloaded or rng.random() < 0.92
        self.cpu_load = 0.92 if self.overloaded else 0.04 + 0.4 * rng.random()
        self.memory_load = 0.96 if self.overloaded else 0.35 + 0.35 * rng.random()

    def network(self, when: int) -> Network:
        """Return the network that it is connected to at Unix time `when`."""
        weekday, hour = self.office.local(when)
        in_office = 8 <= hour < 18 and weekday in self.office_days
        return self.office_network if in_office else self.home_network


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


class Session(Struct, frozen=True, gc=False):
    """One visit; nearly all are in both listings, user (`listed`) and network (`measured`)."""

    id: str
    agent: Agent
    network: Network
    site: Site
    round_id: int
    date: int
    committed: int
    pages: int
    page_id: str
    trigger: str
    experience_score: float | None
    destination: NetworkMetrics | None
    vpn: NetworkMetrics | None
    proxy: NetworkMetrics | None
    system: SystemMetrics
    listed: bool = True
    measured: bool = True

    def at(self, now: float) -> "Session":
        """Return the session as known at Unix time `now`: its number of pages grows at first."""
        age = max(0.0, now - self.date)
        if self.pages == 1 or age >= SESSION_SECONDS:
            return self
        return structs.replace(self, pages=1 + int((self.pages - 1) * age / SESSION_SECONDS))


class World:
    """A company of a given seed and size.

    `groups` maps account group ids to names; the first is that of the token's user. The size of a
    round is `sessions_per_minute` in each account group; by default, it depends on the local time.
    `vanished` maps agent ids to the Unix time from which they are not listed and have no sessions;
    other agents do not change. One site is degraded from the second `degraded_at` of each hour.
    """

    def __init__(
        self,
        seed: int = 1,
        agents: int = 200,
        sites: int = 20,
        account_groups: int = 1,
        sessions_per_minute: int | None = None,
        vanished: Mapping[str, float] | None = None,
        degraded_at: int = 1200,
    ) -> None:
        if min(agents, sites, account_groups) < 1:
            raise ValueError("agents, sites and account_groups must be at least 1")
        self.seed = seed
        self.sessions_per_minute = sessions_per_minute
        self.vanished = vanished or {}
        names = [f"Example {DEPARTMENTS[n % 10]} {n // 10 + 1}" for n in range(account_groups)]
        self.groups = {1001 + n: name.removesuffix(" 1") for n, name in enumerate(names)}
        rng = Random(f"{seed}/people")
        self.agents = [Agent(rng, n, account_groups) for n in range(agents)]
        rng = Random(f"{seed}/sites")
        self.sites = [Site(rng, n, degraded_at) for n in range(sites)]

    def without(self, agent_ids: Iterable[str]) -> "World":
        """Return the same world without these agents."""
        return self.vanishing(dict.fromkeys(agent_ids, 0.0))

    def vanishing(self, times: Mapping[str, float]) -> "World":
        """Return the same world in which these agents vanish at the given Unix times."""
        world = copy(self)
        world.vanished = {**self.vanished, **times}
        return world

    def agents_of(self, aid: int, now: float) -> list[Agent]:
        """Return the agents of an account group that have not vanished at Unix time `now`."""
        agents = self.agents[aid - 1001 :: len(self.groups)]
        return [a for a in agents if now <= self.vanished.get(a.id, math.inf)]

    def sessions(self, aid: int, start: float, end: float, now: float) -> Iterator[Session]:
        """Yield the sessions of an account group from `start` to `end`, inclusive, by date.

        All times are Unix seconds. Sessions that are committed after `now` are left out.
        """
        first = math.floor(start) // ROUND_SECONDS * ROUND_SECONDS
        for round_id in range(first, math.floor(min(end, now)) + 1, ROUND_SECONDS):
            sessions = self.round(aid, round_id)
            if round_id < start or end < round_id + ROUND_SECONDS:
                low = bisect_left(sessions, start, key=attrgetter("date"))
                sessions = sessions[low : bisect_right(sessions, end, key=attrgetter("date"))]
            if now < round_id + ROUND_SECONDS + MAX_COMMIT_DELAY:
                sessions = tuple(s.at(now) for s in sessions if s.committed <= now)
            yield from sessions

    @lru_cache(CACHED_ROUNDS)  # noqa: B019  at most so many rounds keep their worlds alive
    def round(self, aid: int, round_id: int) -> tuple[Session, ...]:
        """Return all sessions of the minute that starts at `round_id`, by date and id."""
        rng = Random(f"{self.seed}/{aid}/{round_id}")
        found: list[Session] = []
        for agent, count in self._counts(rng, aid, round_id):
            found += self._minute(rng, agent, count, round_id)
        if self.vanished:
            found = [s for s in found if s.date <= self.vanished.get(s.agent.id, math.inf)]
        return tuple(sorted(found, key=attrgetter("date", "id")))

    def _counts(self, rng: Random, aid: int, round_id: int) -> Iterator[tuple[Agent, int]]:
        """Yield agents and their numbers of sessions in one round."""
        agents = self.agents[aid - 1001 :: len(self.groups)]
        if self.sessions_per_minute:
            chosen = Counter(rng.choices(range(len(agents)), k=self.sessions_per_minute))
            yield from ((agents[n], count) for n, count in sorted(chosen.items()))
            return
        busy = Random(f"{self.seed}/{aid}/busy/{round_id // BUSY_SECONDS}")
        activity = {office.code: office.activity(round_id) for office in OFFICES}
        for agent in agents:
            if busy.random() < activity[agent.office.code]:
                yield agent, BUSY_SESSIONS[int(rng.random() * len(BUSY_SESSIONS))]

    def _minute(self, rng: Random, agent: Agent, count: int, round_id: int) -> Iterator[Session]:
        """Yield sessions of an agent in one round; most share one period of system metrics."""
        network = agent.network(round_id)
        system = None
        for _ in range(count):
            date = round_id + int(rng.random() * ROUND_SECONDS)
            if system is None or rng.random() < 0.2:
                system = _system_metrics(rng, agent, date)
            site = self.sites[int(rng.random() ** 1.7 * len(self.sites))]
            yield _session(rng, agent, network, site, system, date)


def _session(
    rng: Random, agent: Agent, network: Network, site: Site, system: SystemMetrics, date: int
) -> Session:
    random = rng.random
    round_id = date - date % ROUND_SECONDS
    at_home = network is agent.home_network
    degradation = site.degradation(date)
    vpn = _ping(rng, agent, VPN_GATEWAY, 18) if agent.uses_vpn and at_home else None
    office_proxy = agent.office.proxy
    proxy = _ping(rng, agent, office_proxy, 6) if office_proxy and not at_home else None
    # The experience score does not depend on whether the site answers pings.
    distance_ms = site.distance_ms + (VPN_DETOUR_MS if vpn else 0)
    experienced = _ping(rng, agent, site.address, distance_ms, degradation)
    unanswered = NetworkMetrics(site.address) if site.ping == "blocked" else None
    ids = b64encode(rng.randbytes(12), b"Zz").decode()
    listing = random()
    late = random() >= 0.98
    delay = 4 + int((MAX_COMMIT_DELAY - 3) * random()) if late else 1 + int(3 * random())
    return Session(
        id=f"{agent.aid:05}:{round_id}:{ids[:8]}",
        agent=agent,
        network=network,
        site=site,
        round_id=round_id,
        date=date,
        committed=date + delay,
        pages=1 + int(6 * random() ** 2),
        page_id=ids[8:],
        trigger="auto" if random() < 0.97 else "user",
        experience_score=_score(experienced, agent, degradation) if random() < 0.95 else None,
        destination=experienced if site.ping == "answered" else unanswered,
        vpn=vpn,
        proxy=proxy,
        system=system,
        listed=not 0.02 <= listing < 0.025,
        measured=listing >= 0.02,
    )


def _ping(
    rng: Random, agent: Agent, target: str, distance_ms: int, degradation: float = 0.0
) -> NetworkMetrics:
    random = rng.random
    factor = 0.85 + 0.3 * random() + random() ** 12
    delay_ms = 420 * degradation * (0.8 + 0.4 * random())
    latency = int((distance_ms + agent.office.delay_ms) * factor + delay_ms) + 1
    wifi_jitter = 35 * random() if agent.bad_wifi else 0
    jitter = int(latency * 0.06 * random() + 60 * degradation + wifi_jitter) + 1
    lossy = random() < (0.6 if agent.bad_wifi else 0.02 + 0.5 * degradation)
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
        load = agent.cpu_load + (1 - agent.cpu_load) * 0.4 * rng.random()
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
WINDOWS_10 = ("windows", "Microsoft Windows 10 Enterprise", "10.0.19045")
WINDOWS_11 = ("windows", "Microsoft Windows 11 Enterprise", "10.0.26100")
MACOS_14 = ("mac", "Version 14.7.8 (Build 23H730)", "23.6.0")
MACOS_15 = ("mac", "Version 15.6.1 (Build 24G90)", "24.6.0")
HARDWARE = "platform osVersion kernelVersion manufacturer model nicModel nicDriverVersion".split()
PCS = (
    ("thinkpad", *WINDOWS_11, "LENOVO", "21HM000FUS", *INTEL),
    ("latitude", *WINDOWS_11, "Dell Inc.", "Latitude 7440", *INTEL),
    ("elitebook", *WINDOWS_10, "HP", "EliteBook 840 G9", *INTEL),
)
MACS = (
    ("macbook", *MACOS_15, "Apple, Inc.", "Mac16,1", *APPLE),
    ("macbook", *MACOS_14, "Apple, Inc.", "Mac14,2", *APPLE),
)
