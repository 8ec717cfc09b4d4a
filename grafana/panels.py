"""Panels with the common look of all dashboards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus
from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions, YAxisConfig
from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.text import Panel as Text
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import text as text_models

from grafana import queries as q

Panel = Any  # the builders of the panel types share methods, but no base class
T = TypeVar("T")

override = models.DynamicConfigValue
"""An override of one property of a series or a column: its name and its value."""

DATA_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
MIN_INTERVAL = "1m"
"""The exporter polls once a minute, so a smaller step shows nothing new."""

GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
BLUE, PURPLE, TEXT = "blue", "purple", "text"
MUTED = {GREEN: "dark-green", TEXT: "#585C66"}
"""Colors of a background, on which good values should not attract attention."""
SERIES_COLORS = {
    **dict.fromkeys(("mean", "latency", "direct", "series", "sites", "connection"), BLUE),
    **dict.fromkeys(("p50", "remaining", "gateway", "battery", "signal"), GREEN),
    **dict.fromkeys(("p95", "p05", "max", "VPN", "CPU", "loss"), ORANGE),
    **dict.fromkeys(("429 per minute", "folded"), RED),
    **dict.fromkeys(("jitter", "proxy", "memory"), PURPLE),
    **dict.fromkeys(("all agents", "limit", "interval", "skipped", "all agents, same sites"), TEXT),
    **dict.fromkeys(("free disk", "agent"), TEXT),
}
"""Fixed colors of series with these names, the same on all dashboards."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Grafana's standard options for a kind of value."""

    unit: str = "short"
    thresholds: tuple[tuple[str, float | None], ...] = ((TEXT, None),)
    """Color and lower bound, ascending."""
    decimals: int | None = None
    min: float = 0.0
    max: float | None = None
    soft_max: float | None = None
    """What the axis of a graph reaches at least: without it, one of zeros reaches 10,000%."""
    mappings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Text and color shown instead of a value."""

    @property
    def steps(self) -> list[models.Threshold]:
        """The thresholds as Grafana has them."""
        return [models.Threshold(color=color, value=value) for color, value in self.thresholds]

    @property
    def has_thresholds(self) -> bool:
        """Whether some values are good and others bad."""
        return len(self.thresholds) > 1


def lower_is_better(unit: str, warning: float, critical: float, **standard: Any) -> Quantity:
    """Return a quantity that is yellow and red from the given values."""
    return Quantity(unit, ((GREEN, None), (YELLOW, warning), (RED, critical)), **standard)


def flag(one: str, zero: str) -> Quantity:
    """Return a quantity that is 1 (good) or 0 (bad), shown as text."""
    mappings = {"1": (one, GREEN), "0": (zero, RED)}
    return Quantity("none", ((RED, None), (GREEN, 1)), mappings=mappings)


LATENCY = lower_is_better("s", q.LATENCY_THRESHOLD / 2, q.LATENCY_THRESHOLD)
LOSS = lower_is_better("percentunit", 0.01, q.LOSS_THRESHOLD, decimals=1, soft_max=0.05)
JITTER = lower_is_better("s", 0.03, q.JITTER_THRESHOLD)
SCORE = Quantity("none", ((RED, None), (YELLOW, 0.5), (GREEN, 0.7)), decimals=2, max=1)
CPU = lower_is_better("percentunit", 0.8, q.CPU_THRESHOLD, max=1)
MEMORY = lower_is_better("percentunit", 0.85, q.MEMORY_THRESHOLD, max=1)
AFFECTED = lower_is_better("percentunit", 0.05, 0.2, decimals=1, max=1)
DATA_AGE = lower_is_better("s", q.STALE_WARNING_SECONDS, q.STALE_SECONDS)
POLL_AGE = lower_is_better("s", 750, 1500)
ALERT_COUNT = Quantity("none", ((GREEN, None), (RED, 1)))
GATEWAY = lower_is_better("s", 0.02, q.GATEWAY_THRESHOLD)
VPN = lower_is_better("s", 0.1, q.VPN_THRESHOLD)
DNS = lower_is_better("s", 0.1, q.DNS_THRESHOLD)
WIFI = Quantity(
    "suffix:dBm",
    ((RED, None), (YELLOW, q.WIFI_THRESHOLD), (GREEN, -70)),
    decimals=0,
    min=-100,
    max=-30,
)
LINK = Quantity("bps")
FREE_DISK = Quantity("percentunit", ((RED, None), (YELLOW, 0.05), (TEXT, 0.1)))
COUNT, SECONDS, BYTES = Quantity(), Quantity("s"), Quantity("bytes")
RATIO, SHARE = Quantity("percentunit"), Quantity("percentunit", max=1)


def query(expr: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    """Return a range query."""
    builder = prometheus.Dataquery().expr(expr).ref_id(ref).datasource(DATA_SOURCE).range()
    builder = builder.interval(MIN_INTERVAL).legend_format(legend or "__auto")
    return builder.editor_mode(prometheus_models.QueryEditorMode.CODE)


def text(title: str, markdown: str, *, height: int = 3) -> Panel:
    """Return a text over the whole width."""
    panel = Text().title(title).description("How to read this dashboard.")
    return (
        panel.mode(text_models.TextMode.MARKDOWN).content(markdown.strip()).span(24).height(height)
    )


def _standard(panel: Panel, title: str, description: str, quantity: Quantity) -> Panel:
    panel = panel.title(title).description(description).datasource(DATA_SOURCE)
    panel = panel.interval(MIN_INTERVAL).unit(quantity.unit).no_value("No data")
    absolute = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
    panel = panel.thresholds(absolute.steps(quantity.steps))
    if quantity.decimals is not None:
        panel = panel.decimals(quantity.decimals)
    if quantity.max is not None:
        panel = panel.max(quantity.max)
    if quantity.mappings:
        results = {
            value: models.ValueMappingResult(text=shown, color=color, index=index)
            for index, (value, (shown, color)) in enumerate(quantity.mappings.items())
        }
        panel = panel.mappings([models.ValueMap(options=results)])
    return panel


def _last_value() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def stat(
    title: str,
    description: str,
    expr: str,
    quantity: Quantity = COUNT,
    *,
    width: int = 4,
    legend: str = "",
) -> Panel:
    """Return a panel with the current value; with `legend`, with the name of the series instead."""
    shown = options.BigValueTextMode.NAME if legend else options.BigValueTextMode.VALUE
    panel = _standard(Stat(), title, description, quantity)
    panel = panel.with_target(query(expr, legend).instant()).reduce_options(_last_value())
    panel = panel.graph_mode(options.BigValueGraphMode.NONE).text_mode(shown)
    return panel.color_mode(options.BigValueColorMode.VALUE).span(width).height(4)


def leg(
    title: str, description: str, values: Mapping[str, tuple[str, Quantity]], *, width: int = 4
) -> Panel:
    """Return a panel with several values, given as name to query and quantity, with colors."""
    panel = _standard(Stat(), title, description, COUNT).no_value("not measured")
    for ref, (name, (expr, quantity)) in zip(ascii_uppercase, values.items(), strict=False):
        panel = panel.with_target(query(expr, name, ref).instant())
        steps = [
            models.Threshold(each.value, MUTED.get(each.color, each.color))
            for each in quantity.steps
        ]
        thresholds = {"mode": "absolute", "steps": steps}
        properties = [override("unit", quantity.unit), override("thresholds", thresholds)]
        if quantity.decimals is not None:
            properties.append(override("decimals", quantity.decimals))
        panel = panel.override_by_name(name, properties)
    panel = panel.reduce_options(_last_value()).graph_mode(options.BigValueGraphMode.NONE)
    panel = panel.text_mode(options.BigValueTextMode.VALUE_AND_NAME)
    panel = panel.text(common.VizTextDisplayOptions().title_size(16).value_size(24))
    panel = panel.orientation(options.VizOrientation.HORIZONTAL)
    return panel.color_mode(options.BigValueColorMode.BACKGROUND_SOLID).span(width).height(6)


def timeseries(
    title: str,
    description: str,
    series: Mapping[str, str],
    quantity: Quantity = COUNT,
    *,
    width: int = 12,
    height: int = 8,
    bars: bool = False,
) -> Panel:
    """Return series over time, given as legend to query; thresholds are dashed lines."""
    panel = _standard(TimeSeries(), title, description, quantity).min(quantity.min)
    panel = panel.span(width).height(height).line_width(1).span_nulls(180_000.0)
    if quantity.soft_max is not None:
        panel = panel.axis_soft_max(quantity.soft_max)
    panel = panel.show_points(options.VisibilityMode.NEVER).fill_opacity(60 if bars else 0)
    panel = panel.draw_style(options.GraphDrawStyle.BARS if bars else options.GraphDrawStyle.LINE)
    for ref, (legend, expr) in zip(ascii_uppercase, series.items(), strict=False):
        panel = panel.with_target(query(expr, legend, ref))
    tooltip = common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI)
    panel = panel.tooltip(tooltip.sort(options.SortOrder.DESCENDING))
    panel = panel.legend(_legend(many=width >= 10 and any("{{" in name for name in series)))
    dashed = options.GraphThresholdsStyleMode.DASHED
    style = dashed if quantity.has_thresholds else options.GraphThresholdsStyleMode.OFF
    panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    # By the order of the series: the palette by name gives several series the same color.
    palette = dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC)
    panel = panel.color_scheme(palette)
    for name in filter(SERIES_COLORS.__contains__, series):
        fixed = {"mode": "fixed", "fixedColor": SERIES_COLORS[name]}
        panel = panel.override_by_name(name, [override("color", fixed)])
    return panel


def _legend(*, many: bool) -> common.VizLegendOptions:
    """Return a table beside the graph for many series, a list below it for a few."""
    table, right = options.LegendDisplayMode.TABLE, options.LegendPlacement.RIGHT
    list_, bottom = options.LegendDisplayMode.LIST, options.LegendPlacement.BOTTOM
    legend = common.VizLegendOptions().show_legend(True).sort_by("Last *").sort_desc(True)
    legend = legend.calcs(["lastNotNull"] if many else ["lastNotNull", "max"])
    return legend.display_mode(table if many else list_).placement(right if many else bottom)


DASHED = [
    override("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
    override("custom.fillOpacity", 0),
]


def right_axis(unit: str, maximum: float, label: str) -> list[models.DynamicConfigValue]:
    """Return overrides for a second axis on the right."""
    return [
        override("unit", unit),
        override("max", maximum),
        override("custom.axisPlacement", "right"),
        override("custom.axisLabel", label),
        override("custom.thresholdsStyle", {"mode": "off"}),
    ]


def heatmap(
    title: str, description: str, expr: str, unit: str, *, width: int = 12, height: int = 9
) -> Panel:
    """Return a heatmap of a histogram, given as a rate by `le`."""
    panel = Heatmap().title(title).description(description).datasource(DATA_SOURCE)
    panel = panel.interval(MIN_INTERVAL).span(width).height(height).no_value("No data")
    buckets = query(expr, "{{le}}").format(prometheus_models.PromQueryFormat.HEATMAP)
    panel = panel.with_target(buckets).calculate(False).cell_gap(1).show_legend()
    axis = YAxisConfig().unit(unit).axis_placement(options.AxisPlacement.LEFT)
    color = HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME)
    color = color.scheme("Oranges").scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
    panel = panel.y_axis(axis).color(color.exponent(0.5).steps(64))
    return panel.mode(options.TooltipDisplayMode.SINGLE).show_y_histogram()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: a label (without `expr`) or the value of a query."""

    title: str
    label: str = ""
    expr: str = ""
    quantity: Quantity = COUNT
    link: models.DashboardLink | None = None
    width: int | None = None
    filterable: bool = False
    hidden: bool = False
    """Whether the column only supplies labels, or the value of a link, to other columns."""

    def overrides(self) -> list[models.DynamicConfigValue]:
        """Return unit, text of an empty cell, color, link and width."""
        found = [override("noValue", "–")]
        if self.expr:
            found.append(override("unit", self.quantity.unit))
        if self.quantity.decimals is not None:
            found.append(override("decimals", self.quantity.decimals))
        if self.quantity.has_thresholds:
            # Only bad values are colored, and a missing value is not a bad one.
            steps = [{"color": "transparent", "value": None}] + [
                {
                    "color": "transparent" if color == GREEN else color,
                    "value": self.quantity.min if value is None else value,
                }
                for color, value in self.quantity.thresholds
            ]
            found.append(override("thresholds", {"mode": "absolute", "steps": steps}))
            found.append(override("color", {"mode": "thresholds"}))
            background = {"type": "color-background", "mode": "basic"}
            found.append(override("custom.cellOptions", background))
        if self.link:
            found.append(override("links", [self.link]))
        if self.filterable:
            found.append(override("custom.filterable", True))
        if self.width:
            found.append(override("custom.width", self.width))
        if self.hidden:
            found.append(override("custom.hidden", True))  # Grafana 11
            found.append(override("custom.hideFrom", {"viz": True}))  # Grafana 12
        return found


def table(
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    sort: str = "",
    ascending: bool = False,
    width: int = 24,
    height: int = 8,
) -> Panel:
    """Return a table of current values, joined on their common labels."""
    panel = Table().title(title).description(description).datasource(DATA_SOURCE)
    panel = panel.interval(MIN_INTERVAL).span(width).height(height).no_value("No data")
    panel = panel.cell_height(options.TableCellHeight.SM).unit("string")
    queried = [column for column in columns if column.expr]
    fields = {column.title: column.label for column in columns if column.label}
    for ref, column in zip(ascii_uppercase, queried, strict=False):
        # Without the metric name, a label on which the rows of two queries would differ.
        target = query(f"sum without () ({column.expr})", ref=ref).instant()
        panel = panel.with_target(target.format(prometheus_models.PromQueryFormat.TABLE))
        fields[column.title] = f"Value #{ref}" if len(queried) > 1 else "Value"
    shown = [fields[column.title] for column in columns if column.label or not column.hidden]
    for id_, settings in (
        ("merge", {}),
        ("filterFieldsByName", {"include": {"names": shown}}),
        (
            "organize",
            {
                "renameByName": {name: title for title, name in fields.items() if name in shown},
                "indexByName": {name: index for index, name in enumerate(shown)},
            },
        ),
    ):
        panel = panel.with_transformation(
            models.DataTransformerConfig(id_val=id_, options=settings)
        )
    for column in columns:
        if fields[column.title] in shown:
            panel = panel.override_by_name(column.title, column.overrides())
    if sort:
        order = common.TableSortByFieldState().display_name(sort).desc(not ascending)
        panel = panel.sort_by([order])
    return panel


@dataclass(frozen=True)
class Built(Builder[T]):
    """A finished object where the SDK expects a builder."""

    value: T

    def build(self) -> T:
        """Return the object."""
        return self.value


def with_link(panel: Panel, link: models.DashboardLink) -> Panel:
    """Add a data link to all series of a panel."""
    return panel.data_links([Built(link)])
