"""How many requests polls send, counted by the simulator in simulated time: no page too many."""

import pytest

from benchmarks.frugal import Hour, hour
from exporter.simulator import World

SHARE = 120
OVERLAP, INTERVAL, ROUND = 300, 60, 60


@pytest.mark.parametrize(("groups", "minutes"), [(1, 60), (5, 20), (20, 8)])
def test_no_page_is_asked_beyond_those_of_the_overlap(groups: int, minutes: int) -> None:
    found = hour(World(agents=10 * groups, account_groups=groups), minutes * 60.0)
    assert len(found.steady) >= groups * (minutes - 1)
    assert [poll for poll in found.polls if poll.requests > poll.needed] == []
    assert all(poll.end - poll.start < OVERLAP + INTERVAL + ROUND for poll in found.steady)
    assert found.busiest <= SHARE
    assert (found.failures, found.skipped) == (0, 0)


def test_polls_of_many_pages_ask_for_each_once() -> None:
    found = hour(World(agents=40), 600.0, page_size=10)
    assert max(poll.needed for poll in found.steady) > 4
    assert [poll for poll in found.polls if poll.requests > poll.needed] == []


@pytest.fixture(scope="module")
def crowded() -> Hour:
    """Ten minutes of account groups that need more requests than our share."""
    return hour(World(agents=100, account_groups=5), 600.0, page_size=10, settings={"api.requests-per-minute": "20"})


def test_where_the_share_does_not_suffice_polls_stretch_and_do_not_fail(crowded: Hour) -> None:
    assert crowded.busiest == 20
    assert crowded.failures == 0
    assert set(crowded.statuses) == {200}
    assert {poll.aid for poll in crowded.steady} == {"1001", "1002", "1003", "1004", "1005"}


def test_where_polls_stretch_the_exporter_says_so(crowded: Hour) -> None:
    assert crowded.skipped > 0
