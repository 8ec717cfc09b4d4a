"""The requirements files are complete, so that installation resolves nothing."""

import importlib.metadata
import re
import subprocess
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = re.findall(r"Python :: (3\.\d+)", str(PYPROJECT["project"]["classifiers"]))
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"))
GROUPS = PYPROJECT["dependency-groups"]
DECLARED = {
    "requirements.txt": PYPROJECT["project"]["dependencies"],
    "requirements-build.txt": GROUPS["build"] + PYPROJECT["build-system"]["requires"],
    "requirements-dev.txt": [each for each in GROUPS["dev"] if isinstance(each, str)],
}
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


def pins(file: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the version of each package that is installed in an environment."""
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()
    pinned = [parsed(line.partition(" --hash")[0]) for line in lines if line[0] != "#"]
    found = [each for each in pinned if each.marker is None or each.marker.evaluate(environment)]
    versions = {canonicalize_name(each.name): str(each.specifier)[2:] for each in found}
    assert len(versions) == len(found)
    return versions


@pytest.mark.parametrize("file", DECLARED)
def test_pins_satisfy_the_project_and_each_other(file: str) -> None:
    """All direct and indirect dependencies, with their extras, in all environments."""
    for environment in ENVIRONMENTS:
        pinned, done = pins(file, environment), set[tuple[str, tuple[str, ...]]]()
        assert pinned.items() <= pins("requirements-dev.txt", environment).items()
        pending = [(text, ("",)) for text in DECLARED[file]]
        while pending:
            text, extras = pending.pop()
            each = parsed(text)
            values = [{**environment, "extra": extra} for extra in extras]
            needed = each.marker is None or any(map(each.marker.evaluate, values))
            if needed and (text, extras) not in done:
                done.add((text, extras))
                name = canonicalize_name(each.name)
                assert each.specifier.contains(pinned[name], prereleases=True), environment
                if name in INSTALLED:  # others are for other platforms
                    pending += [(one, ("", *each.extras)) for one in requires(name) or ()]


def test_installed_versions_are_the_pins() -> None:
    pinned = pins("requirements-dev.txt", default_environment())
    assert {name: importlib.metadata.version(name) for name in pinned} == pinned


def test_installation_resolves_and_compiles_nothing() -> None:
    text = "".join((ROOT / name).read_text() for name in ("Makefile", "Dockerfile"))
    for name in ("PIP", "PINNED", "PIP"):
        (definition,) = re.findall(rf"^{name} := (.*)$", text, re.MULTILINE)
        text = text.replace(f"$({name})", definition)
    commands = re.findall(r"pip [^&\n]*(?:install|wheel)[^&\n]*", text.replace("\\\n", ""))
    assert all("--no-deps" in command for command in commands)
    pinned = [command for command in commands if "-r requirements" in command]
    assert pinned
    assert all("--require-hashes --only-binary=:all: " in command for command in pinned)


def test_make_refuses_an_unsuitable_python(tmp_path: Path) -> None:
    for supported, expected in (False, "3.11 or newer"), (True, "python3-venv"):
        version = f"*version_info*) exit {int(not supported)};; --version) echo Python 3.10.13"
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\ncase "$*" in {version};; *) exit 1;; esac')
        python.chmod(0o755)
        command = ["make", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", "install"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, expected in done.stderr) == (2, True)
        assert not (tmp_path / "venv").exists()
