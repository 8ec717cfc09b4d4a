"""OTLP requests have the samples of the text format."""

import gzip
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from factories import parse, text_of
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from prometheus_client.utils import floatToGoString

from exporter.account_group import AccountGroup
from exporter.app import Exporter
from exporter.metrics.exposition import Format
from exporter.metrics.families import SeriesTable
from exporter.metrics.self_metrics import SelfMetrics
from exporter.otlp.convert import Period, requests
from exporter.render import GroupResult, render
from exporter.settings import load
from exporter.sources.results import Result, SessionsResult
from exporter.sources.sessions import SERIES
from exporter.sources.site_histograms import HISTOGRAMS, Histogram, SiteKey, SiteMetrics

PERIOD = Period(1_795_012_350_000_000_000, 1_795_012_410_000_000_000)
RESOURCE = {"service.name": "thousandeyes", "service.instance.id": "host:9350"}
VOLATILE = ("process_", "python_gc_")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def group(aid: str, name: str = "", series: int = 3) -> GroupResult:
    """Return results of all kinds of metrics; every other value is missing."""
    keys = [(f"agent {number}", "" if number else 'a"ä\n', "https") for number in range(series)]
    families = SERIES.families[:3]
    columns = {
        family.short_name: np.where(np.arange(series) % 2 == offset % 2, math.nan, offset + 0.1)
        for offset, family in enumerate(families)
    }
    counts = [tuple(range(5, 6 + len(each.buckets))) for each in HISTOGRAMS]
    site = SiteMetrics(7, tuple(Histogram(buckets, 0.3) for buckets in counts))
    table = SeriesTable(SERIES.labels, families, keys, columns)
    sites = {SiteKey("site", "https"): site, SiteKey("other", ""): site}
    sessions = SessionsResult([table], True, series, sites=sites)
    return GroupResult(AccountGroup(aid, name), {"sessions": sessions, "agents": Result()})


def decode(body: bytes) -> list[Any]:
    message: Any = ExportMetricsServiceRequest.FromString(gzip.decompress(body))
    (resource,) = message.resource_metrics
    attributes = resource.resource.attributes
    assert {each.key: each.value.string_value for each in attributes} == RESOURCE
    return list(resource.scope_metrics[0].metrics)


def points(metric: Any) -> Any:
    return getattr(metric, metric.WhichOneof("data")).data_points


def samples(metrics: list[Any]) -> Samples:
    """Return what a receiver of Prometheus makes of metrics."""
    found: Samples = {}

    def add(name: str, point: Any, value: float, **labels: str) -> None:
        pairs = [(each.key, each.value.string_value) for each in point.attributes]
        key = name, frozenset([*pairs, *labels.items()])
        assert key not in found
        found[key] = value

    for metric in metrics:
        assert metric.unit == ""
        kind = metric.WhichOneof("data")
        if kind != "gauge":
            data = getattr(metric, kind)
            assert data.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
        assert kind != "sum" or metric.sum.is_monotonic
        for point in points(metric):
            assert point.time_unix_nano == PERIOD.end
            assert point.start_time_unix_nano == (0 if kind == "gauge" else PERIOD.start)
            if kind != "histogram":
                add(metric.name, point, point.as_double)
                continue
            add(f"{metric.name}_sum", point, point.sum)
            add(f"{metric.name}_count", point, point.count)
            bounds = [*point.explicit_bounds, math.inf]
            for bound, count in zip(bounds, np.cumsum(point.bucket_counts), strict=True):
                add(f"{metric.name}_bucket", point, count, le=floatToGoString(bound))
    return found


def test_requests_have_the_samples_and_help_of_the_text() -> None:
    """A large snapshot is split into several requests."""
    groups, metrics = [group("7", "Name"), group("8", series=8000), group("")], SelfMetrics()
    metrics.session_commit_delay.labels("7").observe(3)
    metrics.session_commit_delay.labels("").observe(1e6)
    snapshot = render(groups)
    text = text_of(snapshot.common, snapshot.tails[Format.TEXT]) + metrics.render(Format.TEXT)
    own = metrics.registry.collect()
    bodies, sizes = zip(*requests(own, groups, PERIOD, RESOURCE), strict=True)
    decoded = [decode(body) for body in bodies]
    found = [metric for each in decoded for metric in each]
    expected, actual = (
        {
            (name, frozenset(label for label in labels if label[1])): value
            for (name, labels), value in each.items()
            if not name.startswith(VOLATILE)
        }
        for each in (parse(text), samples(found))
    )
    assert actual == expected
    assert [sum(len(points(metric)) for metric in each) for each in decoded] == list(sizes)
    assert len(sizes) == 2
    assert max(sizes) <= 10_000
    assert {f"# HELP {each.name} {each.description}" for each in found} <= {*text.splitlines()}


@pytest.mark.parametrize("flags", [[], ["--otlp.endpoint=http://127.0.0.1:1"]])
async def test_own_metrics_of_pushes_are_published_with_an_endpoint_only(flags: list[str]) -> None:
    exporter = Exporter(load(["--api.token=x", *flags], {}).settings)
    assert ("_otlp_" in exporter.metrics.render(Format.TEXT)) == bool(flags)
    await exporter.close()


def test_the_exporter_does_not_import_the_libraries_of_otlp() -> None:
    program = "import sys, exporter.cli, exporter.app; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert "exporter.app" in modules
    assert not {"google.protobuf", "opentelemetry"} & set(modules)
