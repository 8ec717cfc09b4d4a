"""The requirements files are complete, so that installation resolves nothing."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PYPROJECT["dependency-groups"]
DECLARED = {
    "requirements.txt": PYPROJECT["project"]["dependencies"],
    "requirements-build.txt": GROUPS["build"] + PYPROJECT["build-system"]["requires"],
    "requirements-dev.txt": [each for each in GROUPS["dev"] if isinstance(each, str)],
}


def pins(file: str) -> dict[str, str]:
    """Return the version of each package that is installed here."""
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()
    pinned = [Requirement(line.partition(" --hash")[0]) for line in lines if line[0] != "#"]
    found = [each for each in pinned if each.marker is None or each.marker.evaluate()]
    versions = {canonicalize_name(each.name): str(each.specifier)[2:] for each in found}
    assert len(versions) == len(found)
    return versions


@pytest.mark.parametrize("file", DECLARED)
def test_pins_satisfy_the_project(file: str) -> None:
    pinned = pins(file)
    assert pinned.items() <= pins("requirements-dev.txt").items()
    for each in map(Requirement, DECLARED[file]):
        if each.marker is None or each.marker.evaluate():
            assert pinned[canonicalize_name(each.name)] in each.specifier


def test_installed_versions_are_the_pins_and_satisfy_each_other() -> None:
    pinned = pins("requirements-dev.txt")
    assert {name: importlib.metadata.version(name) for name in pinned} == pinned
    subprocess.run([sys.executable, "-m", "pip", "check"], check=True)


def test_installation_resolves_and_compiles_nothing() -> None:
    text = "".join((ROOT / name).read_text() for name in ("Makefile", "Dockerfile"))
    for name in ("PIP", "PINNED"):
        (definition,) = re.findall(rf"^{name} := (.*)$", text, re.MULTILINE)
        text = text.replace(f"$({name})", definition)
    commands = re.findall(r"pip [^&\n]*(?:install|wheel)[^&\n]*", text.replace("\\\n", ""))
    assert all("--no-deps" in command for command in commands)
    pinned = [command for command in commands if "-r requirements" in command]
    assert pinned
    assert all("--require-hashes --only-binary=:all: " in command for command in pinned)
