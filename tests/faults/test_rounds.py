"""Rows G: from page to page, and from round to round."""

import asyncio
import json
import re
import zlib
from gzip import decompress
from itertools import groupby

import pytest
from raw import Call, reply, serving
from servers import ask
from test_web import TEXT, Stage, snapshot, staged
from wires import envelope

from exporter.api import MAX_PAGES, VERSIONS
from faults.conftest import row, trial
from faults.listings import at_once, cursor, links, listing, only, page, says, sessions

BOTH = {"v6": "v6", "v7": "v7"}


def first_path(version: str) -> str:
    return VERSIONS[version].user_sessions("", 0, 60, {}).path


async def leads(version: str, reason: str, *ways: tuple[str, ...]) -> None:
    """Let the pages of the user sessions lead somewhere: a poll for each way, of which every page is asked for once.

    `{path}` and `{cursor}` stand for the listing's own, `{origin}` for where the API is, `{other}` for another server.
    """
    async with serving(reply()) as other, trial(api__version=version) as t, t.fault():
        names = {"path": first_path(version), "cursor": cursor(version), "origin": t.api.url, "other": other.url}
        before = t.of("sessions", state="joined")
        for number, way in enumerate(ways):
            left = list(way)

            def users(_: Call, left: list[str] = left) -> str:
                return page(version, "users", [sessions(version, "users")], left.pop(0).format(**names))

            t.api.choose = says(users, page(version, "networks", []))
            await t.polls()
            assert (t.failed, left) == ({reason: number + 1}, []), way
        assert other.connections == 0
        assert t.of("sessions", state="joined") <= before
        assert "3fde6422" not in await t.text(), "a round of which a page is missing is no round"


@row("G01", **BOTH)
async def test_a_next_page_on_another_host_is_not_asked_for(case: str) -> None:
    elsewhere = ["{other}", "https://api.example.net", "//api.example.net", "{origin}.example.net"]
    await leads(case, "pagination_origin", *((f"{it}{{path}}?{{cursor}}=2",) for it in elsewhere))


@row("G02", **BOTH)
async def test_a_next_page_on_another_port_is_not_asked_for(case: str) -> None:
    elsewhere = ["https://127.0.0.1", "http://127.0.0.1:1", "http://127.0.0.1:99999999"]
    await leads(case, "pagination_origin", *((f"{it}{{path}}?{{cursor}}=2",) for it in elsewhere))


@row("G05", **BOTH)
async def test_a_next_page_under_another_path_or_group_is_not_asked_for(case: str) -> None:
    elsewhere = ["{origin}/v7/credentials?", "{origin}{path}/../../credentials?", "{path}/all?", "{path}?aid=1002&"]
    await leads(case, "pagination_origin", *((f"{it}{{cursor}}=2",) for it in (*elsewhere, "{path}?aid=&")))


@row("G07", **BOTH)
async def test_pages_that_lead_back_are_a_loop(case: str) -> None:
    two, three = ("{path}?{cursor}=2", "{path}?{cursor}=3")
    await leads(case, "pagination_loop", (two, two), ("{path}",), ("{path}?window=1h",), (two, three, two))


@row("G08")
async def test_there_is_a_last_page() -> None:
    async with trial() as t, t.fault():
        pages = 0

        def ever_new(_: Call) -> str:
            nonlocal pages
            pages += 1
            return page("v7", "users", [], f"{first_path('v7')}?cursor={pages}")

        t.api.choose, t.api.delay = says(ever_new, page("v7", "networks", [])), at_once
        await t.polls()
        assert (t.failed, pages) == ({"pagination_limit": 1}, MAX_PAGES)


@row("G10")
async def test_pages_that_come_too_slowly_end_with_the_poll_and_the_next_is_on_time() -> None:
    async with trial() as t, t.fault():

        async def slow(call: Call) -> None:
            await asyncio.sleep(0 if listing(call) == "users" and cursor("v7") not in call.target else 25)

        t.api.simulator.page_size, t.api.delay = 5, slow
        asked = len(t.api.calls)
        await t.polls()
        assert t.failed == {"deadline": 1}
        first = t.api.times(asked)[0]
        t.api.delay = at_once
        asked = len(t.api.calls)
        await t.polls()
        assert t.api.times(asked)[0] - first == pytest.approx(60, abs=1)
        assert (t.failed, t.of("polls_skipped_total")) == ({"deadline": 1}, 0)


@row("G11", **BOTH)
async def test_a_next_page_of_another_form(case: str) -> None:
    async with trial(api__version=case) as t, t.fault():
        for number, link in enumerate([None, "", 7, ["a"], True, {"hreflang": "en"}, {"href": 7}]):
            one = sessions(case, "users", agentId=f"page-{number}-")
            body = json.dumps(envelope(case, "users", one, **links(case, link)))
            t.api.choose = says(body, page(case, "networks", []))
            await t.polls()
            assert t.failed == ({"schema": number - 1} if number > 1 else {}), link
            assert (f"page-{number}-" in await t.text()) == (number <= 1)


@row("G12", **BOTH)
async def test_a_record_that_comes_twice_is_one(case: str) -> None:
    async with trial(api__version=case) as t, t.fault("duplicate_records"):
        t.api.simulator.page_size = 5
        await t.polls(2)
        assert t.failed == {}
        (poller,) = t.exporter.pollers.values()
        listed = [session for session, _ in poller.result.pairs]
        assert (
            len({session.id for session in listed})
            == len(listed)
            == t.of("sessions", state="joined") + t.of("sessions", state="user_only")
        )
        assert sum(t.of("records_rejected_total", reason=why) for why in ("missing_id", "bad_type")) == 0


@row("G15", **BOTH)
async def test_a_round_that_comes_again_with_more_is_replaced_as_a_whole(case: str) -> None:
    """Every session has three pages: whoever scrapes sees two sessions and six pages, or five and fifteen."""
    async with trial(api__version=case) as t, t.fault():
        records = [(sessions(case, "users", n), sessions(case, "networks", n)) for n in range(5)]
        seen: list[tuple[str, ...]] = []
        for listed in (2, 5):
            t.api.choose = only(case, *zip(*records[:listed], strict=True))
            for _ in range(16):
                values = re.findall(
                    r'^\w+_(?:sessions|pages){.*agent="3fde6422".* (\S+)$', await t.text(), re.MULTILINE
                )
                seen.append(tuple(values))
                await asyncio.sleep(5)
        distinct = [values for values, _ in groupby(seen)]
        assert [sorted(map(float, values)) for values in distinct if values] == [[2, 6], [5, 15]]


@row("G16", **BOTH)
async def test_a_round_that_can_not_be_is_none(case: str) -> None:
    async with trial(api__version=case) as t, t.fault():
        newest = int(t.of("newest_round_timestamp_seconds"))
        bad = [newest + 3600, 253_402_300_740, 0, -60, 60.5, str(newest)]
        users, networks = (
            [sessions(case, listed, n, roundId=start) for n, start in enumerate(bad)]
            for listed in ("users", "networks")
        )
        t.api.choose = only(case, [*users, sessions(case, "users", 9, roundId=newest)], networks)
        before = t.of("records_rejected_total", reason="bad_time")
        await t.polls()
        assert t.failed == {}
        assert t.of("records_rejected_total", reason="bad_time") - before == 2 * len(bad)
        assert t.of("newest_round_timestamp_seconds") == newest
        assert 'agent="3fde6422"' in await t.text(), "the good one is published"


@row("G17", **BOTH)
async def test_the_shape_of_another_version_is_named(case: str) -> None:
    other = {"v6": "v7", "v7": "v6"}[case]
    async with trial(api__version=case) as t, t.fault():
        t.api.choose = only(other, [sessions(other, "users")])
        await t.polls()
        assert t.failed == {"schema": 1}
        line = next(line for line in t.lines() if "reason=schema" in line)
        expected, got = ("userSessions", "results") if case == "v6" else ("results", "userSessions")
        assert line.index(expected) < line.index(got)
        assert "3fde6422" not in line, "names only"


@row("G18")
async def test_polls_that_take_longer_than_an_interval_leave_the_next_one_out() -> None:
    """Our share is one request a minute, and a poll needs two: it waits, and no other begins meanwhile."""
    async with trial(ready=False, api__requests_per_minute=1) as t:
        await t.until(t.exporter.ready, 600)
        await asyncio.sleep(300)
        async with t.fault(recovers=300):
            skipped, polls = t.of("polls_skipped_total"), t.of("polls_total")
            asked = len(t.api.calls)
            await asyncio.sleep(1200)
            skipped, polls = t.of("polls_skipped_total") - skipped, t.of("polls_total") - polls
            assert t.failed == {}
            assert skipped + polls == pytest.approx(20, abs=1)
            assert skipped >= 8
            ranges = [call.target.partition("startDate=")[2] for call in t.api.calls[asked:] if listing(call)]
            assert len([end for end, _ in groupby(ranges)]) == len(set(ranges)), "one poll after another"


@row("G19", at_the_worst_moment=100_000)
def test_a_scrape_during_the_swap_is_wholly_one_round(case: int) -> None:
    """All samples of a round have one value: the swap happens between the head of each answer and its body."""
    rounds = [snapshot(4 + n, float(n)) for n in range(2)]
    stage = Stage(rounds[0])
    whole = {_crc([shown.common.deflated, shown.tails[TEXT].deflated]) for shown in rounds}
    seen = set()
    for n in range(case):
        text = stage.exposition.text(TEXT)
        stage.snapshot = rounds[n % 2]
        head, *body, tail = text.gzipped
        seen.add(_crc(body[:2]))
        if n % 1000 == 0:
            text = decompress(b"".join((head, *body, tail))).decode()
            assert len({line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("thousand")}) == 1
    assert seen == whole


def _crc(chunks: list[bytes]) -> int:
    return zlib.crc32(b"".join(chunks))


@row("G19", real=True, over_http=8)
async def test_each_of_many_scrapes_during_swaps_is_wholly_one_round(case: int) -> None:
    async with staged(snapshot(5000, 0.0)) as stage:
        shown = [snapshot(5000 + n, float(n)) for n in range(case)]
        swapping = True

        async def swap() -> None:
            n = 0
            while swapping:
                stage.snapshot = shown[n := (n + 1) % len(shown)]
                await asyncio.sleep(0.001)

        async def scrape(encoding: str) -> set[str]:
            found = set()
            for _ in range(6):
                lines = (await ask(stage.metrics, Accept_Encoding=encoding)).text.splitlines()
                samples = [line for line in lines if line.startswith("thousandeyes_")]
                values = {line.rpartition(" ")[2] for line in samples}
                assert len(values) == 1
                assert len(samples) == 2 * (5000 + int(float(next(iter(values)))))
                found |= values
            return found

        swaps = asyncio.create_task(swap())
        seen = set.union(*await asyncio.gather(*(scrape(encoding) for encoding in ("", "gzip") * 6)))
        swapping = False
        await swaps
    assert len(seen) > 1
