"""Both API versions of one simulated company: read completely, with equal records."""

import asyncio
from functools import cache
from operator import attrgetter
from typing import Any

import pytest
from api_records import values
from fake_clock import WALL_START

from exporter.inventory import AccountGroup
from exporter.metrics.self_metrics import SelfMetrics
from exporter.simulator import Simulator, World
from exporter.sources.agents import Agent, AgentsSource
from exporter.sources.rows import Batch
from exporter.sources.sessions import SessionsSource
from exporter.thousandeyes.api import VERSIONS, Api
from exporter.thousandeyes.client import Client

START, END = int(WALL_START) - 900, int(WALL_START)
WORLD = World(agents=30, account_groups=2)
PAGE_SIZE = 37
ONLY = {
    "v6": ("destination.avgRtt", "destination.maxRtt", "destination.meanDevRtt"),
    "v7": ("vpn.", "proxy."),
}


@cache
def read(version: Any) -> tuple[Batch, int, list[Agent], list[AccountGroup]]:
    """Return the sessions, the number of requests for them, the agents and the account groups."""

    async def scenario() -> tuple[Batch, int, list[Agent], list[AccountGroup]]:
        simulator = Simulator(
            WORLD, page_size=PAGE_SIZE, clock=lambda: WALL_START, rate_limit=100_000
        )
        url, metrics = await simulator.start(), SelfMetrics(process=False)
        client = Client(url, lambda: "Bearer demo", metrics, requests_per_minute=100_000)
        api, sessions = Api(client, version), SessionsSource.listings[version]
        parameters = api.parameters(START, END, {})
        try:
            async with asyncio.timeout(60) as deadline:
                batch = Batch(*await api.read(sessions, "1001", deadline, parameters=parameters))
                requests = len(simulator.requests)
                (agents,), _ = await api.read(AgentsSource.listings[version], "1001", deadline)
                return batch, requests, agents, await api.account_groups(deadline)
        finally:
            await client.close()
            await simulator.stop()

    return asyncio.run(scenario())


@pytest.mark.parametrize("version", VERSIONS)
def test_reads_all_sessions_and_agents_with_the_fewest_requests(version: str) -> None:
    batch, requests, agents, _ = read(version)
    sessions = list(WORLD.sessions(1001, START, END, WALL_START))
    users, networks = batch.listings
    assert {user.id for user in users} == {s.id for s in sessions if s.listed}
    assert {network.id for network in networks} == {s.id for s in sessions if s.measured}
    sizes = (len(users), len(networks))
    assert requests == sum(-(-size // PAGE_SIZE) for size in sizes) > 4
    assert {agent.id for agent in agents} == {a.id for a in WORLD.agents_of(1001)}
    assert not batch.rejected


def test_user_sessions_are_equal() -> None:
    v6, v7 = (sorted(map(repr, read(version)[0].listings[0])) for version in VERSIONS)  # NaN != NaN
    assert v6 == v7


def test_network_sessions_are_equal_in_all_fields_that_both_versions_have() -> None:
    common = []
    for version, own in ONLY.items():
        rows = {network.id: values(network) for network in read(version)[0].listings[1]}
        assert {field for row in rows.values() for field in row if field.startswith(own)}
        common.append(
            {
                id_: {field: value for field, value in row.items() if not field.startswith(own)}
                for id_, row in rows.items()
            }
        )
    assert common[0] == common[1]


def test_agents_are_equal_in_all_fields_of_v6_and_account_groups_are_equal() -> None:
    (*_, v6_agents, v6_groups), (*_, v7_agents, v7_groups) = (read(version) for version in VERSIONS)
    fields = attrgetter("id", "name", "version", "os_version", "location", "last_seen")
    v6, v7 = (sorted(map(fields, agents)) for agents in (v6_agents, v7_agents))
    assert v6 == v7
    assert all(agent.platform for agent in v7_agents)
    assert v6_groups == v7_groups
    assert [(group.aid, group.current) for group in v6_groups] == [("1001", True), ("1002", False)]
