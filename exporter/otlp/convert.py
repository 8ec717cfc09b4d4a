"""The snapshot and the exporter's own metrics as OTLP requests.

Prometheus' OTLP receiver makes the same series of them as of a scrape: names are those of the text
format, `_total` included, and metrics have neither unit nor scope, which receivers would append
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from itertools import compress as select
from typing import Any, Literal, NamedTuple

import numpy as np
from isal import igzip
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.samples import Sample

from exporter.metrics.exposition import BATCH_SIZE, COMPRESSION_LEVEL
from exporter.render import GroupResult, tables
from exporter.sources.site_histograms import HISTOGRAMS, SITE_SESSIONS, SITE_SESSIONS_HELP

MAX_POINTS = 10_000
"""Maximum number of data points of one request, which is then about 1.5 MB, 300 kB compressed."""

Labels = Iterable[tuple[str, str]]
Kind = Literal["gauge", "sum", "histogram"]
Family = tuple[str, str, Kind, Sequence[Any]]
"""Name, help text, kind, and data points."""
CUMULATIVE = otlp.AGGREGATION_TEMPORALITY_CUMULATIVE
DATA: dict[Kind, Any] = {
    "gauge": otlp.Gauge(),
    "sum": otlp.Sum(aggregation_temporality=CUMULATIVE, is_monotonic=True),
    "histogram": otlp.Histogram(aggregation_temporality=CUMULATIVE),
}


class Period(NamedTuple):
    """Times of all data points of one push, Unix nanoseconds."""

    start: int
    """When counters and histograms were 0."""
    end: int
    """When the values were collected."""


def requests(
    own: Iterable[Metric],
    groups: Sequence[GroupResult],
    period: Period,
    resource: Mapping[str, str],
) -> Iterator[tuple[bytes, int]]:
    """Yield requests, made one by one, so that only one is in memory.

    Args:
        own: Metrics of the exporter itself.
        groups: Results of all account groups.
        period: Times of the data points.
        resource: Attributes of the exporter.

    Yields:
        An `ExportMetricsServiceRequest` compressed with gzip, and the number of its data points.
    """
    message, count = _message(resource), 0
    families = chain(_converted(chain(own, _sites(groups)), period), _tables(groups, period))
    for name, help_, kind, points in families:
        for start in range(0, len(points), BATCH_SIZE):
            part = points[start : start + BATCH_SIZE]
            if count + len(part) > MAX_POINTS:
                yield _encode(message), count
                message, count = _message(resource), 0
            metrics = message.resource_metrics[0].scope_metrics[0].metrics
            metric = metrics.add(name=name, description=help_, **{kind: DATA[kind]})
            getattr(metric, kind).data_points.extend(part)
            count += len(part)
    yield _encode(message), count


def _message(resource: Mapping[str, str]) -> ExportMetricsServiceRequest:
    message = ExportMetricsServiceRequest()
    parent = message.resource_metrics.add()
    parent.resource.attributes.extend(_attributes(resource.items()))
    parent.scope_metrics.add()
    return message


def _encode(message: ExportMetricsServiceRequest) -> bytes:
    return igzip.compress(message.SerializeToString(), COMPRESSION_LEVEL)


def _attributes(labels: Labels) -> list[KeyValue]:
    """Return labels as attributes; an empty value is the same as no label, and is omitted."""
    return [KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in labels if v]


def _number(period: Period, kind: Kind, labels: Labels, value: float = 0.0) -> Any:
    return otlp.NumberDataPoint(
        attributes=_attributes(labels),
        start_time_unix_nano=period.start if kind == "sum" else 0,
        time_unix_nano=period.end,
        as_double=value,
    )


def _histogram(period: Period, samples: Sequence[Sample]) -> Any:
    *buckets, count, total = samples
    return otlp.HistogramDataPoint(
        attributes=_attributes(count.labels.items()),
        start_time_unix_nano=period.start,
        time_unix_nano=period.end,
        explicit_bounds=[float(each.labels["le"]) for each in buckets[:-1]],
        bucket_counts=np.diff([each.value for each in buckets], prepend=0).astype(int).tolist(),
        count=int(count.value),
        sum=total.value,
    )


def _converted(metrics: Iterable[Metric], period: Period) -> Iterator[Family]:
    """Yield families of prometheus-client."""
    for metric in metrics:
        name, help_, samples = metric.name, metric.documentation, metric.samples
        if metric.type == "histogram":
            series = groupby(samples, lambda each: {**each.labels, "le": ""})
            points = [_histogram(period, list(group)) for _, group in series]
            yield name, help_, "histogram", points
        elif samples:
            kind: Kind = "sum" if metric.type == "counter" else "gauge"
            numbers = [_number(period, kind, each.labels.items(), each.value) for each in samples]
            yield samples[0].name, help_, kind, numbers


def _sites(groups: Sequence[GroupResult]) -> Iterator[Metric]:
    """Yield the histograms and counters of sites."""
    labels = ("aid", "site", "protocol")
    sites = [((g.group.aid, *key), each) for g in groups for key, each in g.sessions.sites.items()]
    for index, family in enumerate(HISTOGRAMS):
        metric = HistogramMetricFamily(family.name, family.help, labels=labels)
        for key, site in sites:
            histogram, bounds = site.histograms[index], (*map(str, family.buckets), "+Inf")
            buckets = list(zip(bounds, histogram.buckets, strict=True))
            metric.add_metric(key, buckets, histogram.sum)
        yield metric
    counter = CounterMetricFamily(SITE_SESSIONS, SITE_SESSIONS_HELP, labels=labels)
    for key, site in sites:
        counter.add_metric(key, site.sessions)
    yield counter


def _tables(groups: Sequence[GroupResult], period: Period) -> Iterator[Family]:
    """Yield the families of all tables.

    Data points are valid until the next step: the families of a table share them, because most of
    the time is spent on attributes.
    """
    for group in groups:
        for table in tables(group):
            labels = ("aid", *table.labels)
            keys = (zip(labels, (group.group.aid, *key), strict=True) for key in table.keys)
            points = [_number(period, "gauge", key) for key in keys]
            for family in table.families:
                column = table.columns[family.short_name]
                present = ~np.isnan(column)  # NaN: no sample
                selected = list(select(points, present.tolist()))
                for point, value in zip(selected, column[present].tolist(), strict=True):
                    point.as_double = value
                yield family.name, family.help, "gauge", selected
