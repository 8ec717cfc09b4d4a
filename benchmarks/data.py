"""Pretend answers of the API, version 7: pages of both listings, as many sessions as wanted.

A fifth as many agents as sessions, 20 sites, 1,000 sessions a page, five rounds. The same seed gives the same bytes.
They are shaped as the examples of the API's documentation, without VPN and proxy. Nothing here measures anything.
"""

# ruff: noqa: S311 - a benchmark is no secret

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID

AID = "1001"
END = 1_763_728_200
"""When the API answers, Unix seconds; a whole minute."""
ROUNDS = 5
"""Minutes of sessions, before `END`."""
PAGE = 1000
SITES = 20
SESSIONS_AN_AGENT = 5

USERS = "/v7/endpoint/test-results/real-user-tests/filter"
NETWORKS = "/v7/endpoint/test-results/real-user-tests/networks/filter"

_HOSTS = (
    "mail", "crm", "wiki", "chat", "files", "calendar", "git", "intranet", "video", "tickets",
    "docs", "erp", "hr", "sso", "analytics", "learn", "travel", "payroll", "shop", "status",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pages:
    """Both listings, a JSON document a page."""

    users: Iterable[bytes]
    networks: Iterable[bytes]

    def write(self, folder: Path) -> Path:
        """Write every page to a file, so that programs in other languages read the same; return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind, pages in (("users", self.users), ("networks", self.networks)):
            for number, page in enumerate(pages):
                (folder / f"{kind}-{number:04}.json").write_bytes(page)
        return folder

    @classmethod
    def read(cls, folder: Path) -> "Pages":
        """Read what `write` wrote."""
        streamed = cls.stream(folder)
        return cls(list(streamed.users), list(streamed.networks))

    @classmethod
    def stream(cls, folder: Path) -> "Pages":
        """Read what `write` wrote, a page whenever one is asked for, and once."""
        users, networks = (
            (path.read_bytes() for path in sorted(paths))
            for paths in (folder.glob("users-*.json"), folder.glob("networks-*.json"))
        )
        return cls(users, networks)


def pages(sessions: int, seed: int = 1, end: int = END) -> Pages:
    """Return the pages of so many sessions, committed by `end`."""
    rng = Random(seed)
    agents = [_Agent(rng, end) for _ in range(max(sessions // SESSIONS_AN_AGENT, 1))]
    dates = sorted(end - 1 - int(rng.random() * 60 * ROUNDS) for _ in range(sessions))
    visits = [rng.choice(agents).visit(rng, date) for date in dates]
    users, networks = ([visit[kind] for visit in visits] for kind in (0, 1))
    return Pages(list(_listing(users, USERS, end)), list(_listing(networks, NETWORKS, end)))


class _Agent:
    """A laptop with the system metrics of four periods, which its visits share."""

    def __init__(self, rng: Random, end: int) -> None:
        self.id = UUID(int=rng.getrandbits(128), version=4)
        words = [f"{rng.getrandbits(16):x}" for _ in range(3)]
        self.address = f"2001:db8:{words[0]}:{words[1]}::{words[2]}"
        self.periods = [_system_metrics(rng, end) for _ in range(4)]

    def visit(self, rng: Random, date: int) -> tuple[str, str]:
        """Return the user session and the network session of one visit, which began then."""
        random = rng.random
        site = int(random() ** 2.6 * SITES)
        protocol, port = ("http", 80) if site == 7 else ("https", 443)
        session = f"07625:{date}:{rng.getrandbits(40):010x}"
        head = f'{{"id":"{session}","agentId":"{self.id}","roundId":{date - date % 60},"date":"{_iso(date)}"'
        user = (
            f'{head},"committed":"{_iso(date + int(random() * 60))}","experienceScore":{random():.3f},'
            f'"sourceAddress":"{self.address}","organizationName":"Example Access Network of the Metropolitan Area",'
            f'"visitedSite":"{_HOSTS[site]}.example.com","pageId":"{rng.getrandbits(40):010x}","protocol":"{protocol}",'
            f'"numberOfPages":{1 + int(random() * 6)},"port":{port}}}'
        )
        leg = (
            f'"loss":{int(random() * 5)}.{int(random() * 10)},"jitter":{int(random() * 40)},'
            f'"latency":{8 + int(random() * 120)},"target":"2001:db8:5bd1:e995::7334:{site}"'
        )
        network = f'{head},"destination":{{{leg}}},"systemMetrics":{self.periods[int(random() * 4)]}}}'
        return user, network


def _system_metrics(rng: Random, end: int) -> str:
    start = (end - int(rng.random() * 60 * ROUNDS)) * 1000 + rng.randrange(1000)
    load, size = rng.random() * 0.7, 2**34
    used = int((0.3 + rng.random() * 0.5) * size)
    cpu = _samples(rng, f"{load / 2:.4f}", f"{load + 0.3:.4f}", load + rng.random() / 10, load, rng.random() / 9)
    memory = _samples(
        rng, f"{used - 2**26}", f"{used + 2**27}", used + rng.random(), used - 4096.0, rng.random() * 2**25
    )
    return (
        f'{{"startTimeMs":{start},"endTimeMs":{start + 10006},"cpuUtilization":{cpu},'
        f'"physicalMemoryUsedBytes":{memory},"physicalMemoryTotalBytes":{size}}}'
    )


def _samples(rng: Random, low: str, high: str, mean: float, median: float, deviation: float) -> str:
    count = 100 + rng.randrange(60)
    return f'{{"min":{low},"max":{high},"mean":{mean},"median":{median},"stdDev":{deviation},"count":{count}}}'


def _listing(records: list[str], path: str, end: int) -> Iterator[bytes]:
    """Yield the pages of a listing, each with the address of the next."""
    starts = range(0, max(len(records), 1), PAGE)
    for number, start in enumerate(starts, start=1):
        more = f'"next":{{"href":"{path}?aid={AID}&cursor={number}"}}' if number < len(starts) else ""
        yield (
            f'{{"startDate":"{_iso(end - 60 * ROUNDS)}","endDate":"{_iso(end)}","_links":{{{more}}},'
            f'"results":[{",".join(records[start : start + PAGE])}]}}'
        ).encode()


_MINUTES: dict[int, str] = {}


def _iso(when: int) -> str:
    """Write Unix seconds as the API does."""
    minute = when // 60
    if minute not in _MINUTES:
        _MINUTES[minute] = datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M")
    return f"{_MINUTES[minute]}:{when % 60:02}Z"
