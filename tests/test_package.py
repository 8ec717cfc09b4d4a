"""What is installed: one distribution, one package, one name, one version, and a sentence on everything public."""

import ast
import importlib.metadata
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from servers import ROOT

import exporter

FILES = sorted((ROOT / "exporter").rglob("*.py"))


def test_the_import_name_belongs_to_our_distribution() -> None:
    ours = importlib.metadata.distribution("thousandeyes-exporter")
    assert ours.name == exporter.NAME
    assert set(importlib.metadata.packages_distributions().get("exporter", [exporter.NAME])) == {exporter.NAME}
    # Installed to be edited, it is one line that leads here.
    leads_to = [file.read_text().strip() for file in ours.files or () if file.suffix == ".pth"]
    assert leads_to in ([], [str(ROOT)])
    assert importlib.metadata.version(exporter.NAME) == exporter.__version__
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=exporter.NAME)
    assert script.value == "exporter.__main__:main"
    assert Path(exporter.__file__).parent == ROOT / "exporter"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built as it is for a release."""
    folder = tmp_path_factory.mktemp("wheel")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *quiet, f"--wheel-dir={folder}", str(ROOT)], check=True, cwd=folder
    )
    (file,) = folder.iterdir()
    assert file.name.startswith(f"thousandeyes_exporter-{exporter.__version__}-py3-none-any")
    return zipfile.ZipFile(file)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"thousandeyes_exporter-{exporter.__version__}.dist-info"
    assert {name.partition("/")[0] for name in wheel.namelist()} == {"exporter", info}
    packed = {name for name in wheel.namelist() if name.startswith("exporter/")}
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "exporter").rglob("*") if path.is_file()}
    assert packed == {name for name in here if "__pycache__" not in name}


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = message_from_bytes(wheel.read(name))
    assert (metadata["Name"], metadata["Version"]) == (exporter.NAME, exporter.__version__)
    assert metadata["Requires-Python"]
    assert metadata["License-Expression"] == "Apache-2.0"


def test_name_and_version_are_written_once() -> None:
    for path in FILES:
        if path.parent == ROOT / "exporter" and path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_text())
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert exporter.NAME not in texts, path
        assert exporter.__version__ not in texts, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_in_its_first_line_what_it_does(path: Path) -> None:
    first = path.read_text().partition("\n")[0]
    assert first.startswith('"""')
    assert first.rstrip('"').endswith((".", "?"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_has_a_sentence(path: Path) -> None:
    assert [node.name for node in public(ast.parse(path.read_text())) if not ast.get_docstring(node)] == []


def public(tree: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the public classes of a module, their public methods, and the public functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)
