"""Releases: workflows, version, notes, packages, and the comparison with the vendor's API."""

import copy
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from exporter import __version__

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
RELEASE, DRIFT = (runpy.run_path(str(ROOT / f".ci/{name}.py")) for name in ("release", "drift"))
TESTS = "/v7/endpoint/test-results"
PROBES, AGENTS = f"{TESTS}/local-networks/topologies/filter", "/v7/endpoint/agents"


def run(*command: object, cwd: Path = ROOT, **variables: str) -> None:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    subprocess.run([*map(str, command)], cwd=cwd, env=environment, check=True)


@pytest.mark.parametrize("linter", [("actionlint",), ("zizmor", "--offline", "--quiet")])
def test_workflows_have_no_findings(linter: tuple[str, ...]) -> None:
    assert [file.stem for file in WORKFLOWS] == ["ci", "drift", "release"]
    run(*linter, *WORKFLOWS)


def test_actions_are_pinned_to_a_commit_with_its_version() -> None:
    uses = re.findall(r"uses: (?!\./)(.*)", "".join(file.read_text() for file in WORKFLOWS))
    assert uses
    assert [each for each in uses if not re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+", each)] == []


def test_version_is_changed_in_one_place(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.png", "__pycache__")
    for folder in ("deploy", "docs", "exporter", "grafana/dashboards"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for file in ("Dockerfile", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    texts = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    current = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    copies = {path for path, text in texts.items() if current.search(text)}
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)  # which has all versions
    source = tmp_path / "exporter/__init__.py"
    source.write_text(texts[source].replace(__version__, "7.8.9"))
    run(sys.executable, "-m", "deploy", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    changed = {path for path, text in texts.items() if path.read_text() != text}
    assert changed == copies
    names = {"Chart.yaml", "Dockerfile", "__init__.py", "compose.yaml", "install.md"}
    assert {path.name for path in changed} == names
    assert not any(current.search(path.read_text()) for path in changed)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, which has the version 7.8.9."""
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter/__init__.py").write_text('__version__ = "7.8.9"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("tag", "heading", "valid"),
    [
        ("v7.8.9", "7.8.9 - 2027-01-31", True),
        ("v7.8.8", "7.8.8 - 2027-01-31", False),
        ("7.8.9", "7.8.9 - 2027-01-31", False),
        ("v7.8.9", "7.8.10 - 2027-01-31", False),
        ("v7.8.9", "7.8.9 - unreleased", False),
    ],
)
def test_tag_agrees_with_version_and_changelog(
    tag: str, heading: str, valid: bool, tree: Path
) -> None:
    (tree / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n- One.\n\n## 7.8.0\n")
    if valid:
        RELEASE["check"](tag)
    else:
        with pytest.raises(SystemExit):
            RELEASE["check"](tag)


def test_notes_are_the_section_of_the_version_with_absolute_links(tree: Path) -> None:
    text = "- One,\n  [two](docs/a.md).\n\n1. a\n2. b\n\n| a |\n| - |"
    (tree / "CHANGELOG.md").write_text(f"# Changelog\n\n## 7.8.9 - x\n\n{text}\n\n## 7.8.8\n\n")
    expected = text.replace(",\n ", ",").replace(
        "docs", f"{RELEASE['REPOSITORY']}/blob/v7.8.9/docs"
    )
    assert RELEASE["notes"]("7.8.9") == expected
    with pytest.raises(SystemExit):
        RELEASE["notes"]("7.8.8")


def test_packages_are_reproducible(tmp_path: Path) -> None:
    run(".ci/build", sys.executable, tmp_path, SOURCE_DATE_EPOCH="1700000000")
    assert {path.suffix for path in tmp_path.iterdir()} == {".gz", ".whl"}


@pytest.fixture(scope="module")
def description() -> Any:
    return DRIFT["describe_sdk"]()


def test_openapi_file_is_described_like_the_sdk(description: Any, tmp_path: Path) -> None:
    paths: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for path, model in DRIFT["SDK_MODELS"].items():
        package, _, name = model.partition(".")
        schema = getattr(import_module(f"thousandeyes_sdk.{package}.models"), name)
        schema = schema.model_json_schema(ref_template=f"#/{package}/{{model}}")
        definitions.setdefault(package, {}).update(schema.get("$defs", {}))
        response = {"200": {"content": {"application/hal+json": {"schema": schema}}}}
        method = "post" if path.endswith("/filter") else "get"
        paths[path.removeprefix("/v7")] = {method: {"responses": response}}
    document = {"info": {"version": description["version"]}, "paths": paths, **definitions}
    (tmp_path / "api.yaml").write_text(json.dumps(document))
    assert DRIFT["describe_openapi"](tmp_path / "api.yaml") == description


def renamed(listings: Any) -> None:
    fields = listings[PROBES]
    fields["results[].icmpPing.averageRtt"] = fields.pop("results[].icmpPing.avgRtt")


@pytest.mark.parametrize(
    ("change", "drift", "information"),
    [
        (lambda listings: None, [], []),
        (renamed, [("avgRtt", "removed")], ["averageRtt"]),
        (
            lambda listings: listings[PROBES]["results[].roundId"].update(types=["string"]),
            [("roundId", "string instead of number")],
            [],
        ),
        (
            lambda listings: listings[PROBES]["results[].type"]["enum"].append("nat"),
            [("type", "`nat`")],
            [],
        ),
        (lambda listings: listings[AGENTS]["agents[].serialNumber"]["enum"].append("1"), [], []),
        (
            lambda listings: listings[AGENTS].update({"agents[].tpm": {"types": [], "enum": []}}),
            [],
            ["tpm"],
        ),
    ],
    ids=["none", "renamed", "another type", "new value", "not decoded", "new field"],
)
def test_drift_is_found(
    change: Callable[[Any], None],
    drift: list[tuple[str, str]],
    information: list[str],
    description: Any,
) -> None:
    newest = copy.deepcopy(description)
    change(newest["listings"])
    found, fields = DRIFT["compare"](description, newest)
    for line, (field, what) in zip(found, drift, strict=True):
        assert re.search(rf"\b{field}`.*{what}", line)
    for line, field in zip(fields, information, strict=True):
        assert f".{field}`" in line
    assert DRIFT["report"](description, newest)[1] == bool(drift)


def test_older_description_is_not_compared(description: Any) -> None:
    older = {**description, "version": "7.0.9", "listings": {}}
    assert DRIFT["compare"](description, older)[0] == []
