"""Exposition text, read by the parsers of prometheus_client, and its compression.

`UPDATE_GOLDEN=1 pytest tests/unit/test_exposition.py` writes the golden file; review the diff.
"""

import itertools
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from factories import ROUND, any_text, parse, session, text_of, user
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.account_group import AccountGroup
from exporter.labels import sanitize
from exporter.metrics.exposition import Format, Part, Snapshot, Writer, gzip_chunks, plain_chunks
from exporter.metrics.families import PREFIX
from exporter.render import GroupResult, render
from exporter.sources.agents import INFO, STATE
from exporter.sources.results import Result, SessionsResult
from exporter.sources.rows import Joined
from exporter.sources.sessions import FIELDS, SERIES, fold
from exporter.sources.site_histograms import SiteHistograms

GOLDEN = Path(__file__).parents[1] / "golden/text.txt"
SPECIAL = ['quote " end', "back\\slash", "two\nlines", "\\n", '\\"', "} # 1", "東京", "{}", ",", ""]


def text(snapshot: Snapshot, format_: Format = Format.TEXT) -> str:
    return text_of(snapshot.common, snapshot.tails[format_])


def result(selection: tuple[str, ...], *sessions: Joined) -> SessionsResult:
    """Return what is published after two polls; the second has the network sessions."""
    histograms = SiteHistograms(FIELDS, 10)
    complete = [session for session in sessions if session[1]]
    histograms.observe([(user, None) for user, _ in complete], ROUND)
    histograms.observe(complete, ROUND)
    tables = [fold(SERIES.select(selection), sessions, ())]
    return SessionsResult(tables, sites=histograms.snapshot())


def company(*selection: str) -> list[GroupResult]:
    """Return the results of two account groups: some families, and values that need care."""
    fields = itertools.chain(*reversed(FIELDS))
    everything = {field: (index + 1) / 64 for index, field in enumerate(fields)}
    little = {"destination.latency": 2.2 + 0.1, "destination.loss": -0.0, "numberOfPages": 1e16}
    info = [
        ("a1", "anna", "Windows", "1.190.0", "Windows 11", "Zürich"),
        ("e5", 'the "big" one', "", "", "", ""),
    ]
    state = STATE.series([("a1",), ("e5",)], [[ROUND + 0.5, *[math.nan] * 3], [math.nan] * 4])
    sales = [session(n, "a1", "wiki", values=v) for n, v in (("1", everything), ("2", little))]
    unmatched = user("3", "c3", "", "http", values={"numberOfPages": 2.0}), None
    other = user("1", "e5", 'a "b" \\ c\nd', "", start=ROUND + 60, values=little), None
    sessions = [result(selection, *each) for each in ((*sales, unmatched), (other,))]
    sources = {"sessions": sessions[0], "agents": Result([INFO.ones(info), state])}
    return [
        GroupResult(AccountGroup("101", "Sales & Co"), sources),
        GroupResult(AccountGroup("202"), {"sessions": sessions[1]}),
    ]


def test_the_whole_text():
    snapshot = render(company("loss_ratio", "pages", "round_timestamp_seconds"))
    assert snapshot.size == len(text(snapshot).encode())
    other_histograms = re.compile(
        r"# HELP \S+_site_jitter.*(?=# HELP \S+_site_sessions)", re.DOTALL
    )
    actual, openmetrics = (other_histograms.sub("", text(snapshot, each)) for each in Format)
    if "UPDATE_GOLDEN" in os.environ:
        GOLDEN.write_text(actual, newline="")
    assert actual.encode() == GOLDEN.read_bytes()
    for line in ("# HELP ", "# TYPE "):  # the only difference between the formats
        counter = f"{line}{PREFIX}site_sessions"
        actual = actual.replace(f"{counter}_total", counter)
    assert openmetrics == actual
    assert (text(render([])), render([]).size) == ("", 0)


any_label = st.sampled_from([*SPECIAL, sanitize("é" * 100_000)]) | any_text.map(sanitize)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(any_label, st.dictionaries(st.tuples(any_label, any_label, any_label), numbers, max_size=5))
@example("", {("", "", ""): 0.0})
@example("7", {(value, value, value): 1.0 for value in SPECIAL})
def test_any_labels_and_numbers_round_trip_and_an_empty_value_is_no_label(aid, series):
    def labels(**values: str) -> frozenset[tuple[str, str]]:
        return frozenset((name, value) for name, value in {"aid": aid, **values}.items() if value)

    keys, pages = sorted(series), SERIES.select(["pages"])
    table = pages.series(keys, [[series[key]] for key in keys])
    histograms = SiteHistograms(FIELDS, 10)
    histograms.observe([session("1", *key) for key in keys], ROUND)
    sessions = SessionsResult([table], sites=histograms.snapshot())
    snapshot = render([GroupResult(AccountGroup(aid), {"sessions": sessions})])
    expected = {}
    for agent, site, protocol in keys:
        of_site = labels(site=site, protocol=protocol)
        of_agent = labels(agent=agent, site=site, protocol=protocol)
        expected["pages", of_agent] = series[agent, site, protocol]
        expected["site_sessions_total", of_site] = 0
        expected["site_latency_seconds_count", of_site] = 0
        expected["site_latency_seconds_bucket", of_site | {("le", "+Inf")}] = 0
    for format_ in Format:
        end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
        found = parse(text(snapshot, format_) + end, format_, PREFIX)
        assert expected.items() <= found.items()
        assert {key for key in found if not key[0].startswith("site_")} <= expected.keys()


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 2049])
@pytest.mark.parametrize("gaps", [1, 3, 10_000])
def test_gauges_of_any_number_are_written_without_gaps(size, gaps):
    column, pages = np.arange(size) / 2, SERIES.select(["pages"])
    column[::gaps] = math.nan
    keys = [(f"{n:04}", "s", "p") for n in range(size)]
    table, none = pages.series(keys, column[:, None]), pages.series([("", "", "")], [[math.nan]])
    groups = [GroupResult(AccountGroup(aid), {"x": Result([none, table])}) for aid in "12"]
    found = [line for line in text(render(groups)).splitlines() if line[0] != "#"]
    assert found == [
        f'{PREFIX}pages{{aid="{aid}",agent="{n:04}",site="s",protocol="p"}} {n / 2}'
        for aid in "12"
        for n in range(size)
        if n % gaps
    ]
    assert bool(text(render(groups))) == bool(found)  # metadata


any_size = st.text(max_size=200) | st.integers(0, 300_000).map("x".__mul__)


@given(st.lists(any_size, min_size=1, max_size=5))
def test_parts_concatenate_to_one_gzip_member(texts):
    parts: list[Part] = []
    for each in texts:
        writer = Writer(parts[-1].crc if parts else 0)
        writer.write(each)
        parts.append(writer.part())
    assert [text_of(part) for part in parts] == texts
    assert [part.size for part in parts] == [len(each.encode()) for each in texts]
    reader = zlib.decompressobj(31)
    assert reader.decompress(b"".join(gzip_chunks(parts))) == "".join(texts).encode()
    assert (reader.eof, reader.unused_data) == (True, b"")


@given(st.binary(max_size=40_000).map(bytes.hex), st.integers(16, 4096))
def test_plain_chunks_are_at_most_the_maximum_size(whole, size):
    writer = Writer()
    writer.write(whole)
    chunks = list(plain_chunks(writer.part(), size))
    assert b"".join(chunks).decode() == whole
    assert all(0 < len(chunk) <= size for chunk in chunks)
