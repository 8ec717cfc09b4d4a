"""The benchmarks: the compared programs publish the same samples, and every measure works."""

import gzip
import subprocess
from pathlib import Path

import pytest
from factories import parse
from system.servers import PATH, ROOT

from benchmarks import data
from benchmarks.measures import AT_LEAST, AT_MOST, Plan, measure
from benchmarks.programs import GO, NAIVE, OURS, run
from exporter.sources.sessions import SERIES


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", PATH)
    subprocess.run(["make", str(GO[0].relative_to(ROOT))], cwd=ROOT, check=True)


def test_the_references_publish_the_same_per_session_samples(tmp_path: Path) -> None:
    data.write(tmp_path / "pages", 200)
    names, published = {family.name for family in SERIES.families}, []
    for program in (OURS, NAIVE, GO):
        assert float(run(*program, "poll", tmp_path / "pages", tmp_path / "output")) > 0
        samples = parse(gzip.decompress((tmp_path / "output").read_bytes()).decode())
        published.append({key: value for key, value in samples.items() if key[0] in names})
    ours, *references = published
    assert len(ours) > 2000
    for reference in references:
        assert reference == pytest.approx(ours, rel=1e-9)


def test_every_measure_has_a_result(tmp_path: Path) -> None:
    measures = list(measure(Plan(1, 1, 200, (50, 100), (50, 100)), tmp_path))
    assert {each.id for each in measures} == AT_LEAST.keys() | AT_MOST.keys()
    assert all(each.ours > 0 and each.reference > 0 for each in measures)
    assert {each.met for each in measures if each.id == "P10"} == {True}
