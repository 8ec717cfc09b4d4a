"""A pretend company: its people, their laptops, and the sites they visit, minute by minute.

Left to others: how an API words it (v6, v7), serving it (server), and every mistake on the way (faults).

Nothing here reads a clock or keeps a state that matters: the sessions of a minute follow from the seed, the account
group and the minute alone, so any range can be asked at any time, twice is the same, and all API versions show one
world. Field names and units follow the ThousandEyes API v7 reference; addresses, host names and AS numbers are of the
ranges that RFC 5737, 6598, 2606, 2544 and 5398 set aside for examples.

The story that dashboards should find:

- one site **ails**: for twenty minutes of each hour it is slow, lossy and unpleasant;
- one office sits behind a **slow** link, all day, whoever asks and whatever for;
- one laptop is **tired**: its processors and its memory are full;
- one person has **bad Wi-Fi**: lost pings, one in ten or more;
- who works from home through the **VPN** waits longer than who sits in the office.
"""

# ruff: noqa: S311 - a world is not a secret

from __future__ import annotations

import math
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as remade
from functools import cached_property, lru_cache
from random import Random
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

ROUND = 60
"""Seconds from one round of sessions to the next."""
GROWING = 120
"""Seconds for which a visit goes on, and its number of pages grows."""
LATEST_COMMIT = 240
"""Seconds between a visit and its commit, at most."""
CACHED_ROUNDS = 32

HOUR = 3600
DAY = 24 * HOUR
BLOCK = 600
"""Seconds for which a person stays busy, or does not: visits come in bursts."""
BURST = (0, 0, 1, 1, 1, 2, 3)
"""How many visits a busy person makes in a minute: one of these."""

QUIET, AWAKE, BUSY = 0.24, 0.5, 0.75
"""Share of the people who are busy at night, in the day, and in the hours of work. Somebody always is."""

MEGABYTE = 2**20
VPN_GATEWAY = "203.0.113.250"
VPN_DETOUR_MS = 45


class AccountGroup(Struct, frozen=True, gc=False):
    """A department with its own agents; `aid` is its id, a number of at least 1001."""

    aid: int
    name: str
    organization: str = "Example Corporation"
    organization_id: int = 7625


class Network(Struct, frozen=True, gc=False):
    """Where a laptop is connected: `ssid` and `bssid` are `None` on a cable."""

    id: str
    gateway: str
    public_ip: str
    as_number: int
    organization: str
    ssid: str | None = None
    bssid: str | None = None

    @property
    def connection(self) -> str:
        """`wireless` or `ethernet`."""
        return "wireless" if self.ssid else "ethernet"


class Office(Struct, frozen=True, gc=False):
    """A city; `utc_offset` in hours, `delay_ms` is what its link adds to every round trip of its people."""

    code: str
    location: str
    latitude: float
    longitude: float
    utc_offset: float
    delay_ms: int = 0
    proxy: str | None = None

    def activity(self, when: int) -> float:
        """Share of its people who are busy at Unix time `when`."""
        local = when + int(self.utc_offset * HOUR)
        hour = local % DAY // HOUR
        if not 7 <= hour < 20:
            return QUIET
        if weekday(local) >= 5:
            return QUIET * 1.2
        return BUSY if 9 <= hour < 12 or 13 <= hour < 17 else AWAKE


OFFICES = (
    Office("LON", "London, England, UK", 51.5074, -0.1278, 0),
    Office("BLR", "Bengaluru, Karnataka, India", 12.9716, 77.5946, 5.5, delay_ms=230),
    Office("SFO", "San Francisco, California, US", 37.7749, -122.4194, -8),
    Office("BER", "Berlin, Germany", 52.52, 13.405, 1, proxy="203.0.113.240"),
    Office("SYD", "Sydney, New South Wales, Australia", -33.8688, 151.2093, 10),
    Office("NYC", "New York, New York, US", 40.7128, -74.006, -5),
    Office("SAO", "São Paulo, Brazil", -23.5505, -46.6333, -3),
    Office("SIN", "Singapore", 1.3521, 103.8198, 8),
)
SLOW_OFFICE = OFFICES[1]


class Site(Struct, frozen=True, gc=False):
    """A host that people visit; `distance_ms` is its round trip on a good day.

    `ping` tells what becomes of a ping: `answered`, `blocked` (the session has only the target's address), or `absent`
    (the session has no measurement of the destination at all).
    """

    host: str
    domain: str
    protocol: str
    port: int
    address: str
    distance_ms: int
    ping: str = "answered"
    ailing: bool = False

    def strain(self, when: int) -> float:
        """How badly it does at Unix time `when`: 0 is well, 1 the worst, minutes 20 to 40 of the hour if it ails."""
        minute = when % HOUR / 60
        return math.sin(math.pi * (minute - 19) / 22) if self.ailing and 20 <= minute < 40 else 0.0


class Hardware(Struct, frozen=True, gc=False):
    """What a laptop is, and runs on."""

    kind: str
    platform: str
    os_version: str
    kernel_version: str
    manufacturer: str
    model: str
    nic_model: str
    nic_driver_version: str


class Agent(Struct, frozen=True, gc=False):
    """A laptop with its person; memory in megabytes, `created_at` in Unix seconds, `load` and `fill` from 0 to 1."""

    id: str
    aid: int
    number: int
    name: str
    computer_name: str
    user_name: str
    hardware: Hardware
    serial_number: str
    version: str
    license_type: str
    memory_mb: int
    created_at: int
    office: Office
    desk: Network
    home: Network
    office_days: frozenset[int]
    uses_vpn: bool
    reports_cpu: bool
    load: float
    fill: float
    tired: bool = False
    bad_wifi: bool = False

    def place(self, when: int) -> Network:
        """Where it is connected at Unix time `when`."""
        local = when + int(self.office.utc_offset * HOUR)
        working = 8 <= local % DAY // HOUR < 18 and weekday(local) in self.office_days
        return self.desk if working else self.home

    def last_seen(self, now: float) -> int:
        """Unix time of its newest check-in, which happens once a minute."""
        return int(now) - (int(now) - self.number) % 60


class Leg(Struct, frozen=True, gc=False):
    """Ten pings to one address: milliseconds, loss in percent; all `None` where the address does not answer."""

    target: str
    latency: int | None = None
    jitter: int | None = None
    loss: float | None = None
    max_rtt: float | None = None

    @property
    def avg_rtt(self) -> int | None:
        """The same as the latency (v6 lists both)."""
        return self.latency

    @property
    def mean_dev_rtt(self) -> int | None:
        """The same as the jitter (v6 lists both)."""
        return self.jitter


class Samples(Struct, frozen=True, gc=False):
    """What became of `count` samples of one quantity: a ratio from 0 to 1, or bytes."""

    min: float
    max: float
    mean: float
    median: float
    std_dev: float
    count: int


class SystemMetrics(Struct, frozen=True, gc=False):
    """A laptop over about ten seconds, times in Unix milliseconds; old agents do not report the processors."""

    start_ms: int
    end_ms: int
    cpu: Samples | None
    memory: Samples
    memory_total: int


class Session(Struct, frozen=True, gc=False):
    """One visit. Times in Unix seconds; `experience_score` from 0 to 1, `None` where it was not computed.

    It is in the list of user sessions if `listed`, in that of network sessions if `measured`; nearly always in both.
    """

    id: str
    agent: Agent
    place: Network
    site: Site
    round_id: int
    date: int
    committed: int
    pages: int
    page_id: str
    trigger: str
    experience_score: float | None
    destination: Leg | None
    vpn: Leg | None
    proxy: Leg | None
    system: SystemMetrics
    listed: bool = True
    measured: bool = True

    @property
    def agent_id(self) -> str:
        """The agent's id, a UUID."""
        return self.agent.id

    @property
    def visited_site(self) -> str:
        """The host that was visited."""
        return self.site.host

    @property
    def protocol(self) -> str:
        """`https` or `http`."""
        return self.site.protocol

    def seen_at(self, now: float) -> Session:
        """Return what is known of it at Unix time `now`: pages are counted while the visit goes on."""
        if self.pages == 1 or now >= self.date + GROWING:
            return self
        return replace(self, pages=1 + int((self.pages - 1) * max(0.0, now - self.date) / GROWING))


@dataclass(frozen=True)
class World:
    """The company, for one seed and size.

    `sessions_per_minute` makes every round of every account group that long, whatever the hour. `vanished` maps agent
    ids to the Unix time after which the agent is not listed and visits nothing; the others do not notice.
    """

    seed: int = 1
    agents: int = 200
    sites: int = 20
    account_groups: int = 1
    sessions_per_minute: int | None = None
    vanished: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.agents, self.sites, self.account_groups) < 1:
            raise ValueError("a world needs at least one agent, one site and one account group")

    def without(self, agent_ids: Iterable[str]) -> World:
        """Return the same world in which these agents never were."""
        return self.vanishing(dict.fromkeys(agent_ids, 0.0))

    def vanishing(self, times: Mapping[str, float]) -> World:
        """Return the same world in which these agents fall silent after the given Unix times."""
        return remade(self, vanished={**self.vanished, **times})

    @cached_property
    def groups(self) -> tuple[AccountGroup, ...]:
        """The account groups; the first is the token's own."""
        return tuple(AccountGroup(1001 + n, _nth(_DEPARTMENTS, n)) for n in range(self.account_groups))

    @cached_property
    def people(self) -> tuple[Agent, ...]:
        """Every agent of every account group; they are dealt out in turn."""
        rng = Random(f"{self.seed}/people")
        return tuple(
            _agent(rng, n, self.groups[n % len(self.groups)].aid, self.account_groups) for n in range(self.agents)
        )

    @cached_property
    def websites(self) -> tuple[Site, ...]:
        """Every site, the most visited first."""
        rng = Random(f"{self.seed}/sites")
        return tuple(_site(rng, n) for n in range(self.sites))

    @cached_property
    def _by_group(self) -> dict[int, tuple[Agent, ...]]:
        return {group.aid: tuple(a for a in self.people if a.aid == group.aid) for group in self.groups}

    def agents_of(self, aid: int, now: float) -> list[Agent]:
        """Return the agents of an account group that have not vanished at Unix time `now`."""
        return [agent for agent in self._by_group[aid] if not self.is_vanished(agent, now)]

    def is_vanished(self, agent: Agent, when: float) -> bool:
        """Whether an agent has fallen silent before Unix time `when`."""
        return when > self.vanished.get(agent.id, math.inf)

    def sessions(self, aid: int, start: float, end: float, now: float) -> Iterator[Session]:
        """Yield what an account group visited from `start` to `end`, both inclusive, as known at `now`, in order.

        All in Unix seconds. Sessions that are committed only after `now` are left out.
        """
        for round_id in range(math.floor(start) // ROUND * ROUND, math.floor(min(end, now)) + 1, ROUND):
            young = round_id + ROUND + LATEST_COMMIT > now
            inside = start <= round_id and round_id + ROUND <= end
            for session in self.round(aid, round_id):
                if not inside and not start <= session.date <= end:
                    continue
                if not young:
                    yield session
                elif session.committed <= now:
                    yield session.seen_at(now)

    def round(self, aid: int, round_id: int) -> tuple[Session, ...]:
        """All sessions of the minute that starts at `round_id`, by date, as they will be once all are committed."""
        return self._rounds(aid, round_id)

    @cached_property
    def _rounds(self) -> Callable[[int, int], tuple[Session, ...]]:
        return lru_cache(maxsize=CACHED_ROUNDS)(self._make_round)

    def _make_round(self, aid: int, round_id: int) -> tuple[Session, ...]:
        rng = Random(f"{self.seed}/{aid}/{round_id}")
        visits = self._at_random(rng, aid) if self.sessions_per_minute else self._at_leisure(rng, aid, round_id)
        sessions = [session for agent, count in visits for session in self._stay(rng, agent, count, round_id)]
        sessions.sort(key=lambda session: (session.date, session.id))
        return tuple(s for s in sessions if not self.is_vanished(s.agent, s.date)) if self.vanished else tuple(sessions)

    def _at_random(self, rng: Random, aid: int) -> Iterable[tuple[Agent, int]]:
        people = self._by_group[aid]
        chosen = Counter(rng.choices(range(len(people)), k=self.sessions_per_minute or 0))
        return [(people[n], count) for n, count in sorted(chosen.items())]

    def _at_leisure(self, rng: Random, aid: int, round_id: int) -> Iterator[tuple[Agent, int]]:
        """Yield who visits how many sites: a person is busy for ten minutes, or is not."""
        mood = Random(f"{self.seed}/{aid}/mood/{round_id // BLOCK}")
        activity = {office.code: office.activity(round_id) for office in OFFICES}
        for agent in self._by_group[aid]:
            if mood.random() < activity[agent.office.code]:
                yield agent, BURST[int(rng.random() * len(BURST))]

    def _stay(self, rng: Random, agent: Agent, count: int, round_id: int) -> Iterator[Session]:
        """Yield one minute of one person; its visits mostly share one set of system metrics, some overlap it."""
        place = agent.place(round_id)
        system = None
        for _ in range(count):
            date = round_id + int(rng.random() * ROUND)
            if system is None or rng.random() < 0.2:
                system = _system(rng, agent, date)
            site = self.websites[int(rng.random() ** 1.7 * len(self.websites))]
            yield _visit(rng, agent, place, site, system, date)


def weekday(local: int) -> int:
    """Return the day of the week of local seconds since the epoch, 0 is Monday."""
    return (local // DAY + 3) % 7


def _visit(rng: Random, agent: Agent, place: Network, site: Site, system: SystemMetrics, date: int) -> Session:
    random = rng.random
    round_id = date - date % ROUND
    from_home = place is agent.home
    strain = site.strain(date)
    vpn = _leg(rng, agent, VPN_GATEWAY, 18) if agent.uses_vpn and from_home else None
    proxy = _leg(rng, agent, agent.office.proxy, 6) if agent.office.proxy and not from_home else None
    # The pings that do not answer are made all the same: what the person feels does not depend on them.
    felt = _leg(rng, agent, site.address, site.distance_ms + (VPN_DETOUR_MS if vpn else 0), strain)
    ids = b64encode(rng.randbytes(12), b"Zz").decode()
    fate = random()
    return Session(
        id=f"{agent.aid:05}:{round_id}:{ids[:8]}",
        agent=agent,
        place=place,
        site=site,
        round_id=round_id,
        date=date,
        committed=date + (1 + int(3 * random()) if random() < 0.98 else 4 + int((LATEST_COMMIT - 3) * random())),
        pages=1 + int(6 * random() ** 2),
        page_id=ids[8:],
        trigger="auto" if random() < 0.97 else "user",
        experience_score=_score(felt, agent, strain) if random() < 0.95 else None,
        destination=felt if site.ping == "answered" else Leg(site.address) if site.ping == "blocked" else None,
        vpn=vpn,
        proxy=proxy,
        system=system,
        listed=not 0.02 <= fate < 0.025,
        measured=fate >= 0.02,
    )


def _leg(rng: Random, agent: Agent, target: str, distance_ms: int, strain: float = 0.0) -> Leg:
    random = rng.random
    wobble = 0.85 + 0.3 * random() + random() ** 12
    latency = int((distance_ms + agent.office.delay_ms) * wobble + 420 * strain * (0.8 + 0.4 * random())) + 1
    jitter = int(latency * 0.06 * random() + 60 * strain + (35 * random() if agent.bad_wifi else 0)) + 1
    chance = 0.6 if agent.bad_wifi else 0.02 + 0.5 * strain
    lost = 1 + int(4 * random() ** 2) if random() < chance else 0
    max_rtt = int((latency + jitter * (1.2 + 1.5 * random())) * 1024) / 1024
    return Leg(target, latency, jitter, 10.0 * lost, max_rtt)


def _score(leg: Leg, agent: Agent, strain: float) -> float:
    pain = (leg.latency or 0) / 1500 + (leg.jitter or 0) / 500 + (leg.loss or 0.0) / 90 + 0.2 * strain
    return max(0.02, round(0.98 - pain - (0.5 if agent.tired else 0.0), 3))


def _system(rng: Random, agent: Agent, date: int) -> SystemMetrics:
    end_ms = date * 1000 - int(4000 * rng.random())
    total = agent.memory_mb * MEGABYTE
    used = agent.fill + 0.02 * rng.random()
    cpu = _samples(rng, agent.load + (1 - agent.load) * 0.4 * rng.random(), 0.03, 10) if agent.reports_cpu else None
    memory = _samples(rng, used, 0.0004, 11, float(total))
    return SystemMetrics(end_ms - 10_000 - int(9 * rng.random()), end_ms, cpu, memory, total)


def _samples(rng: Random, mean: float, spread: float, count: int, unit: float = 1.0) -> Samples:
    """Make samples around `mean`, a share of `unit`; what is counted in bytes stays a whole number but for the mean."""
    low, high = max(0.0, mean - 2 * spread), min(1.0, mean + 2 * spread)
    median = low + (high - low) * (0.4 + 0.2 * rng.random())
    if unit > 1:
        low, high, median = (float(int(share * unit)) for share in (low, high, median))
        return Samples(low, high, mean * unit, median, spread * unit * 0.8, count)
    return Samples(low, high, mean, median, spread * (0.6 + 0.4 * rng.random()), count)


def _agent(rng: Random, number: int, aid: int, group_count: int) -> Agent:
    """Make the laptop with this number; the first two of the company are the tired one and the one with bad Wi-Fi."""
    turn = number // group_count
    tired, bad_wifi = number == 0, turn == 1 and number % group_count == 0
    office = OFFICES[turn % len(OFFICES)]
    given, family = rng.choice(_GIVEN), rng.choice(_FAMILY)
    hardware = rng.choice(_MACS if rng.random() < 0.4 else _PCS)
    return Agent(
        id=str(UUID(int=rng.getrandbits(128), version=4)),
        aid=aid,
        number=number,
        name=f"{given}-{family}-{hardware.kind}".lower(),
        computer_name=f"{office.code}-{hardware.kind[:3].upper()}-{number:05}",
        user_name=f"{given[0]}{family}{number}".lower(),
        hardware=hardware,
        serial_number=f"{rng.getrandbits(40):010X}",
        version=rng.choice(_VERSIONS),
        license_type="essentials" if rng.random() < 0.25 else "advantage",
        memory_mb=8192 if tired else rng.choice((8192, 16384, 16384, 32768)),
        created_at=1_700_000_000 + rng.randrange(300) * DAY + rng.randrange(DAY),
        office=office,
        desk=_desk(office, wireless=bad_wifi or rng.random() < 0.7),
        home=_home(rng, number, wireless=bad_wifi or rng.random() < 0.9),
        office_days=frozenset(rng.sample(range(5), k=3)),
        uses_vpn=rng.random() < 0.35 and not (tired or bad_wifi),
        reports_cpu=tired or rng.random() < 0.92,
        load=0.92 if tired else 0.04 + 0.4 * rng.random(),
        fill=0.96 if tired else 0.35 + 0.35 * rng.random(),
        tired=tired,
        bad_wifi=bad_wifi,
    )


def _desk(office: Office, *, wireless: bool) -> Network:
    n = OFFICES.index(office) + 1
    return Network(
        id=f"0a5e{n:08x}" if wireless else f"0a5f{n:08x}",
        gateway=f"10.{n}.0.1",
        public_ip=f"203.0.113.{n}",
        as_number=64496,
        organization="Example Corporation",
        ssid="Example Office" if wireless else None,
        bssid=f"02:00:5e:10:00:{n:02x}" if wireless else None,
    )


def _home(rng: Random, number: int, *, wireless: bool) -> Network:
    provider = rng.randrange(len(_PROVIDERS))
    return Network(
        id=f"{rng.getrandbits(48):012x}",
        gateway="192.168.1.1" if rng.random() < 0.6 else "192.168.178.1",
        public_ip=f"198.19.{number >> 8 & 255}.{number & 255}",
        as_number=64497 + provider,
        organization=_PROVIDERS[provider],
        ssid=f"home-{number:05}" if wireless else None,
        bssid=":".join(["02", *(f"{byte:02x}" for byte in rng.randbytes(5))]) if wireless else None,
    )


def _site(rng: Random, number: int) -> Site:
    """Make the site with this number: the second ails, now and then one speaks HTTP or hides from pings."""
    domain = _DOMAINS[number // len(_HOSTS) % len(_DOMAINS)]
    copy = number // (len(_HOSTS) * len(_DOMAINS))
    secure = number % 9 != 7
    return Site(
        host=f"{_HOSTS[number % len(_HOSTS)]}{copy + 1 if copy else ''}.{domain}",
        domain=domain,
        protocol="https" if secure else "http",
        port=443 if secure else 80,
        address=f"198.18.{number >> 8 & 255}.{number & 255}",
        distance_ms=rng.randrange(8, 60),
        ping={4: "blocked", 11: "absent"}.get(number % 13, "answered"),
        ailing=number == 1,
    )


def _nth(names: tuple[str, ...], n: int) -> str:
    return names[n] if n < len(names) else f"{names[n % len(names)]} {n // len(names) + 1}"


_DEPARTMENTS = (
    "Example Headquarters", "Example Logistics", "Example Finance", "Example Retail", "Example Energy",
    "Example Insurance", "Example Research", "Example Media", "Example Health", "Example Foundation",
)  # fmt: skip
_HOSTS = (
    "mail", "crm", "wiki", "chat", "files", "calendar", "git", "intranet", "video", "tickets",
    "docs", "erp", "hr", "sso", "analytics", "learn", "travel", "payroll", "shop", "status",
)  # fmt: skip
_DOMAINS = ("example.com", "example.net", "example.org")
_PROVIDERS = ("Example Fibre", "Example Cable", "Example Telecom", "Example Mobile")
_GIVEN = (
    "Ada", "Amir", "Bianca", "Chidi", "Dana", "Emil", "Farah", "Grace", "Hana", "Ivan", "Jorge", "Keiko",
    "Lars", "Mei", "Nadia", "Olu", "Priya", "Quentin", "Rosa", "Sven", "Tomas", "Uma", "Vera", "Yusuf",
)  # fmt: skip
_FAMILY = (
    "Almeida", "Becker", "Castro", "Diaz", "Evans", "Fischer", "Gupta", "Haddad", "Ito", "Jansen", "Kowalski",
    "Lopez", "Meyer", "Nguyen", "Okafor", "Patel", "Rossi", "Singh", "Tanaka", "Weber",
)  # fmt: skip
_VERSIONS = ("1.213.0", "1.213.0", "1.211.1", "1.198.4")
_INTEL, _APPLE = ("Intel(R) Wi-Fi 6 AX200 160MHz", "22.250.0.9"), ("AirPort Extreme", "1.0")
_WINDOWS_10 = ("windows", "Microsoft Windows 10 Enterprise", "10.0.19045")
_WINDOWS_11 = ("windows", "Microsoft Windows 11 Enterprise", "10.0.26100")
_PCS = (
    Hardware("thinkpad", *_WINDOWS_11, "LENOVO", "21HM000FUS", *_INTEL),
    Hardware("latitude", *_WINDOWS_11, "Dell Inc.", "Latitude 7440", *_INTEL),
    Hardware("elitebook", *_WINDOWS_10, "HP", "EliteBook 840 G9", *_INTEL),
)
_MACS = (
    Hardware("macbook", "mac", "Version 15.6.1 (Build 24G90)", "24.6.0", "Apple, Inc.", "Mac16,1", *_APPLE),
    Hardware("macbook", "mac", "Version 14.7.8 (Build 23H730)", "23.6.0", "Apple, Inc.", "Mac14,2", *_APPLE),
)
