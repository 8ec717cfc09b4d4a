"""Composition root: builds all components from the settings and runs them."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from exporter import __version__
from exporter.account_groups import AccountGroupManager, AccountGroupsConfig
from exporter.clock import Clock
from exporter.errors import ExporterError, PollError, Reason, SettingsError
from exporter.files import open_files_hint
from exporter.metrics.exposition import Format, Snapshot, plain_chunks
from exporter.metrics.self_metrics import SelfMetrics
from exporter.poller import Poller
from exporter.settings import Settings, read_agent_names_key, read_otlp_headers, read_token
from exporter.snapshot import SnapshotPublisher
from exporter.sources.agents import AgentsConfig, AgentsSource, agent_names
from exporter.sources.local_networks import (
    AGENTS,
    LOOKBACK_POLLS,
    MAX_LOOKBACK_SECONDS,
    OVERLAP_SECONDS,
    TARGETS,
    TYPES,
    LocalNetworksConfig,
    LocalNetworksSource,
)
from exporter.sources.session_filter import SessionFilter
from exporter.sources.sessions import SERIES, SessionsConfig, SessionsSource, fold
from exporter.sources.site_histograms import HISTOGRAMS
from exporter.sources.source import Context
from exporter.status import status_view
from exporter.supervisor import Supervisor
from exporter.thousandeyes.api import Api
from exporter.thousandeyes.client import RETRIED_REASONS, Client, authorization_header
from exporter.web.app import create_app
from exporter.web.auth import Authenticator
from exporter.web.server import serving
from exporter.web.status import StatusView

log = structlog.get_logger()

RESERVED_POLLS = 3
"""Number of polls of sessions whose requests the other sources leave free."""
SERIES_PER_SITE = sum(len(family.buckets) + 3 for family in HISTOGRAMS) + 1


class Exporter:
    """All components of one exporter."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        process: bool = True,
        api_type: type[Api] = Api,
    ) -> None:
        """Build the components; nothing is queried yet.

        Args:
            settings: Valid settings.
            clock: Local clocks.
            process: Whether to publish metrics of the process.
            api_type: Class of the API queries.

        Raises:
            SettingsError: A file that the settings name is invalid.
        """
        self.settings = settings
        self.shown: Sequence[tuple[str, str, str]] = ()
        """Name, value and origin of all settings, for the status page; secrets are masked."""
        self.clock = clock or Clock()
        self._started = self.clock.wall()
        self.metrics = SelfMetrics(process=process, otlp=process and bool(settings.otlp.endpoint))
        self.client = _client(settings, self.metrics, self.clock)
        self.api = api_type(self.client, settings.api.version)
        self.sources = configured_sources(settings)
        self.publisher = SnapshotPublisher(
            settings.metrics.max_series,
            partial(fold, SERIES.select(settings.metrics.families)),
            self.metrics,
        )
        self.supervisor = Supervisor(self.clock)
        self.manager = AccountGroupManager(
            self.api,
            AccountGroupsConfig(
                settings.api.account_groups,
                interval=settings.agents.interval,
                retry_interval=settings.poll.interval,
                time_limit=settings.poll.interval + 2 * settings.api.timeout,
            ),
            self._create_pollers,
            self.publisher,
            self.supervisor,
            self.metrics,
            self.client.api_clock,
        )
        for source, config in self.sources:
            self.metrics.poll_interval.labels(source.name).set(config.interval)
        self.metrics.series_limit.set(settings.metrics.max_series)
        listings = [
            each for source, _ in self.sources for each in source.listings[settings.api.version]
        ]
        routes = [each.path for each in (*listings, self.api.account_groups_listing)]
        self.metrics.initialize_api(routes, RETRIED_REASONS)

    def _create_pollers(self, aid: str) -> Sequence[Poller]:
        """Create the pollers of all sources of an account group."""
        clock, waits = self.client.api_clock, self.client.rate_limiter.waiting
        context = Context(self.api, clock, self.metrics)
        return [
            Poller(aid, source(aid, context, config), clock, self.metrics, self.publisher, waits)
            for source, config in self.sources
        ]

    async def run(self) -> None:
        """Poll, publish and push until canceled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.supervisor.run("snapshot", self.publisher.run))
            tasks.create_task(self.supervisor.run("account groups", self.manager.run))
            if self.settings.otlp.endpoint:
                tasks.create_task(self.supervisor.run("otlp", self._push))

    async def _push(self) -> None:
        """Push to the OTLP receiver until canceled."""
        from exporter.otlp.push import PushConfig, Pusher  # noqa: PLC0415  time and memory

        otlp, port = self.settings.otlp, self.settings.web.listen_address.port
        headers = partial(read_otlp_headers, self.settings)
        instance = f"{socket.gethostname()}:{port}"
        config = PushConfig(str(otlp.endpoint), headers, otlp.interval, instance, self._started)
        await Pusher(config, self.publisher, self.metrics, self.clock).run()

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot."""
        return self.publisher.current.snapshot

    def healthy(self) -> bool:
        """Whether every polling loop ran within two intervals, without repeated crashes."""
        now = asyncio.get_running_loop().time()
        api, poll = self.settings.api, self.settings.poll
        pollers = self.manager.pollers
        late = any(now - each.last_tick >= 2 * each.source.interval for each in pollers)
        starting = now - self.manager.last_tick < 2 * (poll.interval + api.timeout)
        return self.supervisor.healthy and not late and (bool(pollers) or starting)

    def ready(self) -> bool:
        """Whether the snapshot has a complete poll of the sessions of every account group."""
        groups = self.publisher.current.groups
        complete = {each.group.aid for each in groups if each.sessions.complete}
        return bool(self.manager.groups) and self.manager.groups.keys() <= complete

    async def status(self) -> StatusView:
        """Return what the status page shows."""
        publication = self.publisher.current
        return await status_view(self.settings, self.shown, publication, self.manager, self.client)

    async def close(self) -> None:
        """Close all API connections."""
        await self.client.close()


async def serve(
    settings: Settings,
    announce: Callable[[str], None] = lambda url: None,
    shown: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Poll and serve until canceled; running requests finish.

    Args:
        settings: Valid settings.
        announce: Called with the URL once the exporter is listening.
        shown: Name, value and origin of all settings, for the status page.

    Raises:
        SettingsError: A file that the settings name is invalid.
        ExporterError: The listen address is not available.
    """
    web, address = settings.web, settings.web.listen_address
    clock = Clock()
    authenticator = Authenticator(web.config_file, clock) if web.config_file else None
    exporter = Exporter(settings, clock=clock)
    exporter.shown = shown
    app = create_app(
        exporter,
        telemetry_path=web.telemetry_path,
        max_requests=web.max_requests,
        clock=clock,
        authenticator=authenticator,
    )
    try:
        async with serving(app, address.host, address.port, authenticator) as url:
            log.info("listening", address=url, version=__version__)
            announce(url)
            await exporter.run()
    except OSError as error:
        known = (error.errno or 0) > 0  # those of getaddrinfo are negative
        reason = os.strerror(error.errno or 0) if known else error.strerror or str(error)
        message = f"cannot listen on {address} (web.listen_address): {reason}"
        raise ExporterError(message) from error
    finally:
        await exporter.close()


async def poll_once(settings: Settings) -> tuple[str, dict[str, Reason]]:
    """Poll all sources of all account groups once.

    Returns:
        The text exposition without process metrics, because another process publishes the text,
        and the reason for every account group whose sessions could not be polled.

    Raises:
        PollError: The account groups are unknown.
    """
    exporter = Exporter(settings, process=False)
    try:
        await exporter.manager.update()
        if exporter.manager.failure:
            raise exporter.manager.failure
        pollers = exporter.manager.pollers
        await asyncio.gather(*(poller.poll() for poller in pollers))
        await exporter.publisher.publish()
        snapshot = exporter.snapshot
        parts = (snapshot.common, snapshot.tails[Format.TEXT])
        text = b"".join(chunk for part in parts for chunk in plain_chunks(part)).decode()
        failed = {
            poller.aid: poller.failure.reason
            for poller in pollers
            if poller.failure and poller.source.required
        }
        return text + exporter.metrics.render(Format.TEXT), failed
    finally:
        await exporter.close()


def configured_sources(settings: Settings) -> Sequence[tuple[Any, Any]]:
    """Return the class and the configuration of every source, in the order of their priority."""
    poll, filters, metrics = settings.poll, settings.filter, settings.metrics
    networks, selection = settings.local_networks, metrics.families
    key = read_agent_names_key(settings) if metrics.agent_names == "hashed" else ""
    session_filter = SessionFilter(
        filters.include_sites,
        filters.exclude_sites,
        filters.include_agents,
        filters.exclude_agents,
        filters.include_protocols,
        [(group.pattern, group.name) for group in metrics.site_groups],
    )
    sources: list[tuple[Any, Any]] = [
        (
            SessionsSource,
            SessionsConfig(
                poll.interval,
                poll.lookback,
                poll.overlap,
                [SERIES.select(selection)],
                filters.search,
                session_filter,
                max_sites=max(metrics.max_series // SERIES_PER_SITE, 1),
            ),
        ),
        (
            AgentsSource,
            AgentsConfig(
                settings.agents.interval,
                agent_names(metrics.agent_names, key),
                session_filter.accepts_agent,
                publish=bool(SERIES.select(selection).families),
            ),
        ),
    ]
    if networks.enabled and settings.api.version == "v7":
        every_type = set(networks.types) == set(TYPES)
        config = LocalNetworksConfig(
            networks.interval,
            min(max(poll.lookback, LOOKBACK_POLLS * networks.interval), MAX_LOOKBACK_SECONDS),
            OVERLAP_SECONDS,
            [TARGETS.select(selection), AGENTS.select(selection)],
            {} if every_type else {"type": networks.types},
            session_filter,
        )
        sources.append((LocalNetworksSource, config))
    return sources


def _client(settings: Settings, metrics: SelfMetrics, clock: Clock) -> Client:
    api = settings.api

    def authorization() -> str:
        try:
            return authorization_header(read_token(settings), api.email or "")
        except SettingsError as error:
            hint = open_files_hint(error.__cause__)
            reason: Reason = "connect" if hint else "auth"
            raise PollError(reason, str(error), hint=hint) from error

    return Client(
        api.url,
        authorization,
        metrics,
        timeout=api.timeout,
        requests_per_minute=api.requests_per_minute,
        reserve_seconds=RESERVED_POLLS * settings.poll.interval,
        ssl_context=ssl.create_default_context(cafile=api.ca_file) if api.ca_file else None,
        proxy=str(api.proxy.get_secret_value()) if api.proxy else None,
        clock=clock,
    )
