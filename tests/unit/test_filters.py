"""Filters and site groups."""

import pytest
from factories import ROUND, batch, network, session

from exporter.sources.session_filter import SessionFilter, compile_pattern, normalize_host

ANNA_WIKI = session("1", "anna", "Wiki.example.com:443", "https")
ANNA_MAIL = session("2", "anna", "mail.example.com.", "http")
BERT_WIKI = session("3", "bert", "wiki.example.com", "https")
BATCH = batch(ANNA_WIKI, ANNA_MAIL, BERT_WIKI)


def filter_(**patterns: str) -> SessionFilter:
    """Make a filter; patterns of one kind are separated by spaces."""
    return SessionFilter(
        **{kind: [compile_pattern(p) for p in texts.split()] for kind, texts in patterns.items()}
    )


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({}, "123"),
        ({"include_sites": r"nothing mail\.example\.com"}, "2"),
        ({"exclude_sites": r".*\.com"}, ""),
        ({"exclude_sites": r"wiki mail\..*"}, "13"),
        ({"include_agents": "ann[ae]", "include_sites": "nowhere"}, ""),
        ({"exclude_agents": "anna"}, "3"),
        ({"include_protocols": "http"}, "2"),
        ({"include_agents": "anna", "include_protocols": "https"}, "1"),
    ],
)
def test_patterns_match_the_whole_value_and_all_filters_apply(patterns, expected):
    result = filter_(**patterns).apply(BATCH, ROUND)
    for rows in result.listings:
        assert "".join(row.id for row in rows) == expected
    assert result.rejected == ({"filtered": 3 - len(expected)} if len(expected) < 3 else {})


def test_a_pattern_takes_linear_time_and_matches_line_breaks():
    assert not compile_pattern(r"(.*\.)*example\.com").fullmatch("a." * 120 + "example.org")
    assert compile_pattern(".*").fullmatch("a\nb")


def test_rejected_records_are_counted_once_and_the_input_is_unchanged():
    late = session("4", "bert", start=ROUND + 1)
    before = batch(ANNA_WIKI, BERT_WIKI, ANNA_WIKI, late, bad_type=3, filtered=1, bad_time=1)
    before.listings[1].append(network("9"))  # unmatched
    f = filter_(exclude_agents="anna", include_sites="wiki.*")
    result = f.apply(before, ROUND)
    assert result.listings == ([BERT_WIKI[0]], [BERT_WIKI[1], network("9")])
    assert result.rejected == {"bad_type": 3, "filtered": 2, "bad_time": 3}
    assert before.rejected == {"bad_type": 3, "filtered": 1, "bad_time": 1}
    assert [f.accepts_agent(agent) for agent in ("anna", "bert")] == [False, True]


def test_the_first_group_that_matches_the_whole_site_names_it():
    texts = ("wiki", "part"), (r"wiki\..*", "Wiki"), ("w.*", "never")
    f = SessionFilter(
        include_sites=[compile_pattern(r".*\.com")],  # of the site, not of its group
        site_groups=[(compile_pattern(pattern), name) for pattern, name in texts],
    )
    keys = [user.key for user in f.apply(BATCH, ROUND).listings[0]]
    assert [key[1] for key in keys] == ["Wiki", "mail.example.com", "Wiki"]
    assert [(key[0], key[2]) for key in keys] == [(u.key[0], u.key[2]) for u in BATCH.listings[0]]


def test_hosts_are_normalized():
    hosts = {
        "Example.com.:8080": "example.com",
        "example.com:": "example.com",
        "[2001:DB8::1]:443": "[2001:db8::1]",
        "[::1]": "[::1]",
        "2001:db8::443": "2001:db8::443",
        "example.com:http": "example.com:http",
        "example.com:\uff14\uff14\uff13": "example.com:\uff14\uff14\uff13",  # not ASCII digits
        ":443": ":443",
    }
    assert {site: normalize_host(site) for site in hosts} == hosts
