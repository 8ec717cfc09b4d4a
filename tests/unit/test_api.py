"""Queries of an API version: listings that are read together."""

import asyncio
from collections import Counter
from contextlib import nullcontext

import pytest
from factories import user

from exporter.errors import PollError
from exporter.sources.sessions import SessionsSource
from exporter.thousandeyes.api import MAX_RECORDS, Api
from exporter.thousandeyes.schema import Page

LISTINGS = SessionsSource.listings["v7"]


class PagesApi(Api):
    """Reads these pages of both listings, or raises errors in place of them."""

    def __init__(self, *answers):
        super().__init__(self, "v7")  # it has `pages`
        self.answers, self.requests = dict(zip(LISTINGS, answers, strict=True)), []

    async def pages(self, request, listing, deadline):
        for answer in self.answers[listing]:
            self.requests.append(request)
            await asyncio.sleep(0.001)
            if isinstance(answer, Exception):
                raise answer
            yield answer


def page(records=0):
    return Page([user("1")] * records, None, Counter())


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
    pages = [page(count) for count in [*[MAX_RECORDS // 10] * 10, more]]
    with pytest.raises(PollError) if more else nullcontext() as failure:
        await PagesApi(pages, [page()]).read(LISTINGS, "59", None)
    assert not failure or failure.value.reason == "too_large"
