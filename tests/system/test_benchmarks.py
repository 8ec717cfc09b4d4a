"""The benchmarks: the compared programs publish the same samples, and every measure works."""

import gzip
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from system.servers import PATH, ROOT

from benchmarks import data
from benchmarks.measures import AT_LEAST, AT_MOST, Plan, measure
from benchmarks.programs import GO, NAIVE, OURS, run
from exporter.sources.sessions import SERIES

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", PATH)
    subprocess.run(["make", str(GO[0].relative_to(ROOT))], cwd=ROOT, check=True)


def per_session_samples(exposition: Path) -> Samples:
    names = {family.name for family in SERIES.families}
    text = gzip.decompress(exposition.read_bytes()).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in names
    }


def test_the_references_publish_the_same_per_session_samples(tmp_path: Path) -> None:
    data.write(tmp_path / "pages", 1000)
    published = []
    for program in (OURS, NAIVE, GO):
        assert float(run(*program, "poll", tmp_path / "pages", tmp_path / "output")) > 0
        published.append(per_session_samples(tmp_path / "output"))
    ours, *references = published
    assert len(ours) > 10_000
    for reference in references:
        assert reference == pytest.approx(ours, rel=1e-9)


@pytest.mark.timeout(300)
def test_every_measure_has_a_result(tmp_path: Path) -> None:
    plan = Plan(1, 1, 200, {"P4": (100, 200), "P5": (100,), "P12": (200,)}, (50,))
    measures = list(measure(plan, tmp_path))
    assert {each.id for each in measures} == AT_LEAST.keys() | AT_MOST.keys()
    assert all(each.ours > 0 and each.reference > 0 for each in measures)
    assert {each.met for each in measures if each.id == "P10"} == {True}
