"""The polling loop of one source of one account group."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from exporter.clock import ApiClock
from exporter.errors import PollError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources.results import PollRecord, Result
from exporter.sources.source import Source

log = structlog.get_logger()

RECENT_POLLS = 60
REFRESH_SECONDS = 60.0
"""Maximum time after which old data expires, whatever the interval of the polls."""
TICK_SECONDS = 5.0
"""Time after which the end of a suspend is noticed: the event loop's clock stands still in it."""


class Publisher(Protocol):
    """Receives results."""

    def update(self, aid: str, source: str, result: Result) -> None:
        """Publish a new result of one source of an account group."""


class Poller:
    """Polls one source at a fixed interval; polls of one source never overlap."""

    def __init__(
        self,
        aid: str,
        source: Source,
        api_clock: ApiClock,
        metrics: SelfMetrics,
        publisher: Publisher,
        waits: Callable[[int], bool],
    ) -> None:
        """Create a poller; `waits` returns whether requests of a priority wait for the limit."""
        self.aid = aid
        self.source = source
        self.recent: deque[PollRecord] = deque(maxlen=RECENT_POLLS)
        """The last polls, newest last."""
        self.failure: PollError | None = None
        """Why the last poll failed; `None` if it was complete."""
        self.last_success: float | None = None
        """End of the last complete poll, Unix seconds on the API's clock."""
        self.last_tick = math.inf
        """When the polling loop last ran, on the event loop's clock, because a suspend is no delay;
        infinite until it runs, which may have to wait for the first poll of another source."""
        self.stretched = False
        """Whether a poll was skipped because requests of higher priorities come first."""
        self.polled = asyncio.Event()
        """Set after the first poll."""
        self._api_clock = api_clock
        self._time = asyncio.get_running_loop().time
        self._monotonic = api_clock.clock.monotonic
        self._due = self._monotonic()
        """When the next poll starts, on the clock that includes suspends."""
        self._metrics = metrics
        self._publisher = publisher
        self._waits = waits
        self._failures = 0
        self._failing_since = 0.0
        self._log = log.bind(aid=aid, source=source.name)
        metrics.initialize(aid, source.name)

    @property
    def next_poll(self) -> float:
        """When the next poll starts, on the event loop's clock."""
        return self._due - self._monotonic() + self._time()

    async def run(self) -> None:
        """Poll now and at every interval; between polls, old data expires.

        A poll that is due during another one is skipped and counted, and missed polls are not
        caught up.
        """
        interval = self.source.interval
        refreshed = self._monotonic()
        self.last_tick, self._due = self._time(), refreshed + interval
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(self.poll())
            while True:
                await asyncio.sleep(min(self._due - self._monotonic(), TICK_SECONDS))
                self.last_tick, now = self._time(), self._monotonic()
                late = now - self._due
                if late >= 0 or now - refreshed >= REFRESH_SECONDS:
                    refreshed = now
                    if late < 0 or late > TICK_SECONDS:  # else the poll that is due is enough
                        await self._expire()
                if late < 0:
                    continue
                self._due = (self._due if late < interval else now) + interval
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
        failure = await self._expire(polled=failure is None) or failure
        seconds = self._time() - start
        self.stretched = self.stretched and seconds >= self.source.interval
        self._record(failure, seconds, fields)
        self.polled.set()

    async def _skip(self) -> None:
        self._metrics.polls_skipped.labels(self.aid, self.source.name).inc()
        self.stretched = self.stretched or self._waits(self.source.priority)
        hint = "the previous poll is still running; raise the interval"
        if self.stretched:
            hint = "the previous poll waits for the rate limit: raise api.requests_per_minute or "
            hint += "the interval, unless the organization's limit is used up"
        self._log.warning("poll_skipped", hint=hint)
        await self._expire()

    async def _expire(self, *, polled: bool = False) -> PollError | None:
        """Expire old data and publish the result, if it can have changed."""
        failure, changed = None, True
        try:
            changed = await self.source.refresh(polled=polled)
        except Exception as error:  # noqa: BLE001  as above
            failure = self._crashed(error)
        if changed:
            self._publisher.update(self.aid, self.source.name, self.source.result)
        return failure

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
            if not self._failures:
                self._failing_since = self._time() - seconds
            if self.source.required or not self._failures:
                write = self._log.error if self.source.required else self._log.warning
                reason, error, hint = failure.reason, str(failure), failure.hint
                write("poll_failed", reason=reason, error=error, hint=hint, seconds=seconds)
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
