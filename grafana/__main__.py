"""Writes every dashboard to `grafana/dashboards`, as Grafana imports it."""

import sys

from grafana.generate import pages

if __name__ == "__main__":
    for path, content in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        sys.stdout.write(f"{path.name}\n")
