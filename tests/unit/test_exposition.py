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
from factories import ROUND, any_text, session, text_of, user
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import asdict
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.inventory import AccountGroup, Agent
from exporter.labels import sanitize
from exporter.metrics import exposition
from exporter.metrics.exposition import BATCH_SIZE, Format, Part, Snapshot, Writer, compress
from exporter.metrics.families import FAMILIES, NETWORK_FIELDS, PREFIX, USER_FIELDS, select_families
from exporter.render import GroupResult, render
from exporter.sessions.aggregate import SeriesTable, aggregate
from exporter.sessions.histograms import SiteHistograms
from exporter.sessions.model import NetworkSession, SeriesKey, UserSession
from exporter.sessions.source import SessionsResult

GOLDEN = Path(__file__).parents[1] / "golden/text.txt"
PARSERS = {Format.TEXT: parse_text, Format.OPENMETRICS: parse_openmetrics}
SPECIAL = ['quote " end', "back\\slash", "two\nlines", "\\n", '\\"', "} # 1", "東京", "{}", ","]


def text(snapshot: Snapshot, format_: Format = Format.TEXT) -> str:
    return text_of(snapshot.common, snapshot.tails[format_])


def parse(snapshot: Snapshot, format_: Format) -> dict[tuple[str, frozenset], float]:
    """Return every sample, without the prefix of its name; none is repeated."""
    end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
    samples = [
        ((sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())), sample.value)
        for family in PARSERS[format_](text(snapshot, format_) + end)
        for sample in family.samples
    ]
    assert len(dict(samples)) == len(samples)
    return dict(samples)


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in values.items() if value)


def result(*sessions: tuple[UserSession, NetworkSession | None]) -> SessionsResult:
    """Return what is published after two polls; the second has the network sessions."""
    histograms = SiteHistograms(10)
    complete = [session for session in sessions if session[1]]
    histograms.observe([(user, None) for user, _ in complete], ROUND)
    histograms.observe(complete, ROUND)
    return SessionsResult(series=aggregate(sessions), sites=histograms.snapshot())


def company() -> list[GroupResult]:
    """Return the results of two account groups: all families, and values that need care."""
    fields = (*NETWORK_FIELDS, *USER_FIELDS)
    everything = {field: (index + 1) / 64 for index, field in enumerate(fields)}
    little = {"destination.latency": 2.2 + 0.1, "destination.loss": -0.0, "numberOfPages": 1e16}
    anna = Agent("a1", "anna", "Windows", "1.190.0", "Windows 11", "Zürich", ROUND + 0.5)
    sales = [session(n, "a1", "wiki", values=v) for n, v in (("1", everything), ("2", little))]
    unmatched = user("3", "c3", "", "http", values={"numberOfPages": 2.0}), None
    other = user("1", "e5", 'a "b" \\ c\nd', "", start=ROUND + 60, values=little), None
    agents = (anna, Agent("e5", 'the "big" one'))
    return [
        GroupResult(AccountGroup("101", "Sales & Co"), result(*sales, unmatched), agents),
        GroupResult(AccountGroup("202"), result(other)),
    ]


def test_the_whole_text():
    families = select_families(["loss_ratio", "pages", "round_timestamp_seconds"])
    snapshot = render(company(), families, lambda agent: agent)
    assert snapshot.size == len(text(snapshot).encode())
    other_histograms = re.compile(r"# HELP \S+_site_jitter.*(?=# HELP \S+_agent_info)", re.DOTALL)
    actual, openmetrics = (other_histograms.sub("", text(snapshot, each)) for each in Format)
    if "UPDATE_GOLDEN" in os.environ:
        GOLDEN.write_text(actual, newline="")
    assert actual.encode() == GOLDEN.read_bytes()
    for line in ("# HELP ", "# TYPE "):  # the only difference between the formats
        counter = f"{line}{PREFIX}site_sessions"
        actual = actual.replace(f"{counter}_total", counter)
    assert openmetrics == actual


@pytest.mark.parametrize("format_", Format)
def test_every_sample_of_every_family_is_published(format_):
    snapshot = render(company(), FAMILIES, lambda agent: agent)
    published = {family.short_name for family in FAMILIES}
    samples = [name for name, _ in parse(snapshot, format_) if name in published]
    assert set(samples) == published
    assert snapshot.series == len(samples)
    assert len(samples) == sum(each.sessions.series.samples.sum() for each in company())
    nothing = render([], FAMILIES, lambda agent: agent)
    assert (text(nothing, format_), nothing.series, nothing.size) == ("", 0, 0)


def test_families_and_agent_names_are_selected():
    samples = parse(render(company(), ()), Format.TEXT)
    assert {name for name, _ in samples if not name.startswith("site_")} == {"account_group_info"}
    hidden = render(company(), select_families(["loss_ratio"]), lambda agent: Agent(agent.id, "x"))
    samples = parse(hidden, Format.TEXT)
    assert ("agent_info", labels(aid="101", agent="a1", agent_name="x")) in samples
    assert hidden.series == len([name for name, _ in samples if name == "loss_ratio"]) == 1


@pytest.mark.parametrize("empty", list(itertools.product((True, False), repeat=4)))
def test_an_empty_label_value_is_omitted_everywhere(empty):
    values = zip(empty, "1asp", strict=True)
    aid, agent, site, protocol = ("" if omitted else value for omitted, value in values)
    visit = session("1", agent, site, protocol, values={"destination.latency": 0.5})
    group = GroupResult(AccountGroup(aid, "S"), result(visit), [Agent(agent, last_seen=2.5)])
    other = GroupResult(AccountGroup("other"), group.sessions)
    snapshot = render([other, group], FAMILIES, lambda agent: agent)
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
        assert expected.items() <= parse(snapshot, format_).items()


any_label = st.sampled_from([*SPECIAL, sanitize("é" * 100_000)]) | any_text.map(sanitize)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.builds(SeriesKey, any_label, any_label, any_label), numbers, max_size=5))
@example({SeriesKey(value, value, value): 1.0 for value in SPECIAL})
def test_any_labels_and_numbers_round_trip(series):
    keys = sorted(series)
    table = SeriesTable(keys, {"pages": np.array([series[key] for key in keys])})
    group = GroupResult(AccountGroup('"7"'), SessionsResult(series=table))
    snapshot = render([group], select_families(["pages"]))
    expected = {("pages", labels(aid='"7"', **asdict(key))): n for key, n in series.items()}
    assert all(parse(snapshot, format_) == expected for format_ in Format)
    assert text(snapshot).count("\n") == (len(series) + 2 if series else 0)


@pytest.mark.parametrize("size", [0, 1, BATCH_SIZE - 1, BATCH_SIZE, 2 * BATCH_SIZE + 1])
@pytest.mark.parametrize("gaps", [1, 3, 10_000])
def test_gauges_are_written_in_batches_without_gaps(size, gaps):
    labels = [f'{{n="{n}"}} ' for n in range(size)]
    column = np.arange(size) / 2
    column[::gaps] = math.nan
    writer = Writer()
    columns = [(["{} "], np.array([math.nan])), (labels, column), (labels, column)]
    total = exposition.write_gauges(writer, "x", "Help.", columns)
    expected = [f'x{{n="{n}"}} {n / 2}' for n in range(size) if n % gaps] * 2
    metadata = ["# HELP x Help.", "# TYPE x gauge"] if expected else []
    assert text_of(writer.part()).splitlines() == metadata + expected
    assert total == len(expected)


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
