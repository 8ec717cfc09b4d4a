"""Queries of both API versions: requests, the vendor's examples, and what is read together."""

import asyncio
import math
from collections import Counter
from contextlib import nullcontext

import pytest
from api_records import ROUND, payload, published
from factories import user

from exporter.account_group import AccountGroup
from exporter.errors import PollError
from exporter.sources.agents import Agent, AgentsSource
from exporter.sources.sessions import SessionsSource
from exporter.thousandeyes.api import MAX_RECORDS, VERSIONS, Api
from exporter.thousandeyes.schema import Page, decode

V6_AGENT = "3fde6422-f119-40e1-ae32-d08a1243c038"


def test_v6_publishes_the_printed_sessions_with_their_exact_values():
    common = {
        "loss_ratio": 0, "sessions": 1, "round_timestamp_seconds": ROUND,
        "cpu_utilization_ratio": 0.38931831001805056, "cpu_samples": 10,
        "cpu_utilization_min_ratio": 0.30859375, "cpu_utilization_max_ratio": 0.5625,
        "cpu_utilization_median_ratio": 0.353515625,
        "cpu_utilization_stddev_ratio": 0.08389194281742307,
        "memory_used_bytes": 12819145821.09091, "memory_samples": 11,
        "memory_used_min_bytes": 12805128192, "memory_used_max_bytes": 12825530368,
        "memory_used_median_bytes": 12818219008, "memory_used_stddev_bytes": 5741124.05691331,
        "memory_size_bytes": 17069891584,
    }  # fmt: skip
    bare = {"latency_seconds": 0.15, "jitter_seconds": 0.046, "pages": 1}
    www = {"latency_seconds": 0.024, "jitter_seconds": 0.036, "pages": 2}
    assert published("v6", "v6/user-sessions.json", "v6/network-sessions.json") == {
        (V6_AGENT, "thousandeyes.com", "http"): common | bare,
        (V6_AGENT, "www.thousandeyes.com", "https"): common | www,
    }


def test_v6_decodes_the_examples_of_agents_and_account_groups():
    listings = *AgentsSource.listings["v6"], VERSIONS["v6"].ACCOUNT_GROUPS
    names = "v6/endpoint-agents.json", "v6/account-groups.json"
    agents, groups = map(decode, map(payload, names), listings)
    id_, system = "5d0764ac-7e42-4ec8-a0d4-39fc53edccba", "Microsoft Windows 10 Enterprise"
    info, state = ("", "0.191.0", system, "London, England, UK"), (1582243003.0, *[math.nan] * 3)
    agent = Agent(id_, "test-agent-1", info, ("", "", "CiscoAnyConnect"), state, ())
    assert repr(agents.records) == repr([agent])  # NaN != NaN
    assert agents.next_link.startswith("https://api.thousandeyes.com/v6/endpoint-agents?pageId=")
    assert groups.records == [AccountGroup("59", "Demo - Example User", current=False)]


def test_requests_have_an_explicit_range_and_search_filters():
    start, end, search = "2017-03-26T11:58:00", "2017-03-26T12:13:00", {"platform": ["mac"]}
    v6, v7 = {"from": start, "to": end}, {"startDate": f"{start}Z", "endDate": f"{end}Z"}
    filters = {"searchFilters": [{"key": "platform", "values": ["mac"]}]}
    cases = ({}, None, {}), (search, filters, {"searchFilters": search})
    for given, v6_body, v7_body in cases:
        assert VERSIONS["v6"].parameters(ROUND, ROUND + 900, given) == (v6, v6_body)
        assert VERSIONS["v7"].parameters(ROUND, ROUND + 900, given) == (v7, v7_body)


LISTINGS = SessionsSource.listings["v7"]


class PagesApi(Api):
    """Reads these pages of both listings, and raises the errors among them."""

    def __init__(self, *answers):
        super().__init__(self, "v7")
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


@pytest.mark.parametrize(("more", "reason"), [(0, None), (1, "too_large")])
async def test_the_number_of_records_is_limited(more, reason):
    pages = [page(count) for count in [*[MAX_RECORDS // 10] * 10, more]]
    with pytest.raises(PollError) if more else nullcontext() as failure:
        await PagesApi(pages, [page()]).read(LISTINGS, "59", None)
    assert (failure and failure.value.reason) == reason
