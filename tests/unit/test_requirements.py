"""The requirements files are complete, so that installation resolves nothing."""

import importlib.metadata
import re
import tomllib
from collections.abc import Mapping
from functools import cache
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
FILES = tuple(DECLARED)
INSTALLED = {canonicalize_name(each.name) for each in importlib.metadata.distributions()}
ENVIRONMENTS = [
    {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "platform_system": platform.capitalize(),
        "platform_machine": machine,
    }
    for python in PYTHONS
    for platform, machine in PLATFORMS
]

parsed, requires = cache(Requirement), cache(importlib.metadata.requires)


def requirements(file: str) -> list[Requirement]:
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()
    return [parsed(line.partition(" --hash")[0]) for line in lines if not line.startswith("#")]


def pins(file: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the version of each package that is installed in an environment."""
    found: dict[str, str] = {}
    for each in requirements(file):
        if each.marker is None or each.marker.evaluate(environment):
            name = canonicalize_name(each.name)
            assert name not in found, f"{name} has two versions in {environment}"
            found[name] = str(each.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("file", FILES)
def test_pins_satisfy_the_project_and_each_other(file: str) -> None:
    """All direct and indirect dependencies, with their extras, in all environments."""
    for environment in ENVIRONMENTS:
        pinned, done = pins(file, environment), set()
        pending = [(text, ("",)) for text in DECLARED[file]]
        while pending:
            text, extras = pending.pop()
            each = parsed(text)
            needed = each.marker is None or any(
                each.marker.evaluate({**environment, "extra": extra}) for extra in extras
            )
            if (text, extras) in done or not needed:
                continue
            done.add((text, extras))
            name = canonicalize_name(each.name)
            assert each.specifier.contains(pinned[name], prereleases=True), f"{text}: {environment}"
            if name in INSTALLED:  # others are for other platforms
                pending += [(one, ("", *each.extras)) for one in requires(name) or ()]


def test_installed_versions_are_the_pins() -> None:
    pinned = pins("requirements-dev.txt", default_environment())
    installed = {name: importlib.metadata.version(name) for name in pinned}
    assert installed == pinned


def test_runtime_and_build_pins_are_those_of_development() -> None:
    for environment in ENVIRONMENTS:
        development = pins("requirements-dev.txt", environment)
        for file in FILES[:2]:
            assert pins(file, environment).items() <= development.items()


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_installation_resolves_and_compiles_nothing(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", "")
    variables = dict(re.findall(r"^(PIP|PINNED) := (.*)$", text, re.MULTILINE))
    for name in ("PIP", "PINNED", "PIP"):
        text = text.replace(f"$({name})", variables.get(name, ""))
    commands = re.findall(r"pip [^&\n]*(?:install|wheel)[^&\n]*", text)
    assert any("-r requirements" in command for command in commands)
    for command in commands:
        assert "--no-deps" in command, command
        if "-r requirements" in command:
            assert {"--require-hashes", "--only-binary=:all:"} <= set(command.split()), command


def test_supported_pythons_are_the_same_everywhere() -> None:
    supported = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in supported] == list(PYTHONS)
    classifiers = re.findall(r"Python :: (3\.\d+)", str(PYPROJECT["project"]["classifiers"]))
    assert classifiers == list(PYTHONS)
    low, high = re.findall(r"\(3, (\d+)\)", (ROOT / "Makefile").read_text())
    assert [f"3.{low}", f"3.{high}"] == [PYTHONS[0], PYTHONS[-1]]
