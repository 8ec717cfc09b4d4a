"""Polls every account group: finds out which there are, and starts and stops their pollers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from exporter.account_group import AccountGroup
from exporter.clock import ApiClock, poll_deadline
from exporter.errors import PollError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.poller import Poller
from exporter.snapshot import SnapshotPublisher
from exporter.supervisor import Supervisor
from exporter.thousandeyes.api import Api

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AccountGroupsConfig:
    """Which account groups to poll, and how often to look for new ones."""

    configured: Sequence[str] | Literal["all"]
    """Ids, `all`, or empty for the token's own group."""
    interval: float
    """Seconds between listings of the account groups."""
    retry_interval: float
    """Seconds until the next attempt if none is known."""
    time_limit: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class PolledGroup:
    """One account group that is polled."""

    group: AccountGroup
    pollers: Sequence[Poller]
    """One for each source, in the order of their priority."""

    async def run(self) -> None:
        """Run all pollers; the first one polls before the others start.

        Its first poll shows how many requests it needs.
        """
        async with asyncio.TaskGroup() as tasks:
            for poller in self.pollers:
                tasks.create_task(poller.run())
                await self.pollers[0].polled.wait()


class AccountGroupManager:
    """Keeps one set of pollers for each account group."""

    def __init__(
        self,
        api: Api,
        config: AccountGroupsConfig,
        create_pollers: Callable[[str], Sequence[Poller]],
        publisher: SnapshotPublisher,
        supervisor: Supervisor,
        metrics: SelfMetrics,
        api_clock: ApiClock,
    ) -> None:
        """Create a manager without account groups; `create_pollers` is called with their ids."""
        self.groups: dict[str, PolledGroup] = {}
        """By account group id."""
        self.listed: list[AccountGroup] = []
        """The account groups that the token has access to; empty if unknown."""
        self.failure: PollError | None = None
        """Why the account groups could not be listed; `None` if they were."""
        self.last_tick = asyncio.get_running_loop().time()
        """When the loop last ran, on the event loop's clock."""
        self._api = api
        self._config = config
        self._create_pollers = create_pollers
        self._publisher = publisher
        self._supervisor = supervisor
        self._metrics = metrics
        self._api_clock = api_clock
        self._time = asyncio.get_running_loop().time
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._missing: set[str] = set()
        """Ids of polled account groups that the last listing did not have."""
        self._unlisted = False  # the token may not list account groups, and this was logged

    @property
    def pollers(self) -> list[Poller]:
        """The pollers of all account groups."""
        return [poller for group in self.groups.values() for poller in group.pollers]

    async def run(self) -> None:
        """Poll all account groups forever."""
        try:
            while True:
                await self.update()
                for aid, group in self.groups.items():
                    if aid not in self._tasks:
                        task = self._supervisor.run(f"account group {aid}", group.run)
                        self._tasks[aid] = asyncio.create_task(task)
                self.last_tick = self._time()
                config = self._config
                await asyncio.sleep(config.interval if self.groups else config.retry_interval)
        finally:
            await self._stop(*self._tasks)

    async def update(self) -> None:
        """List the account groups once, and create and remove pollers accordingly."""
        start = self._time()
        try:
            found = {group.aid: group for group in await self._find()}
        except PollError as error:
            self._record_failure(error, self._time() - start)
            return
        if self.failure:
            log.info("account_groups_listed", account_groups=len(found))
        self.failure = None
        missing = self.groups.keys() - found.keys()
        for aid in missing - self._missing - {""}:  # once can be an error of the API
            log.warning("account_group_missing", aid=aid, hint="removed if it is missing again")
        for aid in missing & {*self._missing, ""}:  # "" is the own group until its id is known
            if aid:
                log.warning("account_group_removed", aid=aid)
            await self._stop(aid)
            del self.groups[aid]
            self._publisher.remove(aid)
            self._metrics.remove(aid)
        self._missing = missing & self.groups.keys()
        if "" not in found:
            self._metrics.remove("")
        for aid, group in found.items():
            polled = self.groups.get(aid)
            if polled is None or polled.group != group:  # new, or renamed
                self._publisher.add(group)
                pollers = polled.pollers if polled else self._create_pollers(aid)
                self.groups[aid] = PolledGroup(group, pollers)

    async def _find(self) -> list[AccountGroup]:
        """Return the account groups to poll; raises `PollError` if they are unknown.

        A token that may not list account groups (`forbidden`, `not_found`) is an error only if
        the list is needed: for `all`, and for the token's own group once it is known.
        """
        configured = self._config.configured
        polled = [each.group for each in self.groups.values()]
        try:
            async with poll_deadline(self._config.time_limit) as deadline:
                self.listed = await self._api.account_groups(deadline)
        except PollError as error:
            own_is_known = not configured and any(group.aid for group in polled)
            needed = "all" in configured or own_is_known
            if error.reason not in ("forbidden", "not_found") or needed:
                raise
            if not self._unlisted:
                hint = "account group names are not published"
                log.warning("account_groups_not_listed", error=str(error), hint=hint)
            self._unlisted = True
        if "all" in configured:
            if not self.listed:
                raise PollError("schema", "the API lists no account groups")
            return self.listed
        if configured:
            by_id = {group.aid: group for group in (*polled, *self.listed)}
            return [by_id.get(aid, AccountGroup(aid)) for aid in configured]
        own = [group for group in self.listed if group.current] or polled or [AccountGroup("")]
        return own[:1]

    def _record_failure(self, failure: PollError, seconds: float) -> None:
        """Log a failed listing; if no group is known, it counts as a failed poll of sessions."""
        self.failure = failure
        reason, hint = failure.reason, failure.hint
        log.error("account_groups_not_listed", reason=reason, error=str(failure), hint=hint)
        if self.groups:
            return
        configured = self._config.configured
        for aid in configured if configured and "all" not in configured else [""]:
            self._metrics.initialize(aid, "sessions")
            self._metrics.polls.labels(aid, "sessions").inc()
            self._metrics.poll_failures.labels(aid, "sessions", reason).inc()
            self._metrics.last_poll_timestamp.labels(aid, "sessions").set(self._api_clock.now())
            self._metrics.last_poll_duration.labels(aid, "sessions").set(seconds)

    async def _stop(self, *aids: str) -> None:
        tasks = [self._tasks.pop(aid) for aid in aids if aid in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
