"""The polling loop."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from fake_clock import START, WALL_START, fake_clock, fake_time
from structlog.testing import capture_logs

from exporter.clock import ApiClock
from exporter.errors import PollError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.poller import Poller

FAILURE = PollError("connect", "connection refused")


class Setup:
    """A poller; also its source, with the given outcomes and then the last one, and publisher."""

    name, interval, priority, required, seconds = "sessions", 60.0, 1, True, 0.0
    refresh_error, changes, suspended = None, True, 0

    def __init__(self, *outcomes, **options):
        self.outcomes = list(outcomes)
        vars(self).update(options)
        self.starts, self.expired, self.published, self.result = [], [], [], 0
        self.metrics, clock = SelfMetrics(process=False), fake_clock()
        clock = replace(clock, monotonic=lambda now=clock.monotonic: now() + self.suspended)
        self.poller = Poller("7", self, ApiClock(clock), self.metrics, self, lambda priority: False)

    def time(self):
        return asyncio.get_running_loop().time() - START

    async def poll(self):
        self.starts.append(self.time())
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        await asyncio.sleep(self.seconds)
        if outcome:
            raise outcome
        return {"user_sessions": 7}

    async def refresh(self, *, polled):
        self.result += 1
        self.expired += [] if polled else [self.time()]
        if self.refresh_error:
            raise self.refresh_error
        return self.changes

    def update(self, aid, source, result):
        self.published.append((aid, source, result))

    async def run(self, seconds):
        """Run for some seconds; returns the log."""
        with capture_logs() as logs, suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.poller.run()
        return logs

    def value(self, name, **labels):
        labels |= {"aid": "7", "source": "sessions"}
        return self.metrics.registry.get_sample_value(f"thousandeyes_{name}", labels)


# seconds of a poll and of a suspend; when polls start, data expires, and the next poll starts
POLLS = [
    (0, 0, [0, 60, 120, 180], [], 240),
    (59, 0, [0, 60, 120, 180], [], 240),
    (100, 0, [0, 120], [60, 180], 240),
    (999, 0, [0], [60, 120, 180], 240),
    (0, 600, [0, 60, 95, 155, 215], [95], 275),
    (0, 30, [0, 60, 95, 150, 210], [], 270),
]


@pytest.mark.parametrize(("seconds", "suspended", "starts", "expired", "following"), POLLS)
@fake_time
async def test_polls_never_overlap_or_catch_up(seconds, suspended, starts, expired, following):
    setup = Setup(None, seconds=seconds)
    asyncio.get_running_loop().call_later(92, setattr, setup, "suspended", suspended)
    logs = await setup.run(239)
    assert (setup.starts, setup.expired) == (starts, expired)
    assert setup.poller.last_tick >= START + 235  # ticks show that the loop runs
    assert setup.poller.next_poll == START + following
    assert setup.published == [("7", "sessions", n + 1) for n in range(setup.result)]
    skipped = 0 if suspended else len(expired)
    assert [log["event"] for log in logs].count("poll_skipped") == skipped
    assert setup.value("exporter_polls_skipped_total") == skipped


@fake_time
async def test_old_data_expires_every_minute_between_polls_and_only_changes_are_published():
    setup = Setup(None, interval=300.0)
    await setup.run(330)
    assert (setup.starts, setup.expired) == ([0, 300], [60, 120, 180, 240])
    published, setup.changes = list(setup.published), False
    await setup.poller.poll()
    assert setup.published == published


@pytest.mark.parametrize("required", [True, False])
@fake_time
async def test_polls_are_counted_and_logged(required):
    setup = Setup(FAILURE, FAILURE, None, FAILURE, seconds=5.0, required=required)
    logs = await setup.run(200)
    failed = "poll_failed", "error" if required else "warning", "connect", None, None
    expected = [
        *([failed, failed] if required else [failed]),  # one warning for each outage
        *(("poll", "info", None, None, None), ("poll_recovered", "info", "connect", 125.0, 2)),
        failed,
    ]
    fields = "event", "log_level", "reason", "after_seconds", "failed_polls"
    assert [tuple(map(log.get, fields)) for log in logs] == expected
    assert [log["user_sessions"] for log in logs if log["event"] == "poll"] == [7]
    assert (setup.value("up"), setup.value("exporter_polls_total")) == (0, 4)
    assert setup.value("exporter_poll_failures_total", reason="connect") == 3
    assert setup.value("exporter_last_poll_timestamp_seconds") == WALL_START + 185
    assert setup.value("exporter_last_poll_success_timestamp_seconds") == WALL_START + 125
    assert setup.value("exporter_last_poll_duration_seconds") == 5
    assert (setup.poller.failure, setup.poller.last_success) == (FAILURE, WALL_START + 125)
    assert [each.reason for each in setup.poller.recent] == ["connect", "connect", None, "connect"]


@fake_time
async def test_a_crash_is_an_internal_failure_and_polling_continues():
    setup = Setup(None, KeyError("x"), None)
    logs = await setup.run(130)
    assert [log["event"] for log in logs].count("poll_crashed") == 1
    assert (setup.starts, setup.expired) == ([0, 60, 120], [60])
    setup.refresh_error = ValueError("y")
    await setup.poller.poll()
    assert setup.value("exporter_poll_failures_total", reason="internal") == 2
    assert "ValueError" in str(setup.poller.failure)
    assert len(setup.published) == 4
