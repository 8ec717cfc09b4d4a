"""Puts the parts together, starts and stops them in order.

What the parts do stands in their own rooms; what a person types in `exporter.commands`.
"""

import asyncio
import os
import resource
import signal
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from exporter import __version__, log
from exporter.aggregate import by_site
from exporter.api import VERSIONS, Api, Source
from exporter.api.http import Credentials, Http
from exporter.clock import Clock
from exporter.errors import HINTS, ExporterError, PollError, SettingsError
from exporter.exposition import Format, plain
from exporter.guard import Guard
from exporter.metrics import DISTRIBUTIONS, select
from exporter.model import AccountGroup
from exporter.page import GroupView, SiteView, View, worst
from exporter.poller import AGENTS_EVERY, Plan, PollDeadline, Poller
from exporter.privacy import agent_names
from exporter.publisher import Publication, Publisher, Publishing
from exporter.selection import Selection, searched
from exporter.server import Server
from exporter.settings import Settings, read_agent_names_key, read_token
from exporter.telemetry import Telemetry
from exporter.turns import answer_first
from exporter.values import ListenAddress
from exporter.web import Exposition, site

T = TypeVar("T")

_ON_PAGE = ("latency_seconds", "loss_ratio", "experience_score")
GRACE = 10.0
"""Seconds in which running answers may end after SIGTERM."""
FILES = 8192
"""Open files that are plenty."""
RESERVE = 32
"""Open files that are kept for asking the API, for tokens and certificates, and for who is about to be refused."""
MANY_CRASHES, CRASHES_WITHIN = 5, 600.0
"""So many crashes in so many seconds are for somebody outside to mend, by a restart at least."""
SERIES_A_SITE = sum(len(each.buckets) + 3 for each in DISTRIBUTIONS) + 1


@dataclass(frozen=True, slots=True)
class Given:
    """Settings, and what stands in those of their files that are read once."""

    settings: Settings
    names_key: str = field(repr=False)
    authorities: str | None = field(repr=False)

    def fixed(self, later: "Given") -> list[str]:
        """Say which settings differ in others that only a start can change."""
        return [
            f"{group}.{name}: changes only with the next start"
            for group in ("web", "simulator")
            for name, value in getattr(self.settings, group)
            if value != getattr(getattr(later.settings, group), name)
        ]


def given(settings: Settings) -> Given:
    """Read the files. Raises SettingsError, without any secret."""
    hashed, file = settings.metrics.agent_names == "hashed", settings.api.ca_file
    return Given(settings, read_agent_names_key(settings) if hashed else "", file.read_text() if file else None)


class Exporter:
    """All parts of one exporter."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, process: bool = True) -> None:
        """Make all parts, on the event loop; nothing is asked yet. `process`: publish metrics of the process too."""
        self.given, self.settings = given(settings), settings
        self.clock = clock or Clock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self.telemetry = Telemetry(lambda: self.http.budget.rate_limit, process=process)
        self.publisher = Publisher(_publishing(self.given), swapped=self._swapped, threaded=self._threaded)
        self.http = _http(self.given, self.telemetry, self.clock)
        self.source: Source = self._source()
        self.guard: Guard | None = None
        self.pollers: dict[str, Poller] = {}
        self._worst: tuple[Publication, list[SiteView]] = (self.publisher.publication, [])
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._crashes: deque[float] = deque(maxlen=MANY_CRASHES)
        self._ticked = self.clock.monotonic()
        self._plan = _plan(settings)
        self._unlisted = ""  # why the account groups are not known
        self._configured()

    async def adopt(self, given: "Given") -> None:
        """Go on with other settings; nothing may be polled meanwhile.

        What was stored and counted stays; where it was selected in another way, the next complete poll replaces it.
        """
        anew = _selects(self.settings) != _selects(given.settings)
        await self.http.close()
        http = _http(given, self.telemetry, self.clock)
        http.succeed(self.http)
        self.given, self.settings, self.http = given, given.settings, http
        self.source, self._plan = self._source(), _plan(self.settings)
        self.publisher.adopt(_publishing(given))
        for aid, poller in list(self.pollers.items()):
            if (wanted := self._wanted()) and aid not in wanted:
                self._drop(aid)
            else:
                poller.adopt(self.source, self._plan, anew=anew)
        self._configured()

    def _configured(self) -> None:
        poll, metrics = self.settings.poll, self.settings.metrics
        self.telemetry.configured(poll.interval, metrics.max_series, _routes(self.settings.api.version))

    def _source(self) -> Source:
        chosen = self.settings.filter
        search = searched(chosen.include_agents, chosen.search)
        return Api(self.http, self.settings.api.version, search, self._threaded)

    def _drop(self, aid: str) -> None:
        """Forget an account group."""
        if task := self._tasks.pop(aid, None):
            task.cancel()
        del self.pollers[aid]
        self.publisher.forget(aid)
        self.telemetry.unwatch(aid)

    async def close(self) -> None:
        """Close connections."""
        await self.http.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        """Poll all account groups for ever, until cancelled; what crashes starts again."""
        try:
            await asyncio.gather(self._kept_up(self.publisher.run), self._kept_up(self._poll))
        finally:
            tasks, self._tasks = list(self._tasks.values()), {}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self) -> None:
        """Have every account group polled; look now and then which there are."""
        while True:
            found = await self.find()
            for aid, poller in self.pollers.items() if found else ():
                if aid not in self._tasks:
                    self._tasks[aid] = asyncio.create_task(self._kept_up(poller.run))
            self._ticked = self.clock.monotonic()
            await self.clock.sleep(AGENTS_EVERY if found else self.settings.poll.interval)

    async def _kept_up(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run for ever what should never end: a crash is logged, and what crashed starts again an interval later."""
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001  a fault of this program must not end it
                log.error("crashed", part=getattr(run, "__qualname__", ""), exc_info=True)
                self._crashes.append(self.clock.monotonic())
            await self.clock.sleep(self.settings.poll.interval)

    async def find(self) -> bool:
        """Find out which account groups to poll, and have a poller for each; False where the API did not tell."""
        began = self.clock.monotonic()
        try:
            groups = {group.aid: group for group in await self._account_groups()}
        except PollError as error:
            if not self.pollers:
                seconds = self.clock.monotonic() - began
                for aid in self._wanted() or [""]:
                    self.telemetry.watch(aid)
                    self.telemetry.polled(aid, self.http.api_clock.now(), seconds, error.reason)
            log.error("account_groups_not_listed", reason=error.reason, error=error, hint=HINTS[error.reason])
            self._unlisted = str(error)
            return bool(self.pollers)
        if self._unlisted:
            log.info("account_groups_listed", account_groups=len(groups))
        self._unlisted = ""
        for aid in self.pollers.keys() - groups.keys():
            self._drop(aid)
        if "" not in groups:
            self.telemetry.unwatch("")
        for aid, group in groups.items():
            if aid not in self.pollers:
                self.pollers[aid] = self._poller(group)
        return True

    def healthy(self) -> bool:
        """Whether everything that should come round has come round within two intervals, and does not crash often."""
        now = self.clock.monotonic()
        if len(self._crashes) == MANY_CRASHES and now - self._crashes[0] < CRASHES_WITHIN:
            return False
        oldest = min([poller.ticked for poller in self.pollers.values()], default=self._ticked)
        patience = 2 * self.settings.poll.interval + (0 if self.pollers else 2 * self.settings.api.timeout)
        return now - oldest < patience

    def ready(self) -> bool:
        """Whether the snapshot holds a complete poll of every account group."""
        return bool(self.pollers) and self.pollers.keys() <= self.publisher.publication.complete

    async def view(self) -> View:
        """Return what the page for people shows."""
        pollers, publication = list(self.pollers.values()), self.publisher.publication
        if self._worst[0] is not publication:
            means = await self._threaded(by_site, [poller.result.rows for poller in pollers], _ON_PAGE)
            views = [
                SiteView(site, int(each["agents"]), *(each[name] for name in _ON_PAGE)) for site, each in means.items()
            ]
            self._worst = (publication, worst(views))
        limit = self.http.budget.rate_limit
        return View(
            telemetry_path=self.settings.web.telemetry_path,
            lookback=self.settings.poll.lookback,
            groups=[_group_view(poller) for poller in pollers],
            sites=self._worst[1],
            series=publication.snapshot.series,
            series_limit=self.settings.metrics.max_series,
            series_dropped=publication.dropped,
            requests=self.http.budget.sent(),
            requests_limit=self.settings.api.requests_per_minute,
            remaining=limit.remaining,
            granted=limit.limit,
            failure=self._unlisted,
        )

    def _wanted(self) -> list[str]:
        """Return the account groups that are named in the settings."""
        wanted = self.settings.api.account_groups
        return [] if wanted == "all" else list(wanted)

    async def _account_groups(self) -> list[AccountGroup]:
        """Ask which account groups there are, and so what time it is for the API."""
        known: list[AccountGroup] = []
        try:
            async with asyncio.timeout(self.settings.poll.interval + 2 * self.settings.api.timeout) as scope:
                known = await self.source.account_groups(PollDeadline(scope))
        except TimeoutError as error:
            raise PollError("deadline", "the account groups could not be listed in time") from error
        except PollError as error:
            # Those that are named, and at the start the token's own, can be polled without a list.
            known_enough = self._wanted() or not (self.pollers or self.settings.api.account_groups == "all")
            if error.reason not in ("forbidden", "not_found") or not known_enough:
                raise
            log.warn("account_groups_not_listed", error=error, hint="their names stay unknown")
        if self.settings.api.account_groups == "all":
            if not known:
                raise PollError("schema", "the API lists no account group")
            return known
        if wanted := self._wanted():
            names = {group.aid: group for group in known}
            return [names.get(aid, AccountGroup(aid)) for aid in wanted]
        own = [group for group in known if group.current] or [poller.group for poller in self.pollers.values()]
        return own[:1] or [AccountGroup("")]

    def _poller(self, group: AccountGroup) -> Poller:
        publish = self.publisher.publish
        return Poller(group, self.source, self._plan, self.http.api_clock, self.telemetry, publish, self._threaded)

    def _swapped(self, publication: Publication) -> None:
        snapshot = publication.snapshot
        self.telemetry.published(snapshot.series, publication.dropped, snapshot.size)
        if publication.dropped:
            log.warn(
                "series_folded", folded=publication.dropped, hint="above metrics.max_series: filter, or group sites"
            )

    async def _threaded(self, function: Callable[..., T], *arguments: Any) -> T:
        """Compute where it does not stall the event loop; one after another, as all share one processor anyway."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


@asynccontextmanager
async def answering(exporter: Exporter) -> AsyncIterator[str]:
    """Answer scrapes for as long as the context lasts, and those that began at its end; yield the address.

    Raises:
        ExporterError: where nothing can listen at the address.
    """
    settings = exporter.settings.web
    guard = None
    if settings.config_file:
        reloaded = exporter.telemetry.reloaded
        guard = Guard(settings.config_file, exporter.clock, lambda good: reloaded("web", successful=good))
    exporter.guard = guard
    answers = site(
        Exposition(lambda: exporter.publisher.publication.snapshot, exporter.telemetry, exporter.clock),
        telemetry_path=settings.telemetry_path,
        max_requests=settings.max_requests,
        healthy=exporter.healthy,
        ready=exporter.ready,
        view=exporter.view,
        guard=guard,
    )
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = FILES if limit == resource.RLIM_INFINITY else min(limit, FILES)
    server = Server(answers, lambda: guard.headers if guard else {}, max(files - RESERVE, 2))
    try:
        yield await listen(server, settings.listen_address, "web.listen_address", guard.tls if guard else None)
    finally:
        await server.close(GRACE)
        if guard:
            guard.close()


async def serve(
    settings: Settings,
    *,
    reread: Callable[[], Settings] | None = None,
    announce: Callable[[str], None] = lambda address: None,
) -> None:
    """Poll and serve until SIGTERM or SIGINT.

    At SIGHUP the settings are read again by `reread`, where there is one; `announce` is called with the address once
    it listens.

    Raises:
        ExporterError: where nothing can listen at the address.
    """
    answer_first()
    _open_more_files()
    stopping = asyncio.create_task(until_stopped())
    exporter = Exporter(settings)
    try:
        async with answering(exporter) as address:
            log.info("listening", address=address, version=__version__)
            announce(address)
            polling = asyncio.create_task(_polling(exporter, reread))
            await asyncio.wait((stopping, polling), return_when=asyncio.FIRST_COMPLETED)
            if polling.done():
                polling.result()
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
    finally:
        await exporter.close()
    log.info("stopped")


def _open_more_files() -> None:
    """Raise the limit of open files to what is allowed, within reason: the usual 1,024 are soon used up by clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # where that is forbidden, fewer connections are kept
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _polling(exporter: Exporter, reread: Callable[[], Settings] | None) -> None:
    """Poll for ever; with other settings whenever there are some at SIGHUP."""
    loop, hung_up = asyncio.get_running_loop(), asyncio.Event()
    if reread:  # it may still come when the loop has ended
        signal.signal(signal.SIGHUP, lambda *_: loop.is_closed() or loop.call_soon_threadsafe(hung_up.set))
    while True:
        polling = asyncio.create_task(exporter.run())
        try:
            other = None
            while other is None:
                await hung_up.wait()
                hung_up.clear()
                other = _other(exporter, reread) if reread else None
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        await exporter.adopt(other)
        log.configure(other.settings.log.level, other.settings.log.format)
        log.info("settings_reloaded")


def _other(exporter: Exporter, reread: Callable[[], Settings]) -> Given | None:
    """Read the settings and the web configuration again; return the settings where they are good, and not the same."""
    if exporter.guard:
        exporter.guard.reload()
    try:
        other = given(reread())
        if fixed := exporter.given.fixed(other):
            raise SettingsError(fixed)
    except SettingsError as error:
        exporter.telemetry.reloaded("settings", successful=False)
        log.error("settings_not_reloaded", problem=error, hint="what was in force before stays so")
        return None
    exporter.telemetry.reloaded("settings", successful=True)
    return None if other == exporter.given else other


async def until_stopped() -> None:
    """Wait for SIGTERM or SIGINT; whoever sends a second one wants no good manners.

    What is set here stays until the process ends, so that no signal finds nobody at home.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    asked = False

    def on_signal(*_: object) -> None:
        nonlocal asked
        if asked or loop.is_closed():
            os._exit(0)
        asked = True
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    await stop.wait()


async def listen(server: Server, address: ListenAddress, setting: str, tls: ssl.SSLContext | None = None) -> str:
    """Listen; return the address as a URL.

    Raises:
        ExporterError: where that is not possible, with the setting and the reason.
    """
    try:
        host, port = await server.listen(address.host, address.port, tls)
    except OSError as error:
        raise ExporterError(f"can not listen on {address} ({setting}): {reason(error)}") from error
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{'https' if tls else 'http'}://{host}:{port}"


def reason(error: OSError) -> str:
    """Say why the system refused, in its own words."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


async def once(settings: Settings) -> tuple[str, dict[str, str]]:
    """Poll every account group once.

    Returns:
        The exposition as text, without metrics of the process, which another program may publish of its own; and
        what failed: a reason for each account group.
    """
    exporter = Exporter(settings, process=False)
    try:
        if not await exporter.find():
            raise PollError("connect", "the account groups could not be listed, so nothing was polled")
        await asyncio.gather(*(poller.once() for poller in exporter.pollers.values()))
        await exporter.publisher.build()
        snapshot = exporter.publisher.publication.snapshot
        parts = (snapshot.common, snapshot.tails[Format.TEXT])
        text = b"".join(chunk for part in parts for chunk in plain(part)).decode()
        failed = {aid: poller.failing for aid, poller in exporter.pollers.items() if poller.failing}
        return text + exporter.telemetry.render(Format.TEXT), dict(failed)
    finally:
        await exporter.close()


def _group_view(poller: Poller) -> GroupView:
    result = poller.result
    return GroupView(
        aid=poller.group.aid,
        name=poller.group.name,
        polls=tuple(poller.ended),
        age=poller.age,
        failure=poller.failure,
        joined=result.counts.get("joined", 0),
        user_only=result.counts.get("user_only", 0),
        network_only=result.counts.get("network_only", 0),
        agents=len(result.agents),
    )


def _publishing(given: Given) -> Publishing:
    metrics = given.settings.metrics
    return Publishing(select(metrics.families), metrics.max_series, agent_names(metrics.agent_names, given.names_key))


def _selects(settings: Settings) -> tuple[object, ...]:
    """Return the settings that tell which sessions there are, and what they are called."""
    api = settings.api
    return api.url, api.version, settings.filter, settings.metrics.site_groups, settings.poll.lookback


def _http(given: Given, telemetry: Telemetry, clock: Clock) -> Http:
    api = given.settings.api

    def credentials() -> Credentials:
        try:
            return Credentials(read_token(given.settings), api.email or "")
        except SettingsError as error:
            raise PollError("auth", str(error)) from error

    return Http(
        api.url,
        credentials,
        telemetry,
        timeout=api.timeout,
        requests_per_minute=api.requests_per_minute,
        tls=ssl.create_default_context(cadata=given.authorities) if given.authorities else None,
        proxy=api.proxy.get_secret_value() if api.proxy else None,
        clock=clock,
    )


def _plan(settings: Settings) -> Plan:
    chosen = settings.filter
    selection = Selection(
        chosen.include_sites,
        chosen.exclude_sites,
        chosen.include_agents,
        chosen.exclude_agents,
        chosen.include_protocols,
        [(group.pattern, group.name) for group in settings.metrics.site_groups],
    )
    return Plan(
        settings.poll.interval,
        settings.poll.lookback,
        settings.poll.overlap,
        selection,
        select(settings.metrics.families),
        max(settings.metrics.max_series // SERIES_A_SITE, 1),
    )


def _routes(version: str) -> list[str]:
    """Return the paths that are asked of a version."""
    api = VERSIONS[version]
    asked = (api.user_sessions("", 0, 0, {}), api.network_sessions("", 0, 0, {}), api.agents(""), api.account_groups())
    return [request.path for request in asked]
