"""Pushes to an OTLP receiver: retries, failures, and what is logged and counted."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import chain, repeat
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fake_clock import WALL_START, fake_clock, fake_time, wall
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


def partial(rejected: int, size: int = 1) -> Reply:
    reply = ExportMetricsServiceResponse()
    reply.partial_success.rejected_data_points = rejected
    reply.partial_success.error_message = "canary-of-the-receiver" * size
    return status(200, reply.SerializeToString())


@dataclass
class Trial:
    """What a receiver got from a pusher that pushes every minute."""

    start: float
    metrics: SelfMetrics
    requests: list[tuple[float, Mapping[str, str], Any]] = field(default_factory=list)
    """Time since the start, headers and metrics."""
    logs: list[Any] = field(default_factory=list)

    def value(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"thousandeyes_exporter_otlp_{name}", labels)
        assert value is not None
        return value


async def push(*replies: Reply, count: int = 1, headers: Any = (TOKEN,)) -> Trial:
    """Push some times; without replies, to a port that nothing listens on.

    The last reply is sent again and again, as are the last headers; None cannot be read.
    """
    trial, clock, app = Trial(wall(), SelfMetrics(process=False)), fake_clock(), web.Application()
    next_reply, next_headers = (
        chain(each, repeat(each[-1])) for each in (replies or (hang,), headers)
    )

    async def receive(request: web.Request) -> web.StreamResponse:
        message: Any = ExportMetricsServiceRequest.FromString(await request.read())
        metrics = message.resource_metrics[0].scope_metrics[0].metrics
        trial.requests.append((wall() - trial.start, request.headers, metrics))
        return await next(next_reply)(request)

    def read_headers() -> Mapping[str, str]:
        found = next(next_headers)
        if found is None:
            raise SettingsError(["cannot read"])
        return found

    app.router.add_post("/v1/metrics", receive)
    async with TestServer(app) as server:
        url = str(server.make_url("/v1/metrics")) if replies else "http://127.0.0.1:1/"
        publisher = SnapshotPublisher(1, Any, trial.metrics)
        config = PushConfig(url, read_headers, 60.0, "host:9350", clock.wall())
        with capture_logs() as trial.logs:
            task = asyncio.create_task(Pusher(config, publisher, trial.metrics, clock).run())
            while trial.value("pushes_total") < count:  # noqa: ASYNC110  on virtual time
                await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])
    assert "canary" not in repr(trial.logs)
    return trial


@fake_time
async def test_pushes_every_minute_with_headers_and_current_values() -> None:
    trial = await push(status(200), status(204), count=3)
    assert trial.logs == []
    assert [round(time) for time, _, _ in trial.requests] == [0, 60, 120]
    for _, headers, _ in trial.requests:
        assert headers["Authorization"] == TOKEN["Authorization"]
        assert headers["Content-Type"] == "application/x-protobuf"
        assert headers["Content-Encoding"] == "gzip"
    last = {each.name: each for each in trial.requests[2][2]}
    (point,) = last["thousandeyes_exporter_otlp_pushes_total"].sum.data_points
    assert point.as_double == 2
    assert point.time_unix_nano - point.start_time_unix_nano == pytest.approx(120e9, abs=1e9)
    success = trial.value("last_push_success_timestamp_seconds")
    assert success == pytest.approx(trial.start + 120, abs=1)
    assert trial.value("push_failures_total", reason="timeout") == 0


@pytest.mark.parametrize(
    ("first", "seconds"),
    [
        (status(429, Retry_After="17"), 17),
        (status(503, Retry_After=formatdate(WALL_START + 20, usegmt=True)), 20),
        (status(503), None),
        (status(504, Retry_After="soon"), None),
        (reset, None),
        (hang, None),
    ],
    ids=["429", "date", "503", "504", "reset", "hang"],
)
@fake_time
async def test_retries(first: Reply, seconds: int | None) -> None:
    trial = await push(first, status(200))
    assert trial.logs == []
    (_, _, sent), (time, _, sent_again) = trial.requests
    assert sent == sent_again
    assert seconds is None or time == pytest.approx(seconds, abs=1.5)


@pytest.mark.parametrize(
    ("reply", "reason", "requests"),
    [
        (status(503), "unavailable", range(5, 60)),
        (status(429, Retry_After="9" * 400), "unavailable", [1]),
        (status(500), "rejected", [1]),
        (status(401), "auth", [1]),
        (status(307, Location="/v1/metrics"), "redirect", [1]),
        (status(200, b"<html>"), "rejected", [1]),
        (partial(0, size=10_000), "rejected", [1]),  # too large
        (hang, "timeout", range(4, 7)),
        (reset, "reset", range(5, 60)),
        (None, "connect", [0]),
    ],
)
@fake_time
async def test_failures(reply: Reply | None, reason: str, requests: Any) -> None:
    trial = await push(*([reply] if reply else []))
    (log,) = trial.logs
    assert log["seconds"] < 61
    assert len(trial.requests) in requests
    assert (log["event"], log["reason"]) == ("otlp_push_failed", reason)
    assert log["hint"]
    assert trial.value("push_failures_total", reason=reason) == 1
    assert trial.value("last_push_success_timestamp_seconds") == 0


@fake_time
async def test_recovers_with_headers_that_are_read_for_every_push() -> None:
    new = {"X-Scope-OrgID": "7"}
    trial = await push(status(400), status(200), count=4, headers=(TOKEN, None, new))
    assert [each.get("X-Scope-OrgID") for _, each, _ in trial.requests] == [None, "7", "7"]
    events = [(each["event"], each["reason"]) for each in trial.logs]
    failed = [("otlp_push_failed", "rejected"), ("otlp_push_failed", "auth")]
    assert events == [*failed, ("otlp_push_recovered", "auth")]
    assert trial.logs[2]["failed_pushes"] == 2
    assert trial.logs[2]["after_seconds"] == pytest.approx(120, abs=1)


@pytest.mark.parametrize("reported", [3, -1, 10**12])
@fake_time
async def test_rejected_data_points_are_counted(reported: int) -> None:
    trial = await push(partial(reported))
    data = [getattr(each, each.WhichOneof("data")) for each in trial.requests[0][2]]
    sent = sum(len(each.data_points) for each in data)
    rejected = min(max(reported, 0), sent)
    found = [(each["event"], each["data_points"]) for each in trial.logs]
    assert found == [("otlp_data_points_rejected", rejected)] * bool(rejected)
    assert trial.value("data_points_rejected_total") == rejected
    assert trial.value("data_points_total") == sent - rejected
