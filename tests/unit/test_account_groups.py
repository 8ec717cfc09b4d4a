"""Which account groups are polled, and restarts of tasks that crash."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest
from fake_clock import START, fake_clock, fake_time, wall
from structlog.testing import capture_logs

from exporter.account_group import AccountGroup
from exporter.app import Exporter
from exporter.errors import PollError
from exporter.settings import load
from exporter.supervisor import Supervisor
from exporter.thousandeyes.api import Api

OWN, OTHER = AccountGroup("1", "Sales", current=True), AccountGroup("2", "Logistics")
UNKNOWN, RENAMED = AccountGroup(""), AccountGroup("1", "Europe", current=True)
FORBIDDEN, NOT_FOUND = PollError("forbidden", "no permission"), PollError("not_found", "404")
MAINTENANCE, SLOW = PollError("maintenance", "maintenance"), None


class FakeApi(Api):
    """Lists account groups with the given answers and then the last one; all else is empty."""

    async def account_groups(self, deadline):
        self.listed.append(asyncio.get_running_loop().time() - START)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(1000 if answer is SLOW else 1)
        if isinstance(answer, PollError):
            raise answer
        return answer

    async def read(self, listings, aid, deadline, **_):
        self.polled.add((aid, listings[0].path))
        await asyncio.sleep(1)
        return [[] for _ in listings], Counter()


@asynccontextmanager
async def exporting(configured, *answers):
    flags = ["--api.token=x", *(f"--api.account-groups={each}" for each in [configured] if each)]
    settings = load(flags, {}).settings
    exporter = Exporter(settings, clock=fake_clock(), process=False, api_type=FakeApi)
    exporter.api.answers, exporter.api.listed, exporter.api.polled = list(answers), [], set()
    yield exporter
    await exporter.close()


async def published(exporter):
    await exporter.publisher.publish()
    return {each.group for each in exporter.publisher.current.groups}


def value(exporter, name, aid, **labels):
    labels |= {"aid": aid, "source": "sessions"}
    return exporter.metrics.registry.get_sample_value(f"thousandeyes_exporter_{name}", labels)


@pytest.mark.parametrize(
    ("configured", "answers", "expected", "reason", "levels"),
    [
        ("", [[OTHER, OWN]], [OWN], None, []),
        ("", [[OTHER]], [UNKNOWN], None, []),
        ("", [FORBIDDEN], [UNKNOWN], None, ["warning"]),
        ("", [FORBIDDEN, FORBIDDEN, [OWN]], [OWN], None, ["warning"]),
        ("", [[OWN], FORBIDDEN], [OWN], "forbidden", ["error"] * 2),
        ("", [[OWN], MAINTENANCE, [OTHER]], [OWN], None, ["error", "info"]),
        ("", [SLOW], [], "deadline", ["error"] * 3),
        ("2,9", [[OWN, OTHER]], [OTHER, AccountGroup("9")], None, []),
        ("9", [FORBIDDEN, NOT_FOUND], [AccountGroup("9")], None, ["warning"]),
        ("2", [FORBIDDEN, [OTHER], FORBIDDEN], [OTHER], None, ["warning"]),
        ("1", [[OWN], [RENAMED]], [RENAMED], None, []),
        ("8,9", [MAINTENANCE], [], "maintenance", ["error"] * 3),
        ("all", [[OWN, OTHER]], [OWN, OTHER], None, []),
        ("all", [[OWN, OTHER], MAINTENANCE], [OWN, OTHER], "maintenance", ["error"] * 2),
        ("all", [NOT_FOUND], [], "not_found", ["error"] * 3),
        ("all", [[]], [], "schema", ["error"] * 3),
    ],
)
@fake_time
async def test_account_groups_after_3_listings(configured, answers, expected, reason, levels):
    async with exporting(configured, *answers) as exporter:
        manager = exporter.manager
        with capture_logs() as logs:
            for _ in range(3):
                await manager.update()
        assert [each.group for each in manager.groups.values()] == expected
        assert await published(exporter) == set(expected)
        assert (manager.failure.reason if manager.failure else None) == reason
        assert [log["log_level"] for log in logs] == levels
        for aid in [] if expected else configured.replace("all", "").split(","):
            assert value(exporter, "poll_failures_total", aid, reason=reason) == 3
            assert value(exporter, "last_poll_timestamp_seconds", aid) == wall()
            assert value(exporter, "last_poll_duration_seconds", aid) in (1, 120)


@fake_time
async def test_account_groups_are_added_and_removed_when_they_are_missing_twice():
    both = [OWN, OTHER]
    answers = MAINTENANCE, [OWN], both, [OWN], both, [OTHER], [OTHER], MAINTENANCE
    with capture_logs() as logs:
        async with exporting("all", *answers) as exporter:
            task, polled = asyncio.create_task(exporter.manager.run()), exporter.api.polled
            await asyncio.sleep(62.5)
            assert value(exporter, "polls_total", "") is None
            assert len(polled) == 1  # the other sources start after the first poll
            for aids in ("1", "12", "12", "12", "12", "2", "2"):
                polled.clear()
                assert {each.aid for each in await published(exporter)} == set(aids)
                assert (value(exporter, "polls_total", "1") is not None) == ("1" in aids)
                await asyncio.sleep(301)
                counts = Counter(aid for aid, _ in polled)
                assert {aid for aid, sources in counts.items() if sources == 3} == set(aids)
            task.cancel()
            await asyncio.wait([task])
    events = [log["event"] for log in logs if "account_group_" in log["event"]]
    assert events == ["account_group_missing"] * 2 + ["account_group_removed"]
    assert exporter.api.listed == [0, *range(61, 2169, 301)]
    assert exporter.manager.last_tick == START + 2169


@pytest.mark.parametrize(("lifetime", "count", "healthy"), [(0, 6, False), (140, 9, True)])
@fake_time
async def test_five_crashes_in_ten_minutes_are_unhealthy(lifetime, count, healthy):
    supervisor, crashes = Supervisor(fake_clock()), []

    async def task():
        await asyncio.sleep(lifetime)
        crashes.append(supervisor.healthy)
        raise ValueError("broken")

    with capture_logs() as logs, suppress(TimeoutError):
        async with asyncio.timeout(count * (lifetime + 10) - 9.9):
            await supervisor.run("broken task", task)
    assert [(log["event"], log["task"]) for log in logs] == [("crashed", "broken task")] * count
    assert crashes[:5] == [True] * 5
    assert supervisor.healthy == healthy
    await asyncio.sleep(600)
    assert supervisor.healthy
