"""Counters of each site: every session is counted once."""

import math
from collections import Counter

import pytest
from factories import ROUND, session
from hypothesis import given
from hypothesis import strategies as st

from exporter.labels import OTHER
from exporter.sources.rows import Joined
from exporter.sources.sessions import FIELDS
from exporter.sources.site_histograms import HISTOGRAMS, RETENTION_SECONDS, SiteHistograms, SiteKey


def started(*sessions: Joined, max_sites: int = 100) -> SiteHistograms:
    """Return histograms after their first poll."""
    histograms = SiteHistograms(FIELDS, max_sites)
    histograms.observe(sessions, ROUND)
    return histograms


def counts(histograms: SiteHistograms) -> dict[str, int]:
    """Return the number of sessions by site, in order."""
    return {key.site: each.sessions for key, each in histograms.snapshot().items()}


@pytest.mark.parametrize("index", range(len(HISTOGRAMS)), ids=[h.short_name for h in HISTOGRAMS])
def test_bucket_bounds_are_inclusive_and_a_missing_value_is_not_observed(index):
    family = HISTOGRAMS[index]
    values = [0.0, *family.buckets, *(math.nextafter(each, 9) for each in family.buckets)]
    histograms = started(session("0"))
    for polled in "ab":
        values_of = {f"{polled}{n}": {family.field: value} for n, value in enumerate(values)}
        sessions = [session(id_, values=v) for id_, v in values_of.items()]
        histograms.observe([*sessions, session(f"{polled} without")], ROUND)
    site = histograms.snapshot()[SiteKey("site.example", "https")]
    bounds, count = (*family.buckets, math.inf), 2 * len(values)
    expected = tuple(2 * sum(v <= bound for v in values) for bound in bounds)
    assert site.histograms[index].buckets == expected
    assert site.histograms[index].sum == pytest.approx(2 * math.fsum(values))
    assert (site.sessions, sum(h.buckets[-1] for h in site.histograms)) == (count + 2, count)


def test_a_site_is_removed_after_a_day_without_sessions_and_restarts_at_zero():
    new, old, day = session("1", "a", "new"), session("2", "a", "old"), RETENTION_SECONDS
    histograms = started(new)
    for sessions, seconds, expected in (
        ([new, old], 0, {"new": 0, "old": 0}),
        ([new, old], 1, {"new": 0, "old": 1}),
        ([new], day, {"new": 0, "old": 1}),
        ([new], day + 1, {"new": 0}),
        ([session("3", "a", "old")], day + 2, {"new": 0, "old": 0}),
        ([session("3", "a", "old")], day + 3, {"new": 0, "old": 1}),
    ):
        histograms.observe(sessions, ROUND + seconds)
        assert counts(histograms) == expected


polls_of_sites = st.lists(st.lists(st.text("abcdefgh", max_size=2), max_size=8), max_size=6)


@given(polls_of_sites, st.integers(1, 4))
def test_sites_above_the_limit_are_counted_as_one_for_each_protocol(polls, limit):
    histograms, sessions = started(max_sites=limit), list[Joined]()
    for number, poll in enumerate(polls):
        sessions += [session(f"{number}{n}", "a", s[:1], s[1:]) for n, s in enumerate(poll)]
        histograms.observe(sessions, ROUND)
        found = histograms.snapshot()
        others = [key for key in found if key.site == OTHER]
        assert list(found) == sorted(found)
        assert len(found) - len(others) <= limit
        assert len(found) <= 2 * limit + ((OTHER, OTHER) in others)
        assert not others or len(found) > limit
    histograms.observe(sessions, ROUND)
    assert sum(each.sessions for each in histograms.snapshot().values()) == len(sessions)


def test_a_session_that_is_missing_for_a_while_is_not_counted_again():
    histograms, once, again = started(session("0")), session("1"), 2 * 900
    rounds = [(0, 1), (again, 2), (0, 2), (again + 1, 3), (0, 3)]  # nor is one that is too old
    for after, expected in rounds:
        observed = session(str(after), start=ROUND + after) if after else once
        histograms.observe([observed], ROUND)
        assert counts(histograms) == {"site.example": expected}


states = st.tuples(*[st.sampled_from(["absent", "incomplete", "complete"])] * 5)


@given(st.lists(states, min_size=1, max_size=6))
def test_counts_agree_with_a_plain_implementation(polls):
    histograms, expected = SiteHistograms(FIELDS, 10), Counter[str]()
    known, counted = set[str](), set[str]()
    for number, poll in enumerate(polls):
        present = {str(n): state for n, state in enumerate(poll) if state != "absent"}
        sites = {id_: f"site {int(id_) % 2}" for id_ in present}
        both = [session(id_, "a", site) for id_, site in sites.items()]
        complete = {id_ for id_, state in present.items() if state == "complete"}
        histograms.observe([(u, n if u.id in complete else None) for u, n in both], ROUND)
        for id_ in complete - counted:
            if number == 0 or sites[id_] in known:
                counted.add(id_)
                expected[sites[id_]] += number > 0
        known |= set(sites.values())
    assert counts(histograms) == {site: expected[site] for site in known}
