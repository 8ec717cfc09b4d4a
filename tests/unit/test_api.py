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
    """Returns pages of both listings, or raises errors instead of them."""

    def __init__(self, users: list[Any], networks: list[Any]) -> None:
        self.answers = dict(zip(LISTINGS, (users, networks), strict=True))
        self.requests: list[Request] = []

    async def pages(
        self, request: Request, listing: Listing[Any], deadline: asyncio.Timeout
    ) -> AsyncIterator[Page[Any]]:
        for answer in self.answers[listing]:
            self.requests.append(request)
            await asyncio.sleep(0.001)
            if isinstance(answer, Exception):
                raise answer
            yield answer

    async def read(self, **options: Any) -> tuple[Any, Any]:
        async with asyncio.timeout(60) as deadline:
            return await Api(cast("Client", self), "v7").read(LISTINGS, "59", deadline, **options)


def page(*records: Any, **rejected: int) -> Page[Any]:
    return Page(list(records), None, Counter(cast("Any", rejected)))


async def test_reads_all_pages_of_all_listings_with_equal_parameters() -> None:
    users = [page(user("1"), bad_type=1), page(user("2"))]
    networks = [page(network("1")), page(network("2"), bad_time=2, bad_type=1)]
    client, parameters = FakeClient(users, networks), ({"from": "1"}, {"a": 1})
    listings, rejected = await client.read(parameters=parameters, priority=2)
    assert repr(listings) == repr([[user("1"), user("2")], [network("1"), network("2")]])
    assert rejected == {"bad_type": 2, "bad_time": 2}
    first, second = (Request(each.path, "59", *parameters, priority=2) for each in LISTINGS)
    assert [client.requests.count(each) for each in (first, second)] == [2, 2]


@pytest.mark.parametrize("error", [PollError("json", "not JSON"), ZeroDivisionError("a bug")])
async def test_a_failed_page_stops_all_listings_and_the_first_one_is_read_alone(
    error: Exception,
) -> None:
    for users, networks, limit in (([error], [page()], 1), ([page()] * 99, [page(), error], 20)):
        client = FakeClient(users, networks)
        with pytest.raises(type(error), match=str(error)):
            await client.read()
        requests = len(client.requests)
        await asyncio.sleep(0.005)
        assert len(client.requests) == requests <= limit


@pytest.mark.parametrize("more", [0, 1])
async def test_the_number_of_records_is_limited(more: int) -> None:
    pages = [page(*[user("1")] * count) for count in [*[MAX_RECORDS // 10] * 10, more]]
    with pytest.raises(PollError) if more else nullcontext() as failure:
        await FakeClient(pages, [page()]).read()
    assert not failure or failure.value.reason == "too_large"
