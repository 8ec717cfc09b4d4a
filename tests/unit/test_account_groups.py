"""Which account groups are polled, and restarts of tasks that crash."""

import asyncio
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest
from fake_clock import START, WALL_START, fake_clock, fake_time
from structlog.testing import capture_logs

from exporter.account_group import AccountGroup
from exporter.account_groups import AccountGroupManager, AccountGroupsConfig
from exporter.clock import ApiClock
from exporter.errors import PollError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.supervisor import Supervisor

OWN, OTHER = AccountGroup("1", "Sales", current=True), AccountGroup("2", "Logistics")
UNKNOWN, RENAMED = AccountGroup(""), AccountGroup("1", "Europe", current=True)
FORBIDDEN, NOT_FOUND = PollError("forbidden", "no permission"), PollError("not_found", "404")
MAINTENANCE = PollError("maintenance", "maintenance")


class Setup:
    """A manager; also its API, with the given answers and then the last one, and its publisher."""

    def __init__(
        self, configured: object, *answers: list[AccountGroup] | PollError, seconds: float = 1.0
    ) -> None:
        self.answers, self.seconds = list(answers), seconds
        self.listed, self.published, self.running = list[float](), set[str](), set[str]()
        self.remove = self.published.remove
        self.metrics, clock = SelfMetrics(process=False), fake_clock()
        config = AccountGroupsConfig(configured, interval=300, retry_interval=60, time_limit=100)
        self.manager = AccountGroupManager(
            *(self, config, self.create_pollers, self, Supervisor(clock), self.metrics),
            ApiClock(clock),
        )

    async def account_groups(self, deadline: asyncio.Timeout) -> list[AccountGroup]:
        self.listed.append(asyncio.get_running_loop().time() - START)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(self.seconds)
        if isinstance(answer, PollError):
            raise answer
        return answer

    def create_pollers(self, aid: str) -> list[SimpleNamespace]:
        self.metrics.initialize(aid, "sessions")
        pollers = [SimpleNamespace(polled=asyncio.Event()) for _ in "sa"]
        for name, poller in zip("sa", pollers, strict=True):
            poller.run = partial(self.poll, aid + name, poller.polled)
        return pollers

    async def poll(self, name: str, polled: asyncio.Event) -> None:
        self.running.add(name)
        await asyncio.sleep(self.seconds)
        polled.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.running.remove(name)

    def add(self, group: AccountGroup) -> None:
        self.published.add(group.aid)

    def failures(self) -> dict[str, float]:
        """Return the number of polls that failed for maintenance by account group."""
        samples = self.metrics.poll_failures.collect()[0].samples
        return {s.labels["aid"]: s.value for s in samples if s.labels["reason"] == "maintenance"}


@pytest.mark.parametrize(
    ("configured", "answers", "expected", "reason", "levels"),
    [
        ([], [[OTHER, OWN]], [OWN], None, []),
        ([], [[OTHER]], [UNKNOWN], None, []),
        ([], [FORBIDDEN], [UNKNOWN], None, ["warning"]),
        ([], [FORBIDDEN, [OWN]], [OWN], None, ["warning"]),
        ([], [[OWN], FORBIDDEN], [OWN], "forbidden", ["error"] * 2),
        ([], [[OWN], MAINTENANCE, [OTHER]], [OWN], None, ["error", "info"]),
        (["2", "9"], [[OWN, OTHER]], [OTHER, AccountGroup("9")], None, []),
        (["9"], [FORBIDDEN, NOT_FOUND], [AccountGroup("9")], None, ["warning"]),
        (["2"], [FORBIDDEN, [OTHER], FORBIDDEN], [OTHER], None, ["warning"]),
        (["1"], [[OWN], [RENAMED]], [RENAMED], None, []),
        (["9"], [MAINTENANCE], [], "maintenance", ["error"] * 3),
        ("all", [[OWN, OTHER]], [OWN, OTHER], None, []),
        ("all", [[OWN, OTHER], MAINTENANCE], [OWN, OTHER], "maintenance", ["error"] * 2),
        ("all", [NOT_FOUND, []], [], "schema", ["error"] * 3),
    ],
)
@fake_time
async def test_account_groups_after_3_listings(configured, answers, expected, reason, levels):
    setup = Setup(configured, *answers)
    with capture_logs() as logs:
        for _ in range(3):
            await setup.manager.update()
    assert [each.group for each in setup.manager.groups.values()] == expected
    assert len(setup.manager.pollers) == 2 * len(expected)
    assert setup.published == {group.aid for group in expected}
    assert (setup.manager.failure.reason if setup.manager.failure else None) == reason
    assert [log["log_level"] for log in logs] == levels


@pytest.mark.parametrize(("ids", "aids"), [([], [""]), ("all", [""]), (["1", "2"], ["1", "2"])])
@fake_time
async def test_failures_before_any_listing_are_failed_polls(ids, aids):
    setup = Setup(ids, MAINTENANCE, MAINTENANCE, [OWN, OTHER])
    with suppress(TimeoutError):
        async with asyncio.timeout(100):
            await setup.manager.run()
    assert (setup.listed, setup.manager.last_tick) == ([0, 61], START + 62)
    assert setup.failures() == dict.fromkeys(aids, 2)
    labels = {"aid": aids[0], "source": "sessions"}
    times = {"timestamp": WALL_START + 62, "duration": 1}
    for name, value in times.items():
        sample = f"thousandeyes_exporter_last_poll_{name}_seconds"
        assert setup.metrics.registry.get_sample_value(sample, labels) == value
    await setup.manager.update()
    assert setup.failures().keys() == setup.manager.groups.keys()


@fake_time
async def test_account_groups_are_added_and_removed_when_they_are_missing_twice():
    both = [OWN, OTHER]
    setup = Setup("all", [OWN], both, [OWN], both, [OTHER], [OTHER], MAINTENANCE)
    with capture_logs() as logs:
        task = asyncio.create_task(setup.manager.run())
        await asyncio.sleep(1.5)
        assert setup.running == {"1s"}  # the others start after the first poll
        for aids in ("1", "12", "12", "12", "12", "2", "2"):
            await asyncio.sleep(10)
            assert setup.running == {aid + source for aid in aids for source in "sa"}
            assert setup.published == setup.failures().keys() == set(aids)
            await asyncio.sleep(291)
        task.cancel()
        await asyncio.wait([task])
    events = [log["event"] for log in logs if log.get("aid") in ("1", "2")]
    assert events == ["account_group_missing"] * 2 + ["account_group_removed"]
    assert (setup.listed[-2:], setup.running) == ([1806, 2107], set())


@fake_time
async def test_a_listing_has_a_time_limit():
    setup = Setup([], [OWN], seconds=1000.0)
    await setup.manager.update()
    assert setup.manager.failure.reason == "deadline"
    assert asyncio.get_running_loop().time() == START + 100


@pytest.mark.parametrize(
    ("lifetime", "crashes", "healthy"),
    [(0, 4, True), (0, 6, False), (139, 5, False), (140, 9, True)],
)
@fake_time
async def test_five_crashes_in_ten_minutes_are_unhealthy(lifetime, crashes, healthy):
    supervisor = Supervisor(fake_clock())

    async def task() -> None:
        await asyncio.sleep(lifetime)
        raise ValueError("broken")

    with capture_logs() as logs, suppress(TimeoutError):
        async with asyncio.timeout(crashes * (lifetime + 10) - 9.9):
            await supervisor.run("broken task", task)
    assert [(log["event"], log["task"]) for log in logs] == [("crashed", "broken task")] * crashes
    assert supervisor.healthy == healthy
    await asyncio.sleep(600)
    assert supervisor.healthy
