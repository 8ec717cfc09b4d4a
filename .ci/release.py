"""Checks the files of a release, and prints its notes; needs no packages.

release.py check v0.2.0     # tag, version, CHANGELOG and deployment files agree
release.py notes 0.2.0      # the section of CHANGELOG.md, for the page of the release
"""

import re
import sys
from datetime import date
from pathlib import Path

REPOSITORY = "https://github.com/thousandeyes-exporter/thousandeyes-exporter"
IMAGE = "ghcr.io/thousandeyes-exporter/thousandeyes-exporter"
CHART = "deploy/kubernetes/thousandeyes-exporter/Chart.yaml"
COPIES = {
    CHART: (r"^version: (\S+)$", r"^appVersion: \"?([^\s\"]+)\"?$"),
    "Dockerfile": (r'image\.version="([^"]+)"',),
    "deploy/compose/compose.yaml": (rf"{IMAGE}:(\S+)$",),
}
"""Patterns of the copies of the version that `make docs` writes, by file."""


def problems(root: Path, tag: str) -> list[str]:
    """Return what does not agree with a tag; empty if a release can be made of it."""
    found = []
    version = tag.removeprefix("v")
    current = re.findall(r'^__version__ = "(.*)"$', read(root, "exporter/__init__.py"), re.M)
    if not tag.startswith("v") or [version] != current:
        found.append(f"the tag is {tag}, and the version in exporter/__init__.py is {current}")
    headings = re.findall(r"^## (.*)$", read(root, "CHANGELOG.md"), re.M)
    name, _, day = (headings or [""])[0].partition(" - ")
    if name != version or not is_date(day):
        expected = f"## {version} - YYYY-MM-DD"
        found.append(f'CHANGELOG.md begins with "## {name} - {day}" instead of "{expected}"')
    for file, patterns in COPIES.items():
        for pattern in patterns:
            copies = re.findall(pattern, read(root, file), re.M)
            if set(copies) != {version}:
                found.append(f"{file} has the version {copies}: run `make docs`")
    return found


def read(root: Path, file: str) -> str:
    """Return the text of a file of the repository."""
    return (root / file).read_text(encoding="utf-8")


def is_date(text: str) -> bool:
    """Return whether a text is an ISO 8601 date."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def notes(root: Path, version: str) -> str:
    """Return the section of a version, for a page that breaks lines where the text does.

    Raises:
        SystemExit: CHANGELOG.md has no such section, or it is empty.
    """
    heading = rf"^## {re.escape(version)}(?: - .*)?\n"
    section = re.search(rf"{heading}(.*?)(?=^## |\Z)", read(root, "CHANGELOG.md"), re.M | re.S)
    if not section or not section[1].strip():
        raise SystemExit(f"CHANGELOG.md has no section {version}")
    text = re.sub(r"(?<=\S)\n {0,4}(?=[^\s|#>-])", " ", section[1].strip())
    return re.sub(r"\]\((?!https?:|#)", f"]({REPOSITORY}/blob/v{version}/", text) + "\n"


def main(command: str, argument: str) -> int:
    """Run a command; return the exit code."""
    root = Path.cwd()
    if command == "notes":
        sys.stdout.write(notes(root, argument))
        return 0
    found = problems(root, argument)
    sys.stderr.writelines(f"{each}\n" for each in found)
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("check", "notes"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
