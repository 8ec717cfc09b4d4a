"""The sessions of one account group within the look-back window, by session id."""

from collections.abc import Iterable

from exporter.sessions.model import NetworkSession, UserSession

JoinedSession = tuple[UserSession, NetworkSession | None]
"""A user session and its network session, if there is one."""


class SessionStore:
    """Both listings, joined on the session id on demand.

    A session that is read again replaces the stored one. Nothing derived is stored.
    """

    def __init__(self) -> None:
        self.users: dict[str, UserSession] = {}
        self.networks: dict[str, NetworkSession] = {}

    def upsert(self, users: Iterable[UserSession], networks: Iterable[NetworkSession]) -> None:
        """Insert or replace the sessions of a complete poll."""
        self.users.update((session.id, session) for session in users)
        self.networks.update((session.id, session) for session in networks)

    def expire(self, before: float) -> None:
        """Remove the sessions whose round started before a Unix time."""
        self.users = {id_: each for id_, each in self.users.items() if each.round >= before}
        self.networks = {id_: each for id_, each in self.networks.items() if each.round >= before}

    def join(self) -> list[JoinedSession]:
        """Return all user sessions with their network sessions, sorted by id.

        The order makes floating-point sums independent of the order of arrival.
        """
        users, networks = self.users, self.networks
        return [(users[id_], networks.get(id_)) for id_ in sorted(users)]

    def counts(self) -> dict[str, int]:
        """Return the number of `joined`, `user_only` and `network_only` sessions."""
        joined = sum(id_ in self.networks for id_ in self.users)
        return {
            "joined": joined,
            "user_only": len(self.users) - joined,
            "network_only": len(self.networks) - joined,
        }

    def newest_round(self) -> int | None:
        """Return the start of the newest user session's round, Unix seconds; `None` if none."""
        return max((session.round for session in self.users.values()), default=None)
