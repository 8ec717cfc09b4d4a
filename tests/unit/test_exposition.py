"""Exposition text, read by the parsers of prometheus_client, and its compression.

`UPDATE_GOLDEN=1 pytest tests/unit/test_exposition.py` writes the golden file; review the diff.
"""

import itertools
import math
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from factories import ROUND, any_text, parse, session, text_of, user
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.account_group import AccountGroup
from exporter.labels import sanitize
from exporter.metrics import exposition
from exporter.metrics.exposition import BATCH_SIZE, Format, Part, Snapshot, Writer, compress
from exporter.metrics.families import PREFIX, SeriesTable
from exporter.render import GroupResult, render
from exporter.sources.agents import INFO, STATE
from exporter.sources.results import Result, SessionsResult
from exporter.sources.rows import Joined, Key
from exporter.sources.sessions import FIELDS, SERIES, fold
from exporter.sources.site_histograms import SiteHistograms

GOLDEN = Path(__file__).parents[1] / "golden/text.txt"
SPECIAL = ['quote " end', "back\\slash", "two\nlines", "\\n", '\\"', "} # 1", "東京", "{}", ","]


def text(snapshot: Snapshot, format_: Format = Format.TEXT) -> str:
    return text_of(snapshot.common, snapshot.tails[format_])


def published(snapshot: Snapshot, format_: Format) -> dict[tuple[str, frozenset], float]:
    """Return every sample, without the prefix of its name."""
    end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
    return parse(text(snapshot, format_) + end, format_, PREFIX)


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in values.items() if value)


def result(*sessions: Joined, selection: Sequence[str] = ("all",)) -> SessionsResult:
    """Return what is published after two polls; the second has the network sessions."""
    histograms = SiteHistograms(FIELDS, 10)
    complete = [session for session in sessions if session[1]]
    histograms.observe([(user, None) for user, _ in complete], ROUND)
    histograms.observe(complete, ROUND)
    tables = [fold(SERIES.select(selection), sessions, ())]
    return SessionsResult(tables, sites=histograms.snapshot())


def agents(*agents: tuple[Key, float]) -> Result:
    """Return what is published of agents, given label values and when they were last seen."""
    values = {"agent_info": np.ones(len(agents))}
    info = SeriesTable(INFO.labels, INFO.families, [labels for labels, _ in agents], values)
    values = {family.short_name: np.full(len(agents), math.nan) for family in STATE.families}
    values["agent_last_seen_timestamp_seconds"] = np.array([last_seen for _, last_seen in agents])
    keys = [labels[:1] for labels, _ in agents]
    return Result([info, SeriesTable(STATE.labels, STATE.families, keys, values)])


def company(*selection: str) -> list[GroupResult]:
    """Return the results of two account groups: some families, and values that need care."""
    fields = itertools.chain(*reversed(FIELDS))
    everything = {field: (index + 1) / 64 for index, field in enumerate(fields)}
    little = {"destination.latency": 2.2 + 0.1, "destination.loss": -0.0, "numberOfPages": 1e16}
    anna = ("a1", "anna", "Windows", "1.190.0", "Windows 11", "Zürich"), ROUND + 0.5
    big = ("e5", 'the "big" one', "", "", "", ""), math.nan
    sales = [session(n, "a1", "wiki", values=v) for n, v in (("1", everything), ("2", little))]
    unmatched = user("3", "c3", "", "http", values={"numberOfPages": 2.0}), None
    other = user("1", "e5", 'a "b" \\ c\nd', "", start=ROUND + 60, values=little), None
    sessions = [result(*each, selection=selection) for each in ((*sales, unmatched), (other,))]
    sources = {"sessions": sessions[0], "agents": agents(anna, big)}
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


@pytest.mark.parametrize("empty", list(itertools.product((True, False), repeat=4)))
def test_an_empty_label_value_is_omitted_everywhere(empty):
    values = zip(empty, "1asp", strict=True)
    aid, agent, site, protocol = ("" if omitted else value for omitted, value in values)
    visit = session("1", agent, site, protocol, values={"destination.latency": 0.5})
    one = agents(((agent, *[""] * 5), 2.5))
    group = GroupResult(AccountGroup(aid, "S"), {"sessions": result(visit), "agents": one})
    other = GroupResult(AccountGroup("other"), {"sessions": group.sessions})
    snapshot = render([other, group])
    assert '=""' not in text(snapshot)
    per_agent = labels(aid=aid, agent=agent)
    per_site = labels(aid=aid, site=site, protocol=protocol)
    expected = {
        ("latency_seconds", per_agent | per_site): 0.5,
        ("agent_info", per_agent): 1,
        ("agent_last_seen_timestamp_seconds", per_agent): 2.5,
        ("account_group_info", labels(aid=aid, account_group="S")): 1,
        ("site_latency_seconds_count", per_site): 1,
        ("site_latency_seconds_bucket", per_site | labels(le="+Inf")): 1,
        ("site_sessions_total", per_site): 1,
    }
    for format_ in Format:
        assert expected.items() <= published(snapshot, format_).items()


any_label = st.sampled_from([*SPECIAL, sanitize("é" * 100_000)]) | any_text.map(sanitize)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.tuples(any_label, any_label, any_label), numbers, max_size=5))
@example({(value, value, value): 1.0 for value in SPECIAL})
def test_any_labels_and_numbers_round_trip(series):
    keys = sorted(series)
    pages, values = SERIES.select(["pages"]), np.array([series[key] for key in keys])
    table = SeriesTable(pages.labels, pages.families, keys, {"pages": values})
    snapshot = render([GroupResult(AccountGroup('"7"'), {"sessions": SessionsResult([table])})])
    expected = {
        ("pages", labels(aid='"7"', **dict(zip(pages.labels, key, strict=True)))): n
        for key, n in series.items()
    }
    assert all(published(snapshot, format_) == expected for format_ in Format)
    assert text(snapshot).count("\n") == (len(series) + 2 if series else 0)


@pytest.mark.parametrize("size", [0, 1, BATCH_SIZE - 1, BATCH_SIZE, 2 * BATCH_SIZE + 1])
@pytest.mark.parametrize("gaps", [1, 3, 10_000])
def test_gauges_are_written_in_batches_without_gaps(size, gaps):
    labels = [f'{{n="{n}"}} ' for n in range(size)]
    column = np.arange(size) / 2
    column[::gaps] = math.nan
    writer = Writer()
    columns = [(["{} "], np.array([math.nan])), (labels, column), (labels, column)]
    exposition.write_gauges(writer, "x", "Help.", columns)
    expected = [f'x{{n="{n}"}} {n / 2}' for n in range(size) if n % gaps] * 2
    metadata = ["# HELP x Help.", "# TYPE x gauge"] if expected else []
    assert text_of(writer.part()).splitlines() == metadata + expected


any_size = st.text(max_size=200) | st.integers(0, 300_000).map("x".__mul__)


@given(st.lists(any_size, min_size=1, max_size=5))
def test_parts_concatenate_to_one_gzip_member(texts):
    parts: list[Part] = []
    for each in texts:
        parts.append(compress(each, parts[-1].crc if parts else 0))
    assert [text_of(part) for part in parts] == texts
    assert [part.size for part in parts] == [len(each.encode()) for each in texts]
    whole = "".join(texts).encode()
    assert parts[-1].crc == zlib.crc32(whole)
    reader = zlib.decompressobj(31)
    assert reader.decompress(b"".join(exposition.gzip_chunks(parts))) == whole
    assert (reader.eof, reader.unused_data) == (True, b"")


@given(st.binary(max_size=40_000).map(bytes.hex), st.integers(16, 4096))
def test_plain_chunks_are_at_most_the_maximum_size(whole, size):
    chunks = list(exposition.plain_chunks(compress(whole, 0), size))
    assert b"".join(chunks).decode() == whole
    assert all(0 < len(chunk) <= size for chunk in chunks)
