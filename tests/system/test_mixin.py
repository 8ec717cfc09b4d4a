"""The mixin has the dashboards and rules of the repository, and applies its configuration."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import _gojsonnet
import yaml
from system import promql
from system.servers import ROOT, RULES, run

from grafana.generate import FOLDER
from grafana.interpolation import DEFAULTS, interpolate

MIXIN = ROOT / "deploy/mixin/mixin.libsonnet"
INTERVALS = {"__rate_interval": "5m", "__range": "6h", "__interval": "1m"}
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
THRESHOLDS = {
    "latencySeconds": (0.4, r"aid(_site)?:\w+_endpoint_latency_seconds:over|.*SiteLatencyHigh"),
    "lossRatio": (0.1, r"aid(_site|_location_target_type)?:\w+_loss_ratio:over|.*SiteLossHigh"),
    "jitterSeconds": (0.06, r"aid(_site)?:\w+_jitter_seconds:over|.*SiteJitterHigh"),
    "experienceScore": (0.6, r"aid_site:\w+_experience_score:over|.*SiteExperienceLow"),
    "agentLossRatio": (0.05, ".*AgentLossHigh"),  # the default of lossRatio, and vice versa
    "cpuRatio": (0.85, ".*CpuHigh"),
    "memoryRatio": (0.99, ".*MemoryHigh"),
    "wifiSignalDbm": (-75, ".*WifiWeak"),
    "gatewayLatencySeconds": (0.01, r"aid_(loc\w+|vpn):\w+_network_latency_seconds:(over|count)"),
    "vpnLatencySeconds": (0.16, r"aid_vpn:\w+_network_latency_seconds:over"),
    "dnsResolutionSeconds": (0.35, r"aid_location:\w+_dns_resolution_seconds:over"),
    "locationShare": (0.3, ".*(GatewayLatencyHigh|GatewayLossHigh|DnsResolutionSlow)"),
    "vpnShare": (0.55, ".*VpnLatencyHigh"),
    "staleSeconds": (900, ".*DataStale"),
    "pollDurationRatio": (0.7, ".*PollSlow"),
    "rateLimitRemainingRatio": (0.15, ".*ApiRateLimitLow"),
    "unmatchedRatio": (0.33, ".*JoinMissesHigh"),
}
"""Another value of each threshold, and the names of the rules whose expression has it."""
COLORS = {
    ((0.15, 0.3), (0.15, 0.4)),
    ((0.01, 0.05), (0.01, 0.1)),
    ((0.03, 0.05), (0.03, 0.06)),
    ((0.5, 0.7), (0.6, 0.7)),
    ((0.8, 0.9), (0.8, 0.85)),
    ((0.85, 0.95), (0.85, 0.99)),
    ((-80, -70), (-75, -70)),
    ((0.02, 0.05), (0.01, 0.01)),  # gateway latency: below the bound of yellow
    ((0.1, 0.15), (0.1, 0.16)),
    ((0.1, 0.2), (0.1, 0.35)),
    ((150, 600), (150, 900)),
    ((0.1, 0.25), (0.15, 0.25)),
    ((0.1, 0.2), (0.1, 0.33)),
}
"""The two upper bounds of colors, by default and with these values."""
SELECTOR = 'cluster="process_up"'
CONFIG = {
    "thresholds": {name: new for name, (new, _) in THRESHOLDS.items()},
    "selector": SELECTOR,
    "job": "up",
    "severities": {"critical": "page", "warning": "ticket", "info": "none"},
    "interval": "30s",
    "runbookURLPattern": "https://wiki/%s",
    "grafanaURL": "https://grafana",
    "dashboardNamePrefix": "WAN / ",
    "dashboardUIDPrefix": "wan-",
    "dashboardTags": ["wan"],
    "dashboardRefresh": "5m",
}
"""A configuration in which every field differs from the default."""


@cache
def mixin(field: str, *, configured: bool) -> Any:
    """Return a field of the mixin, with `CONFIG` or with the default configuration."""
    config = json.dumps(CONFIG if configured else {})
    source = f"((import '{MIXIN}') + {{ _config+:: {config} }}).{field}"
    return json.loads(_gojsonnet.evaluate_snippet("test", source))


def rules(*, configured: bool) -> dict[str, dict[str, Any]]:
    """Return all rules of the mixin by name."""
    return {
        rule.get("record") or rule["alert"]: rule
        for field in ("prometheusRules", "prometheusAlerts")
        for group in mixin(field, configured=configured)["groups"]
        for rule in group["rules"]
    }


def values(content: object, key: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values in a JSON document that are not objects, with their keys."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from values(value, name)
    elif isinstance(content, list) and key != "steps":
        for value in content:
            yield from values(value, key)
    else:
        yield key, content


def expressions(*, configured: bool) -> Iterator[str]:
    """Return all queries of rules, templates of alerts, dashboards and their variables."""
    for rule in rules(configured=configured).values():
        yield from promql.expressions(rule)
    for key, value in values(mixin("grafanaDashboards", configured=configured)):
        if key == "expr" or (key == "query" and "(" in value):
            variable = re.fullmatch(r"(?:label_values|query_result)\((.*?)(?:, \w+)?\)", value)
            yield interpolate(variable[1] if variable else value, DEFAULTS | INTERVALS)


def selectors(query: str) -> list[tuple[str, set[tuple[str, str, str]]]]:
    """Return name and matchers of all selectors."""
    return [
        (str(node.name), {(each.name, str(each.op), each.value) for each in node.matchers.matchers})
        for node in promql.selectors(query)
    ]


def colors(*, configured: bool) -> list[tuple[float, ...]]:
    """Return the two upper bounds of all colors that have as many."""
    found = values(mixin("grafanaDashboards", configured=configured))
    steps = [value for key, value in found if key == "steps" and isinstance(value, list)]
    return [tuple(step["value"] for step in each[-2:]) for each in steps if len(each) > 2]


def test_default_is_what_the_repository_has() -> None:
    for field, kind in (("prometheusRules", "record"), ("prometheusAlerts", "alert")):
        expected = [rule for group in GROUPS for rule in group["rules"] if kind in rule]
        groups = mixin(field, configured=False)["groups"]
        assert [rule for group in groups for rule in group["rules"]] == expected
    assert mixin("grafanaDashboards", configured=False) == DASHBOARDS


def test_selector_is_in_every_selector_of_the_metrics_of_the_exporter() -> None:
    ((_, inserted),) = selectors(f"up{{{SELECTOR}}}")
    before, after = list(expressions(configured=False)), list(expressions(configured=True))
    assert len(before) > 300
    for old, new in zip(before, after, strict=True):
        expected = [
            (name, matchers | (inserted if ":" not in name and name != "ALERTS" else set()))
            for name, matchers in selectors(old.replace('job="thousandeyes"', 'job="up"'))
        ]
        assert selectors(new) == expected


def test_each_threshold_changes_exactly_the_rules_that_have_it() -> None:
    found: dict[str, set[str]] = {}
    number = re.compile(r"(?<=[\s(])-?\d[\d.]*(?=[\s)]|$)")
    after = rules(configured=True)
    for name, rule in rules(configured=False).items():
        numbers = (number.findall(each["expr"]) for each in (rule, after[name]))
        for old, new in zip(*numbers, strict=True):
            if old != new:
                found.setdefault(new, set()).add(name)
    assert found == {
        f"{new:g}": {name for name in after if re.fullmatch(pattern, name)}
        for new, pattern in THRESHOLDS.values()
    }


def test_colors_follow_thresholds() -> None:
    bounds = zip(colors(configured=False), colors(configured=True), strict=True)
    assert {(old, new) for old, new in bounds if old != new} == COLORS


def test_texts_follow_thresholds() -> None:
    alerts = (rule for rule in rules(configured=True).values() if "alert" in rule)
    texts = [alert["annotations"]["description"] for alert in alerts]
    dashboards = mixin("grafanaDashboards", configured=True)
    texts += [text for key, text in values(dashboards) if key == "description"]
    limits = r"(from|above|over|of) 5%|(from|above|over|of|than) (300 ms|50 ms|200 ms|90%|95%)"
    assert [text for text in texts if re.search(limits, text)] == []


async def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    for field in ("prometheusRules", "prometheusAlerts"):
        path = tmp_path / f"{field}.json"
        path.write_text(json.dumps(mixin(field, configured=True)))
        output = await run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(path))
        assert "SUCCESS" in output


def test_names_links_and_severities_are_configurable() -> None:
    dashboards = mixin("grafanaDashboards", configured=True).values()
    paths = {f"/d/{each['uid']}" for each in dashboards}
    assert paths == {name.replace("thousandeyes-", "/d/wan-")[:-5] for name in DASHBOARDS}
    for each in dashboards:
        linked = {path for _, v in values(each) for path in re.findall(r"^/d/[\w-]+", str(v))}
        assert linked <= paths
        assert each["tags"] == each["links"][0]["tags"] == ["wan"]
        assert (each["title"][:6], each["refresh"]) == ("WAN / ", "5m")
    groups = mixin("prometheusAlerts", configured=True)["groups"]
    assert {group["interval"] for group in groups} == {"30s"}
    for alert in (rule for group in groups for rule in group["rules"]):
        assert alert["labels"]["severity"] in ("page", "ticket", "none")
        assert alert["annotations"]["runbook_url"] == f"https://wiki/{alert['alert']}"
        url = alert["annotations"]["dashboard_url"].partition("?")[0]
        assert url.removeprefix("https://grafana") in paths
