"""What can be asked of the API, read to the last page: of the simulator, and of a server of bytes for bad links."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import Call, Raw, Script, reply, serving
from virtual import START, Instant, Patient
from wires import Record, record, shape

from exporter import api as api_module
from exporter.api import VERSIONS, Api
from exporter.api.http import Credentials, Http
from exporter.api.wire import Request
from exporter.errors import PollError, Reason
from exporter.model import AccountGroup, Sessions
from exporter.simulator import Simulator, World, parse_faults

AID = "1001"
BEGIN, END = int(START) - 900, int(START)
versions = pytest.mark.parametrize("version", VERSIONS)


class Silent:
    """An observer that nobody asks."""

    def request(self, route: str, code: str, seconds: float) -> None:
        assert "?" not in route, "a template, never an address"

    def retry(self, reason: Reason) -> None:
        pass


async def at_once(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


@asynccontextmanager
async def asking(url: str, version: str, **search: list[str]) -> AsyncIterator[Api]:
    virtual = Instant()
    http = Http(url, lambda: Credentials("demo"), Silent(), clock=virtual.clock, requests_per_minute=10_000)
    try:
        yield Api(http, version, search, at_once)
    finally:
        await http.close()


@dataclass
class Company:
    """A simulator, and who asks it."""

    simulator: Simulator
    api: Api

    async def sessions(self, aid: str = AID) -> Sessions:
        return await self.api.sessions(aid, BEGIN, END, Patient())


@asynccontextmanager
async def company(
    version: str, faults: Iterable[str] = (), world: World | None = None, search: Any = None, **options: Any
) -> AsyncIterator[Company]:
    async with AsyncExitStack() as stack:
        options = {"page_size": 100, "clock": lambda: START, "rate_limit": 100_000, **options}
        simulator = Simulator(world or World(agents=30), faults=parse_faults(faults), **options)
        url = await simulator.start()
        stack.push_async_callback(simulator.stop)
        yield Company(simulator, await stack.enter_async_context(asking(url, version, **(search or {}))))


async def failure(asked: Any) -> Reason:
    with pytest.raises(PollError) as caught:
        await asked
    return caught.value.reason


# All pages of a pretend company.


@versions
async def test_both_listings_are_read_to_the_end_for_the_same_explicit_range(version: str) -> None:
    async with company(version) as c:
        found = await c.sessions()
        world = list(c.simulator.world.sessions(1001, BEGIN, END, START))
        assert {user.id for user in found.users} == {session.id for session in world if session.listed}
        assert {network.id for network in found.networks} == {session.id for session in world if session.measured}
        assert len(world) > 200
        ranges = [
            tuple(
                parse_qs(request.query)[name][0]
                for name in (("from", "to") if version == "v6" else ("startDate", "endDate"))
            )
            for request in c.simulator.requests
        ]
        zone = "" if version == "v6" else "Z"
        assert set(ranges) == {(f"2026-11-18T14:17:30{zone}", f"2026-11-18T14:32:30{zone}")}
        assert len({request.body for request in c.simulator.requests}) == 1
        assert {request.status for request in c.simulator.requests} == {200}
        assert len(c.simulator.requests) == sum(-(-len(part) // 100) for part in (found.users, found.networks)), (
            "no request more than there are pages"
        )


@versions
@pytest.mark.parametrize("page_size", [1, 7, 1000])
async def test_the_size_of_the_pages_changes_nothing(version: str, page_size: int) -> None:
    world = World(agents=3)
    async with company(version, world=world, page_size=page_size) as c, company(version, world=world) as other:
        found, expected = await c.sessions(), await other.sessions()
        assert sorted(found.users, key=str) == sorted(expected.users, key=str)
        assert sorted(found.networks, key=str) == sorted(expected.networks, key=str)


@versions
async def test_a_search_is_passed_on(version: str) -> None:
    async with company(version) as c:
        site = (await c.sessions()).users[0].key.site
        async with company(version, search={"visitedSite": [site]}) as searching:
            found = await searching.sessions()
            assert {user.key.site for user in found.users} == {site}
            assert {request.method for request in searching.simulator.requests} == {"POST"}


@versions
async def test_agents_come_once_and_in_order(version: str) -> None:
    async with company(version, ["duplicate_records"], page_size=7) as c:
        agents = await c.api.agents(AID, Patient())
        assert [agent.id for agent in agents] == sorted(agent.id for agent in c.simulator.world.people)


@versions
async def test_account_groups_say_which_one_is_the_tokens_own(version: str) -> None:
    async with company(version, world=World(account_groups=3)) as c:
        groups = await c.api.account_groups(Patient())
        assert [(group.aid, group.current) for group in groups] == [("1001", True), ("1002", False), ("1003", False)]
        assert all(isinstance(group, AccountGroup) and group.name for group in groups)


@versions
async def test_without_an_account_group_the_tokens_own_answers(version: str) -> None:
    async with company(version) as c:
        assert (await c.sessions("")).users == (await c.sessions()).users
        assert "aid" not in c.simulator.requests[0].query


@versions
async def test_bad_records_cost_themselves_over_all_pages(version: str) -> None:
    async with company(version, ["bad_records"]) as c, company(version) as other:
        found, expected = await c.sessions(), await other.sessions()
        assert 0.7 < len(found.users) / len(expected.users) < 0.9
        assert 0.7 < len(found.networks) / len(expected.networks) < 0.9
        lost = len(expected.users) + len(expected.networks) - len(found.users) - len(found.networks)
        assert lost <= found.rejected.total()
        assert set(found.rejected) == {"missing_id", "missing_field", "bad_type", "bad_time", "out_of_range"}


FAULTS: dict[str, Reason] = {
    "unauthorized": "auth", "forbidden": "forbidden", "forbidden_group": "forbidden", "not_found": "not_found",
    "rate_limited": "rate_limited", "rate_limited_bare": "rate_limited", "server_error": "server_error",
    "bad_gateway": "server_error", "maintenance": "maintenance", "redirect": "redirect", "reset": "reset",
    "truncated": "reset", "html": "content_type", "xml": "content_type", "not_json": "json", "bad_gzip": "decompress",
    "next_loop": "pagination_loop", "next_endless": "pagination_limit", "next_other_host": "pagination_origin",
    "next_other_path": "pagination_origin",
}  # fmt: skip


@versions
@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
async def test_every_fault_has_its_reason(
    version: str, fault: str, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "MAX_PAGES", 20)
    async with company(version, [fault]) as c:
        assert await failure(c.sessions()) == reason
        assert await failure(c.api.agents(AID, Patient())) == reason
        assert len(c.simulator.requests) <= 60


@versions
@pytest.mark.parametrize(
    "fault", ["null_fields", "floats", "odd_labels", "masked", "next_null", "no_rate_headers", "no_date"]
)
async def test_these_are_no_faults(version: str, fault: str) -> None:
    async with company(version, [fault]) as c:
        found = await c.sessions()
        assert found.users
        assert found.networks
        assert not found.rejected


@versions
async def test_an_empty_answer_is_an_answer(version: str) -> None:
    async with company(version, ["empty"]) as c:
        assert await c.sessions() == Sessions([], [], Counter())


@versions
async def test_what_is_refused_is_refused_once(version: str) -> None:
    for fault in ("forbidden", "not_found", "redirect", "html", "not_json"):
        async with company(version, [fault]) as c:
            await failure(c.sessions())
            assert len(c.simulator.requests) == 1


@versions
async def test_one_failed_page_ends_the_other_listing(version: str) -> None:
    """The last page of the network sessions fails while user sessions are still being read."""
    async with company(version, world=World(agents=60), page_size=20) as c:
        c.simulator.faults = parse_faults(["not_json=0.1"])
        assert await failure(c.sessions()) == "json"
        served = len(c.simulator.requests)
        await asyncio.sleep(0.1)
        assert len(c.simulator.requests) <= served + 1, "nobody goes on asking"


# The way from page to page.


def pages(version: str, *links: Any, listing: str = "agents") -> list[Script]:
    """Make one page for each link; the last of them for ever."""
    wrapped = [
        {"pages": {"next": link}} if version == "v6" else {"_links": {"next": {"href": link} if link else None}}
        for link in links
    ]
    return [reply(json.dumps({shape(version, listing).results: [], **each})) for each in wrapped]


def path(version: str) -> str:
    return VERSIONS[version].agents("").path


def cursor(version: str) -> str:
    return "pageId" if version == "v6" else "cursor"


async def walk(version: str, *links: Any, aid: str = AID) -> tuple[Raw, Reason | None]:
    """Follow links; `{origin}` in them is where the server is."""
    scripts: list[Script] = []
    async with serving(*[lambda call: _say(call, scripts)]) as raw, asking(raw.url, version) as api:
        scripts += pages(version, *(link.format(origin=raw.url) if isinstance(link, str) else link for link in links))
        try:
            await api.agents(aid, Patient())
        except PollError as error:
            return raw, error.reason
        return raw, None


async def _say(call: Call, scripts: list[Script]) -> None:
    script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
    assert isinstance(script, bytes)
    await call.say(script)


@versions
@pytest.mark.parametrize(
    "link",
    [
        "{origin}{path}?aid=1001&{cursor}=2",
        "{origin}{path}?{cursor}=2",
        "{path}?{cursor}=2",
        "?{cursor}=2",
        "{origin}{path}?{cursor}=2&from=2017-03-22&anything=else#here",
    ],
)
async def test_only_the_cursor_of_a_link_is_used(version: str, link: str) -> None:
    link = link.replace("{path}", path(version)).replace("{cursor}", cursor(version))
    if link.startswith("?"):
        link = path(version) + link
    raw, reason = await walk(version, link, None)
    assert reason is None
    assert raw.targets == [f"GET {path(version)}?aid=1001", f"GET {path(version)}?aid=1001&{cursor(version)}=2"]


@versions
async def test_a_cursor_is_opaque(version: str) -> None:
    raw, reason = await walk(version, f"{{origin}}{path(version)}?{cursor(version)}=%26aid%3D7%2F%2B%3D%20%C3%A9", None)
    assert reason is None
    assert parse_qs(urlsplit(raw.targets[1]).query) == {"aid": ["1001"], cursor(version): ["&aid=7/+= é"]}


async def test_v6_leaves_out_or_adds_the_name_of_the_format() -> None:
    raw, reason = await walk(
        "v6", "{origin}/v6/endpoint-agents?pageId=2", "{origin}/v6/endpoint-agents.json?page=3", None
    )
    assert reason is None
    assert [target.partition("aid=1001")[2] for target in raw.targets] == ["", "&pageId=2", "&page=3"]


@versions
@pytest.mark.parametrize(
    "link",
    [
        "{secure}{path}?{cursor}=2",
        "{origin}{path}/?{cursor}=2",
        "{origin}{path}%2f?{cursor}=2",
        "{origin}/?{cursor}=2",
        "javascript:alert(1)",
        "mailto:somebody@example.com",
        "data:application/json,[]",
        "file:///etc/passwd",
        "http://[::1",
        "http://127.0.0.1:99999999/",
        "http://user:password@",
        "//",
        "http://",
        "\ud800",
        "\x00",
        "x" * 100_000,
    ],
    ids=lambda link: ascii(link[:40]),
)
async def test_a_link_to_elsewhere_is_not_followed(version: str, link: str) -> None:
    link = link.replace("{path}", path(version)).replace("{cursor}", cursor(version))
    raw, reason = await walk(version, link.replace("{secure}", "https://127.0.0.1:8443"), None)
    assert (reason, len(raw.targets)) == ("pagination_origin", 1)


@versions
@settings(deadline=None)
@given(link=st.text() | st.from_regex(r"(https?:)?//[^/]*(/.*)?", fullmatch=True))
def test_whatever_a_link_is_it_leads_nowhere_else(version: str, link: str) -> None:
    async def scenario() -> None:
        async with asking("https://api.thousandeyes.com", version) as api:
            request = VERSIONS[version].agents(AID)
            try:
                found = api._cursor(link, request)
            except PollError as error:
                assert error.reason == "pagination_origin"  # noqa: PT017  one or the other
            else:
                assert set(found) <= VERSIONS[version].CURSORS

    asyncio.run(scenario())


@versions
async def test_there_is_a_last_page(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MAX_PAGES", 3)
    links = [f"{{origin}}{path(version)}?{cursor(version)}={number}" for number in range(4)]
    raw, reason = await walk(version, *links)
    assert (reason, len(raw.targets)) == ("pagination_limit", 3)
    raw, reason = await walk(version, *links[:2], None)
    assert (reason, len(raw.targets)) == (None, 3), "as many as there may be are not too many"


@versions
async def test_the_body_is_the_same_on_every_page(version: str) -> None:
    async def answer(call: Call) -> None:
        name, here = shape(version, "users").results, urlsplit(call.target.partition(" ")[2])
        last = cursor(version) in here.query
        link = None if last else f"{here.path}?{cursor(version)}=2"
        network = "network" in here.path
        results = shape(version, "networks").results if network else name
        body: Record = {results: [record(version, "networks" if network else "users", int(last))]}
        body |= {"pages": {"next": link}} if version == "v6" else {"_links": {"next": {"href": link}} if link else {}}
        await call.say(reply(json.dumps(body)))

    async with serving(answer) as raw, asking(raw.url, version, domain=["example.com"]) as api:
        found = await api.sessions("59", 0, 60, Patient())
        assert len({call.body for call in raw.calls}) == 1
        assert {call.header("Content-Type") for call in raw.calls} == {"application/json"}
        assert len(raw.calls) == 4
        assert [user.id[-1] for user in found.users] == [network.id[-1] for network in found.networks] == ["0", "1"]


# What a fault of our own becomes.


@versions
async def test_a_crash_is_not_hidden_in_a_group(version: str) -> None:
    async with company(version) as c:
        calls = 0

        async def crash_later(function: Any, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise ZeroDivisionError
            return function(*arguments)

        c.api._threaded = crash_later
        with pytest.raises(ZeroDivisionError):
            await c.sessions()


async def test_pages_are_decoded_in_a_thread_by_itself() -> None:
    async with company("v7") as c:
        assert (await Api(c.api._http, "v7", {}).sessions(AID, BEGIN, END, Patient())).users


def test_requests_hold_no_secret_and_no_host() -> None:
    assert set(Request.__slots__) == {"method", "path", "query", "body"}
