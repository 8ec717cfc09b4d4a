"""Writes what the documentation takes from the code: docs/metrics.md, and the tables between markers in README.md.

Run it with `make docs`. A test runs it too, and fails where it would change anything.
"""

import re
import sys
from pathlib import Path

from exporter.api.budget import RateLimit
from exporter.metrics import (
    AGENT_INFO,
    AGENT_INFO_HELP,
    AGENT_LAST_SEEN,
    AGENT_LAST_SEEN_HELP,
    DISTRIBUTIONS,
    FAMILIES,
    SITE_SESSIONS,
    SITE_SESSIONS_HELP,
)
from exporter.settings import reference
from exporter.telemetry import Telemetry

ROOT = Path(__file__).parent.parent


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def metrics() -> str:
    """Return the page of all metrics."""
    gauges = [(f"`{family.name}`", family.help) for family in FAMILIES]
    histograms = [
        (f"`{each.name}`", each.help, ", ".join(f"{bound:g}" for bound in each.buckets)) for each in DISTRIBUTIONS
    ]
    agents = [(f"`{AGENT_INFO}`", AGENT_INFO_HELP), (f"`{AGENT_LAST_SEEN}`", AGENT_LAST_SEEN_HELP)]
    return f"""# Metrics

Written by `make docs` from the metric table in `exporter/metrics.py`; do not edit.

Times are seconds, sizes are bytes, shares are ratios from 0 to 1. A value that the API did not send gives no sample:
never 0, never NaN. No sample carries a timestamp. The exporter polls on a clock of its own, because all programs of an
organization share one limit of requests: a scrape reads what the last poll found.

## Sessions, by agent and site

Gauges with the labels `aid` (account group), `agent` (agent id), `site` and `protocol`. Each shows the newest round
that the agent has at the site within the look-back.

{table(("metric", "what it is"), gauges)}

## Distributions, by site

With the labels `aid`, `site` and `protocol`. Every complete session is counted once, so quantiles over the fleet and
over time are right, and nothing between two scrapes is lost. A restart counts nothing twice.

{table(("histogram", "what it is", "buckets"), histograms)}

{table(("counter", "what it is"), [(f"`{SITE_SESSIONS}_total`", SITE_SESSIONS_HELP)])}

## Agents

With the labels `aid` and `agent`; `{AGENT_INFO}` also has `agent_name`, `platform`, `agent_version`, `os_version` and
`location`. It has exactly one series an agent, so that a name can be joined to any series of an agent with
`* on (aid, agent) group_left (agent_name) {AGENT_INFO}`.

{table(("gauge", "what it is"), agents)}

## The exporter itself

{table(("metric", "labels", "what it is"), own())}

Besides these there are `process_*` and `python_*`, as every Python program with prometheus-client has them.
"""


def own() -> list[tuple[str, ...]]:
    """Return name, labels and help of the exporter's own metrics, as they are after a poll."""
    telemetry = Telemetry(lambda: RateLimit(240.0, 239.0, 60.0), process=False)
    telemetry.configured(60.0, 500_000, ["/"])
    telemetry.watch("1")
    telemetry.polled("1", 60.0, 1.0, None)
    telemetry.stored("1", {"joined": 1}, 60)
    rows: list[tuple[str, ...]] = []
    for family in telemetry.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        kind = " (histogram)" if family.type == "histogram" else ""
        rows.append((f"`{name}`{kind}", ", ".join(f"`{label}`" for label in labels), family.documentation))
    return rows


def settings() -> str:
    """Return the table of all settings."""
    rows = [(f"`{doc.name}`", f"`{doc.default}`" if doc.default else "", doc.description) for doc in reference()]
    return table(("setting", "default", "what it does"), rows)


def families() -> str:
    """Return the list of the per-session families by their short names."""
    return table(("metric", "what it is"), [(f"`{family.name}`", f"{family.what}.") for family in FAMILIES])


def between(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers of that name."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
    replaced, count = pattern.subn(lambda match: match[1] + content + match[2], text)
    if count != 1:
        raise SystemExit(f"README.md has {count} places marked {name}, not one")
    return replaced


def pages() -> dict[Path, str]:
    """Return every generated page with its content."""
    readme = (ROOT / "README.md").read_text()
    return {
        ROOT / "docs/metrics.md": metrics(),
        ROOT / "README.md": between(between(readme, "settings", settings()), "families", families()),
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
