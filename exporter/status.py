"""Collects what the status page shows."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exporter.account_groups import AccountGroupManager
from exporter.metrics.families import SeriesTable
from exporter.poller import Poller
from exporter.settings import Settings
from exporter.snapshot import Publication
from exporter.sources.aggregate import site_means
from exporter.sources.results import SessionsResult
from exporter.thousandeyes.client import Client
from exporter.web import status as web
from exporter.web.status import SiteView, SourceView, StatusView

SCORE = "experience_score"
STRETCHED = "polls take longer than the interval, because requests wait for the rate limit"
MASKED = {"api.email", "filter.search", "filter.include_agents", "filter.exclude_agents"}
"""Settings that can identify users, networks and agents, which the page never shows."""


async def status_view(
    settings: Settings,
    shown: Sequence[tuple[str, str, str]],
    publication: Publication,
    manager: AccountGroupManager,
    client: Client,
) -> StatusView:
    """Return the view, with settings as `Loaded.shown` returns them.

    The table of sites is computed in a thread.
    """
    tables = [
        _without_unknown_scores(table)
        for each in publication.groups
        for table in each.sessions.tables
    ]
    means = await asyncio.to_thread(site_means, tables, tuple(web.QUANTITIES))
    limits = client.rate_limiter.limits
    now = client.api_clock.now()
    offset = now - asyncio.get_running_loop().time()
    listing = settings.agents.interval if manager.groups else settings.poll.interval
    return StatusView(
        telemetry_path=settings.web.telemetry_path,
        lookback=settings.poll.lookback,
        account_groups=[
            (each.group, [_source(poller, offset) for poller in each.pollers])
            for _, each in sorted(manager.groups.items())
        ],
        sites=[SiteView(site, int(each.pop("agents")), each) for site, each in means.items()],
        series=publication.series,
        series_limit=settings.metrics.max_series,
        series_dropped=publication.dropped,
        requests=client.rate_limiter.sent_last_minute(),
        requests_limit=settings.api.requests_per_minute,
        remaining=limits.remaining,
        limit=limits.limit,
        failure=manager.failure,
        next_listing=manager.last_tick + listing + offset,
        settings=[
            (name, "**********" if value and name in MASKED else value, origin)
            for name, value, origin in shown
        ],
        now=now,
    )


def _without_unknown_scores(table: SeriesTable) -> SeriesTable:
    """Remove scores of 0, which the API also sends if it could not compute them, like the rules."""
    if SCORE not in table.columns:
        return table
    scores = table.columns[SCORE]
    return replace(table, columns=table.columns | {SCORE: np.where(scores > 0, scores, np.nan)})


def _source(poller: Poller, offset: float) -> SourceView:
    """Return the view; `offset` is the API's clock minus the event loop's clock."""
    result = poller.source.result
    return SourceView(
        source=poller.source.name,
        interval=poller.source.interval,
        polls=list(poller.recent),
        next_poll=poller.next_poll + offset,
        last_success=poller.last_success,
        records=result.records,
        failure=poller.failure,
        joins=result.counts if isinstance(result, SessionsResult) else {},
        note=STRETCHED if poller.stretched else "",
    )
