"""The mixin, which has the dashboards and rules of the repository, and the form for grafana.com."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import _gojsonnet
import promql_parser
import pytest
import yaml
from system.promql import nodes
from system.servers import ROOT, RULES, run

from grafana import exporter, panels
from grafana.generate import FOLDER
from grafana.interpolation import DEFAULTS, interpolate

MIXIN = ROOT / "deploy/mixin/mixin.libsonnet"
INTERVALS = {"__rate_interval": "5m", "__range": "6h", "__interval": "1m"}
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
THRESHOLDS = {
    "latencySeconds": (0.4, r"aid(_site)?:\w+_endpoint_latency_seconds:over|.*SiteLatencyHigh"),
    "lossRatio": (0.03, r"aid(_site|_location_target_type)?:\w+_loss_ratio:over|.*SiteLossHigh"),
    "jitterSeconds": (0.06, r"aid(_site)?:\w+_jitter_seconds:over|.*SiteJitterHigh"),
    "experienceScore": (0.6, r"aid_site:\w+_experience_score:over|.*SiteExperienceLow"),
    "agentLossRatio": (0.2, ".*AgentLossHigh"),
    "cpuRatio": (0.85, ".*CpuHigh"),
    "memoryRatio": (0.99, ".*MemoryHigh"),
    "wifiSignalDbm": (-75, ".*WifiWeak"),
    "gatewayLatencySeconds": (
        0.01,
        r"aid_(location_target_type|vpn):\w+_network_latency_seconds:over|"
        r"aid_vpn:\w+_network_latency_seconds:count",
    ),
    "vpnLatencySeconds": (0.16, r"aid_vpn:\w+_network_latency_seconds:over"),
    "dnsResolutionSeconds": (0.35, r"aid_location:\w+_dns_resolution_seconds:over"),
    "locationShare": (0.3, ".*(GatewayLatencyHigh|GatewayLossHigh|DnsResolutionSlow)"),
    "vpnShare": (0.6, ".*VpnLatencyHigh"),
    "staleSeconds": (900, ".*DataStale"),
    "pollDurationRatio": (0.7, ".*PollSlow"),
    "rateLimitRemainingRatio": (0.15, ".*ApiRateLimitLow"),
    "unmatchedRatio": (0.3, ".*JoinMissesHigh"),
}
"""A different value of each threshold, and the names of the rules whose expression has it."""
COLORS = {
    "latencySeconds": panels.LATENCY,
    "lossRatio": panels.LOSS,
    "jitterSeconds": panels.JITTER,
    "experienceScore": panels.SCORE,
    "cpuRatio": panels.CPU,
    "memoryRatio": panels.MEMORY,
    "wifiSignalDbm": panels.WIFI,
    "gatewayLatencySeconds": panels.GATEWAY,
    "vpnLatencySeconds": panels.VPN,
    "dnsResolutionSeconds": panels.DNS,
    "staleSeconds": panels.DATA_AGE,
    "rateLimitRemainingRatio": exporter.RATE_LIMIT_SHARE,
    "unmatchedRatio": exporter.UNMATCHED,
}
ALL_CHANGED = json.dumps({"thresholds+": {name: new for name, (new, _) in THRESHOLDS.items()}})
SELECTOR = 'cluster="process_up"'


@cache
def mixin(field: str, config: str = "{}") -> Any:
    """Return a field of the mixin; `config` are changes to its configuration, as JSON."""
    changes = config.replace('thresholds+":', 'thresholds"+:')
    source = f"((import '{MIXIN}') + {{ _config+:: {changes} }}).{field}"
    return json.loads(_gojsonnet.evaluate_snippet("test", source))


def rules(config: str = "{}") -> dict[str, dict[str, Any]]:
    """Return all rules of the mixin by name."""
    groups = [*mixin("prometheusRules", config)["groups"]]
    groups += mixin("prometheusAlerts", config)["groups"]
    return {
        each.get("record") or each["alert"]: each for group in groups for each in group["rules"]
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


def expressions(config: str = "{}") -> Iterator[str]:
    """Return all queries of rules, templates of alerts, dashboards and their variables."""
    for rule in rules(config).values():
        yield rule["expr"]
        for text in rule.get("annotations", {}).values():
            flat = re.sub(r"\s+", " ", text)
            for query in re.findall(r'printf "((?:[^"\\]|\\.)*)" \$labels', flat):
                yield query.replace("%q", '""').replace('\\"', '"')
    for key, value in values(mixin("grafanaDashboards", config)):
        if key == "expr" or (key == "query" and "(" in value):
            variable = re.fullmatch(r"(?:label_values|query_result)\((.*?)(?:, \w+)?\)", value)
            yield interpolate(variable[1] if variable else value, DEFAULTS | INTERVALS)


def selectors(query: str) -> list[tuple[str, set[tuple[str, str, str]]]]:
    """Return name and matchers of all selectors."""
    return [
        (str(node.name), {(each.name, str(each.op), each.value) for each in node.matchers.matchers})
        for node in nodes(query)
        if isinstance(node, promql_parser.VectorSelector)
    ]


def colors(config: str = "{}") -> list[list[float]]:
    """Return the two upper bounds of all colors that have as many."""
    found = [
        value
        for key, value in values(mixin("grafanaDashboards", config))
        if key == "steps" and isinstance(value, list)
    ]
    return [[step["value"] for step in steps][-2:] for steps in found if len(steps) > 2]


def test_default_is_what_the_repository_has() -> None:
    for field, kind, suffix in (("Rules", "record", ".rules"), ("Alerts", "alert", "")):
        expected = [
            {
                "name": group["name"] + suffix,
                "rules": [rule for rule in group["rules"] if kind in rule],
            }
            for group in GROUPS
        ]
        found = mixin(f"prometheus{field}")["groups"]
        assert found == [group for group in expected if group["rules"]]
    assert mixin("grafanaDashboards") == DASHBOARDS


def test_selector_is_in_every_selector_of_the_metrics_of_the_exporter() -> None:
    config = json.dumps({"selector": SELECTOR, "job": "up"})
    ((_, inserted),) = selectors(f"up{{{SELECTOR}}}")
    before, after = list(expressions()), list(expressions(config))
    assert len(before) > 300
    for old, new in zip(before, after, strict=True):
        expected = [
            (name, matchers | (inserted if ":" not in name and name != "ALERTS" else set()))
            for name, matchers in selectors(old.replace('job="thousandeyes"', 'job="up"'))
        ]
        assert selectors(new) == expected


@pytest.mark.parametrize("name", THRESHOLDS)
def test_threshold_changes_exactly_the_rules_that_have_it(name: str) -> None:
    new, pattern = THRESHOLDS[name]
    before, after = rules(), rules(json.dumps({"thresholds+": {name: new}}))
    changed = {each for each in before if before[each]["expr"] != after[each]["expr"]}
    assert changed == {each for each in before if re.fullmatch(pattern, each)} != set()
    for each in changed:
        words = zip(before[each]["expr"].split(), after[each]["expr"].split(), strict=True)
        assert {now.strip("()") for old, now in words if old != now} == {f"{new:g}"}


def test_thresholds_can_swap_their_values() -> None:
    changed = rules(json.dumps({"thresholds+": {"agentLossRatio": 0.05, "lossRatio": 0.1}}))
    assert "> 0.05\n" in changed["ThousandEyesAgentLossHigh"]["expr"]
    assert "> 0.1\n" in changed["ThousandEyesSiteLossHigh"]["expr"]


@pytest.mark.parametrize("name", COLORS)
def test_colors_follow_thresholds(name: str) -> None:
    bounds = [value for _, value in COLORS[name].thresholds[-2:]]
    assert bounds in colors()
    assert bounds not in colors(ALL_CHANGED)
    new, _ = THRESHOLDS[name]
    assert any(new in each and each == sorted(each) for each in colors(ALL_CHANGED))


def test_texts_follow_thresholds() -> None:
    texts = [
        rule["annotations"]["description"]
        for rule in rules(ALL_CHANGED).values()
        if "alert" in rule
    ]
    texts += [v for k, v in values(mixin("grafanaDashboards", ALL_CHANGED)) if k == "description"]
    limits = r"(from|above|over|of|than) (300 ms|50 ms|200 ms|5%|90%|95%)"
    assert [text for text in texts if re.search(limits, text)] == []


@pytest.mark.parametrize("config", ["{}", json.dumps({"selector": SELECTOR}), ALL_CHANGED])
async def test_promtool_accepts_the_rules(config: str, tmp_path: Path) -> None:
    for field in ("prometheusRules", "prometheusAlerts"):
        path = tmp_path / f"{field}.json"
        path.write_text(json.dumps(mixin(field, config)))
        output = await run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(path))
        assert "SUCCESS" in output


def test_names_links_and_severities_are_configurable() -> None:
    config = json.dumps(
        {
            "severities": {"critical": "page", "warning": "ticket", "info": "none"},
            "interval": "30s",
            "runbookURLPattern": "https://wiki/%s",
            "grafanaURL": "https://grafana",
            "dashboardNamePrefix": "WAN / ",
            "dashboardUIDPrefix": "wan-",
            "dashboardTags": ["wan"],
            "dashboardRefresh": "5m",
        }
    )
    dashboards = mixin("grafanaDashboards", config).values()
    paths = {f"/d/{each['uid']}" for each in dashboards}
    assert paths == {name.replace("thousandeyes-", "/d/wan-")[:-5] for name in DASHBOARDS}
    for each in dashboards:
        linked = {path for _, v in values(each) for path in re.findall(r"^/d/[\w-]+", str(v))}
        assert linked <= paths
        assert each["tags"] == each["links"][0]["tags"] == ["wan"]
        assert (each["title"][:6], each["refresh"]) == ("WAN / ", "5m")
    assert {group["interval"] for group in mixin("prometheusAlerts", config)["groups"]} == {"30s"}
    for alert in (rule for rule in rules(config).values() if "alert" in rule):
        assert alert["labels"]["severity"] in ("page", "ticket", "none")
        assert alert["annotations"]["runbook_url"] == f"https://wiki/{alert['alert']}"
        url = alert["annotations"]["dashboard_url"].partition("?")[0]
        assert url.removeprefix("https://grafana") in paths


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_dashboard_has_the_form_of_grafana_com(dashboard: Mapping[str, Any]) -> None:
    assert "id" in dashboard
    assert dashboard["id"] is None
    assert all(dashboard[key] for key in ("uid", "title", "description", "tags"))
    (asked,) = dashboard["__inputs"]
    assert (asked["type"], asked["pluginId"]) == ("datasource", "prometheus")
    variable = dashboard["templating"]["list"][0]
    assert (variable["type"], variable["current"]["value"]) == (
        "datasource",
        f"${{{asked['name']}}}",
    )
    used = {value for key, value in values({**dashboard, "uid": ""}) if key == "uid" and value}
    assert used == {f"${{{variable['name']}}}"}
    required = {(each["type"], each["id"]) for each in dashboard["__requires"]}
    types = {("panel", panel["type"]) for panel in dashboard["panels"]} - {("panel", "row")}
    assert required == types | {("grafana", "grafana"), ("datasource", "prometheus")}
