"""The status page: what it shows in each state, and that values never become markup."""

import html
import itertools
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import HINTS, REASONS
from exporter.web import status
from exporter.web.status import PollView, SiteView, SourceView, render, worst_sites

OK, FAILED = PollView(0.2, None), PollView(0.1, "auth")
SESSIONS = SourceView("sessions", [OK] * 3, 12.0, "")
AGENTS = SourceView("agents", [OK], 70.0, "")
GROUP = status.AccountGroupView("1001", "Example", [SESSIONS, AGENTS], 990, 10, 4, 200)
VIEW = status.StatusView("/metrics", 900.0, [GROUP], [], 16_000, 500_000, 0, 14, 120, 226.0, 240.0)
NAN, DASH = math.nan, "\N{EN DASH}"


def text_of(**changes: Any) -> str:
    """Return the text of the page with a changed view, with single spaces."""
    page = render(replace(VIEW, **changes))
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", page))


def group(**changes: Any) -> str:
    return text_of(account_groups=[replace(GROUP, **changes)])


def sessions(**changes: Any) -> str:
    return group(sources=[replace(SESSIONS, **changes)])


LIMITS = "Requests in the last minute 14 of 120 Remaining for the organization"
SITES = [SiteView("mail.example", 3, 0.25, 0.1, 0.5), SiteView("", 1, NAN, NAN, NAN)]
AGES = {-1: "0 seconds", 1.9: "1 second", 119: "119 seconds", 120: "2 minutes"}
CASES = [
    (text_of(), "Example (1001) Sessions Polling OK. Data from 12 seconds ago."),
    (text_of(), "Agents Polling OK. Data from 70 seconds ago."),
    (text_of(), "User sessions 1,000 Joined 990 (99.0%) Not joined 10"),
    *((sessions(age=seconds), f"Data from {age} ago.")
      for seconds, age in (AGES | {7199: "119 minutes", 7300: "2 hours"}).items()),
    (sessions(polls=[OK, FAILED, FAILED], error="rejected"), "The last 2 polls failed: rejected."),
    (sessions(polls=[FAILED], age=200.0), "from 3 minutes ago; it expires after the look-back."),
    (sessions(polls=[FAILED], error="rejected", age=None), "The last poll failed: rejected."),
    (sessions(polls=[FAILED], age=None), "No data yet."),
    *((sessions(polls=[PollView(1.0, each)]), HINTS[each]) for each in REASONS),
    (sessions(polls=[], age=None), "The first poll is running. No data yet."),
    (group(joined=0, user_only=0), "there were no sessions in the last 15 minutes."),
    (group(joined=0, user_only=0), f"Joined {DASH}"),
    (text_of(account_groups=[]), "The account groups are not known yet."),
    (text_of(account_groups=[], error="timeout"), "could not be listed: timeout."),
    (group(aid="7", name=""), "Documentation (7) Sessions"),
    (group(aid="", name="Example"), "Documentation Example Sessions"),
    (group(aid="", name=""), "Documentation The token's own account group Sessions"),
    (sessions(), "of the last 3, the longest took 0.20 s and none failed."),
    (sessions(polls=[PollView(2.0, None)]), "The last poll took 2.00 s."),
    (text_of(), f"{LIMITS} 226 of 240 Series 16,000 of 500,000"),
    (text_of(remaining=None), f"{LIMITS} {DASH} Series"),
    (text_of(series_dropped=120), "120 series are folded into __other__."),
    (text_of(sites=SITES), f"mail.example 3 250 ms 10% 0.50 unknown 1 {DASH} {DASH} {DASH}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES, ids=itertools.count())
def test_the_page_shows(text: str, expected: str) -> None:
    assert expected in text


def test_a_failed_source_does_not_affect_the_others() -> None:
    text = group(sources=[SESSIONS, replace(AGENTS, polls=[OK, FAILED], error="forbidden")])
    assert "Sessions Polling OK." in text
    assert "Agents The last poll failed: forbidden." in text
    assert "expires" not in text
    assert "__other__" not in text


def test_a_chart_shows_sixty_polls_and_marks_failed_ones() -> None:
    polls = [PollView(float(n), "timeout" if n % 7 == 0 else None) for n in range(100)]
    view = replace(GROUP, sources=[replace(SESSIONS, polls=polls)])
    page = render(replace(VIEW, account_groups=[view]))
    assert (page.count("<rect"), page.count('class="failed"')) == (60, 9)
    label = "The last poll took 99.00 s; of the last 60, the longest took 99.00 s and 9 failed."
    assert f'aria-label="{label}"' in page


def test_the_worst_sites_are_the_worst_in_any_metric() -> None:
    good = [SiteView(f"good{n}", 1, 0.01, 0.0, 0.9) for n in range(10)]
    slow, lossy = SiteView("slow", 1, 9.0, 0.0, 0.9), SiteView("lossy", 1, 0.01, 0.5, 0.9)
    poor, unmeasured = SiteView("poor", 1, 0.01, 0.0, 0.1), SiteView("nan", 1, NAN, NAN, NAN)
    assert worst_sites([*good, slow, unmeasured, lossy, poor], 3) == [lossy, poor, slow]
    assert worst_sites([unmeasured, slow]) == [slow]
    assert len(worst_sites(good)) == 10


@given(st.text())
def test_values_never_become_markup(text: str) -> None:
    evil = text + "<script>alert(1)</script>\"'&"
    source = replace(SESSIONS, polls=[FAILED], error=evil)
    groups = [replace(GROUP, sources=[source], aid=evil, name=evil)]
    shown = replace(VIEW, account_groups=groups, sites=[SiteView(evil, 1, NAN, NAN, NAN)])
    for view in (shown, replace(VIEW, account_groups=[], error=evil, telemetry_path=evil)):
        page = render(view)
        assert "<script" not in page
        assert page.count("&lt;script&gt;") == (4 if view is shown else 2)
