"""Exporters that see the same API publish the same, whenever they were started and however they were fed."""

import asyncio

from servers import NOW, StillClock, ask, exporting, simulated

from exporter.app import Exporter
from exporter.exposition import Snapshot
from exporter.simulator import World

WORLD = World(agents=40, sites=12, account_groups=2)
ALL = {"api__account_groups": "all"}
DATED = ("thousandeyes_endpoint_agent_", "thousandeyes_endpoint_site_")
"""What depends on when an exporter listed the agents, and since when it counts."""


def shown(exporter: Exporter) -> Snapshot:
    return exporter.publisher.publication.snapshot


async def gauges(address: str) -> list[str]:
    """Return the lines of all per-session families, comments too."""
    lines = (await ask(f"{address}/metrics")).text.splitlines()
    return [it for it in lines if "thousandeyes_endpoint_" in it and not it.removeprefix("# HELP ").startswith(DATED)]


async def test_two_exporters_publish_the_same_bytes() -> None:
    async with simulated(WORLD, page_size=1000) as (simulator, api), exporting(api, **ALL) as (first, _):
        simulator.page_size = 37
        async with exporting(api, **ALL) as (second, _):
            assert shown(first).common == shown(second).common
            assert shown(first).tails == shown(second).tails
            assert shown(first).series > 1000


async def test_an_exporter_that_ran_before_publishes_what_a_new_one_does() -> None:
    clock = StillClock(NOW - 600)
    async with simulated(WORLD, clock=clock) as (simulator, api), exporting(api, **ALL) as (old, address):
        for _ in range(8):
            clock.now += 75
            await polled(old)
        simulator.page_size = 53
        async with exporting(api, **ALL) as (_, other):
            await polled(old)
            lines = await gauges(address)
            assert lines == await gauges(other)
            assert len(lines) > 1000


async def polled(exporter: Exporter) -> None:
    """Poll every account group once more; the second time, the API has told what time it is."""
    for _ in range(2):
        await asyncio.gather(*(poller.poll() for poller in exporter.pollers.values()))
    await exporter.publisher.build()


async def test_a_restart_changes_no_value() -> None:
    async with simulated(WORLD) as (simulator, api):
        async with exporting(api, **ALL) as (_, address):
            before = (await ask(f"{address}/metrics")).text
        simulator.page_size = 99
        async with exporting(api, **ALL) as (_, address):
            after = (await ask(f"{address}/metrics")).text
    data = [[line for line in text.splitlines() if "thousandeyes_endpoint_" in line] for text in (before, after)]
    assert data[0] == data[1]
