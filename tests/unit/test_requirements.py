"""The requirements files: complete, pinned and hashed, so that installation resolves nothing."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = ("requirements.txt", "requirements-build.txt", "requirements-dev.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"))
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


def requirements(file: str) -> list[Requirement]:
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()
    return [Requirement(line.partition(" --hash")[0]) for line in lines if not line.startswith("#")]


def pins(file: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the version of each package that is installed in an environment."""
    found: dict[str, str] = {}
    for each in requirements(file):
        if each.marker is None or each.marker.evaluate(environment):
            name = canonicalize_name(each.name)
            assert name not in found, f"{name} has two versions in {environment}"
            found[name] = str(each.specifier).removeprefix("==")
    return found


def dependencies(
    name: str, extras: set[str], environment: Mapping[str, str]
) -> Iterator[Requirement]:
    """Return what an installed distribution requires in an environment."""
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate({**environment, "extra": e}) for e in {"", *extras}
        ):
            yield requirement


@pytest.mark.parametrize("file", FILES)
def test_each_line_is_one_version_with_hashes(file: str) -> None:
    for line in (ROOT / file).read_text().replace("\\\n", "").splitlines()[1:]:
        assert re.fullmatch(
            r"[a-z0-9.-]+==[^ ,*]+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+", line
        ), line


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "environment",
    ENVIRONMENTS,
    ids=lambda e: "-".join((e["python_version"], e["sys_platform"], e["platform_machine"])),
)
def test_pins_are_closed_under_dependencies(file: str, environment: dict[str, str]) -> None:
    """Every dependency, with its extras, has a pin that satisfies it."""
    pinned = pins(file, environment)
    installed = {canonicalize_name(each.name) for each in importlib.metadata.distributions()}
    pending: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in pinned]
    done = set()
    while pending:
        name, extras = pending.pop()
        if (name, extras) in done or name not in installed:
            continue  # packages of other platforms have no metadata here
        done.add((name, extras))
        for each in dependencies(name, set(extras), environment):
            required = canonicalize_name(each.name)
            assert required in pinned, f"{name} requires {each}"
            assert each.specifier.contains(pinned[required], prereleases=True), f"{name}: {each}"
            pending.append((required, frozenset(each.extras)))


@pytest.mark.parametrize("environment", ENVIRONMENTS[:: len(PLATFORMS)], ids=PYTHONS)
def test_pins_satisfy_the_project(environment: dict[str, str]) -> None:
    groups = PYPROJECT["dependency-groups"]
    declared = {
        "requirements.txt": PYPROJECT["project"]["dependencies"],
        "requirements-build.txt": groups["build"] + PYPROJECT["build-system"]["requires"],
        "requirements-dev.txt": [each for each in groups["dev"] if isinstance(each, str)],
    }
    for file, texts in declared.items():
        pinned = pins(file, environment)
        for each in map(Requirement, texts):
            if each.marker is None or each.marker.evaluate(environment):
                version = pinned[canonicalize_name(each.name)]
                assert each.specifier.contains(version, prereleases=True), each


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
