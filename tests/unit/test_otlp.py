"""OTLP requests have the samples of the text format."""

import gzip
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from factories import text_of
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from prometheus_client.parser import text_string_to_metric_families

from exporter.account_group import AccountGroup
from exporter.metrics.exposition import Format
from exporter.metrics.families import SeriesTable
from exporter.metrics.self_metrics import SelfMetrics
from exporter.otlp.convert import Period, requests
from exporter.render import GroupResult, render
from exporter.sources.results import Result, SessionsResult
from exporter.sources.sessions import SERIES
from exporter.sources.site_histograms import HISTOGRAMS, Histogram, SiteKey, SiteMetrics

PERIOD = Period(1_795_012_350_000_000_000, 1_795_012_410_000_000_000)
RESOURCE = {"service.name": "thousandeyes", "service.instance.id": "host:9350"}
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


def own() -> SelfMetrics:
    metrics = SelfMetrics()
    metrics.initialize("7", "sessions")
    metrics.initialize_api(["/v7/agents", "/v7/sessions"], ["dns"])
    metrics.session_commit_delay.labels("7").observe(3)
    metrics.session_commit_delay.labels("").observe(1e6)
    return metrics


def decode(*bodies: bytes) -> list[Any]:
    """Return the metrics of all requests, which have the same resource."""
    messages = [ExportMetricsServiceRequest.FromString(gzip.decompress(body)) for body in bodies]
    for message in messages:
        (resource,) = message.resource_metrics
        attributes = resource.resource.attributes
        assert {each.key: each.value.string_value for each in attributes} == RESOURCE
    return [m for each in messages for m in each.resource_metrics[0].scope_metrics[0].metrics]


def samples(metrics: list[Any]) -> Samples:
    """Return what a receiver of Prometheus makes of metrics."""
    found: Samples = {}

    def add(name: str, point: Any, value: float, **labels: str) -> None:
        pairs = [(each.key, each.value.string_value) for each in point.attributes]
        key = name, frozenset([*pairs, *labels.items()])
        assert key not in found
        found[key] = value

    for metric in metrics:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        if kind != "gauge":
            assert data.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
        if kind == "sum":
            assert data.is_monotonic
        for point in data.data_points:
            assert point.time_unix_nano == PERIOD.end
            assert point.start_time_unix_nano == (0 if kind == "gauge" else PERIOD.start)
            if kind != "histogram":
                add(metric.name, point, point.as_double)
                continue
            add(f"{metric.name}_sum", point, point.sum)
            add(f"{metric.name}_count", point, point.count)
            bounds = [*point.explicit_bounds, math.inf]
            for bound, count in zip(bounds, np.cumsum(point.bucket_counts), strict=True):
                add(f"{metric.name}_bucket", point, count, le=str(bound))
    return found


def parse(text: str) -> Samples:
    found: Samples = {}
    for sample in (s for family in text_string_to_metric_families(text) for s in family.samples):
        labels = {k: str(float(v)) if k == "le" else v for k, v in sample.labels.items() if v}
        found[sample.name, frozenset(labels.items())] = sample.value
    return found


def test_requests_have_the_samples_and_help_of_the_text() -> None:
    groups, metrics = [group("7", "Name"), group("8"), group("")], own()
    snapshot = render(groups)
    text = text_of(snapshot.common, snapshot.tails[Format.TEXT]) + metrics.render(Format.TEXT)
    (body, points), *others = requests(metrics.registry.collect(), groups, PERIOD, RESOURCE)
    found = decode(body)
    volatile = ("process_", "python_gc_")
    expected, actual = (
        {key: "" if key[0].startswith(volatile) else value for key, value in each.items()}
        for each in (parse(text), samples(found))
    )
    assert others == []
    assert actual == expected
    assert points == sum(len(getattr(m, m.WhichOneof("data")).data_points) for m in found)
    assert {each.unit for each in found} == {""}
    assert [
        each.name for each in found if f"# HELP {each.name} {each.description}" not in text
    ] == []


@pytest.mark.parametrize(("series", "points"), [(6660, [10_000]), (6662, [10_000, 3])])
def test_large_snapshots_are_split(series: int, points: list[int]) -> None:
    groups = [group("7", series=series)]
    bodies, sizes = zip(*requests([], groups, PERIOD, RESOURCE), strict=True)
    assert list(sizes) == points
    snapshot = render(groups)
    text = text_of(snapshot.common, snapshot.tails[Format.TEXT])
    assert samples(decode(*bodies)) == parse(text)


def test_nothing_is_imported_or_published_without_an_endpoint() -> None:
    program = """
import asyncio, sys
from exporter.app import Exporter
from exporter.metrics.exposition import Format
from exporter.settings import load

async def run(*flags):
    flags = ["--api.url=http://127.0.0.1:1", "--api.token=x", *flags]
    exporter = Exporter(load(flags, {}).settings)
    try:
        async with asyncio.timeout(0.5):
            await exporter.run()
    except TimeoutError:
        pass
    await exporter.close()
    print(sorted({"google.protobuf", "opentelemetry"} & sys.modules.keys()))
    print("otlp" in exporter.metrics.render(Format.TEXT))

asyncio.run(run())
asyncio.run(run("--otlp.endpoint=http://127.0.0.1:1"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    expected = ["[]", "False", "['google.protobuf', 'opentelemetry']", "True"]
    assert done.stdout.splitlines() == expected
