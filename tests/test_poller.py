"""The poller, on a clock that tests turn, against a pretend API that lives by the same clock."""

import asyncio
import logging
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from virtual import START, Patient, Virtual

from exporter.api import VERSIONS, Api, Source
from exporter.api.http import Credentials, Deadline, Http
from exporter.clock import ApiClock
from exporter.errors import PollError
from exporter.metrics import FAMILIES
from exporter.model import AccountGroup, Agent, Key, NetworkSession, Sessions, UserSession
from exporter.poller import AGENTS_EVERY, Plan, PollDeadline, Poller, Result
from exporter.selection import Selection
from exporter.simulator import Simulator, World, parse_faults
from exporter.telemetry import Telemetry

PLAN = Plan(60.0, 900.0, 300.0, Selection(), FAMILIES, 100)
AID = "1001"
PREFIX = "thousandeyes_exporter_"
versions = pytest.mark.parametrize("version", VERSIONS)


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


@dataclass
class Polling:
    """A poller of one account group, all that it talks to, and what it published."""

    virtual: Virtual
    simulator: Simulator
    http: Http
    source: Api
    telemetry: Telemetry
    plan: Plan
    published: list[Result] = field(default_factory=list)
    pollers: dict[str, Poller] = field(default_factory=dict)

    def poller(self, aid: str = AID) -> Poller:
        if aid not in self.pollers:
            group, clock = AccountGroup(aid, "Sales"), self.http.api_clock
            publish = self.published.append
            self.pollers[aid] = Poller(group, self.source, self.plan, clock, self.telemetry, publish, at_once)
        return self.pollers[aid]

    async def poll(self, *, after: float = 0.0, aid: str = AID) -> Result:
        """Poll once, some time later."""
        self.virtual.now += after
        await self.poller(aid).poll()
        return self.poller(aid).result

    def fails(self, *faults: str) -> None:
        """Let the API do something wrong from now on, or nothing."""
        self.simulator.faults = parse_faults(faults)

    def value(self, name: str, aid: str = AID, **labels: str) -> float | None:
        name = name if name.startswith("thousandeyes_") else PREFIX + name
        return self.telemetry.registry.get_sample_value(name, {"aid": aid, **labels})

    def ranges(self) -> list[tuple[float, float]]:
        """Return what was asked for, as seconds from the beginning of the test; one pair for both listings."""
        found = []
        for request in self.simulator.requests:
            query = parse_qs(request.query)
            names = ("from", "to") if "from" in query else ("startDate", "endDate")
            if names[0] in query:
                times = (datetime.fromisoformat(query[name][0].rstrip("Z") + "+00:00").timestamp() for name in names)
                found.append(tuple(when - START for when in times))
        assert all(count % 2 == 0 for count in Counter(found).values()), "both listings are asked for the same range"
        return list(dict.fromkeys(found))


@asynccontextmanager
async def polling(
    version: str = "v7",
    faults: Iterable[str] = (),
    *,
    world: World | None = None,
    skew: float = 0.0,
    patience: float = 10.0,
    **plan: Any,
) -> AsyncIterator[Polling]:
    async with AsyncExitStack() as stack:
        virtual, telemetry = Virtual(skew), Telemetry(process=False)
        simulator = Simulator(
            world or World(agents=20), clock=virtual.true, rate_limit=100_000, faults=parse_faults(faults)
        )
        url = await simulator.start()
        stack.push_async_callback(simulator.stop)
        http = Http(
            url, lambda: Credentials("demo"), telemetry, clock=virtual.clock, timeout=0.3, requests_per_minute=10_000
        )
        stack.push_async_callback(http.close)
        yield Polling(virtual, simulator, http, Api(http, version, {}, at_once), telemetry, replace(PLAN, **plan))


@asynccontextmanager
async def running(p: Polling, aid: str = AID) -> AsyncIterator[Poller]:
    """Let a poller poll by itself, as long as it lasts."""
    task = asyncio.create_task(p.poller(aid).run())
    try:
        yield p.poller(aid)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled(), task.exception()


async def until(condition: Callable[[], Any]) -> None:
    """Wait, in real time and not for long."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def minutes(p: Polling, condition: Callable[[], Any]) -> None:
    """Let minutes pass, each with a moment of real time in which sockets are read, until something is true."""
    for _ in range(30):
        await p.virtual.advance(60)
        await asyncio.sleep(0.05)
        if condition():
            return
    raise AssertionError("not within half an hour")


@pytest.fixture
def lines() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Return the events that are logged, with their fields."""
    logged: list[tuple[str, dict[str, Any]]] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append((record.getMessage(), record.__dict__["fields"]))  # type: ignore[method-assign]
    logger = logging.getLogger("exporter")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logged
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)


# What is asked for.


@versions
async def test_the_first_poll_asks_for_the_look_back_and_later_ones_for_what_may_be_new(version: str) -> None:
    async with polling(version) as p:
        await p.poll()
        await p.poll(after=60)
        await p.poll(after=60)
        assert p.ranges() == [(-930, 0), (-330, 60), (-270, 120)], "from whole rounds on, and to the moment"


async def test_after_an_outage_a_poll_reaches_back_to_the_last_complete_one() -> None:
    async with polling() as p:
        await p.poll()
        p.fails("maintenance")
        for _ in range(3):
            await p.poll(after=60)
        p.fails()
        p.simulator.requests.clear()
        await p.poll(after=60)
        assert p.ranges() == [(-330, 240)]
        p.fails("maintenance")
        await p.poll(after=3600)
        p.fails()
        p.simulator.requests.clear()
        await p.poll()
        assert p.ranges() == [(3840 - 900 - 30, 3840)], "but not further than the look-back"


async def test_the_time_is_the_apis_even_if_ours_is_a_day_wrong() -> None:
    for skew in (86_400, -86_400):
        async with polling(skew=skew) as p, polling() as right:
            await p.source.account_groups(Patient())
            result, expected = await p.poll(), await right.poll()
            assert p.ranges() == [(-930, 0)]
            assert result.rows.keys == expected.rows.keys
            assert p.value("last_poll_timestamp_seconds") == START
            p.virtual.skew = 0
            assert (await p.poll(after=60)).rows.keys == (await right.poll(after=60)).rows.keys


async def test_a_clock_that_was_set_back_starts_over() -> None:
    """The API says the year 2126 once, and the right time again: what was covered then is worth nothing."""
    async with polling() as p:
        p.virtual.now += 100 * 365 * 86_400
        await p.poll()
        p.virtual.now = 1000.0
        await p.source.account_groups(Patient())
        p.simulator.requests.clear()
        result = await p.poll()
        assert p.ranges() == [(-930, 0)]
        assert result.rows.keys


# What is kept, and for how long.


@versions
async def test_a_poll_publishes_what_the_api_holds(version: str) -> None:
    async with polling(version) as p:
        result = await p.poll()
        world = [s for s in p.simulator.world.sessions(1001, START - 900, START, START) if s.round_id >= START - 900]
        listed = {s.id: s for s in world if s.listed}
        keys = {Key(s.agent_id, s.visited_site, s.protocol) for s in listed.values()}
        assert result.rows.keys == sorted(keys)
        assert {user.id for user, _ in result.pairs} == set(listed)
        assert (result.complete, p.value("thousandeyes_up")) == (True, 1)
        joined = sum(s.measured for s in listed.values())
        assert p.value("sessions", state="joined") == joined
        assert p.value("sessions", state="user_only") == len(listed) - joined
        assert p.value("newest_round_timestamp_seconds") == max(s.round_id for s in listed.values())
        assert p.published == [result]


@versions
@pytest.mark.parametrize("fault", ["not_json", "reset", "unauthorized", "next_loop", "truncated", "html"])
async def test_a_poll_that_fails_changes_nothing(version: str, fault: str) -> None:
    async with polling(version) as p:
        before = await p.poll()
        p.simulator.page_size = 5
        p.fails(fault)
        after = await p.poll(after=10)
        assert after.pairs == before.pairs
        assert (p.value("thousandeyes_up"), p.poller().failing is None) == (0, False)
        assert p.value("polls_total") == 2
        assert p.value("poll_failures_total", reason=p.poller().failing or "") == 1
        assert p.value("last_poll_success_timestamp_seconds") == START
        assert p.value("last_poll_timestamp_seconds") == START + 10
        p.fails()
        p.virtual.now += 60
        assert (await p.poll()).rows.keys != []
        assert p.value("thousandeyes_up") == 1


async def test_half_a_poll_is_never_seen() -> None:
    """Page after page may fail; what is published is always of a whole poll."""
    async with polling() as p:
        p.simulator.page_size = 50
        p.fails("not_json=0.1")
        whole = None
        for _ in range(30):
            result = await p.poll()
            seen = [user.id for user, _ in result.pairs]
            if p.value("thousandeyes_up"):
                whole = whole or seen
            assert seen == (whole or [])
        assert whole
        assert 1 < (p.value("poll_failures_total", reason="json") or 0) < 30


@versions
async def test_sessions_grow_old_while_nothing_answers(version: str) -> None:
    async with polling(version) as p:
        sizes = [len((await p.poll()).pairs)]
        p.fails("maintenance")
        for _ in range(16):
            result = await p.poll(after=60)
            sizes.append(len(result.pairs))
            now = START + p.virtual.now - 1000
            assert all(user.round >= now - 900 for user, _ in result.pairs)
        assert sizes == sorted(sizes, reverse=True)
        assert (sizes[0] > 50, sizes[7] > 0, sizes[-1]) == (True, True, 0)
        assert result.rows.keys == []
        assert p.value("sessions", state="joined") == 0
        p.fails()
        assert (await p.poll(after=60)).rows.keys


async def test_an_agent_that_falls_silent_leaves_within_one_look_back() -> None:
    async with polling() as p:
        everybody = await p.poll()
        gone = everybody.rows.keys[0].agent
        p.simulator.world = p.simulator.world.vanishing({gone: START})
        for _ in range(16):
            result = await p.poll(after=60)
        assert gone not in {key.agent for key in result.rows.keys}
        assert result.rows.keys


@versions
async def test_a_late_partner_is_found(version: str) -> None:
    async with polling(version, ["no_networks"]) as p:
        alone = await p.poll()
        assert alone.rows.keys
        assert {network for _, network in alone.pairs} == {None}
        assert p.value("sessions", state="joined") == 0
        p.fails()
        found = await p.poll(after=60)
        joined = [user.round for user, network in found.pairs if network]
        assert joined
        assert min(joined) >= START - 300 - 60, "as far back as the overlap"


async def test_a_session_that_comes_again_is_replaced() -> None:
    class Growing(Fake):
        async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
            self.asked += 1
            key = Key("agent", "site.example", "https")
            users = [UserSession("1", key, int(START) - 30, (0.5, pages)) for pages in range(self.asked + 1)]
            return Sessions(users, [], Counter())

    poller, told = fake(source := Growing())
    for pages in (1.0, 2.0, 3.0):
        await poller.poll()
        assert [user.values[1] for user, _ in poller.result.pairs] == [pages], "the last one on the last page"
        assert told[-1].rows.columns["pages"].tolist() == [pages]
    assert source.asked == 3


@versions
async def test_what_is_rejected_is_counted_and_the_rest_published(version: str) -> None:
    async with polling(version, ["bad_records"]) as p:
        result = await p.poll()
        assert result.rows.keys
        assert p.value("thousandeyes_up") == 1
        for reason in ("missing_id", "missing_field", "bad_type", "bad_time", "out_of_range"):
            assert (p.value("records_rejected_total", reason=reason) or 0) > 0
        assert max(user.round for user, _ in result.pairs) <= START, "nothing from the future"


async def test_commit_delays_are_of_sessions_that_are_new() -> None:
    async with polling() as p:
        await p.poll()
        assert p.value("session_commit_delay_seconds_count") == 0, "a restart counts nothing twice"
        await p.poll()
        assert p.value("session_commit_delay_seconds_count") == 0
        before = {user.id for user, _ in p.poller().result.pairs}
        await p.poll(after=60)
        new = {user.id for user, _ in p.poller().result.pairs} - before
        assert p.value("session_commit_delay_seconds_count") == len(new) > 0


async def test_filters_apply_before_anything_is_stored(lines: Any) -> None:
    selection = Selection(exclude_sites=[re.compile("mail.*")])
    async with polling(selection=selection) as p:
        result = await p.poll()
        assert not [key.site for key in result.rows.keys if key.site.startswith("mail")]
        assert (p.value("records_rejected_total", reason="filtered") or 0) > 0
        assert dict(lines)["poll"]["rejected"] > 0


# One poll after another.


async def test_polls_follow_one_another_in_every_interval() -> None:
    async with polling() as p, running(p):
        for polls in range(1, 6):
            await until(lambda polls=polls: p.value("polls_total") == polls)
            await p.virtual.advance(59.9)
            assert p.value("polls_total") == polls
            await p.virtual.advance(0.1)
        await until(lambda: p.value("polls_total") == 6)
        assert p.value("polls_skipped_total") == 0
        ends = [end for _, end in p.ranges()]
        assert ends == pytest.approx([0, 60, 120, 180, 240, 300], abs=1), "the API says the time in whole seconds"


async def test_a_poll_that_is_late_is_waited_for_and_the_next_left_out(lines: Any) -> None:
    async with polling(faults=["hang"], patience=0.5) as p, running(p) as poller:
        await until(lambda: len(p.simulator.requests) == 1)
        for skipped in range(1, 4):
            await p.virtual.advance(60)
            await until(lambda skipped=skipped: p.value("polls_skipped_total") == skipped)
        assert (len(p.simulator.requests), p.value("polls_total")) == (1, 0), "never two at once"
        assert poller.ticked == p.virtual.now
        assert [event for event, _ in lines].count("poll_skipped") == 3
        p.fails()
        await until(lambda: p.value("polls_total") == 1)
        await p.virtual.advance(60)
        await until(lambda: p.value("polls_total") == 2)
        assert p.value("polls_skipped_total") == 3


async def test_sessions_grow_old_even_while_a_poll_takes_for_ever() -> None:
    poller, told = fake(source := Hanging())
    source.ready.set()
    async with steady(poller):
        await until(lambda: told and told[-1].rows.keys)
        source.ready.clear()
        for _ in range(20):
            await clock_of(poller).advance(60)
        assert told[-1].rows.keys == []
        assert source.asked == 2


async def test_a_machine_that_slept_polls_once_when_it_wakes() -> None:
    async with polling() as p, running(p) as poller:
        await until(lambda: p.value("polls_total") == 1)
        await until(lambda: p.virtual.sleepers == 2)
        await p.virtual.jump(600)
        await until(lambda: p.value("polls_total") == 2)
        await p.virtual.advance(59)
        assert (p.value("polls_total"), p.value("polls_skipped_total")) == (2, 0)
        assert all(user.round >= START + 600 - 900 for user, _ in poller.result.pairs)
        await p.virtual.advance(1)
        await until(lambda: p.value("polls_total") == 3)


# Agents.


async def test_agents_are_listed_after_the_first_complete_poll_and_seldom() -> None:
    async with polling(faults=["maintenance"]) as p, running(p) as poller:
        await until(lambda: p.value("polls_total") == 1)
        p.fails()
        await p.virtual.advance(60)
        await until(lambda: poller.result.agents)
        listed = [r.time - START for r in p.simulator.requests if r.path == "/v7/endpoint/agents"]
        assert listed == [60]
        assert poller.result.agents == tuple(sorted(poller.result.agents, key=lambda agent: agent.id))
        assert len(poller.result.agents) == 20
        await until(lambda: p.virtual.sleepers == 2)
        await p.virtual.advance(AGENTS_EVERY)
        await until(lambda: sum(r.path == "/v7/endpoint/agents" for r in p.simulator.requests) == 2)


@versions
async def test_agents_that_may_not_be_listed_cost_their_names_and_one_warning(version: str, lines: Any) -> None:
    async with polling(version, ["forbidden_agents"]) as p, running(p) as poller:

        def listed() -> int:
            return sum("agents" in request.path for request in p.simulator.requests)

        for times in range(1, 5):
            await until(lambda times=times: listed() == times and p.virtual.sleepers == 2)
            await p.virtual.advance(AGENTS_EVERY)
        assert [event for event, _ in lines].count("agents_not_listed") == 1
        await minutes(p, lambda: poller.result.rows.keys)
        assert (poller.result.agents, p.value("thousandeyes_up")) == ((), 1)
        p.fails()
        await until(lambda: p.virtual.sleepers == 2)
        await p.virtual.advance(AGENTS_EVERY)
        await until(lambda: len(poller.result.agents) == 20)


async def test_only_the_wanted_agents_are_shown() -> None:
    everybody = [agent.id for agent in World(agents=20).people]
    async with polling(selection=Selection(include_agents=[re.compile(everybody[0])])) as p:
        await p.poller().once()
        assert [agent.id for agent in p.poller().result.agents] == [everybody[0]]


async def test_to_poll_once_is_to_list_the_agents_as_well() -> None:
    async with polling() as p:
        await p.poller().once()
        assert len(p.poller().result.agents) == 20
    async with polling(faults=["not_json"]) as p:
        await p.poller().once()
        assert p.poller().failing == "json"
        assert p.simulator.counts == {("/v7/endpoint/test-results/real-user-tests/filter", 200): 1}


# Faults of our own.


class Fake(Source):
    """A source without an API."""

    def __init__(self) -> None:
        self.asked = 0

    async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
        self.asked += 1
        key = Key("agent", "site.example", "https")
        return Sessions([UserSession("1", key, end // 60 * 60, (0.5, 1.0))], list[NetworkSession](), Counter())

    async def agents(self, aid: str, deadline: Deadline) -> list[Agent]:
        return []

    async def account_groups(self, deadline: Deadline) -> list[AccountGroup]:
        return [AccountGroup(AID)]


class Hanging(Fake):
    """A source that answers once, and then when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()

    async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
        found = await super().sessions(aid, start, end, deadline)
        await self.ready.wait()
        return found


def fake(source: Source, **plan: Any) -> tuple[Poller, list[Result]]:
    told: list[Result] = []
    virtual = Virtual()
    telemetry = Telemetry(process=False)
    poller = Poller(
        AccountGroup(""), source, replace(PLAN, **plan), ApiClock(virtual.clock), telemetry, told.append, at_once
    )
    poller.virtual = virtual  # type: ignore[attr-defined]
    poller.telemetry = telemetry  # type: ignore[attr-defined]
    return poller, told


def clock_of(poller: Poller) -> Virtual:
    return poller.virtual  # type: ignore[attr-defined, no-any-return]


def failures(poller: Poller, reason: str) -> float | None:
    registry = poller.telemetry.registry  # type: ignore[attr-defined]
    found: float | None = registry.get_sample_value(f"{PREFIX}poll_failures_total", {"aid": "", "reason": reason})
    return found


@asynccontextmanager
async def steady(poller: Poller) -> AsyncIterator[None]:
    task = asyncio.create_task(poller.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_crash_is_internal_and_the_next_poll_works(lines: Any) -> None:
    class Crashing(Fake):
        async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
            found = await super().sessions(aid, start, end, deadline)
            return found if self.asked != 2 else found.users[7]  # type: ignore[return-value]

    poller, told = fake(Crashing())
    await poller.poll()
    before = told[-1].rows.keys
    await poller.poll()
    assert (poller.failing, failures(poller, "internal")) == ("internal", 1)
    assert told[-1].rows.keys == before != []
    assert "IndexError" in str(dict(lines)["poll_failed"]["error"])
    await poller.poll()
    assert poller.failing is None
    event, fields = lines[-1]
    assert (event, fields["reason"], fields["failed_polls"]) == ("poll_healed", "internal", 1)


async def test_what_can_not_be_computed_is_not_published() -> None:
    """Nothing is better than something old."""
    poller, told = fake(Fake())
    await poller.poll()
    assert told[-1].rows.keys
    poller._store.users["bad"] = None  # type: ignore[assignment]
    await poller.poll()
    assert (told[-1].rows.keys, poller.failing, failures(poller, "internal")) == ([], "internal", 1)
    del poller._store.users["bad"]
    await poller.poll()
    assert told[-1].rows.keys
    assert poller.failing is None


async def test_a_poller_stops_when_it_is_told_to() -> None:
    poller, _ = fake(source := Hanging())
    task = asyncio.create_task(poller.run())
    await until(lambda: source.asked == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_takes_a_while_is_computed_elsewhere_by_itself() -> None:
    virtual = Virtual()
    telemetry = Telemetry(process=False)
    poller = Poller(AccountGroup(""), Fake(), PLAN, ApiClock(virtual.clock), telemetry, lambda _: None)
    await poller.poll()
    assert poller.complete
    assert poller.result.counts["joined"] + poller.result.counts["user_only"] == 1


# Deadlines, in real time: short ones.


async def test_a_poll_has_a_deadline() -> None:
    poller, told = fake(Hanging(), interval=0.05)
    async with asyncio.timeout(2):
        await poller.poll()
    assert (poller.failing, failures(poller, "deadline")) == ("deadline", 1)
    assert told[-1].rows.keys == []


async def test_the_first_poll_may_take_as_much_longer_as_it_reads_more() -> None:
    poller, _ = fake(source := Hanging(), interval=0.02, overlap=0.1)
    asyncio.get_running_loop().call_later(0.2, source.ready.set)
    await poller.poll()
    assert poller.failing is None


async def test_waiting_for_our_share_is_not_the_apis_fault(lines: Any) -> None:
    class Sharing(Fake):
        async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
            async def share() -> None:
                with deadline.standing_still():
                    left = deadline.remaining()
                    await asyncio.sleep(0.1)
                    assert deadline.remaining() == left

            await asyncio.gather(share(), share())
            return await super().sessions(aid, start, end, deadline)

    poller, _ = fake(Sharing(), interval=0.05, lookback=0.01)
    await poller.poll()
    assert poller.failing is None
    assert dict(lines)["poll"]["seconds"] == 0.0, "on the clock of this test"


async def test_a_deadline_stands_still_and_goes_on() -> None:
    async with asyncio.timeout(10) as scope:
        deadline = PollDeadline(scope)
        left = deadline.remaining()
        assert 9 < left <= 10
        with deadline.standing_still():
            await asyncio.sleep(0.03)
            with deadline.standing_still():
                await asyncio.sleep(0.03)
            assert scope.when() is None
        assert left - 0.05 < deadline.remaining() <= left
        assert 0.06 <= deadline.waited < 1
        scope.reschedule(None)
        assert deadline.remaining() == float("inf")


async def test_a_deadline_that_has_passed_stays_passed() -> None:
    async def late() -> None:
        async with asyncio.timeout(0.01) as scope:
            deadline = PollDeadline(scope)
            try:
                await asyncio.sleep(5)
            finally:
                with deadline.standing_still():
                    assert deadline.remaining() <= 0

    with pytest.raises(TimeoutError):
        await late()


async def test_long_waits_for_our_share_are_logged(lines: Any) -> None:
    class Patience(Fake):
        async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
            deadline.waited = 12.34  # type: ignore[attr-defined]
            return await super().sessions(aid, start, end, deadline)

    poller, _ = fake(Patience())
    await poller.poll()
    assert dict(lines)["poll"]["waited_for_requests"] == 12.3


async def test_a_failure_of_the_source_is_a_reason() -> None:
    class Failing(Fake):
        async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
            raise PollError("schema", "not what was expected")

    poller, told = fake(Failing())
    await poller.poll()
    assert (poller.failing, told[-1].complete, poller.complete) == ("schema", False, False)
