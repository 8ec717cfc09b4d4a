"""The text that Prometheus reads: whole, read back by other programs, and compressed.

The whole text of a small company stands in `golden/`; after a wanted change it is written anew by
`UPDATE_GOLDEN=1 pytest tests/test_exposition.py`, and the difference is to be read before it is committed.
"""

import gzip as standard
import itertools
import math
import os
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from making import ROUND, anything, measurements, pair, user
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import exposition
from exporter.aggregate import NO_ROWS, Rows, aggregate
from exporter.distributions import Distributions
from exporter.exposition import (
    EMPTY,
    NOTHING,
    Format,
    Group,
    Part,
    Snapshot,
    deflate,
    gzip,
    label_set,
    plain,
    render,
)
from exporter.metrics import DISTRIBUTIONS, FAMILIES, NETWORK_FIELDS, USER_FIELDS, select
from exporter.model import Agent, Key, label

GOLDEN = Path(__file__).parent / "golden"
PARSERS = {Format.TEXT: parse_text, Format.OPENMETRICS: parse_openmetrics}
NASTY = [
    'quote " end',
    "back\\slash",
    "two\nlines",
    "\\n",
    '\\"',
    "brace } # 1",
    "Zürich 東京 😀",
    "__name__",
    "{}",
    ",",
]

Labels = frozenset[tuple[str, str]]


def text(snapshot: Snapshot, format_: Format = Format.TEXT) -> str:
    """Return all that a snapshot says, as it would be sent."""
    parts = (snapshot.common, snapshot.tails[format_])
    return b"".join(chunk for part in parts for chunk in plain(part)).decode()


def read_back(snapshot: Snapshot, format_: Format) -> dict[tuple[str, Labels], float]:
    """Return every sample as a parser of somebody else understands it; none comes twice."""
    end = "# EOF\n" if format_ is Format.OPENMETRICS else ""
    found = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in PARSERS[format_](text(snapshot, format_) + end)
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def labels(**values: str) -> Labels:
    """Return the labels that have a value: the others mean the same as none."""
    return frozenset((name, value) for name, value in values.items() if value)


def company() -> list[Group]:
    """Make a company with two account groups, all families, and values and labels that are hard to write."""
    everything = {field: (index + 1) / 64 for index, field in enumerate((*NETWORK_FIELDS, *USER_FIELDS))}
    little = {"destination.latency": 0.1 + 0.2, "destination.loss": -0.0, "numberOfPages": 1e16, "experienceScore": 0.0}
    first = [
        pair("1", "a1b2", "wiki.example.com", "https", measured=everything),
        pair("2", "a1b2", "wiki.example.com", "https", measured=little),
        (user("3", "c3d4", "", "http", measured={"numberOfPages": 2.0}), None),
    ]
    second = [pair("1", "e5f6", 'a "b" \\ c\nd', "", start=ROUND + 60, measured=little)]
    groups = []
    for aid, sessions in (("202", second), ("101", first)):
        distributions = Distributions(10)
        for polled in ([], sessions, sessions):
            distributions.observe(polled, ROUND)
        agents = [
            Agent("a1b2", "anna", "Windows", "1.190.0", "Windows 11", "Zürich, Switzerland", ROUND + 0.5),
            Agent("e5f6", 'the "big" one'),
        ]
        groups.append(Group(aid, aggregate(sessions), distributions.published(), agents if aid == "101" else ()))
    return groups


@pytest.mark.parametrize("format_", Format)
def test_the_whole_text_is_the_golden_one(format_):
    path = GOLDEN / f"{format_.name.lower()}.txt"
    written = text(render(company()), format_)
    if "UPDATE_GOLDEN" in os.environ:
        path.write_text(written, newline="")
    assert written.encode() == path.read_bytes()


def test_promtool_has_nothing_to_say_about_the_text():
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: it comes with Debian's package `prometheus`"
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=text(render(company())),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("format_", Format)
def test_every_family_is_in_one_piece_with_its_head_before_it(format_):
    lines = text(render(company()), format_).splitlines()
    heads = [line.split(" ")[2] for line in lines if line.startswith("# HELP ")]
    assert len(heads) == len(set(heads)) == len(FAMILIES) + len(DISTRIBUTIONS) + 3
    current = None
    for line in lines:
        if line.startswith("# HELP "):
            current = line.split(" ")[2]
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == current
        else:
            name = line.partition("{")[0]
            assert name in {f"{current}{suffix}" for suffix in ("", "_bucket", "_sum", "_count", "_total")}


def test_no_line_comes_twice_and_every_line_is_a_head_or_one_sample():
    lines = text(render(company())).splitlines()
    assert Counter(lines).most_common(1)[0][1] == 1
    samples = [line for line in lines if not line.startswith(("# HELP ", "# TYPE "))]
    assert len(samples) == len(read_back(render(company()), Format.TEXT))


def test_both_formats_say_the_same_and_differ_only_in_the_head_of_the_counter():
    one, other = (text(render(company()), format_).splitlines() for format_ in Format)
    name = "thousandeyes_endpoint_site_sessions"
    different = [pair_ for pair_ in zip(one, other, strict=True) if pair_[0] != pair_[1]]
    assert [pair_[0].replace(f"{name}_total ", f"{name} ") for pair_ in different] == [pair_[1] for pair_ in different]
    assert [pair_[1].split(" ")[1] for pair_ in different] == ["HELP", "TYPE"]


def test_groups_are_written_in_the_order_of_their_ids():
    assert text(render(company())) == text(render(reversed(company())))


def test_nothing_is_an_empty_text_in_both_formats():
    for format_ in Format:
        assert text(NOTHING, format_) == ""
        assert standard.decompress(b"".join(gzip([NOTHING.common, NOTHING.tails[format_]]))) == b""
    assert (NOTHING.series, NOTHING.size) == (0, 0)
    assert list(plain(EMPTY)) == []


def test_a_family_without_a_sample_has_no_head():
    written = text(render([Group("1", aggregate([(user(), None)])), Group("2", NO_ROWS)]))
    assert [line for line in written.splitlines() if "TYPE" in line] == [
        "# TYPE thousandeyes_endpoint_sessions gauge",
        "# TYPE thousandeyes_endpoint_round_timestamp_seconds gauge",
    ]


def test_only_the_chosen_families_are_written():
    rows = aggregate([pair(measured={"destination.latency": 0.5, "destination.loss": 0.5})])
    snapshot = render([Group("1", rows)], select(["loss_ratio"]))
    assert text(snapshot).splitlines()[2:] == [
        'thousandeyes_endpoint_loss_ratio{aid="1",agent="agent",site="site.example",protocol="https"} 0.5'
    ]
    assert snapshot.series == 1


def test_the_number_of_series_and_the_size_are_those_of_the_text():
    snapshot = render(company())
    assert snapshot.series == sum(int(group.rows.samples.sum()) for group in company())
    assert snapshot.size == len(text(snapshot).encode())


# Labels


def test_without_an_account_group_there_is_no_such_label():
    (group, *_) = company()
    written = text(render([Group("", group.rows, group.sites, [Agent("a", last_seen=1.0)])]))
    assert written
    assert "aid" not in written


@pytest.mark.parametrize("empty", list(itertools.product((True, False), repeat=4)))
def test_a_label_without_a_value_is_left_out_wherever_it_is(empty):
    aid, agent, site, protocol = ("" if gone else name for gone, name in zip(empty, "adsp", strict=True))
    sessions = [pair("1", agent, site, protocol, measured={"destination.latency": 0.5})]
    distributions = Distributions(1)
    for _ in range(2):
        distributions.observe(sessions, ROUND)
    snapshot = render([Group(aid, aggregate(sessions), distributions.published(), [Agent(agent, last_seen=2.5)])])
    assert '=""' not in text(snapshot)
    for format_ in Format:
        found = read_back(snapshot, format_)
        expected = labels(aid=aid, agent=agent, site=site, protocol=protocol)
        assert found["thousandeyes_endpoint_latency_seconds", expected] == 0.5
        assert found["thousandeyes_endpoint_agent_info", labels(aid=aid, agent=agent)] == 1
        assert found["thousandeyes_endpoint_agent_last_seen_timestamp_seconds", labels(aid=aid, agent=agent)] == 2.5
        of_site = labels(aid=aid, site=site, protocol=protocol)
        assert found["thousandeyes_endpoint_site_latency_seconds_count", of_site] == 0
        assert found["thousandeyes_endpoint_site_latency_seconds_bucket", of_site | {("le", "+Inf")}] == 0
        assert found["thousandeyes_endpoint_site_sessions_total", of_site] == 0


def test_a_label_set_is_written_as_both_formats_want_it():
    assert label_set(one='"', two="", three="\\", four="\n") == r'{one="\"",three="\\",four="\n"}'
    assert label_set() == "{}"


any_label = st.sampled_from([*NASTY, label("é" * 100_000)]) | anything.map(label)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.tuples(any_label, any_label, any_label), finite, max_size=5))
@example({(nasty, nasty, nasty): 1.0 for nasty in NASTY})
def test_what_is_written_is_read_back_whatever_the_labels_and_numbers_are(numbers):
    keys = sorted(Key(*key) for key in numbers)
    values = [numbers[msgspec.structs.astuple(key)] for key in keys]
    rows = Rows(keys, {"jitter_seconds": np.array(values)})
    snapshot = render([Group('"aid"', rows)])
    expected = {
        ("thousandeyes_endpoint_jitter_seconds", labels(aid='"aid"', **msgspec.structs.asdict(key))): value
        for key, value in zip(keys, values, strict=True)
    }
    for format_ in Format:
        assert read_back(snapshot, format_) == expected
    assert len(text(snapshot).split("\n")) == len(keys) + (3 if keys else 1)  # one line a sample


@given(st.lists(measurements, min_size=1, max_size=4), st.sampled_from([1, 2, 3, 4096]))
def test_sessions_that_are_aggregated_and_written_are_read_back(measured, chunk):
    sessions = [pair(str(index), f"agent {index}", measured=each) for index, each in enumerate(measured)]
    rows = aggregate(sessions)
    expected = {
        (family.name, labels(aid="7", **msgspec.structs.asdict(key))): rows.columns[family.short][index]
        for family in FAMILIES
        for index, key in enumerate(rows.keys)
        if not math.isnan(rows.columns[family.short][index])
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exposition, "CHUNK", chunk)
        snapshot = render([Group("7", rows)])
    assert read_back(snapshot, Format.TEXT) == read_back(snapshot, Format.OPENMETRICS) == expected


@pytest.mark.parametrize("chunk", range(1, 9))
def test_how_much_is_written_in_one_go_can_not_be_seen(chunk, monkeypatch):
    whole = text(render(company()))
    monkeypatch.setattr(exposition, "CHUNK", chunk)
    assert text(render(company())) == whole


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0.1 + 0.2, "0.30000000000000004"),
        (1e16, "1e16"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (float(2**53 + 1), "9007199254740992"),
        (float(2**60), "1152921504606846976"),
        (float(12345678901234567890), "12345678901234567168"),
        (1_700_000_040.0, "1700000040"),
    ],
)
def test_a_number_is_read_as_the_double_it_is(number, written):
    line = text(render([Group("", Rows([Key("", "", "")], {"pages": np.array([number])}))])).splitlines()[-1]
    found = line.split(" ")[1]
    assert struct.pack("d", float(found)) == struct.pack("d", number) == struct.pack("d", float(written))


def test_an_agent_has_one_series_and_a_time_only_where_one_is_known():
    agents = [Agent("1", "anna", "mac", "1.0", "14", "Köln", 1_700_000_000.25), Agent("2")]
    written = text(render([Group("9", NO_ROWS, {}, agents)])).splitlines()
    assert [line for line in written if not line.startswith("#")] == [
        'thousandeyes_endpoint_agent_info{aid="9",agent="1",agent_name="anna",platform="mac",agent_version="1.0",'
        'os_version="14",location="Köln"} 1',
        'thousandeyes_endpoint_agent_info{aid="9",agent="2"} 1',
        'thousandeyes_endpoint_agent_last_seen_timestamp_seconds{aid="9",agent="1"} 1700000000.25',
    ]


# Compression


@pytest.mark.parametrize("format_", Format)
def test_the_parts_make_one_gzip_member_of_the_same_text(format_):
    snapshot = render(company())
    own = deflate("# the exporter's own\n", snapshot.tails[format_].crc)
    member = b"".join(gzip([snapshot.common, snapshot.tails[format_], own]))
    reader = zlib.decompressobj(31)
    assert reader.decompress(member).decode() == text(snapshot, format_) + "# the exporter's own\n"
    assert reader.eof
    assert reader.unused_data == b""
    assert standard.decompress(member).decode() == text(snapshot, format_) + "# the exporter's own\n"


@given(st.lists(st.one_of(st.text(max_size=200), st.integers(0, 300_000).map("x".__mul__)), min_size=1, max_size=5))
def test_any_texts_are_compressed_and_read_back_whole_and_in_parts(texts):
    parts: list[Part] = []
    for each in texts:
        parts.append(deflate(each, parts[-1].crc if parts else 0))
    assert [b"".join(plain(part)).decode() for part in parts] == texts
    assert standard.decompress(b"".join(gzip(parts))).decode() == "".join(texts)
    assert [part.size for part in parts] == [len(each.encode()) for each in texts]
    assert parts[-1].crc == zlib.crc32("".join(texts).encode())


@given(st.text(max_size=3000), st.integers(1, 64))
def test_plain_text_comes_in_chunks_of_at_most_the_size_that_was_asked_for(whole, chunk):
    chunks = list(plain(deflate(whole, 0), chunk))
    assert b"".join(chunks).decode() == whole
    assert all(0 < len(each) <= chunk for each in chunks)


def test_the_size_in_the_trailer_wraps_as_the_format_says():
    assert gzip([Part(b"", 2**32, 1), Part(b"", 5, 7)])[-1] == b"\x03\x00" + struct.pack("<LL", 7, 5)
