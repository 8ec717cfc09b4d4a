"""The wheel: its files and command; and how `make install` fails."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from exporter import NAME, __version__

ROOT = Path(__file__).parents[2]
INFO = f"thousandeyes_exporter-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = (
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target=wheel",
        f"--directory={folder}",
    )
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_wheel_contains_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if not name.startswith(f"{INFO}/")}
    package = (path for path in (ROOT / "exporter").rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in package if "__pycache__" not in path.parts}
    assert files == expected


def test_unpacked_wheel_runs_anywhere(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    command = [sys.executable, "-m", "exporter", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{NAME} {__version__}\n"


@pytest.mark.parametrize(
    ("supported", "expected"),
    [
        (False, "Python 3.11 or newer (up to 3.14) is required; found 3.10.13"),
        (True, "python3-venv"),
    ],
    ids=["too old", "without venv"],
)
def test_make_explains_an_unsuitable_python(supported: bool, expected: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    version_check = f"*version_info*) exit {0 if supported else 1};;"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in --version) echo Python 3.10.13;; {version_check} *) exit 1;; esac'
    )
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", "install"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not (tmp_path / "venv").exists()
