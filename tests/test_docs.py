"""The documentation, held against the code."""

import re
import runpy
from pathlib import Path

import pytest

from exporter.metrics import FAMILIES
from exporter.settings import reference

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()


def test_what_is_generated_is_up_to_date() -> None:
    """`make docs` would change nothing."""
    generated = runpy.run_path(str(ROOT / "docs/__main__.py"))["pages"]()
    assert {path: path.read_text() for path in generated} == generated


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    """Every relative link and image exists."""
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    """A setting in code quotes is spelt as in the code."""
    known = {doc.name for doc in reference()} | {"config.file"}
    groups = "|".join({name.partition(".")[0] for name in known})
    named = set(re.findall(rf"`((?:{groups})\.[a-z_]+)[`:]", page.read_text()))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_and_variable_that_a_page_names_exists(page: Path) -> None:
    """So does a flag or a variable."""
    text = page.read_text()
    flags = {doc.flag for doc in reference()} | {"--config.file", "--group.name", "--group.field-name"}
    variables = {doc.variable for doc in reference()} | {
        "THOUSANDEYES_TOKEN",
        "THOUSANDEYES_CONFIG_FILE",
        "THOUSANDEYES_GROUP_NAME",
    }
    assert set(re.findall(r"--[a-z]+\.[a-z-]+", text)) <= flags
    assert set(re.findall(r"THOUSANDEYES_[A-Z_]+", text)) <= variables


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_a_page_names_exists(page: Path) -> None:
    """A metric of ours that a page or one of its queries names is in the reference."""
    reference_page = (ROOT / "docs/metrics.md").read_text()
    known = set(re.findall(r"`(thousandeyes_[a-z_]+)`", reference_page))
    known |= {f"{name}{suffix}" for name in known for suffix in ("_bucket", "_sum", "_count")}
    named = set(
        re.findall(r"\bthousandeyes_(?:endpoint|exporter)_[a-z_]*[a-z]\b|\bthousandeyes_up\b", page.read_text())
    )
    assert named <= known


def test_the_readme_names_every_family_and_every_setting() -> None:
    """Nothing that a user could use is missing."""
    assert all(f"`{family.name}`" in README for family in FAMILIES)
    assert all(f"`{doc.name}`" in README for doc in reference())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    """A command of the Makefile can be run."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets
