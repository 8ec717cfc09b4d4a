"""Queries of an API version: listings that are read together."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, cast

import pytest
from factories import network, user

from exporter.errors import PollError
from exporter.sources.sessions import SessionsSource
from exporter.thousandeyes.api import MAX_RECORDS, Api
from exporter.thousandeyes.client import Client
from exporter.thousandeyes.schema import Listing, Page, Request

LISTINGS = SessionsSource.listings["v7"]


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

    async def read(self, **options: Any) -> tuple[Any, Any]:
        async with asyncio.timeout(60) as deadline:
            return await Api(cast("Client", self), "v7").read(LISTINGS, "59", deadline, **options)


def page(*records: Any, **rejected: int) -> Page[Any]:
    return Page(list(records), None, Counter(cast("Any", rejected)))


async def test_reads_all_listings_with_equal_parameters_and_the_first_page_alone() -> None:
    users = [page(user("1"), bad_type=1), page(user("2"))]
    networks = [page(network("1")), page(network("2"), bad_time=2, bad_type=1)]
    client, parameters = FakeClient(users, networks), ({"from": "1"}, {"a": 1})
    listings, rejected = await client.read(parameters=parameters, priority=2)
    assert repr(listings) == repr([[user("1"), user("2")], [network("1"), network("2")]])
    assert rejected == {"bad_type": 2, "bad_time": 2}
    expected = [Request(each.path, "59", *parameters, priority=2) for each in LISTINGS]
    assert client.requests == expected
    assert client.log[:2] == ["other requested", "other received"]
    assert sorted(client.log[2:4]) == ["network requested", "other requested"]


@pytest.mark.parametrize("error", [PollError("json", "not JSON"), ZeroDivisionError("a bug")])
async def test_a_failed_page_stops_all_listings(error: Exception) -> None:
    for client in (FakeClient([error], [page()]), FakeClient([page()] * 99, [page(), error])):
        with pytest.raises(type(error), match=str(error)):
            await client.read()
        requests = len(client.log)
        await asyncio.sleep(0.005)
        assert len(client.log) == requests < 20


@pytest.mark.parametrize("more", [0, 1])
async def test_the_number_of_records_is_limited(more: int) -> None:
    counts = [*[MAX_RECORDS // 10] * 10, more]
    pages = [page(*[user("1")] * count) for count in counts]
    with pytest.raises(PollError) if more else nullcontext() as failure:
        await FakeClient(pages, [page()]).read()
    assert not failure or failure.value.reason == "too_large"
