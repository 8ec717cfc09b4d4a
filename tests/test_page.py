"""The page for people: what it says in each state, and that it says nothing else."""

import html
import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from exporter.page import GroupView, PollView, SiteView, View, render, worst

GOOD = GroupView("1001", "Example", [PollView(0.2, None)] * 3, 12.0, "", 990, 10, 4, 200)
VIEW = View("/metrics", 900.0, [GOOD], [], 16_000, 500_000, 0, 14, 120, 226.0, 240.0)


def with_group(**changes: object) -> str:
    return render(replace(VIEW, groups=[replace(GOOD, **changes)]))


def test_it_says_that_it_works_and_how_old_the_data_is():
    page = render(VIEW)
    assert "It works." in page
    assert "Data of 12 seconds ago." in page
    assert "Example (1001)" in page
    assert "990 (99.0 %)" in page


def test_it_says_since_how_many_polls_it_fails_and_of_what():
    failed = PollView(0.1, "auth")
    page = with_group(polls=[PollView(0.2, None), failed, failed], failure="the API refused the token", age=200.0)
    assert "The last 2 polls failed: the API refused the token." in page
    assert "Data of 3 minutes ago; it leaves as it grows old." in page
    assert "The last poll failed: x." in with_group(polls=[failed], failure="x", age=None)
    assert "No data yet." in with_group(polls=[failed], failure="x", age=None)
    assert "Data of 2 hours ago" in with_group(age=7300.0)
    assert "Data of 1 second ago" in with_group(age=1.9)


def test_it_says_why_there_may_be_nothing():
    assert "The first poll is running." in with_group(polls=[], age=None)
    empty = with_group(joined=0, user_only=0)
    assert "there was no session in the last 15m." in empty
    assert "monitored domain" in empty
    assert "The API has not told yet" in render(replace(VIEW, groups=[]))
    assert "could not be listed: the API refused the token." in render(
        replace(VIEW, groups=[], failure="the API refused the token")
    )
    assert "The token&#x27;s own account group" in with_group(aid="", name="")


def test_it_draws_the_last_sixty_polls_and_marks_those_that_failed():
    polls = [PollView(float(n), "timeout" if n % 7 == 0 else None) for n in range(100)]
    page = with_group(polls=polls)
    assert page.count("<rect") == 60
    assert page.count('class="no"') == sum(n % 7 == 0 for n in range(40, 100))
    assert "The last poll took 99.00 s; of the last 60, the longest took 99.00 s and 9 failed." in page
    assert "of the last 3, the longest took 0.20 s and none failed." in render(VIEW)
    assert "The last poll took 2.00 s." in with_group(polls=[PollView(2.0, None)])


def test_it_shows_the_limits_and_what_was_folded():
    assert "14 of our 120" in render(VIEW)
    assert "226 of 240" in render(VIEW)
    assert "the API did not say" in render(replace(VIEW, remaining=None))
    assert "__other__" not in render(VIEW)
    assert "120 series are folded into __other__." in render(replace(VIEW, series_dropped=120))


def test_sites_are_listed_with_what_was_measured():
    sites = [SiteView("mail.example.com", 3, 0.25, 0.1, 0.5), SiteView("", 1, math.nan, math.nan, math.nan)]
    page = render(replace(VIEW, sites=sites))
    assert "<th scope=row>mail.example.com</th><td>3</td><td>250 ms</td><td>10 %</td><td>0.50</td>" in page
    assert "<th scope=row><em>unknown</em></th><td>1</td><td>none</td><td>none</td><td>none</td>" in page


def test_the_worst_sites_are_those_that_are_worst_in_anything():
    calm = [SiteView(f"calm{n}", 1, 0.01, 0.0, 0.9) for n in range(10)]
    slow, lossy, poor = (
        SiteView("slow", 1, 9.0, 0.0, 0.9),
        SiteView("lossy", 1, 0.01, 0.5, 0.9),
        SiteView("poor", 1, 0.01, 0.0, 0.1),
    )
    silent = SiteView("silent", 1, math.nan, math.nan, math.nan)
    assert worst([*calm, slow, silent, lossy, poor], 3) == [lossy, poor, slow]
    assert silent not in worst([silent, slow])


@given(st.text(), st.text(), st.text())
def test_nothing_that_comes_from_outside_becomes_markup(name, site, failure):
    evil = "<script>alert(1)</script>\"'&"
    polls = [PollView(0.1, "auth")]
    group = replace(GOOD, aid=evil, name=name + evil, failure=failure + evil, polls=polls)
    page = render(replace(VIEW, groups=[group], sites=[SiteView(site + evil, 1, 0.1, 0.1, 0.1)]))
    assert "<script" not in page
    assert html.escape(site + evil) in page


def test_it_needs_nothing_from_elsewhere():
    page = render(VIEW)
    assert "src=" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert page.count("http") == page.count("https://github.com/") + page.count("http://www.w3.org/2000/svg")
