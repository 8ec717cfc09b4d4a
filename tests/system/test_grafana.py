"""The dashboards: generated, consistent, and in the form that grafana.com requires."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from grafana.generate import FOLDER, dashboard_files

FILES = {path: path.read_text() for path in FOLDER.glob("*.json")}
DASHBOARDS = {path.stem.removeprefix("thousandeyes-"): json.loads(t) for path, t in FILES.items()}
every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_generated_files_are_up_to_date() -> None:
    assert dashboard_files() == FILES


@every_dashboard
def test_panels_have_description_unit_and_data_source(dashboard: Mapping[str, Any]) -> None:
    intro, *others = panels(dashboard)
    assert intro["type"] == "text"
    for panel in others:
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        assert defaults.get("unit") or panel["options"]["yAxis"]["unit"]
        if panel["type"] == "timeseries":
            assert defaults["min"] == (-100 if "dBm" in defaults["unit"] else 0)


@every_dashboard
def test_panels_fill_the_grid_without_overlap(dashboard: Mapping[str, Any]) -> None:
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(cells) == len(set(cells)) == 24 * (1 + max(y for _, y in cells))


@every_dashboard
def test_links_set_variables_that_the_other_dashboard_has(dashboard: Mapping[str, Any]) -> None:
    (link,) = dashboard["links"]
    assert (link["includeVars"], link["keepTime"], link["tags"]) == (True, True, dashboard["tags"])
    here = {variable["name"] for variable in dashboard["templating"]["list"]}
    urls = re.findall(r'"url": "(/d/[^"]+)"', json.dumps(dashboard["panels"]))
    for url in urls:
        match = re.fullmatch(r"/d/thousandeyes-(\w+)\?(.*)", url)
        assert match
        there = {each["name"] for each in DASHBOARDS[match[1]]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", match[2])) <= there
        assert set(re.findall(r"\$\{(\w+):queryparam\}", match[2])) <= there & here
        assert "${__url_time_range}" in match[2]


@every_dashboard
def test_series_of_a_panel_have_different_colors(dashboard: Mapping[str, Any]) -> None:
    for panel in panels(dashboard):
        overrides = panel.get("fieldConfig", {}).get("overrides", [])
        properties = [each for override in overrides for each in override["properties"]]
        colors = [each["value"].get("fixedColor") for each in properties if each["id"] == "color"]
        fixed = [color for color in colors if color]
        assert len(fixed) == len(set(fixed)), panel["title"]


@every_dashboard
def test_dashboard_has_the_form_of_grafana_com(dashboard: Mapping[str, Any]) -> None:
    assert dashboard["id"] is None
    assert all(dashboard[key] for key in ("uid", "title", "description", "tags"))
    (asked,) = dashboard["__inputs"]
    assert (asked["type"], asked["pluginId"]) == ("datasource", "prometheus")
    variable = dashboard["templating"]["list"][0]
    assert variable["type"] == "datasource"
    assert variable["current"]["value"] == f"${{{asked['name']}}}"
    used = re.findall(r'"uid": "(.*?)"', json.dumps(dashboard))
    assert {*used} == {f"${{{variable['name']}}}", dashboard["uid"]}
    required = {(each["type"], each["id"]) for each in dashboard["__requires"]}
    types = {("panel", panel["type"]) for panel in dashboard["panels"]} - {("panel", "row")}
    assert required == types | {("grafana", "grafana"), ("datasource", "prometheus")}
