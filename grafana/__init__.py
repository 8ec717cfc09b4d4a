"""The Grafana dashboards as code; `python -m grafana` writes them to `grafana/dashboards`.

One file a dashboard says what it shows; how a panel looks stands in `grafana.parts`, how a query reads in
`grafana.queries`.
"""
