"""The sessions within the look-back window."""

from factories import ROUND, batch, network, session, user

from exporter.sessions.store import SessionStore


def test_sessions_are_joined_when_both_are_read_and_replaced_when_read_again():
    store = SessionStore()
    store.upsert([user("1"), user("3")], [network("2")])
    assert store.counts() == {"joined": 0, "user_only": 2, "network_only": 1}
    store.upsert([user("2")], [network("1")])
    assert store.counts() == {"joined": 2, "user_only": 1, "network_only": 0}
    assert store.join() == [session("1"), session("2"), (user("3"), None)]  # sorted by id
    newer = session("1", values={"destination.latency": 2.0, "experienceScore": 0.5})
    store.upsert([newer[0]], [newer[1]])
    assert store.join()[0] == newer


def test_sessions_expire_when_their_round_started_before_the_window():
    store, read = SessionStore(), batch(session("1", start=ROUND - 1), session("2"))
    store.upsert(read.users, [*read.networks, network("3", start=ROUND + 60)])
    assert store.newest_round() == ROUND  # of user sessions
    store.expire(ROUND)
    assert store.join() == [session("2")]
    assert store.networks.keys() == {"2", "3"}
    store.expire(ROUND + 1)
    assert (store.join(), store.newest_round()) == ([], None)
