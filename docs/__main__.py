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
from exporter.metrics.families import DESCRIPTIONS, Family, Table
from exporter.metrics.self_metrics import SelfMetrics
from exporter.render import ACCOUNT_GROUP_INFO
from exporter.settings import reference
from exporter.simulator import FAULTS
from exporter.sources import agents, local_networks
from exporter.sources.sessions import SERIES
from exporter.sources.site_histograms import HISTOGRAMS, SITE_SESSIONS, SITE_SESSIONS_HELP

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


def field(family: Family) -> str:
    """Return the API fields of a family, and their unit if it is converted."""
    fields = family.field.split(", ") if family.field else ()
    return ", ".join(filter(None, (code(fields), family.unit.api)))


def meaning(family: Family) -> str:
    """Return the description of a family and its note."""
    return f"{family.description}. {family.note}".strip()


def session_metrics() -> Iterable[tuple[str, ...]]:
    """Return name, meaning, field, aggregation and whether `standard` keeps each gauge."""
    for each in SERIES.families:
        kept = "" if each.detail else "yes"
        yield code([each.name]), meaning(each), field(each), DESCRIPTIONS[each.aggregation], kept


def local_network_metrics() -> Iterable[tuple[str, ...]]:
    """Return name, labels, meaning, field and aggregation of each gauge of local networks."""
    for table, each in families(local_networks.TARGETS, local_networks.AGENTS):
        labels, aggregation = code(["aid", *table.labels]), DESCRIPTIONS[each.aggregation]
        yield code([each.name]), labels, meaning(each), field(each), aggregation


def families(*tables: Table) -> Iterable[tuple[Table, Family]]:
    """Return all families of tables, each with its table."""
    return ((table, family) for table in tables for family in table.families)


def histograms() -> Iterable[tuple[str, ...]]:
    """Return name, meaning, field and buckets of each histogram."""
    for each in HISTOGRAMS:
        buckets = ", ".join(f"{bound:g}" for bound in each.buckets)
        yield code([each.name]), f"{each.description}.", code([each.field]), buckets


def other_metrics() -> Iterable[tuple[str, ...]]:
    """Return name, labels, meaning and field of the metrics of sites, agents, account groups."""
    site = code(["aid", "site", "protocol"])
    yield code([f"{SITE_SESSIONS}_total"]), site, SITE_SESSIONS_HELP, ""
    for table, each in families(*agents.TABLES, ACCOUNT_GROUP_INFO):
        yield code([each.name]), code(["aid", *table.labels]), meaning(each), field(each)


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
    "local-network-metrics": (
        "metric,labels,description,API field,aggregation",
        local_network_metrics,
    ),
    "other-metrics": ("metric,labels,description,API field", other_metrics),
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
