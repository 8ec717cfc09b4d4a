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
from exporter.sources.sessions import FIELDS, SERIES, fold
from exporter.sources.site_histograms import SiteHistograms

GOLDEN = Path(__file__).parents[1] / "golden/text.txt"
SPECIAL = ['quote " end', "back\\slash", "two\nlines", "\\n", '\\"', "} # 1", "東京", "{}", ",", ""]


def text(snapshot: Snapshot, format_: Format = Format.TEXT) -> str:
    return text_of(snapshot.common, snapshot.tails[format_])


def company() -> GroupResult:
    """Return what is published after two polls: some families, and values that need care."""
    fields = itertools.chain(*reversed(FIELDS))
    everything = {field: (index + 1) / 64 for index, field in enumerate(fields)}
    little = {"destination.latency": 2.2 + 0.1, "destination.loss": -0.0, "numberOfPages": 1e16}
    complete = [session(n, "a1", "wiki", values=v) for n, v in (("1", everything), ("2", little))]
    unmatched = user("3", 'c "3" \\ c\nd', "", "http", values={"numberOfPages": 2.0}), None
    histograms = SiteHistograms(FIELDS, 10)
    for polled in ([(half, None) for half, _ in complete], complete):
        histograms.observe(polled, ROUND)
    table = SERIES.select(["loss_ratio", "pages", "round_timestamp_seconds"])
    sessions = fold(table, [*complete, unmatched], ())
    agents = [INFO.ones([("a1", "anna", "Windows", "1.190.0", "", "Zürich")])]
    agents.append(STATE.series([("a1",)], [[ROUND + 0.5, *[math.nan] * 3]]))
    sources = {"sessions": SessionsResult([sessions], sites=histograms.snapshot())}
    return GroupResult(AccountGroup("101", "Sales & Co"), sources | {"agents": Result(agents)})


def test_the_whole_text():
    snapshot = render([company()])
    assert snapshot.size == len(text(snapshot).encode())
    others = re.compile(r"# HELP \S+_site_jitter.*(?=# HELP \S+_site_sessions)", re.DOTALL)
    actual, openmetrics = (others.sub("", text(snapshot, each)) for each in Format)
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


@pytest.mark.parametrize("size", [1, 1023, 1024, 2049])
@pytest.mark.parametrize("gaps", [1, 3, 10_000])
def test_gauges_of_any_number_are_written_without_gaps(size, gaps):
    column, pages = np.arange(size) / 2, SERIES.select(["pages"])
    column[::gaps] = math.nan
    table = pages.series([(f"{n:04}", "", "") for n in range(size)], column[:, None])
    groups = [GroupResult(AccountGroup(aid), {"x": Result([table])}) for aid in "12"]
    rows = [(aid, n) for aid in "12" for n in range(size) if n % gaps]
    samples = [f'{PREFIX}pages{{aid="{aid}",agent="{n:04}"}} {n / 2}' for aid, n in rows]
    assert text(render(groups)).splitlines()[2:] == samples
    assert bool(text(render(groups))) == bool(samples)  # metadata


any_size = st.integers(0, 300_000).map("é".__mul__) | st.binary(max_size=40_000).map(bytes.hex)


@given(st.lists(any_size, min_size=1, max_size=5), st.integers(16, 4096))
def test_parts_concatenate_to_one_gzip_member_and_decompress_in_chunks(texts, size):
    parts: list[Part] = []
    for each in texts:
        writer = Writer(parts[-1].crc if parts else 0)
        writer.write(each)
        parts.append(writer.part())
        chunks = list(plain_chunks(parts[-1], size))
        assert b"".join(chunks) == each.encode()
        assert all(0 < len(chunk) <= size for chunk in chunks)
    assert [part.size for part in parts] == [len(each.encode()) for each in texts]
    reader = zlib.decompressobj(31)
    assert reader.decompress(b"".join(gzip_chunks(parts))) == "".join(texts).encode()
    assert (reader.eof, reader.unused_data) == (True, b"")
