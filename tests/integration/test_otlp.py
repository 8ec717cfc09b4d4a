"""Pushes to an OTLP receiver: retries, failures, and what is logged and counted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from fake_clock import fake_clock, fake_time, wall
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from structlog.testing import capture_logs

from exporter.errors import SettingsError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.otlp.push import PushConfig, Pusher
from exporter.snapshot import SnapshotPublisher

TOKEN = {"Authorization": "Bearer canary-of-otlp"}
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, body: bytes = b"", **headers: str) -> Reply:
    """Return a status; a header `Retry_After` is `Retry-After`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def reply(request: web.Request) -> web.Response:
        return web.Response(status=code, body=body, headers=named)

    return reply


async def hang(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def reset(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(100_000))


async def retry_at(request: web.Request) -> web.Response:
    """Ask for a retry 20 s later, as a date."""
    return web.Response(status=503, headers={"Retry-After": formatdate(wall() + 20, usegmt=True)})


def partial(rejected: int) -> bytes:
    reply = ExportMetricsServiceResponse()
    reply.partial_success.rejected_data_points = rejected
    reply.partial_success.error_message = "canary-of-the-receiver"
    return reply.SerializeToString()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  on virtual time
        await asyncio.sleep(0.1)


def points(metric: Any) -> int:
    return len(getattr(metric, metric.WhichOneof("data")).data_points)


class Trial:
    """A receiver, and a pusher that pushes every minute."""

    def __init__(self, replies: list[Reply]) -> None:
        self.replies = replies
        """What is answered; the last one again and again."""
        self.requests: list[tuple[float, Mapping[str, str], ExportMetricsServiceRequest]] = []
        """Time since the start, headers and message."""
        self.metrics = SelfMetrics(process=False)
        self.headers: Mapping[str, str] | None = TOKEN
        """None: their file cannot be read."""
        self.start = asyncio.get_running_loop().time()

    async def receive(self, request: web.Request) -> web.StreamResponse:
        message = ExportMetricsServiceRequest.FromString(await request.read())
        self.requests.append((self.time(), request.headers, message))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return await reply(request)

    def read_headers(self) -> Mapping[str, str]:
        if self.headers is None:
            raise SettingsError(["cannot read"])
        return self.headers

    @property
    def sent(self) -> list[Any]:
        """The metrics of each request."""
        return [x.resource_metrics[0].scope_metrics[0].metrics for _, _, x in self.requests]

    def time(self) -> float:
        return asyncio.get_running_loop().time() - self.start

    def value(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"thousandeyes_exporter_otlp_{name}", labels)
        assert value is not None
        return value

    async def pushed(self, pushes: int = 1) -> None:
        """Wait until so many pushes have ended."""
        await until(lambda: self.value("pushes_total") >= pushes)


@asynccontextmanager
async def pushing(*replies: Reply) -> AsyncIterator[Trial]:
    trial, clock = Trial(list(replies)), fake_clock()
    app = web.Application()
    app.router.add_post("/v1/metrics", trial.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/metrics"
    if not replies:
        await runner.cleanup()
    publisher = SnapshotPublisher(1, Any, trial.metrics)
    config = PushConfig(url, trial.read_headers, 60.0, "host:9350", clock.wall())
    task = asyncio.create_task(Pusher(config, publisher, trial.metrics, clock).run())
    try:
        yield trial
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await runner.cleanup()


@fake_time
async def test_pushes_every_minute_with_headers_and_current_values() -> None:
    async with pushing(status(200), status(204)) as trial:
        with capture_logs() as logs:
            await trial.pushed(3)
        assert [round(time) for time, _, _ in trial.requests] == [0, 60, 120]
        for _, headers, _ in trial.requests:
            assert headers["Authorization"] == TOKEN["Authorization"]
            assert headers["Content-Type"] == "application/x-protobuf"
            assert headers["Content-Encoding"] == "gzip"
            assert headers["Accept-Encoding"] == "identity"
        (pushes,) = (
            m for m in trial.sent[2] if m.name == "thousandeyes_exporter_otlp_pushes_total"
        )
        (point,) = pushes.sum.data_points
        assert point.as_double == 2
        assert point.time_unix_nano - point.start_time_unix_nano == pytest.approx(120e9, abs=1e9)
        assert trial.value("last_push_success_timestamp_seconds") == pytest.approx(wall(), abs=1)
        sizes = [sum(map(points, message)) for message in trial.sent]
        assert trial.value("data_points_total") == sum(sizes) > 0
        assert trial.value("push_failures_total", reason="timeout") == 0
        assert logs == []


@pytest.mark.parametrize(
    ("first", "seconds"),
    [
        (status(429, Retry_After="17"), 17),
        (retry_at, 20),
        (status(503), None),
        (status(502), None),
        (status(504, Retry_After="soon"), None),
        (reset, None),
        (hang, None),
    ],
    ids=["429", "date", "503", "502", "504", "reset", "hang"],
)
@fake_time
async def test_retries(first: Reply, seconds: int | None) -> None:
    async with pushing(first, status(200)) as trial:
        with capture_logs() as logs:
            await trial.pushed()
        assert (len(trial.requests), logs) == (2, [])
        assert trial.requests[0][2] == trial.requests[1][2]
        if seconds:
            assert trial.requests[1][0] == pytest.approx(seconds, abs=1.5)


@pytest.mark.parametrize(
    ("reply", "reason", "requests"),
    [
        (status(503), "unavailable", range(5, 60)),
        (status(429, Retry_After="60"), "unavailable", [1]),
        (status(429, Retry_After="9" * 400), "unavailable", [1]),
        (status(400), "rejected", [1]),
        (status(404), "rejected", [1]),
        (status(500), "rejected", [1]),
        (status(401), "auth", [1]),
        (status(403), "auth", [1]),
        (status(307, Location="/v1/metrics"), "redirect", [1]),
        (status(200, b"<html>"), "rejected", [1]),
        (endless, "rejected", [1]),
        (hang, "timeout", range(4, 7)),
        (reset, "reset", range(5, 60)),
        (None, "connect", [0]),
    ],
)
@fake_time
async def test_failures(reply: Reply | None, reason: str, requests: Any) -> None:
    async with pushing(*([reply] if reply else [])) as trial:
        with capture_logs() as logs:
            await trial.pushed()
        assert trial.time() < 61
        assert len(trial.requests) in requests
        assert [(each["event"], each["reason"]) for each in logs] == [("otlp_push_failed", reason)]
        assert logs[0]["hint"]
        assert "canary" not in repr(logs)
        assert trial.value("push_failures_total", reason=reason) == 1
        assert trial.value("last_push_success_timestamp_seconds") == 0


@fake_time
async def test_recovers() -> None:
    async with pushing(status(400), status(401), status(200)) as trial:
        with capture_logs() as logs:
            await trial.pushed(4)
    assert [each["event"] for each in logs] == ["otlp_push_failed"] * 2 + ["otlp_push_recovered"]
    assert (logs[2]["failed_pushes"], logs[2]["reason"]) == (2, "auth")
    assert logs[2]["after_seconds"] == pytest.approx(120, abs=1)


@pytest.mark.parametrize("reported", [3, -1, 10**12])
@fake_time
async def test_rejected_data_points_are_counted(reported: int) -> None:
    async with pushing(status(200, partial(reported)), status(200)) as trial:
        with capture_logs() as logs:
            await trial.pushed()
        counted = min(max(reported, 0), sum(map(points, trial.sent[0])))
        found = [(each["event"], each["data_points"]) for each in logs]
        assert found == [("otlp_data_points_rejected", counted)] * bool(counted)
        assert "canary" not in repr(logs)
        assert trial.value("data_points_rejected_total") == counted
        assert trial.value("push_failures_total", reason="rejected") == 0


@fake_time
async def test_headers_are_read_for_every_push() -> None:
    async with pushing(status(200)) as trial:
        await trial.pushed()
        trial.headers = None
        with capture_logs() as logs:
            await trial.pushed(2)
        assert [each["reason"] for each in logs] == ["auth"]
        trial.headers = {"X-Scope-OrgID": "7"}
        await trial.pushed(3)
        assert trial.requests[-1][1]["X-Scope-OrgID"] == "7"
        assert len(trial.requests) == 2


@fake_time
async def test_a_running_push_ends_at_once() -> None:
    async with pushing(hang) as trial:
        await until(lambda: bool(trial.requests))
    assert trial.time() < 2
