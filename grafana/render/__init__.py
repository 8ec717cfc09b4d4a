"""Pictures of the dashboards: hours of the pretend company in a real Prometheus, drawn with Grafana's own components.

`python -m grafana.render` needs `prometheus`, `promtool`, `chromium` and `npm`; nothing else of the project does.
"""
