"""JSON of all dashboards, in the form that Grafana exports to share a dashboard with others.

Provisioning ignores what this form adds. grafana.com refuses dashboards without it.
"""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import agent, exporter, fleet, inventory, networks, site
from grafana.dashboards import INPUT

FOLDER = Path(__file__).parent / "dashboards"
OLDEST_GRAFANA = "11.0.0"
PANELS = {
    "heatmap": "Heatmap",
    "stat": "Stat",
    "table": "Table",
    "text": "Text",
    "timeseries": "Time series",
}
"""Names of Grafana's panel types."""


def dashboard_files() -> dict[Path, str]:
    """Return the content of every dashboard file by path."""
    modules = (fleet, site, networks, agent, inventory, exporter)
    dashboards = [module.dashboard() for module in modules]
    return {
        FOLDER / f"{each.uid}.json": json.dumps(
            shared(each), cls=JSONEncoder, indent=2, ensure_ascii=False
        )
        + "\n"
        for each in dashboards
    }


def shared(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard with the data source that an import asks for, and what it requires."""
    types = {each.type_val for each in dashboard.panels or [] if isinstance(each, Panel)}
    return {
        "__inputs": [
            {
                "name": INPUT,
                "label": "Prometheus",
                "description": "",
                "type": "datasource",
                "pluginId": "prometheus",
                "pluginName": "Prometheus",
            }
        ],
        "__elements": {},
        "__requires": [
            _requirement("grafana", "grafana", "Grafana", OLDEST_GRAFANA),
            _requirement("datasource", "prometheus", "Prometheus", "1.0.0"),
            *(_requirement("panel", each, PANELS[each], "") for each in sorted(types)),
        ],
        "id": None,
        **dashboard.to_json(),
    }


def _requirement(type_: str, id_: str, name: str, version: str) -> dict[str, str]:
    return {"type": type_, "id": id_, "name": name, "version": version}
