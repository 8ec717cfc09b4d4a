"""The rows within the look-back window."""

from factories import ROUND, batch, network, session, user

from exporter.sources.rows import RowStore


def test_rows_are_joined_when_both_are_read_and_replaced_when_read_again():
    store = RowStore()
    store.upsert(([user("1"), user("3")], [network("2")]))
    assert store.join() == [(user("1"), None), (user("3"), None)]
    store.upsert(([user("2")], [network("1")]))
    assert store.join() == [session("1"), (user("3"), None), session("2")]
    newer = session("1", values={"destination.latency": 2.0, "experienceScore": 0.5})
    store.upsert(([newer[0]], [newer[1]]))
    assert store.join()[0] == newer
    store.upsert(([user("4")],))  # a source with one listing
    assert store.join()[-1] == (user("4"), None)


def test_rows_expire_when_their_round_started_before_the_window():
    store, read = RowStore(), batch(session("1", start=ROUND - 1), session("2"))
    store.upsert((read.listings[0], [*read.listings[1], network("3", start=ROUND + 60)]))
    assert store.newest_round() == ROUND  # of the first listing
    for before, expired, ids in ((ROUND, True, "2"), (ROUND, False, "2"), (ROUND + 1, True, "")):
        assert store.expire(before) == expired
        assert "".join(first.id for first, _ in store.join()) == ids
        assert store.second.keys() == {*ids, "3"}
    assert store.newest_round() is None
