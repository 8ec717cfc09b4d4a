"""Push of all metrics to an OTLP receiver, over HTTP with protobuf.

Follows https://opentelemetry.io/docs/specs/otlp/#otlphttp. Headers, which have secrets, are sent to
the configured URL only; texts of the receiver, which may repeat labels, are not logged.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import responses
from typing import Literal

import aiohttp
import stamina
import structlog
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)

from exporter import NAME, __version__
from exporter.clock import Clock, parse_http_date
from exporter.errors import ExporterError, SettingsError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.otlp.convert import Period, requests
from exporter.snapshot import SnapshotPublisher

log = structlog.get_logger()

PushReason = Literal["connect", "timeout", "reset", "auth", "redirect", "unavailable", "rejected"]
HINTS: dict[PushReason, str] = {
    "connect": "check otlp.endpoint, its certificate, and outbound firewall rules",
    "timeout": "check the load of the receiver and outbound firewall rules, or raise otlp.interval",
    "reset": "check the receiver, and proxies and firewalls before it",
    "auth": "check otlp.headers, or the file of otlp.headers_file; it is read again for every push",
    "redirect": "set otlp.endpoint to the final URL; redirects are not followed",
    "unavailable": "the next push retries; check the load and the limits of the receiver",
    "rejected": "check otlp.endpoint: it must be the full URL for OTLP metrics over HTTP",
}
"""What an operator can do about each reason of a failed push."""
REQUEST_SECONDS = 10.0
"""Time limit; the default of https://opentelemetry.io/docs/specs/otel/protocol/exporter/."""
MAX_BACKOFF_SECONDS = 5.0
MAX_RESPONSE_BYTES = 65_536

stamina.instrumentation.set_on_retry_hooks([])  # only a push that failed is logged


@dataclass(frozen=True, slots=True)
class PushConfig:
    """Where to push, and how often."""

    endpoint: str
    """Full URL."""
    headers: Callable[[], Mapping[str, str]]
    """Returns the HTTP headers; called for every push. Raises SettingsError."""
    interval: float
    """Seconds between pushes. Also the time limit of a push, because newer values follow."""
    instance: str
    """Identifies this exporter, also after a restart."""
    started: float
    """When all counters were 0, Unix seconds."""


class PushError(ExporterError):
    """A push failed for one of the closed reasons; the message contains no secret."""

    def __init__(self, reason: PushReason, message: str, retry: bool | float = False) -> None:
        """Create an error; `retry` is whether to retry, or after how many seconds."""
        self.reason: PushReason = reason
        self.retry = retry
        super().__init__(message)


class Pusher:
    """Pushes at a fixed interval: one request at a time, and never two pushes at once."""

    def __init__(
        self, config: PushConfig, publisher: SnapshotPublisher, metrics: SelfMetrics, clock: Clock
    ) -> None:
        """Create a pusher of what `publisher` and `metrics` have; nothing is sent yet."""
        self._config = config
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        # https://opentelemetry.io/docs/specs/semconv/resource/service/; Prometheus makes the labels
        # job and instance of them, and job is that of the documented scrape configuration.
        self._resource = {
            "service.name": "thousandeyes",
            "service.version": __version__,
            "service.instance.id": config.instance,
        }
        self._failures = 0
        """Since the last complete push."""
        self._failing_since = 0.0
        self._reason: PushReason | None = None
        for reason in HINTS:
            metrics.otlp_push_failures.labels(reason)

    async def run(self) -> None:
        """Push now and at every interval."""
        time = asyncio.get_running_loop().time
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(REQUEST_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": f"{NAME}/{__version__}", "Accept-Encoding": "identity"},
        ) as session:
            while True:
                start, failure = time(), None
                try:
                    async with asyncio.timeout(self._config.interval) as deadline:
                        await self._push(session, deadline)
                except PushError as error:
                    failure = error
                except TimeoutError:
                    failure = PushError("timeout", "the push exceeded its time limit")
                self._record(failure, start, time())
                await asyncio.sleep(start + self._config.interval - time())

    async def _push(self, session: aiohttp.ClientSession, deadline: asyncio.Timeout) -> None:
        """Send the current values. Raises PushError; earlier requests of it were accepted."""

        def backoff(error: Exception) -> bool | float:
            retry = error.retry if isinstance(error, PushError) else False
            pause = MAX_BACKOFF_SECONDS if retry is True else retry
            left = (deadline.when() or 0.0) - asyncio.get_running_loop().time()
            return retry if pause < left else False

        try:
            headers = await asyncio.to_thread(self._config.headers)
        except SettingsError as error:
            raise PushError("auth", str(error)) from error
        period = Period(int(self._config.started * 1e9), int(self._clock.wall() * 1e9))
        own, groups = self._metrics.registry.collect(), self._publisher.current.groups
        bodies = requests(own, groups, period, self._resource)
        while request := await asyncio.to_thread(next, bodies, None):
            body, points = request
            rejected = 0
            async for attempt in stamina.retry_context(
                backoff, attempts=None, timeout=None, wait_initial=1.0, wait_max=MAX_BACKOFF_SECONDS
            ):
                with attempt:
                    reported = await self._send(session, body, headers)
                    rejected = min(max(reported, 0), points)
            self._metrics.otlp_data_points.inc(points - rejected)
            self._metrics.otlp_data_points_rejected.inc(rejected)
            if rejected:
                hint = "see the log of the receiver"
                log.warning("otlp_data_points_rejected", data_points=rejected, hint=hint)

    async def _send(
        self, session: aiohttp.ClientSession, body: bytes, headers: Mapping[str, str]
    ) -> int:
        """Send a request once; return the reported number of rejected points."""
        own = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        try:
            async with session.post(
                self._config.endpoint, data=body, headers={**headers, **own}, allow_redirects=False
            ) as response:
                if response.status // 100 != 2:
                    raise self._status_error(response)
                content = b""
                while chunk := await response.content.read(MAX_RESPONSE_BYTES - len(content)):
                    content += chunk
                reply = ExportMetricsServiceResponse.FromString(content)
                return reply.partial_success.rejected_data_points
        except DecodeError:
            failure = PushError("rejected", "the response is not that of an OTLP receiver")
        except TimeoutError:
            failure = PushError("timeout", "the receiver did not respond in time", retry=True)
        except aiohttp.ClientConnectorError as error:
            problem = error.os_error.strerror or type(error.os_error).__name__
            failure = PushError("connect", f"cannot connect to the receiver: {problem}", retry=True)
        except (aiohttp.ClientError, OSError):
            failure = PushError("reset", "the connection to the receiver was lost", retry=True)
        raise failure  # not in the handler: the cause contains the request and so the headers

    def _status_error(self, response: aiohttp.ClientResponse) -> PushError:
        """Return the error of a response with a status other than 2xx."""
        status = response.status
        message = f"HTTP status {status} {responses.get(status, '')}".rstrip()
        if status in (429, 502, 503, 504):
            after = response.headers.get("Retry-After", "")
            date = parse_http_date(after)
            seconds = float(after) if after.isdecimal() else date and date - self._clock.wall()
            return PushError("unavailable", message, True if seconds is None else max(seconds, 0.0))
        if status in (401, 403):
            return PushError("auth", message)
        return PushError("redirect" if status // 100 == 3 else "rejected", message)

    def _record(self, failure: PushError | None, start: float, end: float) -> None:
        """Count and log a push; times are those of the event loop."""
        self._metrics.otlp_pushes.inc()
        self._metrics.otlp_last_push_duration.set(end - start)
        if failure:
            self._failing_since = self._failing_since if self._failures else start
            self._failures += 1
            self._reason = reason = failure.reason
            error, seconds = str(failure), end - start
            self._metrics.otlp_push_failures.labels(reason).inc()
            log.error(
                "otlp_push_failed", reason=reason, error=error, hint=HINTS[reason], seconds=seconds
            )
            return
        self._metrics.otlp_last_push_success_timestamp.set(self._clock.wall())
        if count := self._failures:
            seconds = end - self._failing_since
            log.info(
                "otlp_push_recovered",
                reason=self._reason,
                failed_pushes=count,
                after_seconds=seconds,
            )
        self._failures = 0
