"""Rows L: too much of everything."""

import asyncio
import gzip
import json
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
from raw import Call, reply
from servers import ask, exporting, running, scraped_lines, simulated, tool, until
from test_prometheus import Prometheus
from wires import envelope

from benchmarks.processes import free_port
from exporter.api.http import MAX_BODY
from exporter.simulator import World
from faults.conftest import row, trial
from faults.listings import at_once, last_round, links, listing, only, sessions
from faults.test_http import most_memory
from faults.test_transport import CHUNKED, HEAD, then_silence

MEGABYTE = 1024 * 1024


async def chunks(call: Call) -> None:
    await call.say(CHUNKED)
    while True:
        await call.say(b"10000\r\n" + b" " * 65536 + b"\r\n")


async def no_length(call: Call) -> None:
    await call.say(HEAD + b"Connection: close\r\n\r\n")
    while True:
        await call.say(b" " * 65536)


async def bomb(call: Call) -> None:
    await call.say(reply(gzip.compress(b" " * (MAX_BODY + 1), 1), Content_Encoding="gzip"))


@row("L02", chunks=chunks, no_length=no_length, compressed=bomb)
async def test_a_body_without_end_is_read_up_to_the_cap(case: object) -> None:
    async with trial() as t, t.fault():
        t.api.says(case)  # type: ignore[arg-type]
        before = most_memory(reset=True)
        await t.polls()
        assert t.failed == {"too_large": 1}
        assert most_memory() - before <= 2.5 * MAX_BODY


@row("L03")
async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    async with trial() as t, t.fault():
        t.api.says(then_silence(HEAD + b"Content-Length: %d\r\n\r\n" % 10**10))
        await t.polls(2)
        assert t.failed == {"too_large": 2}
        assert t.of("last_poll_duration_seconds") < 1, "nobody waits for the first byte"


@row("L06")
async def test_a_new_site_in_every_record_does_not_drive_out_who_is_known() -> None:
    """That every series that was there before is still there is held in every row."""
    async with trial(metrics__max_series="1000") as t, t.fault():
        known = t.value("series") or 0
        for batch in range(3):
            numbers = range(300 * batch, 300 * batch + 300)
            users = [sessions("v7", "users", n, visitedSite=f"{n}.example.com") for n in numbers]
            t.api.choose = only("v7", users, [sessions("v7", "networks", n) for n in numbers])
            await t.polls()
        assert t.failed == {}
        assert 0 < known < (t.value("series") or 0) <= 1000
        assert (t.value("series_dropped") or 0) > 1000
        series = (await t.scrape())["thousandeyes_endpoint_sessions"]
        assert sum(series.values()) >= 300, "of a key the newest round counts"
        assert [labels for labels in series if ("agent", "__other__") in labels]
        assert len([labels for labels in series if ("agent", "3fde6422") in labels]) > 1


@row("L07")
async def test_new_agents_in_every_round_for_288_rounds_leave_nothing_behind() -> None:
    async with trial(world=World(agents=1, sites=1), poll__lookback="6m") as t, t.fault(recovers=125):
        t.api.delay = at_once
        sizes, series, lines = list[int](), list[float](), list[int]()
        for number in range(288):
            users, networks = (
                [sessions("v7", listed, n) | {"agentId": f"{number}-{n}"} for n in range(20)]
                for listed in ("users", "networks")
            )
            t.api.choose = only("v7", users, networks)
            await asyncio.sleep(60)
            t.api.calls.clear()
            if number >= 88 and number % 20 == 8:
                sizes.append(most_memory(reset=True))
                series.append(t.value("series") or 0)
                lines.append(len((await t.text()).splitlines()))
        assert t.failed == {}
        assert len(sizes) == 10
        assert max(series) - min(series) <= 0.2 * max(series)
        assert min(series) > 20 * 25
        assert max(lines) - min(lines) <= max(series) - min(series) + 10
        assert slope(sizes) * 5 <= 0.01 * sizes[0], "a percent in a hundred rounds, of which five samples are made"


def slope(values: list[int]) -> float:
    """Return the median growth from one sample to the next, as Theil and Sen estimate it."""
    grown = [(values[j] - values[i]) / (j - i) for i in range(len(values)) for j in range(i + 1, len(values))]
    return sorted(grown)[len(grown) // 2]


@row("L08")
async def test_a_twentieth_of_ten_thousand_agents_with_fifty_sessions_each() -> None:
    """Two listings of 25,000 sessions: a twentieth of the time, and of our share of requests as much as in life."""
    agents, each, size = 500, 50, 1000
    async with trial(api__requests_per_minute=120, metrics__families="round_timestamp_seconds") as t, t.fault():
        pages = {listed: _pages(listed, agents, each, size) for listed in ("users", "networks")}

        def choose(call: Call) -> bytes | None:
            listed = listing(call)
            if listed is None:
                return None
            (number,) = parse_qs(urlsplit(call.target.partition(" ")[2]).query).get("cursor", ["0"])
            return pages[listed][int(number)]

        t.api.choose, t.api.delay = choose, at_once
        asked, before, began = len(t.api.calls), most_memory(reset=True), time.monotonic()
        await t.polls()
        took = time.monotonic() - began
        requests = [call for call in t.api.calls[asked:] if listing(call)]
        assert (t.failed, len(requests)) == ({}, 2 * agents * each // size)
        assert t.of("sessions", state="joined") >= agents * each
        assert took <= 60 / 20 * 2, "with the API in the same process"
        assert most_memory() - before <= 512 * MEGABYTE / 4
        times = t.api.times(asked)
        assert max(sum(at <= other < at + 60 for other in times) for at in times) <= 120


def _pages(listed: str, agents: int, each: int, size: int) -> list[bytes]:
    start, last = last_round(), agents * each // size - 1
    site = {"visitedSite": "SITE.example.com"} if listed == "users" else {}
    one = json.dumps(sessions("v7", listed) | {"id": f"made:{start}:NUMBER", "agentId": "agent-AGENT"} | site)

    def of(number: int) -> str:
        named = {"NUMBER": number, "AGENT": number // each, "SITE": number % each}
        return re.sub("NUMBER|AGENT|SITE", lambda found: str(named[found[0]]), one)

    path = "/v7/endpoint/test-results/real-user-tests" + ("/networks/filter" if listed == "networks" else "/filter")
    pages = []
    for number in range(last + 1):
        link = f"{path}?cursor={number + 1}" if number < last else None
        records = ", ".join(map(of, range(number * size, number * size + size)))
        pages.append(
            reply(json.dumps(envelope("v7", listed, "RECORDS", **links("v7", link))).replace('"RECORDS"', records))
        )
    return pages


@row("L10", real=True)
async def test_what_prometheus_would_refuse_for_its_size_is_known_beforehand(tmp_path: Path) -> None:
    """Two jobs whose limits are below what is published: what they refuse says itself how large it is."""
    async with simulated(World(agents=40, sites=8)) as (_, api), exporting(api) as (exporter, address):
        text = (await ask(f"{address}/metrics")).text
        own = {line.partition(" ")[0]: float(line.partition(" ")[2]) for line in scraped_lines(text) if "{" not in line}
        series, size = own["thousandeyes_exporter_series"], own["thousandeyes_exporter_snapshot_size_bytes"]
        assert series == exporter.publisher.publication.snapshot.series
        assert 0.5 * len(text) < size < len(text.encode())
        target = address.removeprefix("http://")
        limits = {"samples": f"sample_limit: {int(series) - 1}", "bytes": f"body_size_limit: {int(size) - 1}B"}
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n"
            + "".join(
                f"- {{job_name: {name}, {limit}, static_configs: [{{targets: ['{target}']}}]}}\n"
                for name, limit in {**limits, "none": "honor_labels: false"}.items()
            )
        )
        where = f"127.0.0.1:{free_port()}"
        flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={where}"]
        async with running(tool("prometheus"), *flags, cwd=tmp_path) as program, aiohttp.ClientSession() as http:
            await program.said("Server is ready to receive web requests")
            prometheus = Prometheus(f"http://{where}", http)

            async def up() -> dict[str, float] | None:
                found = {labels["job"]: value for labels, value in await prometheus.query("up")}
                return found if len(found) == 3 else None

            assert await until(up, 20) == {"samples": 0, "bytes": 0, "none": 1}


@row("L12")
async def test_twenty_account_groups_share_one_limit_fairly() -> None:
    """Forty requests a round and a share of twenty a minute: everybody waits, and nobody longer than others."""
    world = World(agents=20, sites=2, account_groups=20)
    settings = {"api__account_groups": "all", "api__requests_per_minute": 20}
    async with trial(world=world, ready=False, **settings) as t:
        await t.until(t.exporter.ready, 1200)
        async with t.fault(recovers=400):
            before = {aid: t.of("polls_total", aid) for aid in t.aids}
            asked = len(t.api.calls)
            await asyncio.sleep(600)
            rounds = [t.of("polls_total", aid) - before[aid] for aid in t.aids]
            assert (len(rounds), t.failed) == (20, {})
            assert max(rounds) / min(rounds) <= 2
            times = t.api.times(asked)
            assert max(sum(at <= other < at + 60 for other in times) for at in times) <= 20
