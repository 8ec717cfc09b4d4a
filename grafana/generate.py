"""JSON of all dashboards."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import agent, exporter, fleet, inventory, networks, site

FOLDER = Path(__file__).parent / "dashboards"


def dashboard_files() -> dict[Path, str]:
    """Return the content of every dashboard file by path."""
    modules = (fleet, site, networks, agent, inventory, exporter)
    dashboards = [module.dashboard() for module in modules]
    return {
        FOLDER / f"{each.uid}.json": json.dumps(each, cls=JSONEncoder, indent=2, ensure_ascii=False)
        + "\n"
        for each in dashboards
    }
