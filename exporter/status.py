"""Collects what the status page shows."""

import asyncio
from collections.abc import Sequence

from exporter.account_groups import AccountGroupManager
from exporter.poller import Poller
from exporter.render import GroupResult
from exporter.sessions.aggregate import site_means
from exporter.settings import Settings
from exporter.snapshot import Publication
from exporter.thousandeyes.client import Client
from exporter.web.status import (
    AccountGroupView,
    PollView,
    SiteView,
    SourceView,
    StatusView,
    worst_sites,
)

SITE_FAMILIES = ("latency_seconds", "loss_ratio", "experience_score")
"""Columns of the table of sites."""


async def status_view(
    settings: Settings, publication: Publication, manager: AccountGroupManager, client: Client
) -> StatusView:
    """Return the view; the table of sites is computed in a thread."""
    tables = [each.sessions.series for each in publication.groups]
    means = await asyncio.to_thread(site_means, tables, SITE_FAMILIES)
    sites = [
        SiteView(site, int(each["agents"]), *(each[name] for name in SITE_FAMILIES))
        for site, each in means.items()
    ]
    limits = client.rate_limiter.limits
    now = client.api_clock.now()
    return StatusView(
        telemetry_path=settings.web.telemetry_path,
        lookback=settings.poll.lookback,
        account_groups=[
            _account_group(each, manager.groups[each.group.aid].pollers, now)
            for each in publication.groups
            if each.group.aid in manager.groups
        ],
        sites=worst_sites(sites),
        series=publication.snapshot.series,
        series_limit=settings.metrics.max_series,
        series_dropped=publication.dropped,
        requests=client.rate_limiter.sent_last_minute(),
        requests_limit=settings.api.requests_per_minute,
        remaining=limits.remaining,
        limit=limits.limit,
        error=str(manager.failure or ""),
    )


def _account_group(result: GroupResult, pollers: Sequence[Poller], now: float) -> AccountGroupView:
    sources = [
        SourceView(
            poller.source.name,
            [PollView(each.seconds, each.reason) for each in poller.recent],
            None if poller.last_success is None else now - poller.last_success,
            str(poller.failure or ""),
        )
        for poller in pollers
    ]
    counts = result.sessions.counts
    return AccountGroupView(
        aid=result.group.aid,
        name=result.group.name,
        sources=sources,
        joined=counts.get("joined", 0),
        user_only=counts.get("user_only", 0),
        network_only=counts.get("network_only", 0),
        agents=len(result.agents),
    )
