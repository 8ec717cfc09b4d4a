"""Sources of one account group: published values, failures of one of them, and privacy."""

import asyncio
import re
from collections.abc import Sequence
from math import ceil
from typing import Any

import expected_values
import pytest
from aiohttp import web
from expected_values import Values
from factories import parse
from failures.harness import Trial, trial
from fake_clock import WALL_START, fake_time

from exporter.metrics.families import PREFIX
from exporter.simulator import Fault, World
from exporter.simulator.api import ApiRequest, Payload
from exporter.simulator.faults import error, records
from exporter.sources.sessions import SERIES
from exporter.thousandeyes.api import VERSIONS

WORLD = World(agents=30, sites=5)
PATHS = {"agents": "endpoint/agents", "local_networks": "local-networks"}
FAMILIES = {"agents": "agent_connection_info", "local_networks": "local_network_score_ratio"}
TARGET = ("agent", "target_type")
AGENT = ("aid", "agent", "agent_name", "agent_version", "os_version", "location")


def samples(text: str, labels: Sequence[str] = TARGET) -> Values:
    """Return the samples of an exposition: name without prefix, and label values."""
    return {
        (name, *(dict(pairs).get(label, "") for label in labels)): value
        for (name, pairs), value in parse(text, prefix=PREFIX).items()
    }


async def published(t: Trial) -> set[str]:
    """Return the names of the published families."""
    await asyncio.sleep(0.5)
    return {key[0] for key in samples(await t.get("/metrics"))}


@pytest.mark.parametrize("version", VERSIONS)
@fake_time
async def test_values_are_those_of_the_simulated_company_in_both_versions(version: str) -> None:
    world, now = World(agents=40, sites=15, account_groups=2), WALL_START
    settings = {"api__version": version, "api__account_groups": "all"}
    async with trial(world=world, ready=False, **settings) as t:
        t.simulator.page_size = 37
        await t.until(lambda: bool(t.value("thousandeyes_up", "1002", source="agents")), 30)
        await asyncio.sleep(0.5)
        expected: Values = {}
        requests = 0
        for aid in world.groups:
            expected |= expected_values.of_sessions(world, version, now - 900, now, now, aid)
            sessions = list(world.sessions(aid, now - 930, now, now))
            for count in (sum(s.listed for s in sessions), sum(s.measured for s in sessions)):
                requests += ceil(count / t.simulator.page_size)
        text, names = await t.get("/metrics"), {family.short_name for family in SERIES.families}
        found = samples(text, ("aid", *SERIES.labels))
        assert len(expected) > 1500
        assert {k: v for k, v in found.items() if k[0] in names} == pytest.approx(expected)
        sent = [each for each in t.simulator.requests if re.search("session|real-user", each.path)]
        assert len(sent) == requests > 10, "as few requests as possible"
        assert {key[1:] for key in samples(text, AGENT) if key[0] == "agent_info"} == {
            (str(a.aid), a.id, a.name, a.version, a.hardware["osVersion"], a.office.location)
            for a in world.agents
        }
        networks = expected_values.of_local_networks(world, now) if version == "v7" else {}
        found = samples(text)
        assert {key: found.get(key) for key in networks} == pytest.approx(networks)
        names = {key[0] for key in found}
        assert len(networks) > 100 or not names & set(FAMILIES.values()), "v6 has agent names only"


@pytest.mark.parametrize("source", PATHS)
@fake_time
async def test_a_source_that_reads_only_first_pages_expires_and_leaves_the_others(source):
    def fail_later_pages(request: ApiRequest) -> web.Response | None:
        later = PATHS[source] in request.path and "cursor" in request.params
        return error(500, "Internal Server Error")(request) if later else None

    async with trial(world=WORLD) as t:
        await t.until(lambda: bool(t.value("thousandeyes_up", source=source)))
        t.simulator.page_size = 10
        t.simulator.faults = (Fault("later_pages", "", fail_later_pages),)
        await t.until(lambda: not t.value("thousandeyes_up", source=source), 400)
        others = {"sessions", "agents", "local_networks"} - {source}
        assert all(t.value("thousandeyes_up", source=each) for each in others)
        assert FAMILIES[source] in await published(t)
        await asyncio.sleep(1000)  # longer than the look-back
        assert (FAMILIES[source] in await published(t)) == (source == "agents")  # do not expire
        assert sum("poll_failed" in line and source in line for line in t.log) == 1
        t.simulator.faults = ()
        await t.until(lambda: bool(t.value("thousandeyes_up", source=source)), 305)
        assert FAMILIES[source] in await published(t)


@fake_time
async def test_the_exporter_is_healthy_while_the_first_poll_of_sessions_takes_long() -> None:
    async with trial(ready=False, agents__interval="1m", api__requests_per_minute=1) as t:
        await t.until(lambda: bool(t.aids))
        for _ in range(30):
            assert "healthy" in await t.get("/-/healthy")
            await asyncio.sleep(10)


READ = {
    "id", "agentId", "name", "platform", "version", "osVersion", "locationName", "visitedSite",
    "protocol", "date", "committed", "lastSeen", "type", "hardwareType", "asName", "vpnType",
    "reasonCode",
}  # fmt: skip
"""Fields with text that the exporter reads."""


def _replace_text(value: Any) -> Any:
    """Replace all text by a canary, except in the fields that the exporter reads."""
    if isinstance(value, dict):
        for name in value.keys() - READ:
            value[name] = _replace_text(value[name])
    elif isinstance(value, list):
        value[:] = map(_replace_text, value)
    return f"canary-{value}" if isinstance(value, str) else value


@fake_time
async def test_no_personal_data_is_read() -> None:
    def replace(_request: ApiRequest, payload: Payload) -> None:
        for record in records(payload):
            _replace_text(record)

    canaries = Fault("canaries", "", payload=replace)
    async with trial(world=WORLD, initial_faults=(canaries,)) as t:
        for source in PATHS:
            await t.until(lambda name=source: bool(t.value("thousandeyes_up", source=name)))
        assert FAMILIES["agents"] in await published(t)
        shown = await t.get("/metrics") + await t.get("/") + "\n".join(t.log)
        sources: list[Any] = [poller.source for poller in t.exporter.manager.pollers]
        held = [repr([vars(each.store) for each in sources if each.name != "agents"])]
        held += [repr(each.result) for each in sources]
        assert all(WORLD.agents[0].id in text for text in held)
        assert "canary-" not in f"{shown}{held}"
