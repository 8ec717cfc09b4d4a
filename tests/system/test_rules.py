"""Recording rules and alerts: valid, unit-tested, and documented."""

import json
import re
from typing import Any

import pytest
import yaml
from system.servers import ROOT, RULES, run

UNIT_TESTS = sorted((RULES.parent / "tests").glob("*.yml"))
CASES = [case for path in UNIT_TESTS for case in yaml.safe_load(path.read_text())["tests"]]
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
PAGE = (ROOT / "docs/dashboards-and-alerts.md").read_text()
RUNBOOKS = ROOT / "docs/runbooks"
URL = "https://github.com/thousandeyes-exporter/thousandeyes-exporter/blob/main/docs/runbooks"

every_alert = pytest.mark.parametrize("name", ALERTS)


@pytest.mark.parametrize("kind", ["rules", "config"])
async def test_promtool_lint_passes(kind: str) -> None:
    file = RULES if kind == "rules" else RULES.with_name("prometheus.yml")
    output = await run("promtool", "check", kind, "--lint=all", "--lint-fatal", str(file))
    assert "SUCCESS" in output


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
async def test_unit_tests_pass(path: Any) -> None:
    assert "SUCCESS" in await run("promtool", "test", "rules", str(path))


@every_alert
def test_alert_has_a_unit_test_that_fires_and_one_that_does_not(name: str) -> None:
    tests = [each for case in CASES for each in case.get("alert_rule_test", [])]
    fires = [bool(each.get("exp_alerts")) for each in tests if each["alertname"] == name]
    assert set(fires) == {True, False}


@every_alert
def test_alert_has_severity_texts_and_links(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url", "dashboard_url"}
    assert annotations["runbook_url"] == f"{URL}/{name}.md"
    path, _, query = annotations["dashboard_url"].partition("?")
    file = ROOT / f"grafana/dashboards/{path.removeprefix('/d/')}.json"
    variables = {each["name"] for each in json.loads(file.read_text())["templating"]["list"]}
    linked = re.findall(r"var-(\w+)=\{\{ \$labels\.(\w+) \| urlquery \}\}", query)
    assert len(linked) == query.count("=")
    assert all(variable == label and variable in variables for variable, label in linked)


@every_alert
def test_alert_has_a_runbook(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n\nSeverity: {ALERTS[name]['labels']['severity']}.")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Meaning", "Diagnosis", "Mitigation"]


def test_every_runbook_has_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == ALERTS.keys()


def test_page_lists_severity_thresholds_and_duration_of_every_alert() -> None:
    pattern = r"^\| \[(\w+)\]\(runbooks/\1\.md\) \| (\w+) \| (.*?) \| (\w*) ?\| .+ \|$"
    rows = re.findall(pattern, PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == list(ALERTS)
    for name, severity, thresholds, duration in rows:
        alert = ALERTS[name]
        assert (severity, duration) == (alert["labels"]["severity"], alert.get("for", "")), name
        for threshold in re.findall("`(.*?)`", thresholds):
            assert threshold in alert["expr"], name
