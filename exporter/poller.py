"""One poll after another, of one account group; what is asked, what is kept, what is passed on.

How a listing is read stands in `exporter.api`, what becomes of all account groups together in `exporter.publisher`.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from exporter import log
from exporter.aggregate import NO_ROWS, Rows, aggregate
from exporter.api import Source, Threaded
from exporter.clock import ApiClock
from exporter.distributions import Distributions, Site, SiteCounters
from exporter.errors import HINTS, PollError, Reason
from exporter.metrics import Family
from exporter.model import AccountGroup, Agent, NetworkSession, Sessions, UserSession
from exporter.page import PollView
from exporter.selection import Selection
from exporter.store import Store
from exporter.telemetry import Telemetry

ROUND = 60
"""Seconds of one round of user sessions; ranges begin on a whole one."""
NEARLY = 0.95
"""Share of an interval that a poll may take."""
AGENTS_EVERY = 1800.0
"""Seconds between two listings of the agents: they cost requests, and names hardly ever change."""


@dataclass(frozen=True, slots=True)
class Plan:
    """When is polled, how far back, and what is kept: the same for every account group."""

    interval: float
    lookback: float
    overlap: float
    """Seconds, all three."""
    selection: Selection
    families: tuple[Family, ...]
    max_sites: int
    """Sites of an account group that have distributions of their own."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one account group has to publish; built anew by every poll."""

    aid: str
    pairs: list[tuple[UserSession, NetworkSession | None]]
    """Every user session inside the look-back, with its network session."""
    rows: Rows
    sites: dict[Site, SiteCounters]
    agents: tuple[Agent, ...] = ()
    complete: bool = False
    """Whether a poll was complete since the start."""
    counts: dict[str, int] = field(default_factory=dict)
    """Sessions inside the look-back: `joined`, `user_only`, `network_only`."""


class PollDeadline:
    """By when a poll has to be done; see `exporter.api.http.Deadline`."""

    def __init__(self, scope: asyncio.Timeout) -> None:
        self._scope = scope
        self._still = 0
        self._left = 0.0
        self._since = 0.0
        self.waited = 0.0
        """Seconds that were spent waiting for our own share of requests."""

    def remaining(self) -> float:
        """Seconds left."""
        return self._left if self._still else (self._scope.when() or math.inf) - asyncio.get_running_loop().time()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let no time pass meanwhile, however many wait at once."""
        now = asyncio.get_running_loop().time
        if not self._still:
            self._left, self._since = self.remaining(), now()
            self._reschedule(None)
        self._still += 1
        try:
            yield
        finally:
            self._still -= 1
            if not self._still:
                self.waited += now() - self._since
                self._reschedule(now() + self._left)

    def _reschedule(self, when: float | None) -> None:
        if not self._scope.expired():  # once it has struck, all that wait are on their way out
            self._scope.reschedule(when)


class Poller:
    """Polls one account group for ever; polls of one group never overlap."""

    def __init__(
        self,
        group: AccountGroup,
        source: Source,
        plan: Plan,
        api_clock: ApiClock,
        telemetry: Telemetry,
        publish: Callable[[Result], None],
        threaded: Threaded = asyncio.to_thread,
    ) -> None:
        """Make a poller; nothing is asked yet. `publish` is called with every new result, on the event loop."""
        self.group = group
        self.ended: deque[PollView] = deque(maxlen=60)
        """The last polls, the newest last."""
        self.failure = ""
        """What the last poll failed of, in words; empty where it was complete."""
        self.ticked = api_clock.clock.monotonic()
        """When the loop last came round, on the monotonic clock."""
        self._source = source
        self._plan = plan
        self._publish = publish
        self._telemetry = telemetry
        self._clock = api_clock.clock
        self._api_clock = api_clock
        self._threaded = threaded
        self._store = Store()
        self._turn = asyncio.Lock()
        self._distributions = Distributions(plan.max_sites)
        self._result = Result(group.aid, [], NO_ROWS, {})
        self._agents: tuple[Agent, ...] = ()
        self._nameless = False
        self._failed = 0
        """Polls that failed since the last complete one; the first of them began at `_failing_since`."""
        self._failing_since = 0.0
        self._complete = asyncio.Event()
        self._covered: int | None = None
        """End of the range of the last complete poll, Unix seconds on the API's clock."""
        self._anew = False
        """Whether the next poll is like a first one."""
        telemetry.watch(group.aid)

    def adopt(self, source: Source, plan: Plan, *, anew: bool) -> None:
        """Go on with another plan; no poll may be running.

        `anew`: what is stored was selected in another way. It is published until it is old, or until the next complete
        poll, which reads the whole look-back, replaces it.
        """
        self._source, self._plan = source, plan
        self._anew = self._anew or anew
        self._distributions.adopt(plan.max_sites)

    async def run(self) -> None:
        """Poll at once and then in every interval; what comes too late is left out and counted, not made up for."""
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(self.poll())
            tasks.create_task(self._keep_agents())
            due = self._clock.monotonic()
            while True:
                now = self._clock.monotonic()
                due = due + self._plan.interval if due + self._plan.interval > now else now + self._plan.interval
                await self._clock.sleep(due - now)
                self.ticked = self._clock.monotonic()
                if poll.done():
                    poll = tasks.create_task(self.poll())
                else:
                    self._telemetry.skipped(self.group.aid)
                    log.warn("poll_skipped", aid=self.group.aid, hint="the one before still runs: raise poll.interval")
                    await self._refresh(complete=False)
                    self._show()

    async def poll(self) -> None:
        """Poll once: all or nothing is taken in, and what has grown old is forgotten either way."""
        aid = self.group.aid
        began = self._clock.monotonic()
        failure: PollError | None = None
        counts: dict[str, int] = {}
        try:
            counts = await self._read()
        except PollError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  whatever it is, the next poll may do better
            failure = self._crashed(error)
        failure = await self._refresh(complete=failure is None) or failure
        reason = failure.reason if failure else None
        seconds = self._clock.monotonic() - began
        self._telemetry.polled(aid, self._api_clock.now(), seconds, reason)
        if failure:
            self._failing_since = self._failing_since if self._failed else began
            self._failed += 1
            hint = HINTS[failure.reason]
            log.error("poll_failed", aid=aid, reason=reason, error=failure, hint=hint, seconds=seconds)
        else:
            log.info("poll", aid=aid, **counts, keys=len(self._result.rows.keys), seconds=seconds)
            if self._failed:
                after = self._clock.monotonic() - self._failing_since
                log.info("poll_healed", aid=aid, reason=self.failing, failed_polls=self._failed, after_seconds=after)
                self._failed = 0
            self._complete.set()
        self.ended.append(PollView(seconds, reason))
        self.failure = str(failure or "")
        self._show()

    @property
    def failing(self) -> Reason | None:
        """Why the last poll failed; None where it was complete, or where there was none."""
        return self.ended[-1].reason if self.ended else None

    @property
    def age(self) -> float | None:
        """Seconds on the API's clock since the end of what the last complete poll covered; None before the first."""
        return None if self._covered is None else self._api_clock.now() - self._covered

    @property
    def complete(self) -> bool:
        """Whether a poll was complete since the start."""
        return self._complete.is_set()

    @property
    def result(self) -> Result:
        """What there is to publish now."""
        return replace(self._result, agents=self._agents, complete=self.complete)

    def _crashed(self, error: Exception) -> PollError:
        log.error("poll_crashed", aid=self.group.aid, exc_info=True)
        return PollError("internal", f"{type(error).__name__}: a fault of this program, please report it")

    async def _read(self) -> dict[str, int]:
        """Ask for both listings and take them in; return what is worth a line in the log."""
        aid, plan = self.group.aid, self._plan
        end = int(self._api_clock.now())
        start = end - plan.lookback
        first = self._anew or self._covered is None
        if self._covered is not None and not first and self._covered <= end:  # else the API's clock was set back
            start = max(start, self._covered - plan.overlap)
        start = math.floor(start / ROUND) * ROUND
        # A poll may take an interval, and ends before the next is due; one that reads more than the others, the first
        # or after an outage, takes longer.
        allowed = plan.interval * max(NEARLY, (end - start) / (plan.interval + plan.overlap + ROUND))
        try:
            async with asyncio.timeout(allowed) as scope:
                deadline = PollDeadline(scope)
                sessions = await self._source.sessions(aid, start, end, deadline)
        except TimeoutError as error:
            raise PollError("deadline", f"the poll was not done after {allowed:.0f} s: raise poll.interval") from error
        taken, delays = await self._in_turn(self._take, sessions, end)
        self._telemetry.rejected(aid, taken.rejected)
        if not first:  # what the first poll sees may have been counted before a restart
            await self._threaded(self._telemetry.committed, aid, delays)
        self._covered, self._anew = end, False
        stretched = {"waited_for_requests": round(deadline.waited, 1)} if deadline.waited >= 1.0 else {}
        return {
            "user_sessions": len(sessions.users),
            "network_sessions": len(sessions.networks),
            "new": len(delays),
            "rejected": taken.rejected.total(),
            **stretched,
        }

    def _take(self, sessions: Sessions, end: int) -> tuple[Sessions, list[float]]:
        """Store what is wanted; return it, and the commit delays of the sessions that were not known before."""
        taken = self._plan.selection.take(sessions, end)
        known = self._store.users.keys()
        delays = {user.id: user.commit_delay for user in taken.users if user.id not in known}
        if self._anew:
            self._store = Store()
            self._distributions.begin()
        self._store.upsert(taken.users, taken.networks)
        return taken, [delay for delay in delays.values() if delay >= 0]

    async def _refresh(self, *, complete: bool) -> PollError | None:
        """Compute the result anew; return what went wrong."""
        try:
            self._result = await self._in_turn(self._rebuild, complete)
        except Exception as error:  # noqa: BLE001  nothing is better than something old
            self._result = Result(self.group.aid, [], NO_ROWS, {})
            return self._crashed(error)
        return None

    async def _in_turn(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Compute with the store, one after another."""
        async with self._turn:
            return await self._threaded(function, *arguments)

    def _rebuild(self, complete: bool) -> Result:
        """Forget what is old and compute everything anew; only a complete poll counts sessions."""
        now = self._api_clock.now()
        self._store.forget(now - self._plan.lookback)
        pairs = self._store.joined()
        if complete:
            self._distributions.observe(pairs, now)
        rows = aggregate(pairs, self._plan.families)
        counts = self._store.counts()
        self._telemetry.stored(self.group.aid, counts, self._store.newest_round())
        return Result(self.group.aid, pairs, rows, self._distributions.published(), counts=counts)

    async def once(self) -> None:
        """Poll once, and list the agents."""
        await self.poll()
        if self.complete:
            await self._list_agents()

    async def _keep_agents(self) -> None:
        await self._complete.wait()  # a token that is refused is refused once
        while True:
            await self._list_agents()
            await self._clock.sleep(AGENTS_EVERY)

    async def _list_agents(self) -> None:
        """List the agents; that they can not be listed costs only their names."""
        try:
            async with asyncio.timeout(AGENTS_EVERY / 10) as scope:
                agents = await self._source.agents(self.group.aid, PollDeadline(scope))
        except Exception as error:  # noqa: BLE001  sessions are worth more than names
            if not self._nameless:
                hint = "agent_info is not updated: the token needs 'View endpoint agent settings'"
                log.warn("agents_not_listed", aid=self.group.aid, error=error, hint=hint)
            self._nameless = True
            return
        if self._nameless:
            log.info("agents_listed", aid=self.group.aid, agents=len(agents))
        self._nameless = False
        self._agents = tuple(agent for agent in agents if self._plan.selection.agent(agent.id))
        self._show()

    def _show(self) -> None:
        self._publish(self.result)
