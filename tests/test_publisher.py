"""All account groups together: the cap on series, and when a snapshot is built."""

import asyncio
import math
from collections.abc import Iterable

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from making import ROUND, Pair, network, pair, user

from exporter.aggregate import Rows, aggregate
from exporter.exposition import NOTHING, Format, plain
from exporter.metrics import OTHER, select
from exporter.model import Agent, Key
from exporter.poller import Result
from exporter.publisher import Publication, Publisher, Publishing, cap

THREE = select(["latency_seconds", "sessions", "round_timestamp_seconds"])
"""Families of which every complete session has a sample: so a key has three series."""


def result(pairs: Iterable[Pair], aid: str = "1", families=THREE, *, complete: bool = True, agents=()) -> Result:
    pairs = list(pairs)
    return Result(aid, pairs, aggregate(pairs, families), {}, tuple(agents), complete)


def visits(*agents: str, protocol: str = "https") -> list[Pair]:
    return [pair(agent, agent, protocol=protocol, measured={"destination.latency": 0.5}) for agent in sorted(agents)]


def series(results: Iterable[Result]) -> int:
    return sum(int(each.rows.samples.sum()) for each in results)


def keys(results: Iterable[Result]) -> set[tuple[str, Key]]:
    return {(each.aid, key) for each in results for key in each.rows.keys}


def own(results: Iterable[Result]) -> frozenset[tuple[str, Key]]:
    return frozenset((aid, key) for aid, key in keys(results) if key.agent != OTHER)


def publication(keys: Iterable[tuple[str, Key]]) -> Publication:
    return Publication(rows=tuple((aid, Rows([key], {})) for aid, key in keys))


def published(results: Iterable[Result]) -> Publication:
    return publication(keys(results))


def agents(results: Iterable[Result]) -> str:
    return "".join(sorted(key.agent for _, key in keys(results)))


# The cap


def test_what_is_within_the_limit_is_left_as_it_is():
    results = [result(visits(*"ab"))]
    assert cap(results, 6, Publication(), THREE) == (results, 0)


def test_new_keys_above_the_limit_are_folded_in_the_order_of_their_labels():
    capped, dropped = cap([result(visits(*"dcba"))], 9, Publication(), THREE)
    assert agents(capped) == OTHER + "ab"
    assert dropped == 6


def test_live_keys_stay_whatever_their_labels_are():
    before = [result(visits(*"cd"))]
    capped, dropped = cap([result(visits(*"abcd"))], 9, published(before), THREE)
    assert agents(capped) == OTHER + "cd"
    assert dropped == 6


def test_live_keys_up_to_the_limit_leave_no_room_and_newcomers_are_left_out():
    before = [result(visits(*"bcd"))]
    assert cap(before, 9, Publication(), THREE)[1] == 0
    capped, dropped = cap([result(visits(*"abcd"))], 9, published(before), THREE)
    assert agents(capped) == "bcd"
    assert dropped == 3


def test_a_protocol_for_which_there_is_no_room_is_left_out_and_the_others_are_folded():
    live = visits(*"xyz")
    newcomers = [*visits("a", protocol="http"), *visits("b", protocol="quic")]
    capped, dropped = cap([result([*newcomers, *live])], 12, published([result(live)]), THREE)
    assert keys(capped) == {*own([result(live)]), ("1", Key(OTHER, OTHER, "http"))}
    assert dropped == 6


def test_live_keys_that_grow_beyond_the_limit_are_folded_too():
    grown = result(visits(*"abcd"))
    capped, dropped = cap([grown], 11, published([grown]), THREE)
    assert agents(capped) == OTHER + "ab"
    assert dropped == 6


def test_where_there_is_no_room_for_anything_nothing_is_left():
    capped, dropped = cap([result(visits(*"ab"))], 2, Publication(), THREE)
    assert keys(capped) == set()
    assert dropped == 6


def test_folding_is_undone_when_there_is_room():
    everyone = result(visits(*"abcd"))
    capped, _ = cap([everyone], 9, Publication(), THREE)
    assert cap([everyone], 12, published(capped), THREE) == ([everyone], 0)
    some, dropped = cap([result(visits(*"bcd"))], 9, published(capped), THREE)
    assert (agents(some), dropped) == ("bcd", 0)


def test_an_account_group_that_is_within_the_limit_stays_the_same_object():
    first, second = result(visits("a"), "1"), result(visits(*"bcd"), "2")
    capped, _ = cap([first, second], 9, Publication(), THREE)
    assert capped[0] is first
    assert keys(capped[1:]) == {("2", Key(OTHER, OTHER, "https"))}


def test_a_session_without_its_network_session_is_folded_like_the_others():
    pairs = [
        *visits(*"abc"),
        (user("d", "d", start=ROUND + 60), None),
        (user("e", "e", start=ROUND + 60), network("e")),
    ]
    (after,), dropped = cap([result(pairs)], 9, Publication(), THREE)
    row = after.rows.keys.index(Key(OTHER, OTHER, "https"))
    assert agents([after]) == OTHER + "ab"
    assert dropped == 3 + 2 + 2
    assert after.rows.columns["sessions"][row] == 2  # those of the newest round
    assert math.isnan(after.rows.columns["latency_seconds"][row])
    assert after.rows.columns["round_timestamp_seconds"][row] == ROUND + 60


measured = st.fixed_dictionaries(
    {}, optional={"destination.latency": st.floats(0, 10), "destination.loss": st.floats(0, 1)}
)
families = select(["latency_seconds", "loss_ratio", "sessions", "round_timestamp_seconds"])


@st.composite
def results(draw: st.DrawFn) -> list[Result]:
    """Draw what some account groups have to publish."""
    return [
        result(
            [
                pair(f"{n:02}", draw(st.sampled_from("abcde")), draw(st.sampled_from("xy")), protocol, measured=each)
                for n, each in enumerate(draw(st.lists(measured, max_size=10)))
                for protocol in [draw(st.sampled_from(["http", "https"]))]
            ],
            aid,
            families,
        )
        for aid in draw(st.sampled_from([["1"], ["1", "2"], ["1", "2", "3"]]))
    ]


@given(results(), st.integers(0, 60), st.data())
def test_the_limit_holds_live_keys_stay_and_nothing_is_counted_wrongly(polled, limit, data):
    everything = sorted(own(polled))
    live = frozenset(data.draw(st.sets(st.sampled_from(everything)) if everything else st.just(set())))
    capped, dropped = cap(polled, limit, publication(live), families)

    assert series(capped) <= limit
    assert [(each.aid, each.pairs) for each in capped] == [(each.aid, each.pairs) for each in polled]
    samples = {
        (each.aid, key): number
        for each in polled
        for key, number in zip(each.rows.keys, each.rows.samples.tolist(), strict=True)
    }
    assert dropped == sum(number for key, number in samples.items() if key not in keys(capped))
    if series(polled) <= limit:
        assert dropped == 0
    if sum(samples[key] for key in live) <= limit:
        assert live <= keys(capped)
    for before, after in zip(polled, capped, strict=True):
        folded = [
            (msgspec.structs.replace(one, key=Key(OTHER, OTHER, one.key.protocol)), other)
            for one, other in before.pairs
            if one.key not in after.rows.keys and Key(OTHER, OTHER, one.key.protocol) in after.rows.keys
        ]
        untouched = [session for session in before.pairs if session[0].key in after.rows.keys]
        expected = aggregate([*folded, *untouched], families)
        assert after.rows.keys == expected.keys
        for short, column in expected.columns.items():
            np.testing.assert_allclose(after.rows.columns[short], column, rtol=1e-12)


@given(st.lists(st.sets(st.sampled_from("abcdefghij")), max_size=8), st.integers(0, 30))
def test_no_live_series_is_ever_evicted_by_a_newcomer(polls, limit):
    live: frozenset[tuple[str, Key]] = frozenset()
    for poll in polls:
        polled = [result(visits(*poll))]
        capped, _ = cap(polled, limit, publication(live), THREE)
        assert live & own(polled) <= own(capped)
        assert series(capped) <= limit
        live = own(capped)


# The publisher


async def inline(function, *arguments):
    return function(*arguments)


def publisher(
    swapped: list[Publication], *, limit: int = 1000, threaded=inline, names=lambda agent: agent
) -> Publisher:
    return Publisher(Publishing(THREE, limit, names), swapped=swapped.append, threaded=threaded)


def text(publication: Publication) -> str:
    snapshot = publication.snapshot
    parts = (snapshot.common, snapshot.tails[Format.TEXT])
    return b"".join(chunk for part in parts for chunk in plain(part)).decode()


def test_nothing_is_published_before_the_first_result():
    assert publisher([]).publication == Publication(NOTHING, (), 0, frozenset())


async def test_a_snapshot_holds_every_account_group_and_says_which_are_complete():
    swapped: list[Publication] = []
    room = publisher(swapped)
    room.publish(result(visits("a"), "2"))
    room.publish(result(visits("b"), "1", complete=False))
    await room.build()
    assert swapped == [room.publication]
    assert room.publication.complete == {"2"}
    assert room.publication.keys == {("2", Key("a", "site.example", "https")), ("1", Key("b", "site.example", "https"))}
    assert (room.publication.snapshot.series, room.publication.dropped) == (6, 0)
    assert 'sessions{aid="1",agent="b"' in text(room.publication)


async def test_a_new_result_takes_the_place_of_the_old_one():
    room = publisher([])
    for agent in "ab":
        room.publish(result(visits(agent)))
        await room.build()
    assert {key.agent for _, key in room.publication.keys} == {"b"}


async def test_an_account_group_that_is_forgotten_is_in_no_later_snapshot():
    room = publisher([])
    room.publish(result(visits("a"), "1"))
    room.publish(result(visits("b"), "2"))
    room.forget("1")
    await room.build()
    assert room.publication.complete == {"2"}
    assert 'aid="1"' not in text(room.publication)


async def test_agents_are_named_as_they_are_to_be_named():
    room = publisher([], names=lambda agent: Agent(agent.id, "hidden"))
    room.publish(result([], agents=[Agent("x", "anna")]))
    await room.build()
    assert 'agent="x",agent_name="hidden"' in text(room.publication)
    assert "anna" not in text(room.publication)


async def test_what_was_published_stays_from_one_snapshot_to_the_next():
    room = publisher([], limit=9)
    room.publish(result(visits(*"xy")))
    await room.build()
    room.publish(result(visits(*"abxy")))
    await room.build()
    assert {key.agent for _, key in room.publication.keys} == {"x", "y"}
    assert room.publication.dropped == 6
    assert room.publication.snapshot.series == 9
    assert f'agent="{OTHER}"' in text(room.publication)


async def test_results_that_come_together_make_one_snapshot_and_those_that_come_meanwhile_one_more():
    swapped: asyncio.Queue[Publication] = asyncio.Queue()
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slowly(function, *arguments):
        entered.set()
        await gate.wait()
        return function(*arguments)

    room = Publisher(Publishing(THREE, 1000, lambda agent: agent), swapped=swapped.put_nowait, threaded=slowly)
    async with asyncio.timeout(10):
        running = asyncio.create_task(room.run())
        for aid in "123":
            room.publish(result(visits("a"), aid))
        await entered.wait()
        for aid in "456":
            room.publish(result(visits("a"), aid))
        room.forget("1")
        gate.set()
        assert (await swapped.get()).complete == set("123")
        assert (await swapped.get()).complete == set("23456")
        for _ in range(20):
            await asyncio.sleep(0)
        running.cancel()
    assert swapped.empty()


async def test_forgetting_what_is_not_known_builds_nothing():
    swapped: list[Publication] = []
    room = publisher(swapped)
    running = asyncio.create_task(room.run())
    room.forget("1")
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    assert swapped == []
