"""Queries of an API version: listings that are read together."""

import asyncio
from collections import Counter
from contextlib import nullcontext

import pytest
from factories import network, user

from exporter.errors import PollError
from exporter.sources.sessions import SessionsSource
from exporter.thousandeyes.api import MAX_RECORDS, Api
from exporter.thousandeyes.schema import Page, Request

LISTINGS = SessionsSource.listings["v7"]


class PagesApi(Api):
    """Reads these pages of both listings, or raises errors in place of them."""

    def __init__(self, users, networks):
        super().__init__(self, "v7")  # it has `pages`
        self.answers = dict(zip(LISTINGS, (users, networks), strict=True))
        self.requests = []

    async def pages(self, request, listing, deadline):
        for answer in self.answers[listing]:
            self.requests.append(request)
            await asyncio.sleep(0.001)
            if isinstance(answer, Exception):
                raise answer
            yield answer


def page(*records, **rejected):
    return Page(list(records), None, Counter(rejected))


async def test_reads_all_pages_of_all_listings_with_equal_parameters():
    users = [page(user("1"), bad_type=1), page(user("2"))]
    api = PagesApi(users, [page(network("1")), page(network("2"), bad_time=2, bad_type=1)])
    parameters = {"from": "1"}, {"a": 1}
    listings, rejected = await api.read(LISTINGS, "59", None, parameters=parameters, priority=2)
    assert repr(listings) == repr([[user("1"), user("2")], [network("1"), network("2")]])
    assert rejected == {"bad_type": 2, "bad_time": 2}
    first, second = (Request(each.path, "59", *parameters, priority=2) for each in LISTINGS)
    assert [api.requests.count(each) for each in (first, second)] == [2, 2]


@pytest.mark.parametrize("error", [PollError("json", "not JSON"), ZeroDivisionError("a bug")])
async def test_a_failed_page_stops_all_listings_and_the_first_one_is_read_alone(error):
    for users, networks, limit in (([error], [page()], 1), ([page()] * 99, [page(), error], 20)):
        api = PagesApi(users, networks)
        with pytest.raises(type(error), match=str(error)):
            await api.read(LISTINGS, "59", None)
        requests = len(api.requests)
        await asyncio.sleep(0.005)
        assert len(api.requests) == requests <= limit


@pytest.mark.parametrize("more", [0, 1])
async def test_the_number_of_records_is_limited(more):
    pages = [page(*[user("1")] * count) for count in [*[MAX_RECORDS // 10] * 10, more]]
    with pytest.raises(PollError) if more else nullcontext() as failure:
        await PagesApi(pages, [page()]).read(LISTINGS, "59", None)
    assert not failure or failure.value.reason == "too_large"
