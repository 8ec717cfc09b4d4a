"""Names in PromQL expressions, compared with the metrics that the exporter has."""

import re
from functools import cache
from typing import Any

import promql_parser
import yaml
from prometheus_client.metrics import MetricWrapperBase
from system.servers import RULES

from exporter.metrics.self_metrics import SelfMetrics
from exporter.render import ACCOUNT_GROUP_INFO
from exporter.sources import agents, local_networks
from exporter.sources.sessions import SERIES
from exporter.sources.site_histograms import HISTOGRAMS, SITE_SESSIONS

TARGET = {"job", "instance"}
RESERVED = ("aid", "source", "agent", "site", "protocol", "platform", "location")
RESERVED += ("connection", "vpn", "target_type")
SITE = {"aid", "site", "protocol"}
AGENT = {"aid", "agent"}
SESSION = {*SITE, *AGENT}
EXPORTED = {f"exported_{name}" for name in RESERVED}
"""Labels of the exporter that a label of the target hides."""
ALERT = {"alertname", "alertstate", "severity", "agent_name", "location", "vpn", *SESSION}
INFO = {"aid", *agents.INFO.labels}
OPERATIONS = re.compile(r"(\w+):(thousandeyes_\w+):[a-z]+")
"""Recording rules are named level:metric:operations."""


@cache
def metrics() -> dict[str, set[str]]:
    """Return the labels of every metric that queries may use."""
    tables = (SERIES, local_networks.TARGETS, local_networks.AGENTS, *agents.TABLES)
    found = {
        family.name: {"aid", *table.labels}
        for table in (*tables, ACCOUNT_GROUP_INFO)
        for family in table.families
    }
    for each in HISTOGRAMS:
        found |= {f"{each.name}_bucket": {*SITE, "le"}}
        found |= dict.fromkeys((f"{each.name}_count", f"{each.name}_sum"), SITE)
    found[f"{SITE_SESSIONS}_total"] = SITE
    own = SelfMetrics(process=False)
    for metric in vars(own).values():
        if isinstance(metric, MetricWrapperBase):
            description = metric.describe()[0]
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            for suffix in suffixes.get(description.type, [""]):
                le = {"le"} if suffix == "_bucket" else set()
                found[description.name + suffix] = {*metric._labelnames, *le}
    limits = ("requests", "remaining_requests", "reset_timestamp_seconds")
    found |= {f"thousandeyes_exporter_api_rate_limit_{name}": set() for name in limits}
    found |= {name: set() for name in ("up", "scrape_duration_seconds")}
    process = ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds")
    found |= {f"process_{name}": set() for name in (*process, "start_time_seconds")}
    found["ALERTS"] = ALERT
    for rule in rules():
        if name := rule.get("record"):
            level = OPERATIONS.fullmatch(name)
            assert level, name
            labels = {"target": SESSION, "aid_agent": INFO}.get(level[1])
            labels = labels or set(re.findall("target_type|[a-z]+", level[1]))
            found[name] = found[level[2]] if name.endswith(":name") else labels
    return {name: labels | TARGET | EXPORTED for name, labels in found.items()}


def rules() -> list[dict[str, Any]]:
    """Return all recording rules and alerts."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def nodes(expr: str) -> list[Any]:
    """Return all nodes of the syntax tree; range selectors are followed by their selector."""
    found: list[Any] = []
    promql_parser.walk(
        promql_parser.parse(expr), pre_visit=lambda node: bool(found.append(node)) or True
    )
    ranges = [node for node in found if isinstance(node, promql_parser.MatrixSelector)]
    return found + [node.vector_selector for node in ranges]


def undefined(expr: str) -> set[str]:
    """Return the metrics and labels in an expression that do not exist."""
    added = r'count_values[^"]*\("(\w+)"|, "(\w+)", "[^"]*", "'  # and by `label_replace`
    found, known = set(), {"".join(names) for names in re.findall(added, expr)}
    parts = nodes(expr)
    for node in parts:
        if isinstance(node, promql_parser.VectorSelector):
            labels = metrics().get(node.name or "")
            if labels is None:
                found.add(str(node.name))
                continue
            known |= labels
            found |= {each.name for each in node.matchers.matchers if each.name not in labels}
    for node in parts:
        modifier = getattr(node, "modifier", None)
        used = getattr(modifier, "labels", None) or []
        if matching := getattr(modifier, "matching", None):
            used = [*matching.labels, *(modifier.group_labels or [])]
        found |= set(used) - known
    return found
