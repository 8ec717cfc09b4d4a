"""The source of sessions: time ranges, expiry, and what a poll changes."""

import asyncio
import math
import threading
from dataclasses import replace
from email.utils import formatdate

import pytest
from factories import batch, session, user
from fake_clock import WALL_START, fake_clock, fake_time, wall
from msgspec.structs import replace as replace_fields

from exporter.clock import ApiClock
from exporter.errors import PollError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources.results import SessionsResult
from exporter.sources.rows import Batch
from exporter.sources.session_filter import SessionFilter, compile_pattern
from exporter.sources.sessions import SERIES, SessionsConfig, SessionsSource
from exporter.sources.source import Context

CONFIG = SessionsConfig(60.0, 900.0, 300.0, [SERIES], {}, SessionFilter(), 100)
FAILURE = PollError("connect", "connection refused")
ROUND = int(WALL_START) - 30  # in which the tests start


class Setup:
    """A source, and the API that it queries."""

    version = "v7"

    def __init__(self, config: SessionsConfig = CONFIG) -> None:
        self.metrics, self.api_clock = SelfMetrics(process=False), ApiClock(fake_clock())
        self.source = SessionsSource("7", Context(self, self.api_clock, self.metrics), config)
        self.queries: list[tuple[float, float, float]] = []
        """Start and end of the range, seconds since the start of the test; time limit, seconds."""

    def parameters(self, start: int, end: int, _search: object) -> object:
        return start - WALL_START, end - WALL_START

    async def read(self, listings, aid, deadline, *, parameters, priority):
        assert (listings, aid, priority) == (SessionsSource.listings["v7"], "7", 0)
        limit = deadline.when() - asyncio.get_running_loop().time()
        self.queries.append((*parameters, round(limit, 1)))
        if isinstance(self.answer, PollError):
            raise self.answer
        return self.answer.listings, self.answer.rejected

    async def poll(self, answer: Batch | PollError, *, after: float = 0) -> SessionsResult:
        """Poll once, as the poller does; return what is published."""
        await asyncio.sleep(after)
        self.answer = answer
        try:
            self.polled = await self.source.poll()
        except PollError:
            await self.source.refresh(polled=False)
        else:
            assert await self.source.refresh(polled=True)
        return self.source.result

    def value(self, name: str, **labels: str) -> float | None:
        name, labels = f"thousandeyes_exporter_{name}", {"aid": "7", **labels}
        return self.metrics.registry.get_sample_value(name, labels)


def ids(result: SessionsResult) -> str:
    return "".join(each.id for each, _ in result.rows)


@fake_time
async def test_the_first_poll_reads_the_look_back_and_later_ones_overlap():
    setup = Setup()
    answers = [batch(), batch(), batch(), FAILURE, FAILURE, batch(), FAILURE, batch()]
    for after, answer in zip((0, 60, 60, 60, 60, 60, 3600, 60), answers, strict=True):
        await setup.poll(answer, after=after)
    assert setup.queries == [
        *((-930, 0, 132.9), (-330, 60, 57.0), (-270, 120, 57.0)),
        *((-210, 180, 57.0), (-210, 240, 64.3), (-210, 300, 72.9)),  # reads what was missed
        *((2970, 3900, 132.9), (3030, 3960, 132.9)),  # but at most the look-back
    ]


@fake_time
async def test_ranges_follow_the_clock_of_the_api_and_no_session_is_observed_twice():
    setup = Setup()
    await setup.poll(batch(session("0", start=ROUND)))
    sessions = [session("1", start=ROUND, commit_delay=1.0), session("2", start=ROUND - 43_200)]
    for number, offset in enumerate((0, 43_200, 0, -43_200, 0), 1):
        for _ in range(2):  # a second response confirms a jump
            await asyncio.sleep(30)
            setup.api_clock.observe(formatdate(wall() + offset, usegmt=True))
        result = await setup.poll(batch(*sessions))
        assert setup.queries[-1][1] == 60 * number + offset
    assert setup.value("session_commit_delay_seconds_count") == 1
    assert [site.sessions for site in result.sites.values()] == [1]


@fake_time
async def test_sessions_expire_while_polls_fail():
    setup = Setup()
    sessions = [session(str(n), start=ROUND - 300 * n) for n in range(4)]
    await setup.poll(batch((sessions[0][0], None), *sessions[1:]))
    assert not await setup.source.refresh(polled=False)  # nothing has expired
    for after, expected in ((270, "012"), (1, "01"), (299, "01"), (1, "0"), (300, "")):
        result = await setup.poll(FAILURE, after=after)
        assert (ids(result), result.complete) == (expected, True)
    assert setup.value("sessions", state="user_only") == 0
    assert setup.value("newest_round_timestamp_seconds", source="sessions") == ROUND


@fake_time
async def test_only_complete_polls_change_counters_and_a_session_is_joined_when_both_are_read():
    setup = Setup()
    result = await setup.poll(FAILURE)
    assert (result.complete, result.sites) == (False, {})
    await setup.poll(batch(session("1", start=ROUND)))
    late = session("3", start=ROUND, values={"destination.latency": 2.0})
    result = await setup.poll(batch((late[0], None), session("2", start=ROUND)))
    assert result.counts == {"joined": 2, "user_only": 1, "network_only": 0}
    assert setup.value("sessions", state="user_only") == 1
    for answer, counted in ((FAILURE, 1), (Batch(([], [late[1]]), batch().rejected), 2)):
        result = await setup.poll(answer)
        assert [site.sessions for site in result.sites.values()] == [counted]
    assert (result.counts["joined"], late in result.rows) == (3, True)


@fake_time
async def test_filtered_and_rejected_records_are_counted():
    exclude = SessionFilter(exclude_sites=[compile_pattern("b")])
    setup, now = Setup(replace(CONFIG, filter=exclude)), int(WALL_START)
    polled = [session(site, site=site, start=now + 60) for site in "ab"]  # clocks may differ
    answer = batch(*polled, session("3", start=now + 61), bad_type=4)
    for times in (1, 2):
        assert ids(await setup.poll(answer)) == "a"
        read = {"user_sessions": 3, "network_sessions": 3}
        assert setup.polled == {**read, "new": 2 - times, "rejected": 7}
        for reason, count in (("filtered", 1), ("bad_time", 2), ("bad_type", 4)):
            rejected = setup.value("records_rejected_total", source="sessions", reason=reason)
            assert rejected == times * count


@fake_time
async def test_a_poll_of_many_invalid_records_only_fails():
    setup = Setup()
    for valid, invalid in ((0, 9), (1, 10)):
        await setup.poll(batch(*[session("2", start=ROUND)] * valid, missing_field=invalid))
    setup.answer = batch(missing_field=10)
    with pytest.raises(PollError, match="missing_field 10") as failure:
        await setup.source.poll()
    assert failure.value.reason == "schema"


@fake_time
async def test_commit_delays_of_new_sessions_are_observed_once():
    setup, name = Setup(), "session_commit_delay_seconds"
    assert setup.value(f"{name}_count") == 0
    polls = ([1.0], 0, 0), ([1.0, 30.0, 0.0, math.nan], 2, 30), ([30.0, -1.0], 2, 30)
    for delays, count, total in polls:
        users = [user(str(each), start=ROUND, commit_delay=each) for each in delays]
        await setup.poll(batch(*((each, None) for each in users)))
        assert (setup.value(f"{name}_count"), setup.value(f"{name}_sum")) == (count, total)


async def test_a_poll_whose_computation_exceeds_the_deadline_fails_and_delays_no_expiry():
    end = threading.Event()

    class Slow(SessionFilter):
        def apply(self, batch, latest):
            end.wait(60)
            return batch

    setup = Setup(replace(CONFIG, interval=0.1, lookback=1.0, overlap=0.5, filter=Slow()))
    setup.answer = batch(session("1", start=int(setup.api_clock.now())))
    with pytest.raises(PollError) as failure:
        await setup.source.poll()
    assert (failure.value.reason, await setup.source.refresh(polled=True)) == ("deadline", True)
    assert setup.source.result.rows == []
    end.set()


@fake_time
async def test_a_crash_publishes_nothing_instead_of_old_data():
    setup, complete = Setup(), batch((user("1", start=ROUND), None))
    await setup.poll(complete)
    with pytest.raises(ValueError, match="buffer"):
        await setup.poll(batch((replace_fields(complete.listings[0][0], values=b"1"), None)))
    assert setup.source.result == SessionsResult()
    assert ids(await setup.poll(complete)) == "1"
