"""The exporter's own metrics, in a registry of their own."""

import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from exporter import __version__
from exporter.errors import REASONS, REJECTION_REASONS
from exporter.metrics.exposition import Format

NAMESPACE = "thousandeyes_exporter"
CODES = ("200", "400", "401", "403", "404", "429", "500", "502", "503", "error")
"""Values of `code` that start at 0; `error` means that there was no response."""
COMMIT_DELAY_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 180, 240, 300, 600, 900)
REQUEST_DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
POLL = ("aid", "source")


class OrganizationLimits(NamedTuple):
    """The organization's rate limit as last sent by the API; `None` for what it did not send."""

    limit: float | None = None
    """Requests per minute."""
    remaining: float | None = None
    """Requests left in the current minute."""
    reset: float | None = None
    """End of the current minute, Unix seconds."""


class SelfMetrics:
    """Metrics about polls, API requests, the snapshot and pushes."""

    def __init__(self, *, process: bool = True, otlp: bool = True) -> None:
        """Create all metrics; `process` adds `process_*` and `python_*`, `otlp` those of pushes."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self.rate_limit = OrganizationLimits()

        counter = partial(Counter, namespace=NAMESPACE, registry=registry)
        gauge = partial(Gauge, namespace=NAMESPACE, registry=registry)
        histogram = partial(Histogram, namespace=NAMESPACE, registry=registry)
        self.up = gauge(
            "up",
            "Whether the last poll was complete (1) or failed (0).",
            POLL,
            namespace="thousandeyes",
        )
        self.build_info = gauge(
            "build_info", "Versions of the exporter and of Python: always 1.", ["version", "python"]
        )
        self.polls = counter("polls", "Polls, complete and failed.", POLL)
        self.poll_failures = counter("poll_failures", "Failed polls by reason.", [*POLL, "reason"])
        self.polls_skipped = counter(
            "polls_skipped", "Polls skipped because the previous one was still running.", POLL
        )
        self.last_poll_timestamp = gauge(
            "last_poll_timestamp_seconds",
            "End of the last poll, Unix time of the API's clock.",
            POLL,
        )
        self.last_poll_success_timestamp = gauge(
            "last_poll_success_timestamp_seconds",
            "End of the last complete poll, Unix time of the API's clock.",
            POLL,
        )
        self.last_poll_duration = gauge(
            "last_poll_duration_seconds", "Duration of the last poll.", POLL
        )
        self.poll_interval = gauge(
            "poll_interval_seconds", "Configured time between polls.", ["source"]
        )
        self.newest_round = gauge(
            "newest_round_timestamp_seconds",
            "Start of the newest measurement round, Unix time.",
            POLL,
        )
        self.sessions = gauge(
            "sessions", "Sessions in the look-back window by join state.", ["aid", "state"]
        )
        self.session_commit_delay = histogram(
            "session_commit_delay_seconds",
            "Time from session to commit (API fields date, committed); each new session once.",
            ["aid"],
            buckets=COMMIT_DELAY_BUCKETS,
        )
        self.records_rejected = counter(
            "records_rejected", "API records that were rejected, by reason.", [*POLL, "reason"]
        )
        self.api_requests = counter(
            "api_requests",
            "API requests by status code; code error: no response.",
            ["route", "code"],
        )
        self.api_request_duration = histogram(
            "api_request_duration_seconds",
            "Duration of API requests.",
            ["route"],
            buckets=REQUEST_DURATION_BUCKETS,
        )
        self.api_retries = counter(
            "api_retries", "API requests that were retried, by reason.", ["reason"]
        )
        self.series = gauge("series", "Series of the per-session metrics.")
        self.series_limit = gauge(
            "series_limit", "Configured maximum number of per-session series."
        )
        self.series_dropped = gauge(
            "series_dropped", "Series folded into __other__ or dropped by the limit."
        )
        self.snapshot_size = gauge(
            "snapshot_size_bytes", "Size of the snapshot as uncompressed text."
        )
        counter = partial(counter, registry=registry if otlp else None)
        gauge = partial(gauge, registry=registry if otlp else None)
        self.otlp_pushes = counter("otlp_pushes", "Pushes with OTLP, complete and failed.")
        self.otlp_push_failures = counter(
            "otlp_push_failures", "Failed pushes with OTLP by reason.", ["reason"]
        )
        self.otlp_last_push_success_timestamp = gauge(
            "otlp_last_push_success_timestamp_seconds",
            "End of the last complete push with OTLP, Unix time; 0: none yet.",
        )
        self.otlp_last_push_duration = gauge(
            "otlp_last_push_duration_seconds", "Duration of the last push with OTLP."
        )
        self.otlp_data_points = counter(
            "otlp_data_points", "Data points that the OTLP receiver accepted."
        )
        self.otlp_data_points_rejected = counter(
            "otlp_data_points_rejected",
            "Data points that the OTLP receiver rejected in requests that it accepted.",
        )
        self.build_info.labels(__version__, platform.python_version()).set(1)
        registry.register(_RateLimitCollector(self))
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR) if process else ():
            registry.register(collector)

    def initialize(self, aid: str, source: str) -> None:
        """Create the label sets of one source of an account group, counters at 0."""
        self.up.labels(aid, source).set(0)
        self.polls.labels(aid, source)
        self.polls_skipped.labels(aid, source)
        for reason in REASONS:
            self.poll_failures.labels(aid, source, reason)
        for rejection in REJECTION_REASONS:
            self.records_rejected.labels(aid, source, rejection)

    def initialize_api(self, routes: Iterable[str], retry_reasons: Iterable[str]) -> None:
        """Create the label sets of API requests, counters at 0."""
        for route in routes:
            self.api_request_duration.labels(route)
            for code in CODES:
                self.api_requests.labels(route, code)
        for reason in sorted(retry_reasons):
            self.api_retries.labels(reason)

    def remove(self, aid: str) -> None:
        """Remove all series of an account group that is no longer polled."""
        for metric in vars(self).values():
            if isinstance(metric, MetricWrapperBase):
                with suppress(ValueError):  # it has no such label
                    metric.remove_by_labels({"aid": aid})

    def render(self, format_: Format) -> str:
        """Return the text of all metrics, with the end marker in OpenMetrics."""
        generate = generate_openmetrics if format_ is Format.OPENMETRICS else generate_latest
        text: bytes = generate(self.registry)
        return text.decode()


class _RateLimitCollector(Collector):
    """The organization's rate limit; a value that the API did not send has no sample."""

    def __init__(self, metrics: SelfMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        limits = self._metrics.rate_limit
        granted = "Requests per minute that the API grants the organization."
        left = "Requests left to the organization in this minute."
        reset = "Time at which the rate limit resets, Unix time."
        for name, help_, value in (
            ("requests", granted, limits.limit),
            ("remaining_requests", left, limits.remaining),
            ("reset_timestamp_seconds", reset, limits.reset),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"{NAMESPACE}_api_rate_limit_{name}", help_, value)
