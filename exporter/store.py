"""The sessions of one account group inside the look-back, by id.

It knows neither the API nor the clock: what is old is said by its caller.
"""

from collections.abc import Iterable
from itertools import chain

from exporter.model import NetworkSession, UserSession

RUN = 8192
"""Names that are sorted in one go."""


class Store:
    """Both listings, joined on the session id whenever somebody asks.

    A session that comes again replaces what was known of it. Nothing is derived here, so nothing can disagree.
    """

    def __init__(self) -> None:
        self.users: dict[str, UserSession] = {}
        self.networks: dict[str, NetworkSession] = {}

    def upsert(self, users: Iterable[UserSession], networks: Iterable[NetworkSession]) -> None:
        """Take in what a complete poll has read."""
        self.users.update((session.id, session) for session in users)
        self.networks.update((session.id, session) for session in networks)

    def forget(self, before: float) -> None:
        """Forget all sessions whose round began before that Unix time."""
        self.users = {name: session for name, session in self.users.items() if session.round >= before}
        self.networks = {name: session for name, session in self.networks.items() if session.round >= before}

    def joined(self) -> list[tuple[UserSession, NetworkSession | None]]:
        """Return every user session with its network session, in the order of the ids.

        The order makes sums come out the same to the last bit, whatever came first.
        """
        users, networks = self.users, self.networks
        return [(users[name], networks.get(name)) for name in _sorted(list(users))]

    def counts(self) -> dict[str, int]:
        """Return how many sessions are `joined`, `user_only` and `network_only`."""
        joined = sum(name in self.networks for name in self.users)
        return {
            "joined": joined,
            "user_only": len(self.users) - joined,
            "network_only": len(self.networks) - joined,
        }

    def newest_round(self) -> int | None:
        """Return the start of the newest round of any user session, Unix seconds; None when there is none."""
        return max((session.round for session in self.users.values()), default=None)


def _sorted(names: list[str]) -> list[str]:
    """Sort names by merging sorted runs: nothing else runs while Python sorts, and two runs are merged quickly."""
    runs = [sorted(names[start : start + RUN]) for start in range(0, len(names), RUN)] or [names]
    while len(runs) > 1:
        runs = [sorted(chain.from_iterable(runs[first : first + 2])) for first in range(0, len(runs), 2)]
    return runs[0]
