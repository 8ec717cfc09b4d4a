"""The exporter's own metrics: polls, requests, limits, series, and the process.

What it measures of others stands in `exporter.metrics`. Every closed label value starts at 0: a rate needs a start.
"""

import math
import os
import platform
import resource
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from exporter import __version__
from exporter.api.budget import RateLimit
from exporter.api.http import HEALING
from exporter.errors import REASONS, REJECTIONS, Reason, Rejection
from exporter.exposition import Format
from exporter.turns import undisturbed

PREFIX = "thousandeyes_exporter_"
CODES = ("200", "400", "401", "403", "404", "429", "500", "502", "503", "error")
_DELAYS = (1, 2, 5, 10, 20, 30, 60, 120, 180, 240, 300, 600, 900)
_DURATIONS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


_DESCRIPTORS = Path("/proc/self/fd")


class _Process(Collector):
    """What the system tells of this process, as `prometheus_client.PROCESS_COLLECTOR` has it.

    That one opens and lists files. While a poll is computed, each call of the system may cost the event loop its turn
    for some milliseconds, so there are two here, and none while metrics are written.
    """

    def __init__(self) -> None:
        families = {family.name: family for family in PROCESS_COLLECTOR.collect()}
        self._start = families.get("process_start_time_seconds")
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if self._start else -1
        self._found: list[Metric] = []
        self.look()

    def look(self) -> None:
        """Ask the system: what it does not tell, be it that no file can be opened, is absent."""
        self._found = []
        with suppress(OSError):
            self._found = list(self._look())

    def collect(self) -> list[Metric]:
        return self._found

    def _look(self) -> Iterator[Metric]:
        if not self._start:  # only Linux can be asked
            return
        size, resident = (int(pages) * resource.getpagesize() for pages in os.pread(self._statm, 100, 0).split()[:2])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Since Linux 6.2 this folder is as large as it has entries.
        files = _DESCRIPTORS.stat().st_size or len(list(_DESCRIPTORS.iterdir()))
        for name, help_, value in (
            ("virtual_memory_bytes", "Virtual memory size in bytes.", size),
            ("resident_memory_bytes", "Resident memory size in bytes.", resident),
            ("open_fds", "Number of open file descriptors.", files),
            ("max_fds", "Maximum number of open file descriptors.", limit),
        ):
            yield GaugeMetricFamily(f"process_{name}", help_, math.inf if value == resource.RLIM_INFINITY else value)
        help_ = "Total user and system CPU time spent in seconds."
        yield CounterMetricFamily("process_cpu_seconds", help_, usage.ru_utime + usage.ru_stime)
        yield self._start


_PROCESS = _Process()


class _RateLimitCollector(Collector):
    """The organization's limit as the API last told it; what it did not tell is absent, not 0."""

    def __init__(self, rate_limit: Callable[[], RateLimit]) -> None:
        self._rate_limit = rate_limit

    def collect(self) -> Iterator[GaugeMetricFamily]:
        told = self._rate_limit()
        for name, help_, value in (
            ("requests", "Requests a minute that the API grants the organization.", told.limit),
            ("remaining_requests", "Requests that the organization had left in this minute.", told.remaining),
            ("reset_timestamp_seconds", "When the minute of the limit ends, seconds since 1970.", told.reset),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"{PREFIX}api_rate_limit_{name}", help_, value)


class Telemetry:
    """All own metrics, in a registry of their own."""

    def __init__(self, rate_limit: Callable[[], RateLimit] = RateLimit, *, process: bool = True) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, help_, labels, registry=registry)

        def gauge(name: str, help_: str, *labels: str) -> Gauge:
            return Gauge(PREFIX + name, help_, labels, registry=registry)

        self._up = Gauge("thousandeyes_up", "Whether the last poll was complete: 1, or 0.", ["aid"], registry=registry)
        self._build = gauge("build_info", "Versions of this exporter and of its Python: always 1.", "version", "python")
        self._build.labels(__version__, platform.python_version()).set(1)
        self._polls = counter("polls", "Polls that ended, complete or failed.", "aid")
        self._failures = counter("poll_failures", "Polls that failed, by reason.", "aid", "reason")
        self._skipped = counter("polls_skipped", "Polls left out because the one before was still running.", "aid")
        self._last = gauge("last_poll_timestamp_seconds", "When the last poll ended (API clock).", "aid")
        self._success = gauge("last_poll_success_timestamp_seconds", "When the last complete poll ended.", "aid")
        self._duration = gauge("last_poll_duration_seconds", "How long the last poll took.", "aid")
        self._interval = gauge("poll_interval_seconds", "Time from one poll to the next, as it is set.")
        self._newest = gauge("newest_round_timestamp_seconds", "Start of the newest round of any session.", "aid")
        self._sessions = gauge("sessions", "Sessions inside the look-back, by what was joined.", "aid", "state")
        self._delay = Histogram(
            f"{PREFIX}session_commit_delay_seconds",
            "From a session to its commit (API date, committed), every new session once.",
            ["aid"],
            buckets=_DELAYS,
            registry=registry,
        )
        self._rejected = counter("records_rejected", "Records that were not taken in, by reason.", "aid", "reason")
        self._requests = counter("api_requests", "Requests to the API; code `error`: no answer.", "route", "code")
        self._seconds = Histogram(
            f"{PREFIX}api_request_duration_seconds",
            "How long a request to the API took.",
            ["route"],
            buckets=_DURATIONS,
            registry=registry,
        )
        self._retries = counter("api_retries", "Requests that were sent again, by what had gone wrong.", "reason")
        self._series = gauge("series", "Series of the per-session families.")
        self._series_limit = gauge("series_limit", "Most series of the per-session families, as it is set.")
        self._series_dropped = gauge("series_dropped", "Series folded into `__other__` for the limit.")
        self._snapshot = gauge("snapshot_size_bytes", "Size of the snapshot's text, uncompressed.")
        self._reload = gauge("config_last_reload_successful", "Whether the settings were last read without error.")
        self._reload.set(1)
        self._read: dict[str, bool] = {}
        for reason in sorted((*HEALING, "rate_limited")):
            self._retries.labels(reason)
        registry.register(_RateLimitCollector(rate_limit))
        for collector in (_PROCESS, PLATFORM_COLLECTOR, GC_COLLECTOR) if process else ():
            registry.register(collector)

    def configured(self, interval: float, series_limit: int, routes: Iterable[str]) -> None:
        """Take note of the settings, and start the counters of the routes that they lead to."""
        self._interval.set(interval)
        self._series_limit.set(series_limit)
        for route in routes:
            self._seconds.labels(route)
            for code in CODES:
                self._requests.labels(route, code)

    def watch(self, aid: str) -> None:
        """Start the counters of an account group."""
        self._up.labels(aid).set(0)
        self._polls.labels(aid)
        self._skipped.labels(aid)
        self._delay.labels(aid)
        for reason in REASONS:
            self._failures.labels(aid, reason)
        for rejection in REJECTIONS:
            self._rejected.labels(aid, rejection)

    def unwatch(self, aid: str) -> None:
        """Forget an account group that is no longer polled."""
        for metric in (self._up, self._polls, self._skipped, self._delay, self._last, self._success, self._duration):
            _remove(metric, aid)
        _remove(self._newest, aid)
        for reason in REASONS:
            _remove(self._failures, aid, reason)
        for rejection in REJECTIONS:
            _remove(self._rejected, aid, rejection)
        for state in ("joined", "user_only", "network_only"):
            _remove(self._sessions, aid, state)

    def polled(self, aid: str, ended: float, seconds: float, reason: Reason | None) -> None:
        """Count a poll: complete, or failed for a reason; `ended` is Unix time on the API's clock."""
        self._polls.labels(aid).inc()
        self._last.labels(aid).set(ended)
        self._duration.labels(aid).set(seconds)
        self._up.labels(aid).set(reason is None)
        if reason is None:
            self._success.labels(aid).set(ended)
        else:
            self._failures.labels(aid, reason).inc()

    def skipped(self, aid: str) -> None:
        """Count a poll that was left out."""
        self._skipped.labels(aid).inc()

    def stored(self, aid: str, counts: dict[str, int], newest_round: int | None) -> None:
        """Show what is inside the look-back."""
        for state, count in counts.items():
            self._sessions.labels(aid, state).set(count)
        if newest_round is not None:
            self._newest.labels(aid).set(newest_round)

    def rejected(self, aid: str, rejected: Count[Rejection]) -> None:
        """Count records that were not taken in."""
        for reason, count in rejected.items():
            self._rejected.labels(aid, reason).inc(count)

    def committed(self, aid: str, delays: Iterable[float]) -> None:
        """Observe commit delays of new sessions, seconds."""
        observe = self._delay.labels(aid).observe
        for delay in delays:
            observe(delay)

    def request(self, route: str, code: str, seconds: float) -> None:
        """Count a request to the API."""
        self._requests.labels(route, code).inc()
        self._seconds.labels(route).observe(seconds)

    def retry(self, reason: Reason) -> None:
        """Count a request that is sent again."""
        self._retries.labels(reason).inc()

    def published(self, series: int, dropped: int, size: int) -> None:
        """Show the size of the snapshot."""
        self._series.set(series)
        self._series_dropped.set(dropped)
        self._snapshot.set(size)

    def reloaded(self, part: str, *, successful: bool) -> None:
        """Show whether a part of the settings was read without error, and no other part is still wrong."""
        self._read[part] = successful
        self._reload.set(all(self._read.values()))

    def render(self, format_: Format) -> str:
        """Return the text of all own metrics, with the end mark where the format has one."""
        _PROCESS.look()
        text = generate_openmetrics if format_ is Format.OPENMETRICS else generate_latest
        with undisturbed():
            return text(self.registry).decode()


def _remove(metric: Counter | Gauge | Histogram, *labels: str) -> None:
    """Remove one series; that it was never set is no error."""
    with suppress(KeyError):
        metric.remove(*labels)
