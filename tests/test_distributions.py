"""Counters of sites: every session once, and nothing twice."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import ROUND, Pair, pair, user

from exporter.distributions import FORGET_AFTER, Distributions, Histogram, Site, SiteCounters
from exporter.metrics import DISTRIBUTIONS, OTHER

SITE = Site("site.example", "https")
LATENCY, JITTER, LOSS, SCORE = range(4)


def started(*sessions: Pair, max_sites: int = 100) -> Distributions:
    """Return counters after their first poll."""
    distributions = Distributions(max_sites)
    distributions.observe(list(sessions), ROUND)
    return distributions


def counted(distributions: Distributions) -> dict[str, int]:
    return {site.site: counters.sessions for site, counters in distributions.published().items()}


def session(id_: str = "1", site: str = "site.example", protocol: str = "https", **measured: float) -> Pair:
    return pair(id_, "agent", site, protocol, measured={f"destination.{field}": n for field, n in measured.items()})


def incomplete(id_: str = "1", site: str = "site.example") -> Pair:
    return user(id_, site=site), None


def test_the_first_poll_only_marks_what_it_sees():
    distributions = started(session("1"))
    assert counted(distributions) == {"site.example": 0}
    distributions.observe([session("1")], ROUND)
    assert counted(distributions) == {"site.example": 0}


def test_a_session_is_counted_once_however_often_it_comes():
    distributions = started(session("1"))
    for _ in range(3):
        distributions.observe([session("1"), session("2")], ROUND)
    assert counted(distributions) == {"site.example": 1}


def test_a_session_is_counted_when_it_is_first_complete():
    distributions = started(session("1"))
    distributions.observe([session("1"), incomplete("2")], ROUND)
    assert counted(distributions) == {"site.example": 0}
    distributions.observe([session("1"), session("2")], ROUND)
    assert counted(distributions) == {"site.example": 1}


def test_a_session_that_was_incomplete_at_the_first_poll_is_counted_when_it_is_complete():
    distributions = started(incomplete("1"))
    distributions.observe([session("1")], ROUND)
    assert counted(distributions) == {"site.example": 1}


def test_a_new_site_is_published_at_zero_before_anything_is_counted_on_it():
    distributions = started()
    distributions.observe([session("1", "new.example")], ROUND)
    assert counted(distributions) == {"new.example": 0}
    distributions.observe([session("1", "new.example")], ROUND)
    assert counted(distributions) == {"new.example": 1}


def test_the_same_site_by_another_protocol_is_another_series():
    distributions = started(session("1"), session("2", protocol="http"))
    distributions.observe([session("3", protocol="http")], ROUND)
    assert {site: counters.sessions for site, counters in distributions.published().items()} == {
        Site("site.example", "http"): 1,
        SITE: 0,
    }


def test_sites_are_published_in_order():
    distributions = started(session("1", "b"), session("2", "a"), session("3", "a", "http"))
    assert list(distributions.published()) == [("a", "http"), ("a", "https"), ("b", "https")]


@pytest.mark.parametrize("index", range(len(DISTRIBUTIONS)), ids=[each.short for each in DISTRIBUTIONS])
def test_buckets_hold_what_is_at_most_their_bound(index):
    distribution = DISTRIBUTIONS[index]
    beyond = math.nextafter(distribution.buckets[-1], math.inf)
    values = [0.0, *distribution.buckets, *(math.nextafter(bound, math.inf) for bound in distribution.buckets)]
    distributions = started(session("first"))
    distributions.observe([pair(str(n), measured={distribution.field: v}) for n, v in enumerate(values)], ROUND)
    histogram = distributions.published()[SITE].histograms[index]
    assert beyond in values
    assert histogram.buckets == tuple(sum(v <= bound for v in values) for bound in (*distribution.buckets, math.inf))
    assert histogram.sum == pytest.approx(math.fsum(values))


def test_a_value_that_is_missing_is_observed_nowhere_but_the_session_counts():
    distributions = started(session("1"))
    distributions.observe([session("2", latency=0.25), session("3", latency=0.5, loss=0.0)], ROUND)
    counters = distributions.published()[SITE]
    assert counters.sessions == 2
    assert [histogram.buckets[-1] for histogram in counters.histograms] == [2, 0, 1, 0]
    assert [histogram.sum for histogram in counters.histograms] == [0.75, 0.0, 0.0, 0.0]


def test_what_was_published_does_not_change_any_more():
    distributions = started(session("1"))
    before = distributions.published()
    distributions.observe([session("2", latency=1.0)], ROUND)
    empty = tuple(Histogram((0,) * (len(each.buckets) + 1), 0.0) for each in DISTRIBUTIONS)
    assert before == {SITE: SiteCounters(0, empty)}


def test_counters_stay_when_their_sessions_are_forgotten():
    distributions = started(session("1"))
    distributions.observe([session("2", latency=1.0)], ROUND)
    distributions.observe([], ROUND + 900)
    assert counted(distributions) == {"site.example": 1}


def test_a_site_goes_after_a_day_without_a_session_and_begins_at_zero_again():
    distributions = started(session("1", "old.example"), session("2", "new.example"))
    distributions.observe([session("2", "new.example"), session("3", "old.example")], ROUND)
    distributions.observe([session("2", "new.example")], ROUND + FORGET_AFTER - 1)
    assert counted(distributions) == {"new.example": 0, "old.example": 1}
    distributions.observe([session("2", "new.example")], ROUND + FORGET_AFTER)
    assert counted(distributions) == {"new.example": 0}
    for _ in range(2):
        distributions.observe([session("4", "old.example")], ROUND + FORGET_AFTER)
    assert counted(distributions)["old.example"] == 1


def test_sites_beyond_the_cap_are_counted_as_one_for_each_protocol():
    known = session("1", "known.example")
    distributions = started(known, max_sites=1)
    late = [session(str(n), f"late-{n}.example", protocol) for n, protocol in enumerate(("http", "https", "https"), 2)]
    for _ in range(2):
        distributions.observe([known, *late], ROUND)
    assert {site: counters.sessions for site, counters in distributions.published().items()} == {
        Site("known.example", "https"): 0,
        Site(OTHER, "http"): 1,
        Site(OTHER, OTHER): 2,
    }


def test_a_site_gets_its_own_counters_when_there_is_room_again():
    distributions = started(session("1", "a"), session("2", "b"), max_sites=1)
    assert list(counted(distributions)) == [OTHER, "a"]
    for _ in range(2):
        distributions.observe([session("3", "b")], ROUND + FORGET_AFTER - 1)
    distributions.observe([session("3", "b")], ROUND + FORGET_AFTER)
    assert counted(distributions) == {OTHER: 1}
    distributions.observe([], ROUND + 2 * FORGET_AFTER)
    for id_ in "45":
        distributions.observe([session(id_, "b")], ROUND + 2 * FORGET_AFTER)
    assert counted(distributions) == {"b": 1}


names = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("pqrstuvw"))


@given(st.lists(st.lists(names, max_size=8), min_size=1, max_size=6), st.integers(1, 4))
def test_there_are_never_more_than_twice_the_cap_and_one_and_no_session_is_lost(polls, cap):
    distributions = Distributions(cap)
    distributions.observe([], ROUND)
    everything: list[Pair] = []
    for number, poll in enumerate(polls):
        everything += [session(f"{number}-{n}", *name) for n, name in enumerate(poll)]
        distributions.observe(everything, ROUND)
        assert len(distributions.published()) <= 2 * cap + 1
    distributions.observe(everything, ROUND)
    assert sum(counters.sessions for counters in distributions.published().values()) == len(everything)


states = st.sampled_from(["absent", "incomplete", "complete"])


@given(st.lists(st.lists(states, min_size=5, max_size=5), min_size=1, max_size=6))
def test_counting_is_marking_at_the_first_poll_and_then_each_complete_session_once(polls):
    distributions = Distributions(10)
    expected: Counter[str] = Counter()
    known: set[str] = set()
    seen: set[str] = set()
    for number, poll in enumerate(polls):
        present = {str(n): state for n, state in enumerate(poll) if state != "absent"}
        distributions.observe(
            [
                session(id_, f"site {int(id_) % 2}") if state == "complete" else incomplete(id_, f"site {int(id_) % 2}")
                for id_, state in present.items()
            ],
            ROUND,
        )
        for id_, state in present.items():
            site = f"site {int(id_) % 2}"
            if state == "complete" and id_ not in seen and (number == 0 or site in known):
                seen.add(id_)
                expected[site] += number > 0
        seen &= present.keys()
        known |= {f"site {int(id_) % 2}" for id_ in present}
    assert counted(distributions) == {site: expected[site] for site in known}
