"""Which sessions are taken in, and under which site."""

import json
import re
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from making import ROUND, network, pair, user
from servers import ROOT, settings_for, simulated

from exporter.app import once
from exporter.model import Sessions
from exporter.selection import MOST_SEARCHED, SLACK, Selection, host, literals, searched
from exporter.simulator import World


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


# What the API itself can leave out.

SPECIAL = "ab.|\\\\()[]{}*+?^$-# \n\tdDwWsSbBAZnx1é\u0661\u017f"
"""Everything that means something in a regular expression, and letters that mean something behind a backslash."""


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_texts_that_are_escaped_and_listed_are_read_back(texts):
    pattern = re.compile("|".join(re.escape(text) for text in texts))
    found = literals(pattern)
    assert found is None or found == texts
    if all(text.isalnum() or set(text) <= set("abc.-|") for text in texts):
        assert found == texts


@given(st.text(SPECIAL, max_size=8), st.text(SPECIAL, max_size=4))
@example("a\\\\|b", "a")
@example(r"\\d", "1")
@example("a|", "")
@example("a\\\n", "a")
def test_a_list_of_texts_is_exactly_what_the_pattern_matches_whole(written, other):
    try:
        pattern = re.compile(written)
    except (re.error, FutureWarning, OverflowError):  # which no setting may be either
        return
    texts = literals(pattern)
    if texts is None:
        return
    for text in (*texts, other, written, *(text[:-1] for text in texts), *(f"{text}a" for text in texts)):
        assert bool(pattern.fullmatch(text)) == (text in texts)


@pytest.mark.parametrize(
    "written", ["", "a.b", "a*", "(a|b)", "[ab]", "a|", "|a", r"\d", r"\Aa", "^a", "a$", "(?i)a", "a{2}", "a?"]
)
def test_what_is_more_than_a_list_is_none(written):
    assert literals(re.compile(written)) is None


def test_letters_of_any_case_are_no_list():
    assert literals(re.compile("abc", re.IGNORECASE)) is None


ANNA, BERT = "3fde6422-f119-40e1-ae32-d08a1243c038", "236e6f18-9637-4a2f-b15f-7aa6a29c9fce"


@pytest.mark.parametrize(
    ("include", "search", "sent"),
    [
        ([], {}, {}),
        ([ANNA], {}, {"agentId": [ANNA]}),
        ([f"{ANNA}|{BERT}", re.escape(ANNA)], {}, {"agentId": [BERT, ANNA]}),
        ([ANNA], {"platform": ["mac"]}, {"agentId": [ANNA], "platform": ["mac"]}),
        ([ANNA], {"agentId": [BERT]}, {"agentId": [BERT]}),
        ([ANNA, f"{BERT[:-1]}."], {}, {}),
        ([ANNA.upper()], {}, {}),
        (["laptop-of-anna"], {"domain": ["a.example"]}, {"domain": ["a.example"]}),
    ],
)
def test_agents_that_are_listed_by_their_ids_are_asked_of_the_api(include, search, sent):
    assert searched(patterns(*include), search) == sent


def test_too_many_agents_are_not_asked_by_their_ids():
    def ids(count):
        return patterns(*(f"00000000-0000-0000-0000-{number:012x}" for number in range(count)))

    assert len(searched(ids(MOST_SEARCHED), {})["agentId"]) == MOST_SEARCHED
    assert searched(ids(MOST_SEARCHED + 1), {}) == {}


@pytest.mark.parametrize("version", ["v6", "v7"])
async def test_what_the_api_leaves_out_is_what_would_be_left_out_here_in_fewer_pages(version):
    world = World(agents=30, sites=6)
    ids = [agent.id for agent in world.people[3:6]]
    texts, pages = [], []
    for pattern in ("|".join(ids), f"({'|'.join(ids)})"):
        async with simulated(world, page_size=10) as (simulator, api):
            settings = settings_for(api, api__version=version, filter__include_agents=json.dumps([pattern]))
            text, failed = await once(settings)
            assert not failed
            texts.append([line for line in text.splitlines() if line.startswith("thousandeyes_endpoint_")])
            asked = [request for request in simulator.requests if "user-" in request.path]
            pages.append(len(asked))
            assert len({request.body for request in asked}) == 1
            if pattern[0] != "(":
                assert_asked(version, asked[0], sorted(ids))
    assert texts[0] == texts[1]
    assert any('site="' in line for line in texts[0])
    assert pages[0] < pages[1] / 2


def assert_asked(version, request, ids):
    """The filter has the form that the version wants, on a request that may have a body."""
    filters = {"v6": [{"key": "agentId", "values": ids}], "v7": {"agentId": ids}}[version]
    assert (request.method, json.loads(request.body)) == ("POST", {"searchFilters": filters})


def test_the_readme_tells_how_many_agents_are_asked_by_their_ids():
    assert f"up to {MOST_SEARCHED})" in (ROOT / "README.md").read_text()
