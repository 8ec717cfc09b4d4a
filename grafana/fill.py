"""Fills in the variables of a query as Grafana does it, for whoever asks the queries without Grafana."""

import re
from collections.abc import Mapping

CHOSEN = {
    "aid": ".*",
    "site": ".*",
    "protocol": ".*",
    "instance": ".*",
    "split": "location",
    "rank": "latency_seconds",
    "agent": "0",
}
"""What is chosen where nobody chose: everything, or the first."""


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with values in the place of `$name` and `${name}`.

    Raises:
        KeyError: for a variable that has no value.
    """
    return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda match: values[match[1] or match[2]], text)


def joined(*values: str) -> str:
    """Return one or several values of a variable as Grafana writes them inside a regular expression of PromQL."""
    escaped = [re.sub(r"[.+*?^$|()\[\]{}\\]", r"\\\\\g<0>", value) for value in values]
    return f"({'|'.join(escaped)})" if len(escaped) > 1 else escaped[0]


def legend(text: str, labels: Mapping[str, str]) -> str:
    """Return the name of a series: its labels in the place of `{{name}}`."""
    if text == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__") or "Value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], match[1]), text)
