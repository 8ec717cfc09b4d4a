"""Queries of an API version: both listings of sessions, agents, and account groups."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from factories import batch, network, user

from exporter.errors import PollError
from exporter.inventory import Agent
from exporter.thousandeyes.api import VERSIONS, Api
from exporter.thousandeyes.client import Client
from exporter.thousandeyes.schema import Listing, Page, Request


class FakeClient:
    """Returns pages of the network listing, and of any other, or raises errors instead of them."""

    def __init__(self, others: list[Any], networks: list[Any] | None = None) -> None:
        self.pages_of = {"other": others, "network": networks or []}
        self.log: list[str] = []
        self.requests: list[Request] = []

    async def pages(
        self, request: Request, listing: Listing[Any], deadline: asyncio.Timeout
    ) -> AsyncIterator[Page[Any]]:
        assert request.path == listing.path
        name = "network" if "network" in request.path else "other"
        self.requests.append(request)
        for page in self.pages_of[name]:
            self.log.append(f"{name} requested")
            await asyncio.sleep(0.001)
            if isinstance(page, Exception):
                raise page
            self.log.append(f"{name} received")
            yield page

    async def query(self, method: str, *args: Any) -> Any:
        api = Api(cast("Client", self), "v7", {"platform": ["mac"]})
        async with asyncio.timeout(60) as deadline:
            return await getattr(api, method)(*args, deadline)


def page(*records: Any, **rejected: int) -> Page[Any]:
    return Page(list(records), None, Counter(cast("Any", rejected)))


async def test_reads_both_listings_of_the_same_range_and_the_first_page_alone() -> None:
    users = [page(user("1"), bad_type=1), page(user("2"))]
    networks = [page(network("1")), page(network("2"), bad_time=2, bad_type=1)]
    client = FakeClient(users, networks)
    found = await client.query("sessions", "59", 60, 120)
    sessions = [(user("1"), network("1")), (user("2"), network("2"))]
    assert repr(found) == repr(batch(*sessions, bad_type=2, bad_time=2))
    query, body = VERSIONS["v7"].parameters(60, 120, {"platform": ["mac"]})
    assert [(each.aid, each.query, each.body) for each in client.requests] == [
        ("59", query, body)
    ] * 2
    assert client.log[:2] == ["other requested", "other received"]
    assert sorted(client.log[2:4]) == ["network requested", "other requested"]


@pytest.mark.parametrize("error", [PollError("json", "not JSON"), ZeroDivisionError("a bug")])
async def test_a_failed_page_stops_both_listings(error: Exception) -> None:
    for client in (FakeClient([error], [page()]), FakeClient([page()] * 99, [page(), error])):
        with pytest.raises(type(error), match=str(error)):
            await client.query("sessions", "59", 60, 120)
        requests = len(client.log)
        await asyncio.sleep(0.005)
        assert len(client.log) == requests < 20


async def test_agents_are_sorted_and_unique() -> None:
    client = FakeClient([page(Agent("b"), Agent("a")), page(Agent("b", name="new"))])
    agents = await client.query("agents", "59")
    assert [(agent.id, agent.name) for agent in agents] == [("a", ""), ("b", "new")]
    assert client.requests == [Request("/v7/endpoint/agents", "59")]


@pytest.mark.parametrize("version", VERSIONS)
def test_there_are_four_routes(version: str) -> None:
    routes = Api(cast("Client", FakeClient([])), version, {}).routes
    assert len(set(routes)) == 4
    assert all(route.startswith(f"/{version}/") for route in routes)
