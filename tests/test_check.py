"""What `check` counts is what there is; what it advises follows; and people can read it at any width."""

import asyncio
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from raw import reply, serving
from servers import NOW, ROOT, TOKEN, StillClock, ask, exporting, scraped_lines, simulated
from virtual import Patient

from exporter import check as room
from exporter import table
from exporter.api.http import Deadline
from exporter.check import Watched, check
from exporter.clock import Clock
from exporter.errors import HINTS, REASONS
from exporter.model import AccountGroup
from exporter.report import (
    Api,
    Delays,
    Failure,
    Finding,
    Found,
    Group,
    Pages,
    Permission,
    Poll,
    Report,
    Requests,
    Rounds,
    Scrape,
    Series,
    Verdict,
    Visible,
    pages_later,
    report,
    share,
)
from exporter.settings import load
from exporter.simulator import Simulator, World

README = (ROOT / "README.md").read_text()
FOREIGN = "proxy-secret-7Qw"
KEY = "names-key-4hT9zLmP"


def nothing(_: str) -> None:
    """Tell nobody."""


async def checked(api: str, *settings: str, tell: Callable[[str], None] = nothing, environ: Any = None) -> Report:
    """Check these settings with the API there."""
    given = {"THOUSANDEYES_TOKEN": TOKEN, **(environ or {})}
    return await check(load([f"--api.url={api}", *settings], given), tell)


async def check_of(*settings: str, world: World | None = None, faults: Iterable[str] = (), **options: Any) -> Report:
    """Check a pretend company; this machine's clock is as wrong as that company's is late."""
    async with simulated(world, faults=faults, **options) as (_, api):
        return await checked(api, *settings)


def texts(report: Report, severity: str = "") -> str:
    """Return what is said, without what is due to the clock of the simulator, which stands still."""
    shown = [each for each in report.findings if severity in each.severity and "clock" not in each.what]
    return "\n".join(f"{each.severity}: {each.about}: {each.what} -> {each.advice}" for each in shown)


# Counting.


@pytest.mark.parametrize("version", ["v6", "v7"])
async def test_it_counts_what_a_scrape_would_bring(version: str) -> None:
    settings = {"api__version": version, "api__account_groups": "all"}
    async with simulated(World(agents=30, sites=6, account_groups=2)) as (_, api):
        report = await checked(api, f"--api.version={version}", "--api.account-groups=all")
        async with exporting(api, **settings) as (_, address):
            scraped = await ask(f"{address}/metrics", Accept_Encoding="gzip")
    lines = scraped_lines(scraped.text)
    gauges = [line for line in lines if line.startswith("thousandeyes_endpoint_") and 'agent="' in line]
    gauges = [line for line in gauges if not line.startswith("thousandeyes_endpoint_agent_")]
    assert report.series.published == len(gauges) == sum(report.series.by_family.values())
    assert sum(report.series.by_site.values()) == len(gauges)
    for family, number in report.series.by_family.items():
        assert number == sum(line.startswith(f"thousandeyes_endpoint_{family}{{") for line in gauges)
    for site, number in report.series.by_site.items():
        assert number == sum(f'site="{site}"' in line for line in gauges)
    assert abs(report.scrape.samples - len(lines)) < 20
    assert report.scrape.gzip_bytes == pytest.approx(len(scraped.body), rel=0.05)
    assert report.scrape.text_bytes == pytest.approx(len(scraped.text.encode()), rel=0.05)
    joined = sum(group.joined for group in report.account_groups)
    assert joined == sum(_own(lines, "sessions", state="joined"))
    assert [group.rounds.newest for group in report.account_groups if group.rounds] == _own(
        lines, "newest_round_timestamp_seconds"
    )
    assert [group.agents for group in report.account_groups] == [15, 15]


def _own(lines: list[str], name: str, **labels: str) -> list[float]:
    """Return the values of one of the exporter's own metrics."""
    chosen = [line for line in lines if line.startswith(f"thousandeyes_exporter_{name}{{")]
    return [
        float(line.split()[-1]) for line in chosen if all(f'{key}="{value}"' in line for key, value in labels.items())
    ]


async def test_the_largest_come_first() -> None:
    report = await check_of(world=World(agents=40, sites=8))
    for counts in (report.series.by_family, report.series.by_site):
        assert list(counts.values()) == sorted(counts.values(), reverse=True)


async def test_commit_delays_and_rounds_are_those_of_the_sessions() -> None:
    world = World(agents=40, sites=8)
    (group,) = (await check_of(world=world)).account_groups
    oldest, newest = NOW - 900, NOW
    sessions = [
        each for each in world.sessions(1001, oldest - 60, newest, newest) if each.listed and each.round_id >= oldest
    ]
    delays = sorted(each.committed - each.date for each in sessions)
    assert group.users == len(sessions)
    assert group.rounds == Rounds(
        min(each.round_id for each in sessions),
        max(each.round_id for each in sessions),
        len({each.round_id for each in sessions}),
    )
    assert group.commit_delay_seconds is not None
    assert group.commit_delay_seconds.longest == delays[-1]
    assert delays[len(delays) // 2 - 1] <= group.commit_delay_seconds.median <= delays[len(delays) // 2]


@pytest.mark.parametrize("size", [7, 20, 1000])
async def test_the_requests_that_it_foretells_are_those_that_later_polls_send(size: int) -> None:
    clock = StillClock()
    async with simulated(World(agents=40, account_groups=2), clock=clock, page_size=size) as (simulator, api):
        settings = ("--api.account-groups=all", "--api.requests-per-minute=10000")
        report = await checked(api, *settings)
        sent = await _later_poll(simulator, api, clock)
    assert report.requests.a_poll == pytest.approx(sent, rel=0.25)
    assert report.requests.a_poll >= 4


async def _later_poll(simulator: Simulator, api: str, clock: StillClock) -> int:
    """Count the requests of a second poll, a minute after the first."""
    async with exporting(api, api__account_groups="all") as (exporter, _):
        before = len(simulator.requests)
        clock.now += 60
        exporter.http.api_clock.observe("Wed, 18 Nov 2026 14:33:30 GMT")
        await asyncio.gather(*(poller.poll() for poller in exporter.pollers.values()))
        return len(simulator.requests) - before


async def test_it_asks_no_more_than_one_poll_does() -> None:
    async with simulated(World(agents=40, account_groups=2)) as (simulator, api):
        report = await checked(api, "--api.account-groups=all")
        assert sum(number for codes in report.api.requests.values() for number in codes.values()) == len(
            simulator.requests
        )
    assert len(simulator.requests) == 1 + 2 * 3


async def test_it_tells_how_far_it_is(monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "REDRAWN", 0.001)
    told: list[str] = []
    async with simulated(World(agents=40, account_groups=2), page_size=10) as (_, api):
        settings = ("--api.account-groups=all", "--api.requests-per-minute=10000")
        await checked(api, *settings, tell=told.append)
    assert told[0] == "account groups: 0 pages"
    pages = [int(re.search(r"(\d+) pages", words)[1]) for words in told]  # type: ignore[index]
    assert pages == sorted(pages)
    assert any(words.startswith("account group 1002 (2 of 2): ") for words in told)


async def test_it_says_that_it_waits_for_its_share(monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "REDRAWN", 0.001)
    told: list[str] = []

    async def passing(seconds: float) -> None:
        passed[0] += max(seconds, 0.0)
        await asyncio.sleep(0.005)

    passed = [0.0]
    monkeypatch.setattr(
        room, "Exporter", lambda settings: _Exporter(settings, clock=Clock(lambda: passed[0], sleep=passing))
    )
    async with simulated(World(agents=20)) as (_, api):
        await checked(api, "--api.requests-per-minute=2", tell=told.append)
    assert any(words.endswith("waiting for our share of requests") for words in told)


_Exporter = room.Exporter


# Why nothing came, and what to do.


NOBODY = "00000000-0000-0000-0000-000000000000"
CASES: list[tuple[list[str], str, str, str]] = [
    ([], "unauthorized", "failed", r"error: API: account groups not listed: .*401.*api\.token_file"),
    ([], "maintenance", "failed", "error: API: .*maintenance"),
    ([], "html", "failed", r"error: API: .*text/html.* -> .*portal"),
    (["--api.account-groups=all"], "forbidden_group", "failed", "account group 1002: .*403.*View endpoint agent data"),
    (["--api.account-groups=77"], "", "failed", "group 77: .* -> the token sees the account groups 1001, 1002: "),
    ([], "empty", "nothing", "error: account group 1001: there is no agent .*the token also sees 1002"),
    (["--filter.include-sites=MAIL.*"], "", "nothing", r"all \d+ .*include_sites \d+ -> correct .*mail\.example\.com"),
    (["--filter.include-agents=x", "--filter.exclude-sites=mail.*"], "", "nothing",
     r"filter\.include_agents \d+, filter\.exclude_sites \d+ -> correct filter\.include_agents"),
    ([f"--filter.include-agents={NOBODY}"], "", "nothing", "none of the agents .* -> correct filter.include_agents"),
    (['--filter.search={"domain": ["x"]}'], "", "nothing", r"its filters domain \(1\) -> correct filter\.search"),
    ([], "no_networks", "warnings", r"none of \d+ user sessions has a network session.* -> .*View endpoint agent data"),
    ([], "bad_records", "warnings", r"group 1001: \d+ of \d+ records were rejected: .*bad_type \d+"),
    ([], "forbidden_agents", "warnings", "missing: their listing was refused -> .*'View endpoint agent settings'"),
    ([], "masked", "warnings", "names of sites -> .*'View endpoint data that identifies visited pages'"),
    ([], "masked", "warnings", "names of agents -> .*'View endpoint data that identifies endpoint agents'"),
    ([], "no_rate_headers", "warnings", "note: API: its answers tell of no rate limit"),
    (["--poll.overlap=1s"], "", "warnings", r"is committed later than 3s.* -> set poll\.overlap to 1m"),
    (["--metrics.max-series=500"], "", "warnings", r"folded into __other__ -> raise metrics\.max_series"),
    (["--api.token-file=TOKEN"], "", "warnings", "warning: settings: .*everyone on this machine can read the file -> "),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "fault", "verdict", "words"), CASES, ids=lambda case: str(case)[:40])
@pytest.mark.parametrize("version", ["v7", "v6"])
async def test_what_is_wrong_is_said_with_what_to_do(
    settings: list[str], fault: str, verdict: str, words: str, version: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    settings = [setting.replace("TOKEN", str(file)) for setting in settings]
    environ = {} if any("token-file" in setting for setting in settings) else {"THOUSANDEYES_TOKEN": TOKEN}
    async with simulated(World(agents=30, sites=6, account_groups=2), faults=filter(None, [fault])) as (_, api):
        loaded = load([f"--api.url={api}", f"--api.version={version}", *settings], environ)
        report = await check(loaded, nothing)
    assert re.search(words, texts(report)), texts(report)
    assert report.verdict == verdict


async def test_where_the_api_can_not_be_reached_it_says_so() -> None:
    report = await checked("http://127.0.0.1:1")
    assert (report.verdict, report.api.reached, report.account_groups) == ("failed", False, [])
    assert "no connection to the API" in texts(report)
    assert "api.proxy" in texts(report)


async def test_where_the_api_lists_no_account_group_it_says_so() -> None:
    async with serving(reply('{"accountGroups": []}')) as server:
        report = await checked(server.url, "--api.account-groups=all")
    assert report.verdict == "failed"
    assert "error: API: account groups not listed: the API lists no account group -> check api.version" in texts(report)


async def test_account_groups_that_take_too_long_are_named_as_the_reason() -> None:
    class Hanging:
        async def account_groups(self, _: Deadline) -> list[AccountGroup]:
            await asyncio.Event().wait()
            return []

    watched = Watched(Hanging())  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await watched.account_groups(Patient())
    assert watched.refused is not None
    assert watched.refused.reason == "deadline"


async def test_where_all_is_well_nothing_is_said() -> None:
    report = await check_of("--api.account-groups=all", world=World(agents=30, account_groups=2), clock=time.time)
    assert (report.verdict, report.findings) == ("good", [])
    states = {each.state for group in report.account_groups for each in group.permissions}
    assert states == {"granted"}


async def test_one_account_group_without_sessions_is_a_warning_where_others_have_some() -> None:
    class Lopsided(World):
        def sessions(self, aid: int, *rest: Any) -> Any:
            return iter(()) if aid == 1002 else super().sessions(aid, *rest)

    report = await check_of("--api.account-groups=all", world=Lopsided(agents=30, account_groups=2))
    assert report.verdict == "warnings"
    assert re.search(r"warning: account group 1002: nobody visited .* within the last 15m", texts(report))


# Judging, without asking.


def found(**changed: Any) -> Found:
    """Make findings of a good day; `group__x`, `series__x` and the like change one."""
    group = Group(
        aid="1", name="Sales", current=True, agents=10, user_sessions_read=1000, network_sessions_read=1000, joined=990,
        user_only=10, rounds=Rounds(60, 900, 15), commit_delay_seconds=Delays(2, 3, 60), pages=Pages(2, 2, 1),
    )  # fmt: skip
    api = Api(
        url="https://api.example", version="v7", reached=True, answered=True,
        account_groups=[Visible("1", "Sales", current=True)],
        clock_ahead_seconds=0.4, rate_limit_requests=240.0,
    )  # fmt: skip
    series = Series(published=100, limit=1000, folded=0, by_family={"pages": 100}, by_site={"x.example": 100})
    parts: dict[str, Any] = {
        "group": group,
        "api": api,
        "series": series,
        "requests": Requests(a_poll=2, a_minute=2.1, share=120, organization=240.0),
        "poll": Poll(60.0, 900.0, 300.0),
        "scrape": Scrape(200, 20_000, 2000),
    }
    for name, value in changed.items():
        part, _, field = name.partition("__")
        parts[part] = msgspec.structs.replace(parts[part], **{field: value})
    group = parts.pop("group")
    return Found(settings=[], warnings=[], account_groups=[group], **parts)


def judged(**changed: Any) -> str:
    return texts(report("1", found(**changed)))


def test_a_good_day_has_no_findings() -> None:
    assert (judged(), report("1", found()).verdict) == ("", "good")


@pytest.mark.parametrize(
    ("a_minute", "verdict", "words"),
    [
        (95.9, "good", ""),
        (96.0, "warnings", "96 requests a minute are 80 % of our share of 120"),
        (120.0, "warnings", "120 requests a minute are 100 % of our share of 120"),
        (121.0, "too_much", "too much, so polls come late: 121 requests a minute are 101 % of our share of 120"),
        (480.0, "too_much", "poll.interval 5m or more, a shorter poll.overlap, filter.search, a larger api.requests"),
    ],
)
def test_requests_are_held_against_our_share(a_minute: float, verdict: str, words: str) -> None:
    judgement = report("1", found(requests__a_minute=a_minute))
    assert judgement.verdict == verdict
    assert words in texts(judgement)


def test_no_interval_is_advised_that_is_longer_than_the_look_back() -> None:
    assert "any of: a shorter poll.overlap, " in judged(requests__a_minute=2000.0)


def test_requests_are_held_against_what_the_organization_has() -> None:
    few = judged(requests__a_minute=110.0, requests__organization=100.0)
    assert "too much, so polls come late: 110 requests a minute are 110 % of the organization's 100" in few
    assert "api.requests_per_minute" not in few


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"api__clock_ahead_seconds": 31.0}, "this machine's clock is 31s ahead of the API's"),
        ({"api__clock_ahead_seconds": -90.0}, "this machine's clock is 1m30s behind the API's"),
        ({"api__clock_ahead_seconds": None}, "no Date header"),
    ],
)
def test_clocks_that_differ_are_said(changed: dict[str, Any], words: str) -> None:
    assert words in "\n".join(each.what for each in report("1", found(**changed)).findings)


NONE = {"group__joined": 0, "group__user_only": 0, "group__user_sessions_read": 0}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"series__published": 800}, "warning: series: 800 series are 80 % of metrics.max_series"),
        ({"series__published": 800}, " -> raise metrics.max_series to 1000, or publish less: "),
        ({"series__published": 199_982, "series__folded": 207_100}, " -> raise metrics.max_series to 510000, or"),
        ({"series__published": 1, "series__folded": 1, "series__limit": 1}, " -> raise metrics.max_series to 3, or"),
        ({"series__published": 799}, ""),
        ({"group__joined": 400, "group__user_only": 600}, "only 40 % of the user sessions have a network session"),
        ({"group__joined": 0, "group__user_only": 9}, "-> please report it: the ids of both listings"),
        ({"group__joined": 0, "group__user_only": 9, "group__network_sessions_read": 0}, "-> let the agents measure"),
        ({"group__rejected": {"bad_type": 19}}, "note: account group 1: 19 of 2,019 records were rejected: bad_type"),
        ({"group__rejected": {"bad_time": 1, "bad_type": 20}}, "warning: account group 1: 21 of 2,021 records were "),
        ({"group__rejected": {"bad_time": 1, "bad_type": 20}}, "rejected: bad_type 20, bad_time 1"),
        ({**NONE, "group__rejected": {"bad_type": 7}}, "no user session is left: 7 records were rejected: bad_type 7"),
        (NONE, "error: account group 1: nobody visited a monitored site within the last 15m"),
        ({"group__commit_delay_seconds": Delays(2, 301, 400)}, "-> set poll.overlap to 6m or more"),
        ({"group__commit_delay_seconds": Delays(2, 899, 899)}, "to 15m or more, and poll.lookback to more than that"),
        ({"group__commit_delay_seconds": Delays(2, 300, 400)}, ""),
        ({"group__commit_delay_seconds": None}, ""),
    ],
)  # fmt: skip
def test_each_finding_begins_where_it_should(changed: dict[str, Any], words: str) -> None:
    assert words in judged(**changed)
    assert bool(words) == bool(judged(**changed))


def test_errors_come_first_and_notes_last() -> None:
    judgement = report("1", found(group__failure=Failure("tls", "x"), api__rate_limit_requests=None, series__folded=1))
    assert [each.severity for each in judgement.findings] == ["error", "warning", "note"]


@pytest.mark.parametrize("needed", [1, 9, 80, 81, 12_345, 400_000, 8_000_000])
def test_what_is_advised_is_enough(needed: int) -> None:
    advised = int(re.search(r"max_series to (\d+)", judged(series__published=needed, series__folded=1))[1])  # type: ignore[index]
    assert judged(series__published=needed, series__limit=advised) == ""


def test_every_reason_has_its_hint() -> None:
    assert HINTS.keys() == set(REASONS)
    assert all(len(hint) > 20 and "\n" not in hint for hint in HINTS.values())


def test_account_groups_are_listed_up_to_five() -> None:
    many = [Visible(str(aid), "", current=False) for aid in range(2, 9)]
    assert "the token sees the account groups 2, 3, 4, 5, 6 and 2 more" in judged(
        group__failure=Failure("forbidden", "x"), api__account_groups=many
    )


@pytest.mark.parametrize(
    ("pages", "part", "later"), [(0, 0.5, 1), (1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (10, 0.3, 3), (10, 1.0, 10)]
)
def test_a_later_poll_reads_its_share_of_the_pages(pages: int, part: float, later: int) -> None:
    assert pages_later(pages, part) == later


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 9, "0 %"),
        (1, 1000, "under 1 %"),
        (1, 3, "33 %"),
        (999, 1000, "over 99 %"),
        (9, 9, "100 %"),
        (3, 2, "150 %"),
        (0, 0, "0 %"),
    ],
)
def test_shares_are_rounded_without_lying(part: float, whole: float, words: str) -> None:
    assert share(part, whole) == words


# For people.

NASTY = ["\x1b[31mred\x1b[0m", "[bold]markup[/bold] :smile:", "new\nline", "x" * 300, "right\u202eto", "日本" * 60, ""]


def nasty() -> Report:
    """A report whose every name and value is out to break the page."""
    odd = dict.fromkeys(NASTY, 10)
    permissions = [Permission(name, "missing", name) for name in NASTY]
    parts = found(
        group__name="".join(NASTY), group__permissions=permissions, series__by_site=odd, series__by_family=odd
    )
    findings = [Finding("warning", name, name, name) for name in NASTY]
    return msgspec.structs.replace(report("1", parts), findings=findings)


def width(line: str) -> int:
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(line)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"api__clock_ahead_seconds": 90.0}, "clock           this machine's is 1m30s ahead of it"),
        ({"api__clock_ahead_seconds": -90.0}, "clock           this machine's is 1m30s behind it"),
        ({"api__clock_ahead_seconds": 1.0}, "clock           as this machine's"),
        ({"api__answered": False}, "reached         yes, but every request was refused"),
        ({"api__answered": False, "api__reached": False}, "reached         no"),
        ({"api__account_groups": []}, "token sees      account groups are not listed"),
        ({}, "token sees      account group 1 Sales (its own)"),
        ({"api__account_groups": [Visible("1", "", current=False)] * 11}, "and 3 more"),
        ({"api__rate_limit_requests": 600.0}, "rate limit      600 requests a minute for the organization"),
        ({"api__requests": {"/v7/x": {"200": 1234, "429": 1}}}, "asked           /v7/x: 200 (1,234), 429 (1)"),
        ({"api__search": {"domain": ["a", "b"]}}, "filters itself  domain: a, b"),
        ({"group__filtered": 7, "group__filtered_by": {"filter.x": 7, "filter.y": 0}},
         "filtered        7 user sessions: filter.x 7"),
        ({"group__rejected": {"bad_type": 2, "bad_time": 1}}, "rejected        3 records: bad_type 2, bad_time 1"),
        ({"group__agents": None}, "agents          not listed"),
        ({"group__joined": 0, "group__user_only": 0}, "user sessions   0"),
        ({"group__failure": Failure("tls", "no trust")}, "failed          tls: no trust"),
        ({"group__aid": "", "group__name": ""}, "The token's own account group"),
        ({"series__folded": 5}, "series          100: 10 % of metrics.max_series, 1,000; 5 are folded"),
        ({"scrape__text_bytes": 999}, "a scrape        200 samples: 999 bytes of text, 2.0 kB with gzip"),
        ({"scrape__text_bytes": 2_500_000_000}, "a scrape        200 samples: 2.5 GB of text, 2.0 kB with gzip"),
        ({"scrape__text_bytes": 25_000_000}, "a scrape        200 samples: 25 MB of text, 2.0 kB with gzip"),
    ],
)  # fmt: skip
def test_what_was_found_is_on_the_page(changed: dict[str, Any], line: str) -> None:
    text = table.written(report("1", found(**changed)), terminal=False, width=120)
    assert line in [each.strip() for each in text.splitlines()]


def test_of_many_account_groups_those_in_trouble_are_shown_and_what_is_the_same_is_said_once() -> None:
    parts = found(group__permissions=[Permission("P", "missing", "p is missing")])
    (one,) = parts.account_groups
    groups = [msgspec.structs.replace(one, aid=str(aid), permissions=[]) for aid in range(100, 150)]
    groups += [msgspec.structs.replace(one, aid=str(aid)) for aid in range(200, 202)]
    text = table.written(report("1", msgspec.structs.replace(parts, account_groups=groups)), terminal=False, width=120)
    titles = re.findall(r"^Account group (\d+) Sales$", text, re.MULTILINE)
    assert titles == ["200", "201", "100", "101", "102", "103", "104", "105"]
    assert "\nAnd 44 more account groups\n\n" in text
    assert text.count("p is missing") == 1
    assert "  warning  account group 200, account group 201: p is missing\n" in text


@pytest.mark.parametrize(
    ("verdict", "begins"),
    [("good", "good: "), ("warnings", "good, with warnings"), ("too_much", "too much"), ("nothing", "nothing"),
     ("failed", "failed: ")],
)  # fmt: skip
def test_the_verdict_is_the_last_line(verdict: Verdict, begins: str) -> None:
    judged = msgspec.structs.replace(report("1", found()), verdict=verdict)
    assert table.written(judged, terminal=False, width=80).splitlines()[-1].strip().startswith(begins)


@pytest.mark.parametrize("columns", [60, 80, 120, 300])
@pytest.mark.parametrize("made", [lambda: report("1", found()), nasty], ids=["good", "nasty"])
def test_no_line_is_wider_than_the_page(made: Callable[[], Report], columns: int) -> None:
    text = table.written(made(), terminal=False, width=columns)
    assert all(width(line) <= columns and line == line.rstrip() for line in text.splitlines())
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_no_value_moves_the_cursor_or_is_taken_for_markup() -> None:
    text = table.written(nasty(), terminal=False, width=120)
    assert text.replace("\n", "").isprintable()
    assert "[bold]markup[/bold] :smile:" in text


def test_colours_are_for_terminals_alone(monkeypatch: Any) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    plain = table.written(report("1", found()), terminal=False, width=80)
    coloured = table.written(report("1", found()), terminal=True, width=80)
    assert "\x1b" not in plain
    assert "\x1b[1m" in coloured
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()
    monkeypatch.setenv("NO_COLOR", "1")
    assert table.written(report("1", found()), terminal=True, width=80) == plain


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals_alone() -> None:
    for stream in (io.StringIO(), None):
        with table.progress(stream) as tell:
            tell("account groups: 0 pages")
        assert stream is None or stream.getvalue() == ""


def test_progress_is_one_line_that_leaves_nothing_behind_and_never_hides_the_cursor(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with table.progress(terminal) as tell:
        tell("account group 1 (1 of 1): 7 pages")
    written = terminal.getvalue()
    assert "7 pages" in written
    assert "\x1b[?25l" not in written
    assert written.endswith("\x1b[2K")


def test_nothing_is_cut_off_that_is_too_long() -> None:
    text = table.written(nasty(), terminal=False, width=80)
    assert sum(line.count("x") for line in text.partition("Series by site")[2].partition("What")[0].splitlines()) >= 300


async def test_secrets_are_told_nobody(tmp_path: Path) -> None:
    settings = ["--metrics.agent-names=hashed", "--log.level=debug"]
    environ = {
        "THOUSANDEYES_METRICS_AGENT_NAMES_KEY": KEY,
        "THOUSANDEYES_API_PROXY": f"http://user:{FOREIGN}@127.0.0.1:1",
    }
    report = await checked("http://127.0.0.1:1", *settings, environ=environ)
    said = [msgspec.json.encode(report).decode(), table.written(report, terminal=False, width=120), repr(report)]
    for secret in (TOKEN, TOKEN[:6], FOREIGN, KEY, KEY[:8]):
        assert not [text for text in said if secret in text]
    assert [each.value for each in report.settings if each.name == "api.proxy"] == ["<secret>"]


# For machines.


def test_the_keys_for_machines_stay() -> None:
    encoded = json.loads(msgspec.json.encode(report("1", found())))
    assert list(encoded) == [
        "settings", "warnings", "api", "account_groups", "series", "scrape", "requests", "poll",
        "version", "findings", "verdict",
    ]  # fmt: skip
    assert list(encoded["account_groups"][0]) == [
        "aid", "name", "current", "failure", "permissions", "agents", "user_sessions_read", "network_sessions_read",
        "rejected", "filtered", "filtered_by", "often", "agents_searched", "joined", "user_only", "network_only",
        "rounds", "commit_delay_seconds", "pages",
    ]  # fmt: skip
    assert list(encoded["requests"]) == ["a_poll", "a_minute", "share", "organization"]
    assert list(encoded["series"]) == ["published", "limit", "folded", "by_family", "by_site"]
    assert list(encoded["scrape"]) == ["samples", "text_bytes", "gzip_bytes"]


def test_nobody_but_check_pays_for_its_tables() -> None:
    loaded = "import sys, exporter.commands, exporter.demo; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


async def test_the_readme_shows_what_it_writes(monkeypatch: Any) -> None:
    """Every stretch of the example is there as it stands; only the bytes of a scrape differ a little."""
    monkeypatch.setattr(room, "Exporter", lambda settings: _Exporter(settings, clock=Clock(wall=lambda: NOW)))
    report = await check_of(world=World(), rate_limit=240, faults=["forbidden_agents"])
    (example,) = re.findall(r"^\$ .* check\n…\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert _alike(table.written(report, terminal=False, width=80)).count("\nVerdict\n") == 1
    for stretch in _alike(example).split("…\n"):
        assert stretch in _alike(table.written(report, terminal=False, width=80))


def _alike(text: str) -> str:
    return re.sub(r"(?<=samples: ).*", "", text)


def test_the_readme_names_the_keys_for_machines() -> None:
    section = README.partition("`check --output json`")[2].partition("\n\n")[0]
    assert [key for key in Report.__struct_fields__ if f"`{key}`" not in section] == []
    assert [key for key in Finding.__struct_fields__ if f"`{key}`" not in section] == []
    assert [word for word in get_args(Verdict) if f"`{word}`" not in section] == []
