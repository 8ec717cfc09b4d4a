"""Grafana's interpolation of variables and legends, to run queries without Grafana."""

import re
from collections.abc import Mapping

DEFAULTS = {
    "aid": ".*",
    "site": ".*",
    "protocol": ".*",
    "location": ".*",
    "instance": ".*",
    "split": "location",
    "rank": "latency_seconds",
    "agent": "0",
}
"""Initial values of the dashboard variables."""


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Replace `$name` and `${name}`; raise KeyError for a variable without a value."""
    return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda match: values[match[1] or match[2]], text)


def as_regex(*values: str) -> str:
    """Format selected values as Grafana does inside a regular expression of PromQL."""
    escaped = [re.sub(r"[.+*?^$|()\[\]{}\\]", r"\\\\\g<0>", value) for value in values]
    return f"({'|'.join(escaped)})" if len(escaped) > 1 else escaped[0]


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Return the name of a series, with its labels in place of `{{label}}`."""
    if template == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__") or "Value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], match[1]), template)
