"""Asks the API once, with the same parts that serve, and measures what comes: the command `check`.

What follows from it stands in `exporter.report`, how people read it in `exporter.table`. No port is opened.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import numpy as np

from exporter import __version__, report, web_config
from exporter.api import VERSIONS, Source
from exporter.api.http import Deadline
from exporter.app import Exporter
from exporter.errors import REJECTIONS, PollError, Rejection
from exporter.exposition import Format, plain
from exporter.model import AccountGroup, Agent, Sessions, UserSession
from exporter.poller import AGENTS_EVERY, ROUND, Poller
from exporter.report import ACCESS, AGENTS, DATA, NAMES, PAGES, Failure, Found, Group, Permission, Report
from exporter.selection import Selection, host, searched
from exporter.settings import Loaded, Settings
from exporter.web import Exposition

REDRAWN = 0.1
"""Seconds between two tellings of how far it is."""
COMMONEST = 3
FILTERS = ("include_sites", "exclude_sites", "include_agents", "exclude_agents", "include_protocols")

Tell = Callable[[str], None]


class Watched:
    """A `Source` that hands on all that is read, and remembers it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.groups: list[AccountGroup] = []
        self.refused: PollError | None = None
        """Why the account groups were not listed."""
        self.read: dict[str, Sessions] = {}
        self.agents_read: dict[str, list[Agent] | PollError] = {}

    async def account_groups(self, deadline: Deadline) -> list[AccountGroup]:
        """Return the account groups that the token may see."""
        try:
            self.groups = await self._source.account_groups(deadline)
        except PollError as error:
            self.refused = error
            raise
        except asyncio.CancelledError:
            self.refused = PollError("deadline", "the account groups could not be listed in time")
            raise
        if not self.groups:
            self.refused = PollError("schema", "the API lists no account group")
        return self.groups

    async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
        """Return all sessions of a range."""
        self.read[aid] = await self._source.sessions(aid, start, end, deadline)
        return self.read[aid]

    async def agents(self, aid: str, deadline: Deadline) -> list[Agent]:
        """Return all agents."""
        try:
            self.agents_read[aid] = agents = await self._source.agents(aid, deadline)
        except PollError as error:
            self.agents_read[aid] = error
            raise
        return agents


async def check(loaded: Loaded, tell: Tell) -> Report:
    """Poll every account group once, one after another; `tell` is called with what is being done.

    Raises:
        SettingsError: for whatever would keep the exporter from starting, before anything is asked.
    """
    settings = loaded.settings
    if settings.web.config_file:
        web_config.read(settings.web.config_file)
    exporter = Exporter(settings)
    try:
        watched = Watched(exporter.source)
        exporter.source = watched
        async with _telling(tell, "account groups", exporter):
            await exporter.find()
        groups = []
        for number, poller in enumerate(exporter.pollers.values(), 1):
            what = f"account group {poller.group.aid} ({number} of {len(exporter.pollers)})".replace("  ", " ")
            async with _telling(tell, what, exporter):
                before = _answered(exporter)
                await poller.once()
                groups.append(_group(poller, watched, _answered(exporter) - before, exporter))
        await exporter.publisher.build()
        return report.report(__version__, _found(loaded, exporter, watched, groups))
    finally:
        await exporter.close()


@asynccontextmanager
async def _telling(tell: Tell, what: str, exporter: Exporter) -> AsyncIterator[None]:
    """Tell what is being done, how many pages came, and what it waits for, for as long as it lasts."""
    share = exporter.settings.api.requests_per_minute

    async def keep_telling() -> None:
        while True:
            waits = ", waiting for our share of requests" if exporter.http.budget.sent() >= share else ""
            tell(f"{what}: {_answered(exporter).total()} pages{waits}")
            await asyncio.sleep(REDRAWN)

    telling = asyncio.create_task(keep_telling())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


def _requests(exporter: Exporter) -> dict[str, dict[str, int]]:
    """Return the requests so far by route and status, as the exporter's own metrics count them."""
    requests: dict[str, dict[str, int]] = {}
    for family in exporter.telemetry.registry.collect():
        for sample in family.samples:
            if sample.name == "thousandeyes_exporter_api_requests_total" and sample.value:
                requests.setdefault(sample.labels["route"], {})[sample.labels["code"]] = int(sample.value)
    return requests


def _answered(exporter: Exporter) -> Counter[str]:
    """Return the pages so far, by route."""
    return Counter({route: codes.get("200", 0) for route, codes in _requests(exporter).items()})


def _found(loaded: Loaded, exporter: Exporter, watched: Watched, groups: list[Group]) -> Found:
    settings, limit = loaded.settings, exporter.http.budget.rate_limit
    requests, api_clock = _requests(exporter), exporter.http.api_clock
    refused = watched.refused
    return Found(
        settings=[report.Setting(*shown) for shown in loaded.shown()],
        warnings=loaded.warnings,
        api=report.Api(
            url=settings.api.url,
            version=settings.api.version,
            reached=any(codes.keys() - {"error"} for codes in requests.values()),
            answered=any("200" in codes for codes in requests.values()),
            account_groups=[report.Visible(group.aid, group.name, group.current) for group in watched.groups],
            failure=Failure(refused.reason, str(refused)) if refused else None,
            clock_ahead_seconds=exporter.clock.wall() - api_clock.now() if api_clock.known else None,
            rate_limit_requests=limit.limit,
            rate_limit_remaining_requests=limit.remaining,
            requests=requests,
            search=searched(settings.filter.include_agents, settings.filter.search),
        ),
        account_groups=groups,
        series=_series(exporter),
        scrape=_scrape(exporter),
        requests=_steady(settings, groups, _answered(exporter), limit.limit),
        poll=report.Poll(settings.poll.interval, settings.poll.lookback, settings.poll.overlap),
    )


def _group(poller: Poller, watched: Watched, pages: Counter[str], exporter: Exporter) -> Group:
    """Tell what one poll found."""
    group, result, settings = poller.group, poller.result, exporter.settings
    read, agents = watched.read.get(group.aid), watched.agents_read.get(group.aid)
    failure = Failure(poller.failing, poller.failure) if poller.failing else None
    head = Group(
        aid=group.aid,
        name=group.name,
        current=group.current,
        failure=failure,
        permissions=list(_permissions(failure, read, agents)),
    )
    if failure or read is None:
        return head
    sessions = [user for user, _ in result.pairs]
    rounds = {user.round for user in sessions}
    rejected = {reason: _rejected(exporter, group.aid, reason) for reason in REJECTIONS}
    filtered = rejected.pop("filtered")
    wanted = set(searched(settings.filter.include_agents, settings.filter.search).get("agentId", ()))
    return msgspec.structs.replace(
        head,
        agents=len(agents) if isinstance(agents, list) else None,
        user_sessions_read=len(read.users),
        network_sessions_read=len(read.networks),
        rejected={reason: number for reason, number in rejected.items() if number},
        filtered=filtered,
        filtered_by={f"filter.{name}": _left_out(name, read, settings) for name in FILTERS} if filtered else {},
        often={
            "agent": _commonest(user.key.agent for user in read.users),
            "site": _commonest(host(user.key.site) for user in read.users),
            "protocol": _commonest(user.key.protocol for user in read.users),
        },
        agents_searched=len(wanted & {agent.id for agent in agents}) if wanted and isinstance(agents, list) else None,
        joined=result.counts["joined"],
        user_only=result.counts["user_only"],
        network_only=result.counts["network_only"],
        rounds=report.Rounds(min(rounds), max(rounds), len(rounds)) if rounds else None,
        commit_delay_seconds=_delays(sessions),
        pages=_pages(pages, read.users, settings),
    )


def _rejected(exporter: Exporter, aid: str, reason: Rejection) -> int:
    """Return how many records were rejected, as the exporter's own metrics count them."""
    labels = {"aid": aid, "reason": reason}
    registry = exporter.telemetry.registry
    return int(registry.get_sample_value("thousandeyes_exporter_records_rejected_total", labels) or 0)


def _commonest(values: Iterable[str]) -> list[str]:
    return [value for value, _ in Counter(values).most_common(COMMONEST)]


def _left_out(name: str, read: Sessions, settings: Settings) -> int:
    """Return how many user sessions one filter alone leaves out."""
    alone = Selection(**{name: getattr(settings.filter, name)})
    return alone.take(Sessions(read.users, [], Counter()), math.inf).rejected["filtered"]


def _permissions(
    failure: Failure | None, read: Sessions | None, agents: list[Agent] | PollError | None
) -> Iterator[Permission]:
    """Judge the permissions by what was refused, and by what came without names."""
    if failure or read is None:
        refused = failure is not None and failure.reason == "forbidden"
        yield Permission(DATA, "missing" if refused else "unknown", "sessions were refused" if refused else "no answer")
        return
    yield Permission(ACCESS, "granted", "sessions were answered")
    sites = {user.key.site for user in read.users}
    yield Permission(DATA, *(("granted", "sessions came") if sites else ("unknown", "no session came")))
    yield _readable(PAGES, "sites", sites)
    match agents:
        case PollError():
            refused = agents.reason == "forbidden"
            why = "their listing was refused" if refused else str(agents)
            seen = f"names, platforms and versions of agents are missing: {why}"
            yield Permission(AGENTS, "missing" if refused else "unknown", seen)
        case list():
            yield Permission(AGENTS, "granted", "agents were listed")
            yield _readable(NAMES, "agents", {agent.name for agent in agents})


def _readable(permission: str, of: str, names: set[str]) -> Permission:
    if not names:
        return Permission(permission, "unknown", f"no {of} came")
    masked = all(name.isdigit() or not name for name in names)
    seen = f"numbers, or nothing, stand in the place of the names of {of}" if masked else f"names of {of} came"
    return Permission(permission, "missing" if masked else "granted", seen)


def _delays(sessions: Sequence[UserSession]) -> report.Delays | None:
    known = [user.commit_delay for user in sessions if user.commit_delay >= 0]
    return report.Delays(*np.quantile(known, [0.5, 0.95, 1.0]).tolist()) if known else None


def _pages(pages: Counter[str], users: Sequence[UserSession], settings: Settings) -> report.Pages:
    """Count the pages of the first poll, and estimate those of a later one, which reads less of the past."""
    api, poll = VERSIONS[settings.api.version], settings.poll
    listings = [pages[ask("", 0, 0, {}).path] for ask in (api.user_sessions, api.network_sessions)]
    span = poll.overlap + poll.interval + ROUND
    newest = max((user.round for user in users), default=0)
    recent = sum(user.round > newest - span for user in users) / max(len(users), 1)
    share = min(1.0, max(recent, span / poll.lookback))
    return report.Pages(
        first_poll=sum(listings),
        later_poll=sum(report.pages_later(read, share) for read in listings),
        agents=pages[api.agents("").path],
    )


def _steady(settings: Settings, groups: Sequence[Group], pages: Counter[str], granted: float | None) -> report.Requests:
    """Tell how many requests it will be, once the first polls are done."""
    read = [group.pages for group in groups if group.pages]
    listings = sum(each.agents for each in read) + pages[VERSIONS[settings.api.version].account_groups().path]
    a_poll = sum(each.later_poll for each in read)
    return report.Requests(
        a_poll=a_poll,
        a_minute=60.0 * (a_poll / settings.poll.interval + listings / AGENTS_EVERY),
        share=settings.api.requests_per_minute,
        organization=granted or report.ORGANIZATION,
    )


def _series(exporter: Exporter) -> report.Series:
    """Count the per-session gauges as they are published."""
    publication = exporter.publisher.publication
    families, sites = Counter[str](), Counter[str]()
    for _, rows in publication.rows:
        for family, column in rows.columns.items():
            families[family] += int(np.count_nonzero(~np.isnan(column)))
        for key, samples in zip(rows.keys, rows.samples.tolist(), strict=True):
            sites[key.site] += samples
    return report.Series(
        published=publication.snapshot.series,
        limit=exporter.settings.metrics.max_series,
        folded=publication.dropped,
        by_family=dict((+families).most_common()),
        by_site=dict(sites.most_common()),
    )


def _scrape(exporter: Exporter) -> report.Scrape:
    """Weigh what a scrape would be sent now."""
    exposition = Exposition(lambda: exporter.publisher.publication.snapshot, exporter.telemetry, exporter.clock)
    scraped = exposition.text(Format.TEXT)
    lines, comments, last = 0, 0, b"\n"
    for part in scraped.parts:
        for text in plain(part):
            lines += text.count(b"\n")
            comments += (last + text).count(b"\n#")
            last = text[-1:]
    return report.Scrape(lines - comments, sum(part.size for part in scraped.parts), scraped.length)
