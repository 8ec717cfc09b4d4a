"""The snapshot and the exporter's own metrics as OTLP requests.

Prometheus' OTLP receiver makes the same series of them as of a scrape: names are those of the text
format, `_total` included, and metrics have neither unit nor scope, which receivers would append
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from itertools import compress as select
from typing import Any, Literal

import numpy as np
from isal import igzip
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE as CUMULATIVE,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    NumberDataPoint,
    Sum,
)
from prometheus_client import Metric

from exporter.metrics.exposition import BATCH_SIZE, COMPRESSION_LEVEL
from exporter.render import GroupResult, tables
from exporter.sources.site_histograms import HISTOGRAMS, SITE_SESSIONS, SITE_SESSIONS_HELP

MAX_POINTS = 10_000
"""Maximum number of data points of one request, which is then about 1.5 MB, 300 kB compressed."""

Labels = Iterable[tuple[str, str]]
Kind = Literal["gauge", "sum", "histogram"]
Family = tuple[str, str, Kind, Sequence[Any]]
"""Name, help text, kind, and data points."""
DATA: dict[Kind, Any] = {
    "gauge": Gauge(),
    "sum": Sum(aggregation_temporality=CUMULATIVE, is_monotonic=True),
    "histogram": Histogram(aggregation_temporality=CUMULATIVE),
}


@dataclass(frozen=True, slots=True)
class Period:
    """Times of all data points of one push, Unix nanoseconds."""

    start: int
    """When counters and histograms were 0."""
    end: int
    """When the values were collected."""

    def number(self, kind: Kind, labels: Labels, value: float = 0.0) -> NumberDataPoint:
        """Make the data point of a gauge or counter."""
        return NumberDataPoint(
            attributes=_attributes(labels),
            start_time_unix_nano=self.start if kind == "sum" else 0,
            time_unix_nano=self.end,
            as_double=value,
        )

    def histogram(
        self, labels: Labels, bounds: Sequence[float], buckets: Sequence[float], total: float
    ) -> HistogramDataPoint:
        """Make a histogram of cumulative buckets, which end with that of infinity."""
        return HistogramDataPoint(
            attributes=_attributes(labels),
            start_time_unix_nano=self.start,
            time_unix_nano=self.end,
            explicit_bounds=bounds,
            bucket_counts=np.diff(buckets, prepend=0).astype(int).tolist(),
            count=int(buckets[-1]),
            sum=total,
        )


def requests(
    own: Iterable[Metric],
    groups: Sequence[GroupResult],
    period: Period,
    resource: Mapping[str, str],
) -> Iterator[tuple[bytes, int]]:
    """Yield requests, made one by one, so that only one is in memory.

    Args:
        own: The exporter's own metrics.
        groups: What is published.
        period: Times of the data points.
        resource: Attributes of the exporter.

    Yields:
        An `ExportMetricsServiceRequest` compressed with gzip, and the number of its data points.
    """
    message, count = ExportMetricsServiceRequest(), 0
    for name, help_, kind, points in chain(_own(own, period), _published(groups, period)):
        start = 0
        while part := points[start : start + min(BATCH_SIZE, MAX_POINTS - count)]:
            if not count:
                message = ExportMetricsServiceRequest()
                parent = message.resource_metrics.add()
                parent.resource.attributes.extend(_attributes(resource.items()))
                metrics = parent.scope_metrics.add().metrics
            metric = metrics.add(name=name, description=help_, **{kind: DATA[kind]})
            getattr(metric, kind).data_points.extend(part)
            start, count = start + len(part), count + len(part)
            if count == MAX_POINTS:
                yield _encode(message), count
                count = 0
    if count:
        yield _encode(message), count


def _encode(message: ExportMetricsServiceRequest) -> bytes:
    return igzip.compress(message.SerializeToString(), COMPRESSION_LEVEL)


def _attributes(labels: Labels) -> list[KeyValue]:
    """Return labels as attributes; an empty value is the same as no label, and is omitted."""
    return [KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in labels if v]


def _own(own: Iterable[Metric], period: Period) -> Iterator[Family]:
    for metric in own:
        if metric.type == "histogram":
            points = []
            for labels, series in groupby(metric.samples, lambda each: _without_le(each.labels)):
                samples = list(series)
                buckets = {x.labels["le"]: x.value for x in samples if "le" in x.labels}
                (total,) = (x.value for x in samples if x.name.endswith("_sum"))
                bounds = [float(bound) for bound in buckets][:-1]
                points.append(period.histogram(labels, bounds, [*buckets.values()], total))
            yield metric.name, metric.documentation, "histogram", points
        elif metric.samples:
            kind: Kind = "sum" if metric.type == "counter" else "gauge"
            numbers = [period.number(kind, x.labels.items(), x.value) for x in metric.samples]
            yield metric.samples[0].name, metric.documentation, kind, numbers


def _without_le(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in labels.items() if name != "le"]


def _published(groups: Sequence[GroupResult], period: Period) -> Iterator[Family]:
    """Yield the families of the snapshot.

    Data points are valid until the next step: the families of a table share them, because most of
    the time is spent on attributes.
    """
    for group in groups:
        for table in tables(group):
            labels = ("aid", *table.labels)
            keys = (zip(labels, (group.group.aid, *key), strict=True) for key in table.keys)
            points = [period.number("gauge", key) for key in keys]
            for family in table.families:
                column = table.columns[family.short_name]
                present = ~np.isnan(column)  # NaN: no sample
                selected = list(select(points, present.tolist()))
                for point, value in zip(selected, column[present].tolist(), strict=True):
                    point.as_double = value
                yield family.name, family.help, "gauge", selected
        sites = [
            ((("aid", group.group.aid), ("site", key.site), ("protocol", key.protocol)), metrics)
            for key, metrics in group.sessions.sites.items()
        ]
        for index, each in enumerate(HISTOGRAMS):
            histograms = [(key, metrics.histograms[index]) for key, metrics in sites]
            yield (
                each.name,
                each.help,
                "histogram",
                [
                    period.histogram(key, each.buckets, histogram.buckets, histogram.sum)
                    for key, histogram in histograms
                ],
            )
        sessions = [period.number("sum", key, metrics.sessions) for key, metrics in sites]
        yield f"{SITE_SESSIONS}_total", SITE_SESSIONS_HELP, "sum", sessions
