"""Checks and prints what a release consists of; runs in the root folder, without packages.

`release.py check v0.2.0` verifies that tag, version, and CHANGELOG agree. `release.py notes 0.2.0`
prints the section of CHANGELOG.md for the page of the release.
"""

import re
import sys
from datetime import date
from pathlib import Path

REPOSITORY = "https://github.com/thousandeyes-exporter/thousandeyes-exporter"


def check(tag: str) -> None:
    """Verify that tag, version, and CHANGELOG agree; raises `SystemExit` otherwise."""
    source = Path("exporter/__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', source, re.M)
    if tag != f"v{version}":
        raise SystemExit(f"the tag is {tag}, and the version in exporter/__init__.py is {version}")
    heading, _ = sections()[0]
    name, _, day = heading.partition(" - ")
    if name != version:
        raise SystemExit(f"CHANGELOG.md begins with {name}, and the version is {version}")
    try:
        date.fromisoformat(day)
    except ValueError:
        raise SystemExit(f'the heading "{heading}" in CHANGELOG.md has no date') from None


def notes(version: str) -> str:
    """Return the section of a version, for a page that breaks lines where the text does.

    Raises:
        SystemExit: CHANGELOG.md has no such section, or it is empty.
    """
    for heading, text in sections():
        if heading.partition(" - ")[0] == version and text:
            lines = re.sub(r"(?<=\S)\n {0,4}(?![\s|#>-]|\d+\. )", " ", text)
            return re.sub(r"\]\((?!https?:|#)", f"]({REPOSITORY}/blob/v{version}/", lines)
    raise SystemExit(f"CHANGELOG.md has no section {version}")


def sections() -> list[tuple[str, str]]:
    """Return heading and text of each version in CHANGELOG.md, the newest first."""
    changelog = Path("CHANGELOG.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## ", changelog, flags=re.M)
    return [
        (heading, text.strip()) for heading, _, text in (part.partition("\n") for part in parts)
    ]


if __name__ == "__main__":
    match sys.argv[1:]:
        case "check", tag:
            check(tag)
        case "notes", version:
            sys.stdout.write(f"{notes(version)}\n")
        case _:
            sys.exit(__doc__)
