"""How the dashboards look: panels, variables, thresholds, links.

What they show stands in the file of each dashboard.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, text
from grafana_foundation_sdk.builders import timeseries as graph
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import text as text_models

from grafana import queries as q

Panel = Any  # the builders of the panel types share methods, not a base class
P = TypeVar("P")

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "thousandeyes"
STEP = "1m"
"""The data are no finer: a poll a minute."""

GREEN, YELLOW, RED, BLUE, GREY, PURPLE = "green", "yellow", "red", "blue", "text", "purple"
PALETTE = {
    "mean": BLUE, "p50": GREEN, "p95": "orange", "p05": "orange",
    "latency": BLUE, "loss": RED, "jitter": PURPLE, "all agents": GREY,
    "direct": BLUE, "VPN": "orange", "proxy": PURPLE, "left": GREEN, "granted": GREY, "429 a minute": RED,
    "series": BLUE, "limit": GREY, "interval": GREY, "folded": RED, "left out": GREY,
}  # fmt: skip
"""One colour for one thing, on every dashboard."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity: its unit as Grafana calls it, and from where on it is bad, as (colour, from) in rising order."""

    unit: str = "short"
    steps: tuple[tuple[str, float | None], ...] = ((GREY, None),)
    decimals: int | None = None
    high: float | None = None
    """Where the axis ends, for a quantity that has an end."""
    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Values that have a name: its text and its colour."""

    @property
    def limited(self) -> bool:
        """Whether any value is good or bad."""
        return len(self.steps) > 1


def rising(unit: str, yellow: float, red: float, **more: Any) -> Measure:
    """Return a quantity of which more is worse."""
    return Measure(unit, ((GREEN, None), (YELLOW, yellow), (RED, red)), **more)


LATENCY = rising("s", q.LATENCY_LIMIT / 2, q.LATENCY_LIMIT)
LOSS = rising("percentunit", 0.01, q.LOSS_LIMIT, decimals=1)
JITTER = rising("s", 0.03, q.JITTER_LIMIT)
SCORE = Measure("none", ((RED, None), (YELLOW, 0.5), (GREEN, 0.7)), decimals=2, high=1)
CPU = rising("percentunit", 0.8, q.CPU_LIMIT, high=1)
MEMORY = rising("percentunit", 0.85, q.MEMORY_LIMIT, high=1)
AFFECTED = rising("percentunit", 0.05, 0.2, decimals=1, high=1)
AGE = rising("s", q.STALE, q.STALE_FOR_LONG)
ALERTS = Measure("none", ((GREEN, None), (RED, 1)))
COUNT, SECONDS, BYTES = Measure(), Measure("s"), Measure("bytes")
SHARE, RATIO = Measure("percentunit", high=1), Measure("percentunit")


def yes_no(yes: str, no: str) -> Measure:
    """Return what is 1 or 0, in words."""
    return Measure("none", ((RED, None), (GREEN, 1)), names={"1": (yes, GREEN), "0": (no, RED)})


# Queries.


def target(expr: str, legend: str = "", *, ref: str = "A") -> prometheus.Dataquery:
    """Return a query over time."""
    query = prometheus.Dataquery().expr(expr).ref_id(ref).interval(STEP).range().datasource(SOURCE)
    return query.editor_mode(prometheus_models.QueryEditorMode.CODE).legend_format(legend or "__auto")


def instant(expr: str, legend: str = "", *, ref: str = "A") -> prometheus.Dataquery:
    """Return a query of now alone: where nothing is now, nothing old is shown in its place."""
    return target(expr, legend, ref=ref).instant()


def _lettered(queries: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(chr(ord("A") + n), legend, expr) for n, (legend, expr) in enumerate(queries)]


# Panels.


def _measured(panel: Panel, title: str, description: str, measure: Measure) -> Panel:
    """Give a panel what all have."""
    panel = panel.title(title).description(description).datasource(SOURCE).interval(STEP).unit(measure.unit)
    panel = panel.thresholds(_thresholds(measure)).no_value("no data")
    if measure.decimals is not None:
        panel = panel.decimals(measure.decimals)
    if measure.high is not None:
        panel = panel.max(measure.high)
    if measure.names:
        results = {
            value: models.ValueMappingResult(text=word, color=colour, index=n)
            for n, (value, (word, colour)) in enumerate(measure.names.items())
        }
        panel = panel.mappings([models.ValueMap(options=results)])
    return panel


def _thresholds(measure: Measure) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(color=colour, value=value) for colour, value in measure.steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def note(title: str, content: str, *, height: int = 3) -> Panel:
    """Return a text for people over the whole width, in Markdown."""
    panel = text.Panel().title(title).description(f"What this dashboard is for: {title.lower()}")
    return panel.mode(text_models.TextMode.MARKDOWN).content(content).span(24).height(height)


def number(
    title: str, description: str, expr: str, measure: Measure = COUNT, *, width: int = 4, name: str = ""
) -> Panel:
    """Return one number of now; with `name`, the name that this legend makes of it."""
    mode = looks.BigValueTextMode.NAME if name else looks.BigValueTextMode.VALUE
    panel = _measured(stat.Panel(), title, description, measure).with_target(instant(expr, name))
    panel = panel.reduce_options(_last()).graph_mode(looks.BigValueGraphMode.NONE).text_mode(mode)
    return panel.color_mode(looks.BigValueColorMode.VALUE).span(width).height(4)


def lines(
    title: str,
    description: str,
    series: Mapping[str, str],
    measure: Measure = COUNT,
    *,
    width: int = 12,
    height: int = 8,
    bars: bool = False,
) -> Panel:
    """Return series over time, by legend; never stacked, from zero, with dashed lines at the thresholds."""
    many = width >= 10 and any("{{" in name for name in series)
    panel = _measured(graph.Panel(), title, description, measure).min(0).span(width).height(height)
    for ref, name, expr in _lettered(series.items()):
        panel = panel.with_target(target(expr, name, ref=ref))
    panel = panel.draw_style(looks.GraphDrawStyle.BARS if bars else looks.GraphDrawStyle.LINE).line_width(1)
    panel = panel.fill_opacity(60 if bars else 0).show_points(looks.VisibilityMode.NEVER).span_nulls(180_000.0)
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
    )
    panel = panel.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(looks.LegendDisplayMode.TABLE if many else looks.LegendDisplayMode.LIST)
        .placement(looks.LegendPlacement.RIGHT if many else looks.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull"] if many else ["lastNotNull", "max"])
        .sort_by("Last *")
        .sort_desc(True)
    )
    dashed = looks.GraphThresholdsStyleMode.DASHED if measure.limited else looks.GraphThresholdsStyleMode.OFF
    panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    panel = panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    for name in filter(PALETTE.__contains__, series):
        panel = panel.override_by_name(name, [colour(PALETTE[name])])
    return panel


def colour(name: str) -> models.DynamicConfigValue:
    """Return an override: one fixed colour."""
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": name})


def set_value(id_: str, value: object) -> models.DynamicConfigValue:
    """Return an override of any other property."""
    return models.DynamicConfigValue(id_, value)


DASHED = set_value("custom.lineStyle", {"fill": "dash", "dash": [8, 6]})
UNFILLED = set_value("custom.fillOpacity", 0)


def on_the_right(unit: str, high: float, label: str) -> list[models.DynamicConfigValue]:
    """Return overrides: an axis of its own on the right side, from zero to `high`."""
    return [
        set_value("unit", unit),
        set_value("max", high),
        set_value("custom.axisPlacement", "right"),
        set_value("custom.axisLabel", label),
        set_value("custom.thresholdsStyle", {"mode": "off"}),
        UNFILLED,
    ]


def ranking(
    title: str, description: str, expr: str, legend: str, measure: Measure, *, width: int, height: int
) -> Panel:
    """Return bars, one a series."""
    panel = _measured(bargauge.Panel(), title, description, measure).with_target(instant(expr, legend)).min(0)
    panel = panel.reduce_options(_last()).orientation(looks.VizOrientation.HORIZONTAL)
    panel = panel.display_mode(looks.BarGaugeDisplayMode.BASIC).value_mode(looks.BarGaugeValueMode.COLOR)
    return panel.show_unfilled(True).name_placement(looks.BarGaugeNamePlacement.LEFT).span(width).height(height)


def buckets(title: str, description: str, expr: str, unit: str, *, width: int = 12, height: int = 9) -> Panel:
    """Return a heatmap of a histogram, given as a rate by `le`."""
    panel = heatmap.Panel().title(title).description(description).datasource(SOURCE).interval(STEP)
    query = target(expr, "{{le}}").format(prometheus_models.PromQueryFormat.HEATMAP)
    panel = panel.with_target(query).calculate(False).span(width).height(height).no_value("no data")
    panel = panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(looks.AxisPlacement.LEFT))
    panel = panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
    )
    return panel.cell_gap(1).show_legend().mode(looks.TooltipDisplayMode.SINGLE).show_y_histogram()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: of a label (without an expression), or of the value of an expression."""

    title: str
    label: str = ""
    expr: str = ""
    measure: Measure = COUNT
    link: models.DashboardLink | None = None
    width: int | None = None
    hidden: bool = False
    """Asked for its labels alone."""


def rows(
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    sort: str = "",
    ascending: bool = False,
    width: int = 24,
    height: int = 8,
    empty: str = "no data",
) -> Panel:
    """Return a table: the values of now, joined by the labels that they have in common."""
    panel = table.Panel().title(title).description(description).datasource(SOURCE).interval(STEP).span(width)
    panel = panel.height(height).no_value(empty).cell_height(looks.TableCellHeight.SM).unit("string")
    valued = [column for column in columns if column.expr]
    names: dict[str, str] = {column.label: column.title for column in columns if column.label}
    excluded = {"Time": True}
    for ref, _, expr in _lettered((column.title, column.expr) for column in valued):
        panel = panel.with_target(instant(expr, ref=ref).format(prometheus_models.PromQueryFormat.TABLE))
        source = f"Value #{ref}" if len(valued) > 1 else "Value"
        column = valued[ord(ref) - ord("A")]
        if column.hidden:
            excluded[source] = True
        else:
            names[source] = column.title
    order = [name for column in columns for name, title_ in names.items() if title_ == column.title]
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(
        models.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": order}})
    )
    panel = panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "renameByName": names,
                "indexByName": {name: n for n, name in enumerate(order)},
                "excludeByName": excluded,
            },
        )
    )
    for column in columns:
        if not column.hidden and (properties := _column(column)):
            panel = panel.override_by_name(column.title, properties)
    if sort:
        panel = panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(not ascending)])
    return panel


def _cell_steps(measure: Measure) -> list[tuple[str, float | None]]:
    """Return the thresholds of a cell: only what is bad has a colour, and what is missing is not bad."""
    shown = [("transparent" if name == GREEN else name, value or 0) for name, value in measure.steps]
    return [("transparent", None), *shown]


def _column(column: Column) -> list[models.DynamicConfigValue]:
    measure = column.measure
    properties = []
    if column.expr:
        properties += [set_value("unit", measure.unit)]
        if measure.decimals is not None:
            properties.append(set_value("decimals", measure.decimals))
        if measure.limited:
            steps = [{"color": name, "value": value} for name, value in _cell_steps(measure)]
            properties.append(set_value("thresholds", {"mode": "absolute", "steps": steps}))
            properties.append(set_value("color", {"mode": "thresholds"}))
            properties.append(set_value("custom.cellOptions", {"type": "color-background", "mode": "basic"}))
    if column.link:
        properties.append(set_value("links", [column.link]))
    if column.width:
        properties.append(set_value("custom.width", column.width))
    return properties


# Links: they keep what is selected, and the time range.

KEPT = "${datasource:queryparam}&${aid:queryparam}&${protocol:queryparam}&${__url_time_range}"


def _link(title: str, board: str, variable: str, value: str, kept: str = KEPT) -> models.DashboardLink:
    url = f"/d/thousandeyes-{board}?var-{variable}={value}&{kept}"
    return dashboard.DashboardLink(title).url(url).type(models.DashboardLinkType.LINK).build()


def to_site(field_name: str = "Site") -> models.DashboardLink:
    """Return a link to the dashboard of the site in a column of the same row."""
    return _link("Show this site", "site", "site", f"${{__data.fields.{field_name}:percentencode}}")


def to_agent() -> models.DashboardLink:
    """Return a link to the dashboard of the agent in the column `Id` of the same row."""
    return _link("Show this agent", "agent", "agent", "${__data.fields.Id:percentencode}")


def series_to_site() -> models.DashboardLink:
    """Return a link to the dashboard of the site of a series."""
    return _link("Show this site", "site", "site", "${__field.labels.site:percentencode}")


def linked(panel: Panel, link: models.DashboardLink) -> Panel:
    """Make every value of a panel lead somewhere."""
    return panel.data_links([Ready(link)])


@dataclass(frozen=True)
class Ready(Builder[P]):
    """A part that is built already, where the library wants a builder."""

    part: P

    def build(self) -> P:
        """Return it."""
        return self.part


# Variables.


def _query(name: str, label: str, kind: int, text_: str, description: str) -> dashboard.QueryVariable:
    query = {"qryType": kind, "query": text_, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    variable = dashboard.QueryVariable(name).label(label).description(description).datasource(SOURCE).query(query)
    return variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)


def _many(variable: dashboard.QueryVariable) -> dashboard.QueryVariable:
    """Let several be chosen, and all at first."""
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).current(everything)


LABEL_VALUES, QUERY_RESULT = 1, 3


def data_source() -> dashboard.DatasourceVariable:
    """Return which Prometheus is asked."""
    variable = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return variable.description("The Prometheus that scrapes the exporter.")


def account_group() -> dashboard.QueryVariable:
    """Return which account groups are shown; the label is missing while the id is unknown, so all is really all."""
    text_ = "label_values(thousandeyes_up, aid)"
    return _many(_query("aid", "Account group", LABEL_VALUES, text_, "Ids of account groups.")).all_value(".*")


def protocol() -> dashboard.QueryVariable:
    """Return which protocols are shown."""
    text_ = f"label_values({q.endpoint('sessions', AID)}, protocol)"
    return _many(_query("protocol", "Protocol", LABEL_VALUES, text_, "Protocols of the sites.")).all_value(".*")


def site() -> dashboard.QueryVariable:
    """Return which sites are shown."""
    text_ = f"label_values({q.endpoint('sessions', AID + PROTOCOL)}, site)"
    return _many(_query("site", "Site", LABEL_VALUES, text_, "The sites that agents visit.")).all_value(".*")


AID, PROTOCOL = 'aid=~"$aid"', ', protocol=~"$protocol"'
VISITOR = f'{AID}, agent!="__other__"'


def agent() -> dashboard.QueryVariable:
    """Return which agent is shown: chosen by name, or by id where the name is not known."""
    visitors = f"group by (aid, agent) ({q.endpoint('sessions', VISITOR)})"
    text_ = f"query_result({q.ONE_INFO} or on (aid, agent) {visitors})"
    variable = _query("agent", "Agent", QUERY_RESULT, text_, "An agent, by its name.")
    return variable.regex(r'/\bagent="(?<value>[^"]+)"(?:.*agent_name="(?<text>[^"]+)")?/')


def instance() -> dashboard.QueryVariable:
    """Return which exporters are shown; all are those that there are, for the metrics of processes are everybody's."""
    text_ = "label_values(thousandeyes_exporter_build_info, instance)"
    return _many(_query("instance", "Exporter", LABEL_VALUES, text_, "Where Prometheus scrapes the exporter."))


def choice(name: str, label: str, options: Mapping[str, str], description: str) -> dashboard.CustomVariable:
    """Return a choice of values by their titles; the first at first."""
    values = ",".join(f"{title} : {value}" for title, value in options.items())
    title, value = next(iter(options.items()))
    chosen = models.VariableOption(selected=True, text=title, value=value)
    offered = [models.VariableOption(selected=n == 0, text=t, value=v) for n, (t, v) in enumerate(options.items())]
    variable = dashboard.CustomVariable(name).label(label).values(values).current(chosen).options(offered)
    return variable.description(description)


# Dashboards.


class Annotation(models.AnnotationQuery):
    """An annotation of Prometheus; the library knows only those of Grafana's own store."""

    def to_json(self) -> dict[str, object]:
        """Return it with the query where Prometheus' annotations have it."""
        payload = super().to_json()
        expr = payload.pop("expr")
        return payload | {
            "target": {"expr": expr, "refId": "Anno", "interval": STEP, "datasource": SOURCE},
            "titleFormat": "{{alertname}}",
            "textFormat": "{{severity}} {{site}}",
            "tagKeys": "severity",
        }


def alerts(scope: str) -> Ready[models.AnnotationQuery]:
    """Return marks on every graph for the time in which an alert fires."""
    colour_ = "red"
    return Ready(Annotation(name="Alerts", datasource=SOURCE, icon_color=colour_, expr=q.firing(scope), enable=True))


def board(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[Builder[models.VariableModel]],
    panels: Sequence[Panel],
    *,
    alert_scope: str,
    since: str = "now-6h",
) -> models.Dashboard:
    """Return a dashboard; it shows the last `since`."""
    links = (
        dashboard.DashboardLink("ThousandEyes")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )
    built = dashboard.Dashboard(title).uid(f"thousandeyes-{uid}").description(description).tags([TAG]).link(links)
    built = built.refresh("1m").time(since, "now").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    built = built.variables(list(variables)).annotation(alerts(alert_scope)).editable()
    for n, panel in enumerate(panels, 1):
        built = built.with_panel(panel.id(n))
    return built.build()
