"""The status page: what it shows in each state, and that values never become markup."""

import html
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.account_group import AccountGroup
from exporter.account_groups import PolledGroup
from exporter.app import Exporter
from exporter.errors import HINTS, REASONS, PollError
from exporter.metrics.families import SeriesTable
from exporter.poller import Poller
from exporter.render import GroupResult
from exporter.settings import load
from exporter.snapshot import Publication
from exporter.sources.results import PollRecord, Result, SessionsResult
from exporter.web.status import (
    FIRST_SITES,
    QUANTITIES,
    SiteView,
    SourceView,
    StatusView,
    render,
    worst_first,
)

RULES = Path(__file__).parents[2] / "deploy/prometheus/thousandeyes.rules.yml"
NOW = 1_795_012_350.0
OK, FAILED = PollRecord(0.2, None, NOW - 12), PollRecord(0.1, "auth", NOW - 12)
JOINS = {"joined": 990, "user_only": 10, "network_only": 4}
SESSIONS = SourceView("sessions", 60.0, [OK] * 3, NOW + 48, NOW - 12, 1000, joins=JOINS)
NETWORKS = SourceView("local_networks", 300.0, [OK], NOW + 240, NOW - 60, 7)
GROUP = AccountGroup("1001", "Example"), [SESSIONS, NETWORKS]
VIEW = StatusView(
    *("/metrics", 900.0, [GROUP], [], 16_000, 500_000, 0, 14, 120, 226.0, 240.0), now=NOW
)
NAN, DASH = math.nan, "\N{EN DASH}"


def site(name: str, *values: float, agents: int = 1) -> SiteView:
    """Make a site from its score, loss, latency and jitter; those left out are not measured."""
    means = dict(itertools.zip_longest(QUANTITIES, values, fillvalue=NAN))
    return SiteView(name, agents, means)


def text_of(**changes: Any) -> str:
    """Return the text of the page with a changed view, with single spaces."""
    page = render(replace(VIEW, **changes))
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", page))


def sources(*views: SourceView) -> str:
    return text_of(account_groups=[(GROUP[0], views)])


def sessions(**changes: Any) -> str:
    return sources(replace(SESSIONS, **changes))


def failed(*polls: PollRecord, **changes: Any) -> str:
    return sessions(polls=polls, failure=PollError("auth", "rejected"), **changes)


def group(aid: str, name: str) -> str:
    return text_of(account_groups=[(AccountGroup(aid, name), [SESSIONS])])


LIMITS = "Requests in the last minute 14 of 120 Remaining for the organization"
SITES = [site("mail.example", 0.4, 0.102, 0.25, 0.01, agents=3), site("")]
AGES = {-1: "0 seconds", 1.9: "1 second", 119: "119 seconds", 120: "2 minutes"}
NO_DATA = {"last_success": None, "records": 0}
REFUSED = text_of(failure=PollError("dns", "refused"), next_listing=NOW + 9)
SETTINGS = [("api.url", "http://x", "--api.url"), ("api.email", "", "default")]
CASES = [
    (text_of(), "Example (1001) Sessions Polling OK."),
    (text_of(), "Last poll 2026-11-18 14:32:18 UTC (12 seconds ago)"),
    (text_of(), "Next poll 2026-11-18 14:33:18 UTC (in 48 seconds)"),
    (text_of(), "Sessions 1,000 Joined 990 (99.0%) Not joined 10"),
    (text_of(), "Local networks Polling OK."),
    (text_of(), "(in 4 minutes) Local networks 7"),
    (sessions(note="stretched: interval 90 s"), "Polling OK. stretched: interval 90 s."),
    (failed(OK, FAILED, FAILED), "The last 2 polls failed: rejected."),
    *((failed(FAILED, last_success=NOW - seconds), f"Data from {age} ago.")
      for seconds, age in (AGES | {7199: "119 minutes", 7300: "2 hours"}).items()),
    (failed(FAILED), "The last poll failed: rejected."),
    (failed(FAILED, **NO_DATA), "No data yet."),
    (failed(FAILED, **NO_DATA), f"Sessions {DASH} Duration"),
    *((sessions(polls=[FAILED], failure=PollError(each, "")), HINTS[each]) for each in REASONS),
    (sessions(polls=[], **NO_DATA), f"The first poll is running. Last poll {DASH} Next poll"),
    (sessions(records=0), "there are no sessions. None started in the last 15 minutes."),
    (sessions(records=0), f"Joined {DASH}"),
    (sources(replace(NETWORKS, records=0)), "there are no local networks."),
    (text_of(account_groups=[]), "The account groups are not known yet."),
    (REFUSED, f"could not be listed: refused. What to do: {HINTS['dns']}. Next attempt"),
    (REFUSED, "UTC (in 9 seconds) Example (1001) Sessions Polling OK."),
    (group("7", ""), "Documentation (7) Sessions"),
    (group("", "Example"), "Documentation Example Sessions"),
    (group("", ""), "Documentation The token's own account group Sessions"),
    (sessions(), "of the last 3, the longest took 0.20 s and none failed."),
    (sessions(polls=[PollRecord(2.0, None, NOW)]), "The last poll took 2.00 s. 2 s 1 s 0 s"),
    (text_of(), f"{LIMITS} 226 of 240 Series 16,000 of 500,000"),
    (text_of(remaining=None), f"{LIMITS} {DASH} Series"),
    (text_of(series_dropped=120), "120 series are folded into __other__ or dropped."),
    (text_of(sites=SITES), "score < 0.5, loss > 5%, latency > 300 ms, jitter > 50 ms."),
    (text_of(sites=SITES), "mail.example Low score, high loss 0.40 10.2% 250 ms 10 ms 3"),
    (text_of(sites=SITES), f"unknown {DASH} {DASH} {DASH} {DASH} {DASH} 1"),
    (text_of(sites=[site("x", 0.5, NAN, 0.3)]), f"x OK 0.50 {DASH} 300 ms {DASH} 1"),
    (text_of(settings=SETTINGS), "api.url http://x --api.url Defaults (1)"),
    (text_of(settings=SETTINGS), f"api.email {DASH} default"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES, ids=itertools.count())
def test_the_page_shows(text: str, expected: str) -> None:
    assert expected in text


def test_a_failed_source_does_not_affect_the_others() -> None:
    failure = PollError("forbidden", "refused")
    text = sources(SESSIONS, replace(NETWORKS, polls=[OK, FAILED], failure=failure))
    assert "Sessions Polling OK." in text
    assert "Local networks The last poll failed: refused." in text
    assert "__other__" not in text


def test_the_limits_of_sites_are_the_thresholds_of_the_alerts() -> None:
    rules = [rule for each in yaml.safe_load(RULES.read_text())["groups"] for rule in each["rules"]]
    mean = re.compile(r"aid_site:thousandeyes_endpoint_(\w+):avg[^<>\n]* ([<>]) ([\d.]+)")
    found = [mean.findall(rule["expr"]) for rule in rules if "alert" in rule]
    thresholds = {name: (beyond, float(limit)) for each in found for name, beyond, limit in each}
    assert thresholds == {name: (each.beyond, each.limit) for name, each in QUANTITIES.items()}


def test_all_sites_are_shown_and_the_worst_ones_first() -> None:
    sites = [site("unmeasured"), *(site(f"site{n}", 0.9 - n / 100) for n in range(FIRST_SITES))]
    assert [each.site for each in worst_first(sites)][:2] == ["site19", "site18"]
    page = render(replace(VIEW, sites=sites))
    first, _, others = page.partition("<details>")
    assert "Sites (21)" in first
    assert first.count('scope="row"') == FIRST_SITES
    assert "1 more" in others
    assert "unmeasured" in others
    assert "<details>" not in render(replace(VIEW, sites=sites[1:]))


def test_a_chart_places_polls_by_time_and_marks_failed_ones() -> None:
    failed = dict.fromkeys(range(0, 71, 7), "timeout")
    polls = [PollRecord(n, failed.get(n), NOW - n * 60) for n in range(70, 0, -1)]
    page = render(replace(VIEW, account_groups=[(GROUP[0], [replace(SESSIONS, polls=polls)])]))
    bars = re.findall(r'<rect( class=bad)? x="([\d.]+)%" y="([\d.]+)" .* height="([\d.]+)"', page)
    assert (len(bars), page.count("<rect class=bad"), page.count("</text>")) == (60, 8, 8)
    assert (bars[0], bars[-1]) == (("", "0.0", "32.0", "48.0"), ("", "96.72", "79.0", "1.0"))
    label = "The last poll took 1.00 s; of the last 70, the longest took 70.00 s and 10 failed."
    assert f'aria-label="{label}"' in page
    assert "<span>100 s</span><span>50 s</span><span>0 s</span>" in page


@pytest.mark.parametrize(("seconds", "axis"), {0: "0.01", 0.3: "0.5", 2: "2", 7: "10"}.items())
def test_the_axis_of_a_chart_ends_with_a_round_number(seconds: float, axis: str) -> None:
    assert f". {axis} s " in sessions(polls=[PollRecord(seconds, None, NOW)])


class Source:
    name, interval, required, priority = "agents", 60.0, False, 1
    result = Result(records=2)

    async def poll(self) -> dict[str, object]:
        return {}

    async def refresh(self, *, polled: bool) -> bool:
        return polled


async def test_the_view_is_collected_from_all_components() -> None:
    loaded = load(["--api.token", "canary", "--filter.search", '{"ssid": ["guests"]}'], {})
    exporter = Exporter(loaded.settings, process=False)
    exporter.shown = loaded.shown()
    clock, metrics = exporter.client.api_clock, exporter.metrics
    poller = Poller("7", Source(), clock, metrics, exporter.publisher, lambda priority: False)
    await poller.poll()
    exporter.manager.groups["7"] = PolledGroup(GROUP[0], [poller])
    keys = [(agent, "mail.example", "https") for agent in "ab"]
    scores = {"experience_score": np.array([0.0, 0.8])}  # 0: not computed
    table = SeriesTable(("agent", "site", "protocol"), (), keys, scores)
    results = [GroupResult(GROUP[0], {"sessions": SessionsResult([table])})]
    exporter.publisher.current = Publication(exporter.snapshot, results)
    view = await exporter.status()
    await exporter.close()
    [(group, [source])], [mail] = view.account_groups, view.sites
    assert (group, source.records, source.last_success) == (GROUP[0], 2, source.polls[0].time)
    assert source.next_poll == pytest.approx(view.now, abs=5)
    assert (mail.agents, mail.means["experience_score"]) == (2, 0.8)
    origins = {name: (value, origin) for name, value, origin in view.settings}
    assert origins["poll.interval"] == ("1m", "default")
    for name, flag in {"api.token": "--api.token", "filter.search": "--filter.search"}.items():
        assert origins[name] == ("*" * 10, flag)


@given(st.text())
def test_values_never_become_markup(text: str) -> None:
    evil = text + "<script>alert(1)</script>\"'&"
    failure = PollError("dns", evil)
    source = replace(SESSIONS, source=evil, polls=[FAILED], failure=failure, note=evil)
    groups = [(AccountGroup(evil, evil), [source])]
    rows = [(evil, evil, evil)]
    page = render(replace(VIEW, account_groups=groups, sites=[site(evil)], settings=rows))
    page += render(replace(VIEW, account_groups=[], failure=failure, telemetry_path=evil))
    assert "<script" not in page.lower()
    assert page.lower().count("&lt;script&gt;") == 12
