"""Generates the tables of the documentation that follow from the code.

`make docs` replaces the text between `<!-- generated: NAME -->` and `<!-- /generated -->`.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

from prometheus_client.metrics import MetricWrapperBase

from exporter.errors import HINTS
from exporter.metrics import families as metrics
from exporter.metrics.self_metrics import SelfMetrics
from exporter.settings import reference
from exporter.simulator import FAULTS

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(?=<!-- /generated -->)", re.DOTALL)


def table(columns: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table; `columns` are separated by commas."""
    names = tuple(columns.split(","))
    lines = (names, ("---",) * len(names), *rows)
    cells = ((cell.replace("|", r"\|") for cell in line) for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def code(names: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def session_metrics() -> Iterable[tuple[str, ...]]:
    """Return name, meaning, field, aggregation and whether `standard` keeps each gauge."""
    for each in metrics.FAMILIES:
        field = ", ".join(filter(None, (each.field and code([each.field]), each.unit.api)))
        aggregation = metrics.DESCRIPTIONS[each.aggregation].removesuffix(" over the sessions")
        text = f"{each.description}. {each.note}".strip()
        yield code([each.name]), text, field, aggregation, "" if each.detail else "yes"


def histograms() -> Iterable[tuple[str, ...]]:
    """Return name, meaning, field and buckets of each histogram."""
    for each in metrics.HISTOGRAMS:
        buckets = ", ".join(f"{bound:g}" for bound in each.buckets)
        yield code([each.name]), f"{each.description}.", code([each.field]), buckets


def other_metrics() -> Iterable[tuple[str, ...]]:
    """Return name, labels and meaning of the metrics of sites, agents and account groups."""
    info = ("agent_name", "platform", "agent_version", "os_version", "location")
    for name, labels, text in (
        (f"{metrics.SITE_SESSIONS}_total", ("site", "protocol"), metrics.SITE_SESSIONS_HELP),
        (metrics.AGENT_INFO, ("agent", *info), metrics.AGENT_INFO_HELP),
        (metrics.AGENT_LAST_SEEN, ("agent",), metrics.AGENT_LAST_SEEN_HELP),
        (metrics.ACCOUNT_GROUP_INFO, ("account_group",), metrics.ACCOUNT_GROUP_INFO_HELP),
    ):
        yield code([name]), code(["aid", *labels]), text


def exporter_metrics() -> Iterable[tuple[str, ...]]:
    """Return name, type, labels and meaning of the exporter's own metrics."""
    own = SelfMetrics(process=False)
    own.rate_limit = SimpleNamespace(limit=1.0, remaining=1.0, reset=1.0)
    wrappers = [each for each in vars(own).values() if isinstance(each, MetricWrapperBase)]
    labels = {each.describe()[0].name: each._labelnames for each in wrappers}  # not public
    for family in own.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield code([name]), family.type, code(labels.get(family.name, ())), family.documentation


TABLES = {
    "session-metrics": ("metric,description,API field,aggregation,`standard`", session_metrics),
    "histograms": ("histogram,description,API field,buckets", histograms),
    "other-metrics": ("metric,labels,description", other_metrics),
    "exporter-metrics": ("metric,type,labels,description", exporter_metrics),
    "reasons": (
        "reason,hint",
        lambda: ((code([reason]), hint) for reason, hint in HINTS.items()),
    ),
    "faults": (
        "fault,what happens",
        lambda: ((code([fault.name]), fault.help) for fault in FAULTS.values()),
    ),
    "settings": (
        "setting,default,description",
        lambda: (
            (code([each.name]), code(filter(None, [each.default])), each.description)
            for each in reference()
        ),
    ),
}
"""Columns and rows of each table."""


def pages() -> dict[Path, str]:
    """Return every page that has generated tables, with its new text."""

    def generate(match: re.Match[str]) -> str:
        columns, rows = TABLES[match[2]]
        return match[1] + table(columns, rows())

    texts = {page: page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))}
    return {page: MARKED.sub(generate, text) for page, text in texts.items() if MARKED.search(text)}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
