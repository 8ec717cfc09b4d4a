"""Workflows, packages, versions and notes of releases, and the comparison with the vendor's API."""

import copy
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from exporter import __version__

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
RELEASE, DRIFT = (runpy.run_path(str(ROOT / f".ci/{name}.py")) for name in ("release", "drift"))
TESTS = "/v7/endpoint/test-results"
PROBES, AGENTS = f"{TESTS}/local-networks/topologies/filter", "/v7/endpoint/agents"


def run(*command: object, cwd: Path = ROOT, **variables: str) -> None:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    subprocess.run([*map(str, command)], cwd=cwd, env=environment, check=True)


def test_workflows_have_no_findings() -> None:
    run("actionlint", *WORKFLOWS)
    run("zizmor", "--offline", "--quiet", *WORKFLOWS)


def test_version_is_changed_in_one_place(tmp_path: Path) -> None:
    others = ("benchmarks", "tests", "*.png", "__pycache__", "CONTRIBUTING.md", "requirements*")
    ignored = shutil.ignore_patterns(".*", *others)
    shutil.copytree(ROOT, tmp_path, ignore=ignored, dirs_exist_ok=True)
    changelog = tmp_path / "CHANGELOG.md"  # has all versions
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != changelog]
    texts = {path: path.read_text() for path in files}
    source = tmp_path / "exporter/__init__.py"
    source.write_text(texts[source].replace(__version__, "7.8.9"))
    run(sys.executable, "-m", "deploy", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    changed = {path.name for path in files if path.read_text() != texts[path]}
    assert changed == {"Chart.yaml", "Dockerfile", "__init__.py", "compose.yaml", "install.md"}
    old = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    assert [path for path in files if old.search(path.read_text())] == []


def test_packages_are_reproducible_and_contain_nothing_else(tmp_path: Path) -> None:
    run(".ci/build", sys.executable, tmp_path, SOURCE_DATE_EPOCH="1700000000")
    (wheel,) = tmp_path.glob("*.whl")
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = (path for path in (ROOT / "exporter").rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in package if "__pycache__" not in path.parts}
    assert files == expected


@pytest.fixture
def changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the CHANGELOG of the working directory, which has the version 7.8.9."""
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter/__init__.py").write_text('__version__ = "7.8.9"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path / "CHANGELOG.md"


def test_tag_agrees_with_version_and_changelog(changelog: Path) -> None:
    text = "# Changelog\n\n## {}\n\n- One.\n\n## 7.8.0\n"
    changelog.write_text(text.format("7.8.9 - 2027-01-31"))
    RELEASE["check"]("v7.8.9")
    for tag, heading in (
        ("v7.8.8", "7.8.8 - 2027-01-31"),
        ("7.8.9", "7.8.9 - 2027-01-31"),
        ("v7.8.9", "7.8.10 - 2027-01-31"),
        ("v7.8.9", "7.8.9 - unreleased"),
    ):
        changelog.write_text(text.format(heading))
        with pytest.raises(SystemExit):
            RELEASE["check"](tag)


def test_notes_are_the_section_of_the_version_with_absolute_links(changelog: Path) -> None:
    text = "- One,\n  [two](docs/a.md).\n\n1. a\n2. b\n\n| a |\n| - |"
    changelog.write_text(f"# Changelog\n\n## 7.8.9 - x\n\n{text}\n\n## 7.8.8\n\n")
    url = f"{RELEASE['REPOSITORY']}/blob/v7.8.9/docs"
    assert RELEASE["notes"]("7.8.9") == text.replace(",\n ", ",").replace("docs", url)
    with pytest.raises(SystemExit):
        RELEASE["notes"]("7.8.8")


def test_drift_is_found() -> None:
    description = DRIFT["describe_sdk"]()
    newest = copy.deepcopy(description)
    probes, agents = newest["listings"][PROBES], newest["listings"][AGENTS]
    agents["agents[].serialNumber"]["enum"].append("a value of a field that is not decoded")
    agents["agents[].tpm"] = {"types": [], "enum": []}
    assert DRIFT["compare"](description, description) == ([], [])
    assert [f.count(".tpm`") for f in DRIFT["compare"](description, newest)[1]] == [1]
    assert not DRIFT["report"](description, newest)[1]
    probes["results[].icmpPing.averageRtt"] = probes.pop("results[].icmpPing.avgRtt")
    probes["results[].roundId"]["types"] = ["string"]
    probes["results[].type"]["enum"].append("nat")
    drift = "\n".join(sorted(DRIFT["compare"](description, newest)[0]))
    found = ("avgRtt`.*removed", "roundId`.*string instead of number", "type`.*`nat`")
    assert re.fullmatch("\n".join(rf".*\b{each}.*" for each in found), drift)
    assert DRIFT["report"](description, newest)[1]
    older = {**description, "version": "7.0.9", "listings": {}}
    assert DRIFT["compare"](description, older)[0] == []
