"""Writes all dashboards to `grafana/dashboards`, as JSON that Grafana imports."""

import sys

from grafana.generate import dashboard_files

if __name__ == "__main__":
    for path, content in dashboard_files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        sys.stdout.write(f"{path.name}\n")
