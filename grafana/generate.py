"""Which dashboards there are, and their JSON."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import agent, exporter, fleet, site

DASHBOARDS = Path(__file__).parent / "dashboards"


def pages() -> dict[Path, str]:
    """Return every dashboard by its file."""
    boards = [each.dashboard() for each in (fleet, site, agent, exporter)]
    return {
        DASHBOARDS / f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        for board in boards
    }
