"""Dashboards: variables, links between dashboards, and alert annotations."""

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from grafana import queries as q
from grafana.panels import DATA_SOURCE, MIN_INTERVAL, Built, Column, Panel, table

TAG = "thousandeyes"
INPUT = "DS_PROMETHEUS"
"""Name of the data source that an import asks for."""
LABEL_VALUES, QUERY_RESULT = 1, 3  # query types of Grafana's Prometheus variables

KEPT = "${datasource:queryparam}&${aid:queryparam}&${__url_time_range}"
"""What links preserve: the selection and the time range."""


def _link(title: str, uid: str, variable: str, value: str) -> models.DashboardLink:
    url = f"/d/thousandeyes-{uid}?var-{variable}=${{{value}:percentencode}}&{KEPT}"
    return builders.DashboardLink(title).url(url).type(models.DashboardLinkType.LINK).build()


SITE_LINK = _link("Open site", "site", "site", "__data.fields.Site")
AGENT_LINK = _link("Open agent", "agent", "agent", "__data.fields.Id")
SERIES_SITE_LINK = _link("Open site", "site", "site", "__field.labels.site")


def agents_table(title: str, description: str, *columns: Column, **settings: Any) -> Panel:
    """Return a table of agents with their names and locations."""
    name = Column("Name", label="agent_name", link=AGENT_LINK)
    location = Column("Location", label="location", width=265)
    id_ = Column("Id", label="agent", hidden=True)
    return table(title, description, [name, location, *columns, id_], **settings)


def data_source() -> builders.DatasourceVariable:
    """Return the variable that selects the Prometheus server.

    Its first value is the choice at the import. A provisioned dashboard has no such choice, and
    Grafana selects the first data source.
    """
    choice_ = models.VariableOption(selected=True, text="", value=f"${{{INPUT}}}")
    variable = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return variable.current(choice_).description("Prometheus server that scrapes the exporter.")


def _query(
    name: str, label: str, description: str, query: str, type_: int = LABEL_VALUES
) -> builders.QueryVariable:
    variable = builders.QueryVariable(name).label(label).description(description)
    ref = "PrometheusVariableQueryEditor-VariableQuery"
    variable = variable.datasource(DATA_SOURCE).sort(models.VariableSort.ALPHABETICAL_ASC)
    variable = variable.query({"qryType": type_, "query": query, "refId": ref})
    return variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)


def _multi(variable: builders.QueryVariable) -> builders.QueryVariable:
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).current(everything)


def account_group() -> builders.QueryVariable:
    """Return the account group variable; `All` includes series without the label."""
    series = "query_result(aid:thousandeyes_endpoint_account_group_info:name)"
    variable = _query("aid", "Account group", "Name, or id without one.", series, QUERY_RESULT)
    pattern = r'/(?:\baccount_group="(?<text>[^"]+)".*)?\baid="(?<value>[^"]+)"/'
    return _multi(variable.regex(pattern)).all_value(".*")


def protocol() -> builders.QueryVariable:
    """Return the protocol variable."""
    sessions = q.endpoint("sessions", 'aid=~"$aid"')
    values = f"label_values({sessions}, protocol)"
    return _multi(_query("protocol", "Protocol", "Protocols of the sites.", values)).all_value(".*")


def site(*, every: bool = True) -> builders.QueryVariable:
    """Return the site variable; `every` is whether it has the option `All`."""
    values = f"label_values({q.recorded('aid_site', 'sessions', 'count')}, site)"
    variable = _query("site", "Site", "Visited sites.", values)
    return _multi(variable).all_value(".*") if every else variable.multi(True)


def location() -> builders.QueryVariable:
    """Return the location variable."""
    count = "agent_local_network_round_timestamp_seconds"
    values = f"label_values({q.recorded('aid_location', count, 'count')}, location)"
    variable = _query("location", "Location", "Locations of the agents.", values)
    return _multi(variable).all_value(".*")


def agent() -> builders.QueryVariable:
    """Return the agent variable: the agent name, or the id of an agent whose name is unknown."""
    variable = _query("agent", "Agent", "Agent name.", f"query_result({q.ONE_INFO})", QUERY_RESULT)
    return variable.regex(r'/\bagent="(?<value>[^"]+)"(?:.*agent_name="(?<text>[^"]+)")?/')


def instance() -> builders.QueryVariable:
    """Return the exporter variable; `All` lists them, as other jobs have process metrics too."""
    values = "label_values(thousandeyes_exporter_build_info, instance)"
    return _multi(_query("instance", "Exporter", "Scrape address of the exporter.", values))


def choice(
    name: str, label: str, description: str, values: Mapping[str, str]
) -> builders.CustomVariable:
    """Return a variable with fixed values, given by title; the first is the default."""
    titled = [models.VariableOption(text=title, value=value) for title, value in values.items()]
    titled[0].selected = True
    variable = builders.CustomVariable(name).label(label).description(description)
    variable = variable.values(",".join(f"{title} : {value}" for title, value in values.items()))
    return variable.current(titled[0]).options(titled)


class _PrometheusAnnotation(models.AnnotationQuery):
    """An annotation query of a Prometheus data source, which the SDK does not have."""

    def to_json(self) -> dict[str, object]:
        payload = super().to_json()
        target = {"refId": "Anno", "interval": MIN_INTERVAL, "datasource": DATA_SOURCE}
        return payload | {
            "target": target | {"expr": payload.pop("expr")},
            "titleFormat": "{{alertname}}",
            "textFormat": "{{severity}} {{site}} {{location}} {{vpn}}",
            "tagKeys": "severity",
        }


def build(
    uid: str,
    title: str,
    description: str,
    *,
    variables: Sequence[Builder[models.VariableModel]],
    intro: Panel,
    rows: Mapping[str, Sequence[Panel]],
    alerts: str,
) -> models.Dashboard:
    """Build a dashboard; `alerts` are the matchers of the alerts that its graphs mark."""
    links = builders.DashboardLink("ThousandEyes").type(models.DashboardLinkType.DASHBOARDS)
    links = links.tags([TAG]).as_dropdown(False).include_vars(True).keep_time(True)
    board = builders.Dashboard(title).uid(f"thousandeyes-{uid}").description(description)
    board = board.tags([TAG]).link(links).variables(list(variables)).editable()
    board = board.refresh("1m").time("now-6h", "now").timezone("browser")
    board = board.tooltip(models.DashboardCursorSync.CROSSHAIR)
    annotation: models.AnnotationQuery = _PrometheusAnnotation(
        name="Alerts", datasource=DATA_SOURCE, icon_color="red", expr=q.firing(alerts), enable=True
    )
    board = board.annotation(Built(annotation)).with_panel(intro.id(1))
    number = 1
    for row, panels in rows.items():
        number += 1
        board = board.with_row(builders.Row(row).id(number))
        for panel in panels:
            number += 1
            board = board.with_panel(panel.id(number))
    return board.build()
