"""Syntax trees of PromQL expressions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser


def nodes(expr: str) -> list[Any]:
    """Return all nodes of the syntax tree; range selectors are followed by their selector."""
    found: list[Any] = []
    promql_parser.walk(
        promql_parser.parse(expr), pre_visit=lambda node: bool(found.append(node)) or True
    )
    ranges = [node for node in found if isinstance(node, promql_parser.MatrixSelector)]
    return found + [node.vector_selector for node in ranges]


def selectors(expr: str) -> list[Any]:
    return [node for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector)]


def expressions(rule: Mapping[str, Any]) -> Iterator[str]:
    """Yield the expression of a rule, and the queries in its annotations."""
    yield rule["expr"]
    for text in rule.get("annotations", {}).values():
        flat = re.sub(r"\s+", " ", text)
        for query in re.findall(r'printf "((?:[^"\\]|\\.)*)" \$labels', flat):
            yield query.replace("%q", '""').replace('\\"', '"')


def undefined(expr: str, labels: Mapping[str, set[str]]) -> set[str]:
    """Return what does not exist in an expression; `labels` are those that each metric has.

    A label of the exporter that the target has as well gets the prefix `exported_`.
    """
    added = r'count_values[^"]*\("(\w+)"|, "(\w+)", "[^"]*", "'  # and by `label_replace`
    found, known = set(), {"".join(names) for names in re.findall(added, expr)}
    for node in selectors(expr):
        existing = labels.get(node.name or "")
        if existing is None:
            found.add(str(node.name))
            continue
        known |= existing
        matched = {each.name.removeprefix("exported_") for each in node.matchers.matchers}
        found |= matched - existing
    for node in nodes(expr):
        modifier = getattr(node, "modifier", None)
        used = getattr(modifier, "labels", None) or []
        if matching := getattr(modifier, "matching", None):
            used = [*matching.labels, *(modifier.group_labels or [])]
        found |= set(used) - known
    return found
