"""Which sessions are taken in, and under which site."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import ROUND, network, pair, user

from exporter.model import Sessions
from exporter.selection import SLACK, Selection, host


def patterns(*texts: str) -> list[re.Pattern[str]]:
    return [re.compile(text) for text in texts]


def read(*pairs, rejected=()) -> Sessions:
    return Sessions([one for one, _ in pairs], [other for _, other in pairs], Counter(rejected))


def taken(selection: Selection, *pairs) -> list[str]:
    return [one.id for one in selection.take(read(*pairs), ROUND).users]


ANNA_WIKI = pair("1", "anna", "Wiki.example.com:443", "https")
ANNA_MAIL = pair("2", "anna", "mail.example.com.", "http")
BERT_WIKI = pair("3", "bert", "wiki.example.com", "https")
ALL = (ANNA_WIKI, ANNA_MAIL, BERT_WIKI)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["1", "2", "3"]),
        (Selection(include_sites=patterns(r"wiki\..*")), ["1", "3"]),
        (Selection(include_sites=patterns("nothing", r"mail\.example\.com")), ["2"]),
        (Selection(include_sites=patterns("wiki")), []),
        (Selection(exclude_sites=patterns(r".*\.com")), []),
        (Selection(exclude_sites=patterns("wiki", r"mail\..*")), ["1", "3"]),
        (Selection(include_agents=patterns("ann[ae]")), ["1", "2"]),
        (Selection(exclude_agents=patterns("anna")), ["3"]),
        (Selection(include_agents=patterns(".*"), exclude_agents=patterns("bert")), ["1", "2"]),
        (Selection(include_protocols=patterns("http")), ["2"]),
        (Selection(include_agents=patterns("anna"), include_protocols=patterns("https")), ["1"]),
    ],
)
def test_filters_match_the_whole_text_and_all_of_them_count(selection, expected):
    assert taken(selection, *ALL) == expected


def test_an_agent_passes_by_its_own_two_filters_alone():
    selection = Selection(
        include_agents=patterns("a.*"), exclude_agents=patterns("ab"), include_sites=patterns("nowhere")
    )
    assert [selection.agent(name) for name in ("aa", "ab", "ba")] == [True, False, False]


def test_filtered_sessions_take_their_network_session_with_them_and_are_counted_once():
    selection = Selection(exclude_agents=patterns("anna"))
    result = selection.take(read(ANNA_WIKI, ANNA_MAIL, BERT_WIKI, ANNA_WIKI), ROUND)
    assert result.users == [BERT_WIKI[0]]
    assert result.networks == [BERT_WIKI[1]]
    assert result.rejected == {"filtered": 2}


def test_a_network_session_without_a_partner_is_kept():
    sessions = Sessions([], [network("9")], Counter())
    assert Selection(include_agents=patterns("anna")).take(sessions, ROUND).networks == [network("9")]


def test_what_is_taken_as_it_is_stays_the_same_object():
    assert Selection().take(read(BERT_WIKI), ROUND).users[0] is BERT_WIKI[0]


def test_sites_are_taken_in_their_normal_form():
    assert [one.key.site for one in Selection().take(read(*ALL), ROUND).users] == [
        "wiki.example.com",
        "mail.example.com",
        "wiki.example.com",
    ]


def test_the_first_group_that_matches_the_whole_site_names_it():
    groups = [(re.compile("wiki"), "part"), (re.compile(r"wiki\..*"), "Wiki"), (re.compile(".*"), "rest")]
    result = Selection(site_groups=groups).take(read(*ALL), ROUND)
    assert [one.key.site for one in result.users] == ["Wiki", "rest", "Wiki"]


def test_a_site_that_is_in_no_group_keeps_its_own_name():
    assert taken_site(Selection(site_groups=[(re.compile("other"), "Other")]), "wiki.example.com") == "wiki.example.com"


def test_filters_see_the_site_and_not_the_group():
    selection = Selection(
        include_sites=patterns("wiki.example.com"), site_groups=[(re.compile(".*"), "mail.example.com")]
    )
    assert taken_site(selection, "WIKI.example.com") == "mail.example.com"


def taken_site(selection: Selection, site: str) -> str:
    (one,) = selection.take(read(pair(site=site)), ROUND).users
    return one.key.site


def test_rounds_of_the_future_are_rejected_in_both_listings():
    late, far = ROUND + SLACK, ROUND + SLACK + 1
    result = Selection().take(read(pair("1", start=late), pair("2", start=far)), ROUND)
    assert [each.id for each in (*result.users, *result.networks)] == ["1", "1"]
    assert result.rejected == {"bad_time": 2}


def test_a_session_of_the_future_is_not_filtered_as_well():
    result = Selection(exclude_agents=patterns(".*")).take(read(pair(start=ROUND + 3600)), ROUND)
    assert result.rejected == {"bad_time": 2}


def test_what_was_rejected_before_stays_counted_and_the_count_of_the_caller_is_left_alone():
    before = read(ANNA_WIKI, rejected={"bad_type": 3})
    result = Selection(exclude_agents=patterns("anna")).take(before, ROUND)
    assert result.rejected == {"bad_type": 3, "filtered": 1}
    assert before.rejected == {"bad_type": 3}


def test_nothing_rejected_is_nothing_counted():
    assert Selection().take(read(ANNA_WIKI), ROUND).rejected == Counter()
    assert not list(Selection().take(Sessions([user()], [], Counter()), ROUND).rejected)


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("Example.COM", "example.com"),
        ("example.com:443", "example.com"),
        ("example.com:", "example.com"),
        ("Example.com.:8080", "example.com"),
        ("example.com.", "example.com"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("[::1]:443", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("2001:db8::443", "2001:db8::443"),
        ("example.com:http", "example.com:http"),
        ("example.com:４４３", "example.com:４４３"),  # noqa: RUF001  digits, but not of a port
        (":443", ":443"),
        ("intranet", "intranet"),
        ("", ""),
    ],
)
def test_a_host_has_one_form(site, expected):
    assert host(site) == expected


@given(st.from_regex(r"[a-zA-Z0-9-]{1,20}(\.[a-zA-Z0-9-]{1,20}){0,4}", fullmatch=True), st.integers(0, 65535))
def test_case_port_and_the_dot_at_the_end_make_no_other_site(name, port):
    forms = {name, name.upper(), f"{name}.", f"{name}:{port}", f"{name.lower()}.:{port}"}
    assert {host(form) for form in forms} == {name.lower()}
