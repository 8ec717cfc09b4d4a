"""One world through every version of the API: what both versions send is published the same, to the last bit."""

import asyncio
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from making import joined
from test_api import AID, company
from virtual import START, Patient

from exporter.aggregate import Rows, aggregate
from exporter.api import VERSIONS
from exporter.exposition import Format, Group, plain, render
from exporter.metrics import FAMILIES
from exporter.model import AccountGroup, Agent, Sessions
from exporter.selection import Selection
from exporter.simulator import World

LEGS = ("latency_seconds", "jitter_seconds", "loss_ratio")
ONLY = {
    "v6": {"avg_rtt_seconds", "max_rtt_seconds", "mean_dev_rtt_seconds"},
    "v7": {f"{leg}_{name}" for leg in ("vpn", "proxy") for name in LEGS},
}
"""Families whose field only one version sends; a new version is compared in all others without a word here."""
COMMON = [family for family in FAMILIES if not any(family.short in only for only in ONLY.values())]
pairs = pytest.mark.parametrize(("one", "other"), list(pairwise(VERSIONS)))


@cache
def asked(version: str) -> tuple[Sessions, list[Agent], list[AccountGroup]]:
    """Return all that a version tells of one and the same world."""

    async def ask() -> tuple[Sessions, list[Agent], list[AccountGroup]]:
        async with company(version, world=World(agents=60, account_groups=2), page_size=50) as c:
            agents = await c.api.agents(AID, Patient())
            return await c.sessions(), agents, await c.api.account_groups(Patient())

    return asyncio.run(ask())


def rows(version: str) -> Rows:
    taken = Selection().take(asked(version)[0], START)
    return aggregate(joined(taken.users, taken.networks))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_publishes_every_family_that_it_has(version: str) -> None:
    columns = rows(version).columns
    empty = {name for name, column in columns.items() if np.isnan(column).all()}
    assert empty == set().union(*(only for name, only in ONLY.items() if name != version))


@pairs
def test_rows_are_equal_to_the_last_bit(one: str, other: str) -> None:
    assert rows(one).keys == rows(other).keys
    for family in COMMON:
        assert rows(one).columns[family.short].tobytes() == rows(other).columns[family.short].tobytes(), family.short


@pairs
def test_user_sessions_are_equal(one: str, other: str) -> None:
    users = [sorted(asked(version)[0].users, key=lambda user: user.id) for version in (one, other)]
    assert users[0] == users[1]
    assert len(users[0]) > 200
    assert {user.commit_delay for user in users[0]} - {0.0}


@pairs
def test_agents_but_for_their_platform_are_equal(one: str, other: str) -> None:
    """Version 6 does not tell the platform."""
    described = [
        [
            (agent.id, agent.name, agent.version, agent.os_version, agent.location, agent.last_seen)
            for agent in asked(version)[1]
        ]
        for version in (one, other)
    ]
    assert described[0] == described[1]
    assert len(described[0]) == 30


@pairs
def test_account_groups_are_equal(one: str, other: str) -> None:
    assert asked(one)[2] == asked(other)[2]
    assert [group.current for group in asked(one)[2]] == [True, False]


@pairs
def test_the_exposition_of_common_families_is_one_text(one: str, other: str) -> None:
    texts = []
    for version in (one, other):
        snapshot = render([Group(AID, rows(version))], COMMON)
        texts.append(
            b"".join(chunk for part in (snapshot.common, snapshot.tails[Format.TEXT]) for chunk in plain(part))
        )
    assert texts[0] == texts[1]
    assert texts[0].count(b"\n") > 1000
