"""The sessions of the look-back, held to plain lists."""

from hypothesis import given
from making import ROUND, network, pair, sessions, user

from exporter.store import Store


def stored(*pairs):
    store = Store()
    store.upsert([one for one, _ in pairs], [other for _, other in pairs])
    return store


def test_a_session_that_comes_again_replaces_what_was_known_of_it():
    store = stored(pair("1", measured={"destination.latency": 1.0, "experienceScore": 0.1}))
    later = pair("1", measured={"destination.latency": 2.0, "experienceScore": 0.2})
    store.upsert([later[0]], [later[1]])
    assert store.joined() == [later]


def test_either_half_may_find_its_partner_later():
    store = Store()
    store.upsert([user("1")], [network("2")])
    assert store.counts() == {"joined": 0, "user_only": 1, "network_only": 1}
    store.upsert([user("2")], [network("1")])
    assert store.counts() == {"joined": 2, "user_only": 0, "network_only": 0}
    assert store.joined() == [(user("1"), network("1")), (user("2"), network("2"))]


@given(sessions())
def test_every_user_session_is_returned_once_in_the_order_of_ids_with_its_own_partner(both):
    users, networks = both
    store = Store()
    store.upsert(reversed(users), reversed(networks))
    partners = {each.id: each for each in networks}
    assert store.joined() == [(each, partners.get(each.id)) for each in sorted(users, key=lambda each: each.id)]
    counts = store.counts()
    assert counts["joined"] + counts["user_only"] == len(users)
    assert counts["joined"] + counts["network_only"] == len(networks)


def test_what_began_before_a_time_is_forgotten_and_nothing_else():
    old, edge = pair("1", start=ROUND - 1), pair("2", start=ROUND)
    store = stored(old, edge)
    store.upsert([], [network("3", start=ROUND - 1)])
    store.forget(ROUND)
    assert store.joined() == [edge]
    assert store.networks.keys() == {"2"}


def test_the_newest_round_is_that_of_the_newest_user_session():
    store = stored(pair("1", start=ROUND), pair("2", start=ROUND - 60))
    store.upsert([], [network("3", start=ROUND + 60)])
    assert store.newest_round() == ROUND
    store.forget(ROUND + 1)
    assert store.newest_round() is None
