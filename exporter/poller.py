"""The polling loop of one source of one account group."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from exporter.clock import ApiClock
from exporter.errors import HINTS, PollError, Reason
from exporter.metrics.self_metrics import SelfMetrics

log = structlog.get_logger()

RECENT_POLLS = 60


class Source(Protocol):
    """One kind of data of one account group. A failed poll leaves its state unchanged."""

    @property
    def name(self) -> str:
        """Value of the label `source`."""

    @property
    def interval(self) -> float:
        """Seconds between polls."""

    @property
    def required(self) -> bool:
        """Whether a failed poll is an error; if not, each outage is one warning."""

    @property
    def result(self) -> object:
        """What is published; immutable."""

    async def poll(self) -> Mapping[str, object]:
        """Query the API and update the state; returns fields for the log. Raises `PollError`."""

    async def refresh(self, *, complete: bool) -> None:
        """Expire old data and compute `result`; `complete`: directly after a complete poll."""


class Publisher(Protocol):
    """Receives results."""

    def update(self, aid: str, source: str, result: object) -> None:
        """Publish a new result of one source of an account group."""


@dataclass(frozen=True, slots=True)
class PollRecord:
    """One finished poll."""

    seconds: float
    reason: Reason | None
    """Why it failed; `None` if it was complete."""
    time: float = field(default=0.0, compare=False)
    """When it ended, Unix seconds on the API's clock."""


class Poller:
    """Polls one source at a fixed interval; polls of one source never overlap."""

    def __init__(
        self,
        aid: str,
        source: Source,
        api_clock: ApiClock,
        metrics: SelfMetrics,
        publisher: Publisher,
    ) -> None:
        self.aid = aid
        self.source = source
        self.recent: deque[PollRecord] = deque(maxlen=RECENT_POLLS)
        """The last polls, newest last."""
        self.failure: PollError | None = None
        """Why the last poll failed; `None` if it was complete."""
        self.last_success: float | None = None
        """End of the last complete poll, Unix seconds on the API's clock."""
        self.last_tick = asyncio.get_running_loop().time()
        """When the polling loop last ran, on the event loop's clock: a suspend is no delay."""
        self._api_clock = api_clock
        self._time = asyncio.get_running_loop().time
        self._metrics = metrics
        self._publisher = publisher
        self._failures = 0
        self._failing_since = 0.0
        self._log = log.bind(aid=aid, source=source.name)
        metrics.initialize(aid, source.name)

    async def run(self) -> None:
        """Poll now and then at every interval, forever.

        A tick during a poll is skipped and counted, and missed ticks are not caught up.
        """
        interval = self.source.interval
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(self.poll())
            due = self._time()
            while True:
                now = self._time()
                due = due + interval if due + interval > now else now + interval
                await asyncio.sleep(due - now)
                self.last_tick = self._time()
                if poll.done():
                    poll = tasks.create_task(self.poll())
                else:
                    await self._skip()

    async def poll(self) -> None:
        """Poll once, record the outcome and publish the result."""
        start = self._time()
        fields: Mapping[str, object] = {}
        try:
            fields = await self.source.poll()
            failure = None
        except PollError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a bug must not stop polling
            failure = self._crashed(error)
        failure = await self._refresh(complete=failure is None) or failure
        self._record(failure, self._time() - start, fields)
        self._publisher.update(self.aid, self.source.name, self.source.result)

    async def _skip(self) -> None:
        self._metrics.polls_skipped.labels(self.aid, self.source.name).inc()
        self._log.warning(
            "poll_skipped", hint="the previous poll is still running; raise the interval"
        )
        await self._refresh(complete=False)
        self._publisher.update(self.aid, self.source.name, self.source.result)

    async def _refresh(self, *, complete: bool) -> PollError | None:
        try:
            await self.source.refresh(complete=complete)
        except Exception as error:  # noqa: BLE001  as above
            return self._crashed(error)
        return None

    def _crashed(self, error: Exception) -> PollError:
        self._log.exception("poll_crashed")
        return PollError("internal", f"internal error ({type(error).__name__}); please report it")

    def _record(
        self, failure: PollError | None, seconds: float, fields: Mapping[str, object]
    ) -> None:
        labels = (self.aid, self.source.name)
        now = self._api_clock.now()
        self._metrics.polls.labels(*labels).inc()
        self._metrics.up.labels(*labels).set(failure is None)
        self._metrics.last_poll_timestamp.labels(*labels).set(now)
        self._metrics.last_poll_duration.labels(*labels).set(seconds)
        self.recent.append(PollRecord(seconds, failure.reason if failure else None, now))
        if failure:
            self._metrics.poll_failures.labels(*labels, failure.reason).inc()
            self._log_failure(failure, seconds)
            self._failures += 1
        else:
            self._metrics.last_poll_success_timestamp.labels(*labels).set(now)
            self.last_success = now
            self._log.info("poll", **fields, seconds=seconds)
            if self.failure:
                after = self._time() - self._failing_since
                reason, failed = self.failure.reason, self._failures
                self._log.info(
                    "poll_recovered", reason=reason, failed_polls=failed, after_seconds=after
                )
            self._failures = 0
        self.failure = failure

    def _log_failure(self, failure: PollError, seconds: float) -> None:
        if not self._failures:
            self._failing_since = self._time() - seconds
        elif not self.source.required:
            return
        write = self._log.error if self.source.required else self._log.warning
        write(
            "poll_failed",
            reason=failure.reason,
            error=str(failure),
            hint=HINTS[failure.reason],
            seconds=seconds,
        )
