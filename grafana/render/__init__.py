"""Screenshots of the dashboards, rendered with Grafana's own components in Chromium.

`python -m grafana.render` needs `prometheus`, `promtool`, `chromium` and `npm`.
"""
