"""The requirements files are complete, so that installation resolves nothing."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"))
GROUPS = PYPROJECT["dependency-groups"]
DECLARED = {
    "requirements.txt": PYPROJECT["project"]["dependencies"],
    "requirements-build.txt": GROUPS["build"] + PYPROJECT["build-system"]["requires"],
    "requirements-dev.txt": [each for each in GROUPS["dev"] if isinstance(each, str)],
}


def pins(file: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the version of each package that is installed in an environment."""
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()
    found: dict[str, str] = {}
    for each in (Requirement(line.partition(" --hash")[0]) for line in lines if line[0] != "#"):
        if each.marker is None or each.marker.evaluate(environment):
            name = canonicalize_name(each.name)
            assert name not in found, f"{name} has two versions in {environment}"
            found[name] = str(each.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_pins_satisfy_the_project(python: str, system: str, machine: str) -> None:
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "platform_machine": machine,
    }
    development = pins("requirements-dev.txt", environment)
    for file, declared in DECLARED.items():
        pinned = pins(file, environment)
        assert pinned.items() <= development.items()
        for each in map(Requirement, declared):
            if each.marker is None or each.marker.evaluate(environment):
                assert pinned[canonicalize_name(each.name)] in each.specifier


def test_installed_versions_are_the_pins_and_satisfy_each_other() -> None:
    pinned = pins("requirements-dev.txt", default_environment())
    assert {name: importlib.metadata.version(name) for name in pinned} == pinned
    subprocess.run([sys.executable, "-m", "pip", "check"], check=True)


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_installation_resolves_and_compiles_nothing(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", "")
    variables = dict(re.findall(r"^(PIP|PINNED) := (.*)$", text, re.MULTILINE))
    for name in ("PIP", "PINNED", "PIP"):
        text = text.replace(f"$({name})", variables.get(name, ""))
    commands = re.findall(r"pip [^&\n]*(?:install|wheel)[^&\n]*", text)
    assert all("--no-deps" in command for command in commands)
    pinned = [set(command.split()) for command in commands if "-r requirements" in command]
    assert pinned
    assert all({"--require-hashes", "--only-binary=:all:"} <= words for words in pinned)


def test_supported_pythons_are_the_same_everywhere() -> None:
    supported = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in supported] == list(PYTHONS)
    classifiers = re.findall(r"Python :: (3\.\d+)", str(PYPROJECT["project"]["classifiers"]))
    assert classifiers == list(PYTHONS)
    low, high = re.findall(r"\(3, (\d+)\)", (ROOT / "Makefile").read_text())
    assert [f"3.{low}", f"3.{high}"] == [PYTHONS[0], PYTHONS[-1]]
