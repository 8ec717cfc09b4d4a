"""Recording rules and alerts, with promtool: are they valid, tested, documented, and about metrics that exist?"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.metrics import FAMILIES
from grafana import queries
from tests.servers import ROOT, finished, tool

FOLDER = ROOT / "deploy/prometheus"
FILE = FOLDER / "thousandeyes.rules.yml"
UNIT_TESTS = sorted((FOLDER / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs/runbooks"
ALERTS_PAGE = (ROOT / "docs/alerts.md").read_text()
RUNBOOK_URL = "https://github.com/thousandeyes-exporter/thousandeyes-exporter/blob/main/docs/runbooks"
DASHBOARDS = {
    "thousandeyes-fleet": {"aid"},
    "thousandeyes-site": {"aid", "site"},
    "thousandeyes-agent": {"aid", "agent"},
    "thousandeyes-exporter": {"aid"},
}
"""Identities of the dashboards, with the variables that a link may set."""

RULES = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in RULES if "record" in rule}
CASES = [case for path in UNIT_TESTS for case in yaml.safe_load(path.read_text())["tests"]]


# The same limits as those of the dashboards.


@pytest.mark.parametrize(
    ("alert", "limit"),
    [
        ("ThousandEyesSiteLossHigh", queries.LOSS_LIMIT),
        ("ThousandEyesSiteLatencyHigh", queries.LATENCY_LIMIT),
        ("ThousandEyesSiteJitterHigh", queries.JITTER_LIMIT),
        ("ThousandEyesAgentCpuHigh", queries.CPU_LIMIT),
        ("ThousandEyesAgentMemoryHigh", queries.MEMORY_LIMIT),
        ("ThousandEyesJoinMissesHigh", queries.UNMATCHED_LIMIT),
    ],
)
def test_dashboards_turn_red_where_alerts_fire(alert: str, limit: float) -> None:
    """Every ratio or number of seconds that an alert compares with is the dashboards'."""
    assert set(re.findall(r"> (0\.\d+)", ALERTS[alert]["expr"])) == {str(limit)}


# Valid.


@pytest.mark.parametrize(
    "arguments",
    [("rules", "--lint=all", "--lint-fatal", str(FILE)), ("config", "--lint=all", "--lint-fatal")],
    ids=["rules", "config"],
)
async def test_promtool_has_nothing_to_say_against_the_files(arguments: tuple[str, ...]) -> None:
    """Rules and configuration load as they are."""
    files = () if len(arguments) > 3 else (str(FOLDER / "prometheus.yml"),)
    code, output, errors = await finished(tool("promtool"), "check", *arguments, *files)
    assert (code, errors) == (0, ""), output + errors


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
async def test_the_unit_tests_of_the_rules_pass(path: Path) -> None:
    """Promtool runs them."""
    code, output, errors = await finished(tool("promtool"), "test", "rules", str(path), seconds=60)
    assert code == 0, output + errors


def test_recording_rules_are_named_by_level_metric_and_operation() -> None:
    """The level is what they are aggregated to, the metric is one of ours, the operation is a word."""
    known = "|".join(re.escape(name) for name in METRICS)
    assert [name for name in RECORDS if not re.fullmatch(rf"(aid_site|aid_agent):({known}):[a-z]+", name)] == []


# Tested.


def cases(name: str, *, firing: bool) -> list[dict[str, Any]]:
    """Return the cases in which promtool expects an alert to fire, or to be silent."""
    return [
        each
        for case in CASES
        for each in case.get("alert_rule_test", [])
        if each["alertname"] == name and bool(each.get("exp_alerts")) == firing
    ]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_seen_to_fire_and_to_be_silent(name: str) -> None:
    """None is forgotten; that it fires is tested with all its labels and texts."""
    assert cases(name, firing=True)
    assert cases(name, firing=False)
    expected = [alert for case in cases(name, firing=True) for alert in case["exp_alerts"]]
    assert all(set(alert["exp_annotations"]) == set(ALERTS[name]["annotations"]) for alert in expected)


@pytest.mark.parametrize("name", [name for name in ALERTS if "for" in ALERTS[name]])
def test_every_alert_that_waits_is_tested_with_something_that_is_too_short(name: str) -> None:
    """In some case it is silent at a time at which its `for` has passed, though what it is about was there."""
    waits = seconds(ALERTS[name]["for"])
    assert any(seconds(case["eval_time"]) >= waits for case in cases(name, firing=False))


def test_every_case_is_named_by_a_sentence_and_tests_alerts_that_exist() -> None:
    """A misspelt alert would be silent for ever."""
    assert all(len(case["name"].split()) > 3 for case in CASES)
    named = {each["alertname"] for case in CASES for each in case.get("alert_rule_test", [])}
    assert named == ALERTS.keys()


@pytest.mark.parametrize("name", [name for name in ALERTS if "Site" in name])
def test_alerts_on_sites_need_five_agents_two_of_which_are_badly_off(name: str) -> None:
    """And all of them know the same threshold for the mean and for the single agent."""
    mean, single, agents = re.split(r"\nand\n", ALERTS[name]["expr"].strip())
    threshold = re.search(r"[<>] [\d.]+$", mean)
    assert threshold
    assert single.endswith(f"{threshold[0]}) >= 2")
    assert agents.endswith(":count >= 5")


def seconds(duration: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


# Documented.


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_it_is_and_leads_on(name: str) -> None:
    """Severity, words, a runbook and a dashboard."""
    alert = ALERTS[name]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    texts = alert["annotations"]
    assert texts.keys() == {"summary", "description", "runbook_url", "dashboard_url"}
    assert texts["runbook_url"] == f"{RUNBOOK_URL}/{name}.md"
    dashboard, _, variables = texts["dashboard_url"].removeprefix("/d/").partition("?")
    set_there = re.findall(r"(?:^|&)var-(\w+)=\{\{ \$labels\.(\w+) \| urlquery \}\}", variables)
    assert all(variable == label for variable, label in set_there)
    assert {variable for variable, _ in set_there} <= DASHBOARDS[dashboard]
    assert len(set_there) == variables.count("=")


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook(name: str) -> None:
    """It begins with the alert's name and severity, and has its three parts."""
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n\nSeverity: {ALERTS[name]['labels']['severity']}.")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["What it means", "What to look at", "What to do"]


def test_there_is_no_runbook_without_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == ALERTS.keys()


def test_the_page_of_alerts_tells_what_the_rules_say() -> None:
    """Name, severity, thresholds and duration of every alert, in the order of the file; and a reason."""
    rows = re.findall(
        r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \| (.*?) \| (\w*) ?\| (.+) \|$", ALERTS_PAGE, re.MULTILINE
    )
    assert [name for name, *_ in rows] == list(ALERTS)
    for name, runbook, severity, thresholds, duration, why in rows:
        alert = ALERTS[name]
        assert (runbook, severity, duration) == (name, alert["labels"]["severity"], alert.get("for", ""))
        assert re.findall(r"`(.*?)`", thresholds) == thresholds_of(name), name
        assert len(why) > 8


def thresholds_of(name: str) -> list[str]:
    """Return what an alert compares with, as the page writes it; what all alerts on sites share stands above them."""
    expression = ALERTS[name]["expr"]
    if name == "ThousandEyesDataStale":
        return re.findall(r"\b(2\.5|600)\b", expression)
    if name == "ThousandEyesPollSlow":
        return re.findall(r"\b0\.8\b", expression)
    compared = list(dict.fromkeys(re.findall(r"(?:[<>]=?|==) [\d.]+", expression)))
    shared = {">= 2", ">= 5", "> 0"} if "Site" in name else {"== 1"}
    return [each for each in compared if each not in shared]


# About what exists.


def metrics_and_labels() -> dict[str, set[str]]:
    """Return all metrics with their labels, as docs/metrics.md has them, and the few that Prometheus itself has."""
    text = (ROOT / "docs/metrics.md").read_text()
    sessions, sites, agents, own = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    found: dict[str, set[str]] = {}
    for section, labels in (
        (sessions, {"aid", "agent", "site", "protocol"}),
        (sites, {"aid", "site", "protocol"}),
        (agents, {"aid", "agent"}),
    ):
        assert labels <= set(re.findall(r"`(\w+)`", section.partition("\n\n")[2].partition("\n\n")[0]))
        found |= dict.fromkeys(re.findall(r"^\| `(\w+)`", section, re.MULTILINE), labels)
    extra = set(re.findall(r"`(\w+)`", agents.partition("also has")[2].partition(".")[0]))
    found["thousandeyes_endpoint_agent_info"] = found["thousandeyes_endpoint_agent_info"] | extra
    for name, labels in re.findall(r"^\| `(\w+)`[^|]*\| ([^|]*) \|", own, re.MULTILINE):
        found[name] = set(re.findall(r"`(\w+)`", labels))
    assert {family.name for family in FAMILIES} <= found.keys()
    scraped = {name: labels | {"job", "instance"} for name, labels in found.items()}
    for name, labels in list(scraped.items()):
        scraped |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
    process = ("up", "process_start_time_seconds", "process_resident_memory_bytes")
    scraped |= {name: {"job", "instance"} for name in process}
    return scraped | {"ALERTS": {"alertname", "aid", "site", "agent"}}


METRICS = metrics_and_labels()
LEVELS = {"aid_site": {"aid", "site"}, "aid_agent": {"aid", "agent", "agent_name"}}
WORDS = {"and", "or", "unless", "bool", "offset"}
CLAUSE = r"\b(by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)"


def wrong(expression: str) -> set[str]:
    """Return what an expression names that does not exist: metrics, labels in selectors and in clauses."""
    known = METRICS | {name: LEVELS[name.partition(":")[0]] for name in RECORDS}
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    selectors = re.findall(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", bare)
    clauses = {label.strip() for _, labels in re.findall(CLAUSE, bare) for label in labels.split(",")} - {""}
    rest = re.sub(CLAUSE, "", re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset \w+", "", bare))
    names = set(re.findall(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", rest)) - WORDS
    functions = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", rest))
    names -= functions
    mistakes = {name for name in names if name not in known}
    for name, matchers in selectors:
        labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
        mistakes |= {f"{name}{{{label}}}" for label in labels - known.get(name, set())}
    made = set(re.findall(r'count_values[^"]*\("(\w+)"', expression))
    labels = set().union(*(known.get(name, set()) for name in names)) | made
    return mistakes | {f"({label})" for label in clauses - labels}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rule_names_only_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    """In its expression, and in the queries and labels of its texts."""
    assert wrong(rule["expr"]) == set()
    for text in rule.get("annotations", {}).values():
        for template in re.findall(r'printf "([^"]+)" (?=\$labels)', text):
            assert wrong(template.replace("%q", '""')) == set()
        used = set(re.findall(r"\$labels\.(\w+)", text))
        assert used <= labels_of(rule["alert"]) | {"agent_name", "job", "instance"}, used


def labels_of(name: str) -> set[str]:
    """Return the labels that promtool saw an alert with."""
    return {label for case in cases(name, firing=True) for alert in case["exp_alerts"] for label in alert["exp_labels"]}


@pytest.mark.parametrize(
    ("expression", "mistakes"),
    [
        ("sum by (aid) (thousandeyes_endpoint_loss_ratio)", set()),
        ("sum by (office) (thousandeyes_endpoint_loss_ratio)", {"(office)"}),
        ("thousandeyes_endpoint_loss_percent > 5", {"thousandeyes_endpoint_loss_percent"}),
        ('thousandeyes_up{site="x"} == 0', {"thousandeyes_up{site}"}),
        ("aid_site:thousandeyes_endpoint_loss_ratio:max", {"aid_site:thousandeyes_endpoint_loss_ratio:max"}),
    ],
)
def test_names_that_do_not_exist_are_noticed(expression: str, mistakes: set[str]) -> None:
    """The test above would fail for them."""
    assert wrong(expression) == mistakes


def queries() -> Iterator[tuple[str, str]]:
    """Yield the queries of all runbooks and of the page of alerts."""
    for path in (*sorted(RUNBOOKS.iterdir()), ROOT / "docs/alerts.md"):
        for query in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL):
            yield path.stem, query


def test_the_queries_of_the_runbooks_name_only_what_exists() -> None:
    """Metrics and labels."""
    assert {name: wrong(query) for name, query in queries() if wrong(query)} == {}


async def test_the_queries_of_the_runbooks_can_be_read(tmp_path: Path) -> None:
    """By Prometheus' own parser."""
    rules = [{"record": f"query:{n}", "expr": query} for n, (_, query) in enumerate(queries())]
    assert len(rules) > len(ALERTS)
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    code, output, errors = await finished(tool("promtool"), "check", "rules", str(path))
    assert code == 0, output + errors
