"""The rows within the look-back window."""

from factories import ROUND, batch, network, session, user

from exporter.sources.rows import RowStore


def test_rows_are_replaced_when_read_again_and_expire_when_their_round_is_before_the_window():
    store, read = RowStore(), batch(session("2", start=ROUND - 1), session("1"))
    store.upsert((read.listings[0], [*read.listings[1], network("3", start=ROUND + 60)]))
    newer = session("1", values={"destination.latency": 2.0, "experienceScore": 0.5})
    store.upsert(([newer[0]], [newer[1]]))
    store.upsert(([user("0")],))  # a source with one listing
    assert store.join() == [(user("0"), None), newer, session("2", start=ROUND - 1)]  # sorted
    assert store.newest_round() == ROUND  # of the first listing
    for before, expired, ids in ((ROUND, True, "01"), (ROUND, False, "01"), (ROUND + 1, True, "")):
        assert store.expire(before) == expired
        assert "".join(first.id for first, _ in store.join()) == ids
        assert store.second.keys() == {*ids.lstrip("0"), "3"}
    assert store.newest_round() is None
