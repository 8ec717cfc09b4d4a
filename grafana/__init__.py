"""Grafana dashboards as code; `python -m grafana` writes them to `grafana/dashboards`.

Each dashboard is one module. `grafana.queries` has the PromQL expressions, `grafana.panels` and
`grafana.dashboards` have the common look.
"""
