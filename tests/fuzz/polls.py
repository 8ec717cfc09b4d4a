"""Whole polls of spoiled replies, and what has to hold whatever they say.

From the reply on everything is the exporter's own; what is between two machines, `tests/fuzz/test_transport.py` has.
How replies are spoiled stands in `fuzz.replies`.
"""

# ruff: noqa: S311 - what goes wrong is not a secret

import json
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from random import Random
from typing import Any

from aiohttp.helpers import HeadersMixin
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from virtual import Instant, Patient, Virtual

from exporter.api import VERSIONS, Api
from exporter.api.http import Body, Credentials, Deadline, Http
from exporter.api.wire import Request, Shape
from exporter.clock import ApiClock
from exporter.errors import REASONS, PollError, Rejection
from exporter.exposition import Format, plain
from exporter.metrics import FAMILIES, Family
from exporter.model import AccountGroup, Agent, NetworkSession, Sessions, UserSession
from exporter.poller import Plan, Poller
from exporter.privacy import agent_names
from exporter.publisher import Publication, Publisher, Publishing
from exporter.selection import SLACK, Selection
from exporter.telemetry import Telemetry
from fuzz.replies import AID, DATE, FAR, NOW, Reply, Spoiler

ORIGIN = "https://api.example.com"
TOKEN = "canary-9hT2xVq"
INTERVAL, LOOKBACK, OVERLAP = 60.0, 900.0, 300.0
SESSIONS = next(family for family in FAMILIES if family.short == "sessions")


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Compute here and now."""
    return function(*arguments)


class Answer(HeadersMixin):
    """A reply as aiohttp would hand it over."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self._body = reply.body
        self._headers = self.headers = CIMultiDictProxy(CIMultiDict(reply.headers))
        self.content = self

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        yield self._body

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing behind."""


class Scripted(Http):
    """The real client, but that what it sends goes nowhere and is answered by a script."""

    def __init__(self, answer: Callable[[str], Reply]) -> None:
        self.virtual = Instant()
        self.telemetry = Telemetry(process=False)
        super().__init__(
            ORIGIN, lambda: Credentials(TOKEN), self.telemetry, requests_per_minute=1_000_000, clock=self.virtual.clock
        )
        self.first: dict[str, Request] = {}
        """The first request of every listing that is read, by path."""
        self.cursors: frozenset[str] = frozenset()
        self.answered: list[tuple[str, bytes]] = []
        """Path and text of every 200 of the listing that is read."""
        self.sent = 0
        self.answer = answer

    def _send(self, request: Request, credentials: Credentials) -> Any:
        self.sent += 1
        first = self.first.setdefault(request.path, request)
        own = {name: value for name, value in request.query.items() if request is first or name not in self.cursors}
        assert (request.method, own, request.body) == (first.method, dict(first.query), first.body), "not our request"
        assert self.cursors.isdisjoint(first.query)
        url = self.origin.with_path(request.path).with_query(dict(request.query))
        assert (str(url.origin()), url.path) == (ORIGIN, request.path), url
        reply = self.answer(request.path)
        if reply.status == 200:
            try:
                text = Body(reply.body, reply.headers.get("Content-Encoding", "").strip().lower()).text()
                self.answered.append((request.path, text))
            except PollError:
                pass
        return Answer(reply)


class Tally(Counter[str]):
    """How polls ended, and what became of records."""


def checked(error: PollError) -> str:
    """Return the reason, which is a closed one; the words are few and hold no secret."""
    words = str(error)
    assert error.reason in REASONS
    assert error.reason != "internal", words
    assert 0 < len(words) < 600, words
    assert TOKEN not in words
    assert words.isprintable(), repr(words)
    return error.reason


def counted(name: str, text: bytes) -> int:
    """Count the records of a page without the exporter."""
    return len(json.loads(text.decode("utf-8-sig", "replace"), parse_int=lambda digits: 0)[name])


class Company:
    """One version of the API, asked again and again; everything that could be read is kept for a poll of it all."""

    def __init__(self, seed: str, version: str = "") -> None:
        self.rng = Random(seed)
        self.version = version or self.rng.choice(list(VERSIONS))
        api = VERSIONS[self.version]
        spoiler = Spoiler(self.rng, self.version, ORIGIN)
        self.http = Scripted(spoiler.reply)
        self.http.cursors = api.CURSORS
        self.source = Api(self.http, self.version, {}, at_once)
        self.tally = Tally()
        self.sessions: list[Sessions] = []
        self.agents: list[Agent] = []

    def _begin(self) -> None:
        self.http.first.clear()
        self.http.answered.clear()
        self.http.virtual.now += 61  # a refused token has to wait no longer

    async def ask(self) -> None:
        """Read both listings, or another one now and then."""
        self._begin()
        try:
            match self.rng.randrange(12):
                case 0:
                    agents = await self.source.agents(AID, Patient())
                    assert [agent.id for agent in agents] == sorted({agent.id for agent in agents})
                    self.agents = agents or self.agents
                case 1:
                    await self.source.account_groups(Patient())
                case _:
                    sessions = await self.source.sessions(AID, NOW - 900, NOW, Patient())
                    self._account(sessions)
                    self.sessions.append(sessions)
            self.tally["read"] += 1
        except PollError as error:
            self.tally[checked(error)] += 1

    async def poll(self) -> None:
        """Have a poller of its own poll some times, on the clock that the replies set."""
        telemetry = Telemetry(process=False)
        plan = Plan(INTERVAL, LOOKBACK, OVERLAP, Selection(), FAMILIES, 1000)
        poller = Poller(
            AccountGroup(AID), self.source, plan, self.http.api_clock, telemetry, lambda result: None, at_once
        )
        for _ in range(3):
            self._begin()
            self.http.api_clock.observe(self.rng.choice((DATE, *FAR)))
            await poller.once()
            assert poller.failing != "internal", poller.failure
            scanned(telemetry.render(Format.TEXT))

    def _account(self, sessions: Sessions) -> None:
        """Records in = published + rejected; a time that can not be read is counted too, and costs only itself."""
        api, came, timeless = VERSIONS[self.version], 0, True
        for path, text in self.http.answered:
            came += counted((api.NETWORKS if "network" in path else api.USERS).results, text)
            timeless &= b"date" not in text and b"committed" not in text
        kept = len(sessions.users) + len(sessions.networks)
        rejected = sessions.rejected.total()
        least = 0 if timeless else sessions.rejected["bad_time"]
        assert kept + rejected - least <= came <= kept + rejected, (kept, sessions.rejected, came)
        self.tally["records"] += came
        self.tally["rejected"] += rejected

    async def close(self) -> None:
        """Forget everything."""
        await self.http.close()


class All:
    """A source that has everything at once."""

    def __init__(self, sessions: Iterable[Sessions], agents: list[Agent]) -> None:
        merged = list(sessions)
        rejected = sum((each.rejected for each in merged), Counter())
        users = [user for each in merged for user in each.users]
        self._sessions = Sessions(users, [it for each in merged for it in each.networks], rejected)
        self._agents = agents

    async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
        """Return them all."""
        return self._sessions

    async def agents(self, aid: str, deadline: Deadline) -> list[Agent]:
        """Return them all."""
        return self._agents

    async def account_groups(self, deadline: Deadline) -> list[AccountGroup]:
        """Return none."""
        return []


async def published(company: Company, *, brief: bool = False) -> None:
    """Poll what a company has read twice, the first half first, and hold what is published to the invariants.

    `brief`: only once, in one format and of few families.
    """
    rng, virtual, telemetry = company.rng, Virtual(), Telemetry(process=False)
    whole = not brief and rng.random() < 0.1
    families = FAMILIES if whole else tuple({SESSIONS.short: SESSIONS} | {f.short: f for f in rng.sample(FAMILIES, 3)})
    families = tuple(f for f in FAMILIES if whole or f.short in families)
    limit = rng.choice((40, 400, 1_000_000, 1_000_000))
    publisher = Publisher(
        Publishing(families, limit, agent_names(rng.choice(("plain", "hashed", "off")), "0123456789abcdef")),
        swapped=lambda _: None,
        threaded=at_once,
    )
    plan = Plan(INTERVAL, LOOKBACK, OVERLAP, Selection(), families, rng.choice((1, 5, 1000)))
    halves = [company.sessions] if brief else [company.sessions[::2], company.sessions]
    poller: Poller | None = None
    users: dict[str, UserSession] = {}
    networks: dict[str, NetworkSession] = {}
    for half in halves:
        source = All(half, company.agents)
        group, clock = AccountGroup(AID), ApiClock(virtual.clock)
        if poller is None:
            poller = Poller(group, source, plan, clock, telemetry, publisher.publish, at_once)
        poller._source = source
        await poller.once()
        assert poller.failing is None, poller.failure
        now = virtual.true()
        everything = await source.sessions(AID, 0, 0, Patient())
        users |= {it.id: it for it in everything.users if it.round <= int(now) + SLACK}
        networks |= {it.id: it for it in everything.networks if it.round <= int(now) + SLACK}
        users = {name: it for name, it in users.items() if it.round >= now - LOOKBACK}
        networks = {name: it for name, it in networks.items() if it.round >= now - LOOKBACK}
        counts = poller.result.counts
        assert counts["joined"] + counts["user_only"] == len(users)
        assert counts["joined"] + counts["network_only"] == len(networks)
        await publisher.build()
        publication = publisher.publication
        for format_ in rng.sample([*Format], 1) if brief else Format:
            end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
            text = text_of(publication, format_) + (telemetry.render(format_) if whole else end)
            series = scanned(text)
            _check(series, publication, families, limit)
            if not publication.dropped:
                newest = sum(value for name, value in series.items() if name.startswith(f"{SESSIONS.name}{{"))
                assert newest == _in_newest_rounds(poller)
            assert parsed(text, format_) == series
        company.tally["series"] += publication.snapshot.series
        virtual.now += INTERVAL


def _in_newest_rounds(poller: Poller) -> int:
    rounds: dict[Any, Counter[int]] = {}
    for user, _ in poller.result.pairs:
        rounds.setdefault(user.key, Counter())[user.round] += 1
    return sum(counts[max(counts)] for counts in rounds.values())


def text_of(publication: Publication, format_: Format) -> str:
    """Return what a snapshot says."""
    snapshot = publication.snapshot
    parts = (snapshot.common, snapshot.tails[format_])
    return b"".join(chunk for part in parts for chunk in plain(part)).decode()


_SAMPLE = re.compile(r'[a-z_0-9]+(?:\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*\})?')


def scanned(text: str) -> dict[str, float]:
    """Return the samples of a text: every series once, nothing that is no number or infinite."""
    series: dict[str, float] = {}
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in series, f"twice: {name}"
            assert _SAMPLE.fullmatch(name), repr(name)
            series[name] = float(value)
            assert math.isfinite(series[name]), line
    return series


def _check(series: dict[str, float], publication: Publication, families: Iterable[Family], limit: int) -> None:
    names = Counter(name.partition("{")[0] for name in series)
    assert sum(names[family.name] for family in families) == publication.snapshot.series <= limit


def parsed(text: str, format_: Format) -> dict[str, float]:
    """Read a text by the reference parser of its format."""
    parse = parse_openmetrics if format_ is Format.OPENMETRICS else parse_text
    return {_written(sample.name, sample.labels): sample.value for family in parse(text) for sample in family.samples}


def _written(name: str, labels: dict[str, str]) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return name + ("{" + ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items()) + "}" if labels else "")


async def batch(seed: str, count: int) -> Tally:
    """Answer so many requests, then publish what came of it."""
    company = Company(seed)
    try:
        while company.http.sent < count:
            await (company.poll() if company.rng.random() < 0.004 else company.ask())
        await published(company)
    finally:
        await company.close()
    company.tally["replies"] += company.http.sent
    return company.tally


async def one(version: str, path: str, reply: Reply) -> None:
    """Answer one request of a listing, and publish what came of it; what else is asked is refused."""
    company = Company(f"{version}{path}", version)
    script = iter([reply])
    company.http.answer = lambda _: next(script, Reply(b"{}", 403))
    api, records, rejected = VERSIONS[version], list[Any](), Counter[Rejection]()
    asked: list[tuple[Request, Shape[Any]]] = [
        (api.user_sessions(AID, NOW - 900, NOW, {}), api.USERS),
        (api.network_sessions(AID, NOW - 900, NOW, {}), api.NETWORKS),
        (api.agents(AID), api.AGENTS),
        (api.account_groups(), api.ACCOUNT_GROUPS),
    ]
    request, shape = next(it for it in asked if it[0].path == path)
    try:
        try:
            async for page in company.source._pages(request, shape, Patient()):
                records += page.records
                rejected += page.rejected
        except PollError as error:
            checked(error)
        if shape is api.AGENTS:
            company.agents = [agent for _, agent in sorted({agent.id: agent for agent in records}.items())]
        listed = [records if shape is its else [] for its in (api.USERS, api.NETWORKS)]
        company.sessions.append(Sessions(listed[0], listed[1], rejected))
        if records:
            await published(company, brief=True)
    finally:
        await company.close()
