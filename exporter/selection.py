"""Which sessions of a poll are taken in, and under which site: filters and groups of sites, before anything is stored.

Pure. What the API itself can leave out is asked of it by `exporter.api`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import digits

import msgspec

from exporter.errors import Rejection
from exporter.model import Key, NetworkSession, Sessions, UserSession

Patterns = Sequence[re.Pattern[str]]

SLACK = 60
"""Seconds that a round may begin after the end of the range: clocks of the API's machines differ."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Whole-match regular expressions, each compiled once; without patterns everything is taken."""

    include_sites: Patterns = ()
    exclude_sites: Patterns = ()
    include_agents: Patterns = ()
    exclude_agents: Patterns = ()
    include_protocols: Patterns = ()
    site_groups: Sequence[tuple[re.Pattern[str], str]] = ()
    """Hosts that count as one site, the first match wins."""

    def take(self, sessions: Sessions, latest: float) -> Sessions:
        """Return the sessions that are wanted, with the rest counted; none from after `latest`, Unix seconds."""
        key = lru_cache(maxsize=4096)(self._key)
        users: list[UserSession] = []
        unwanted: set[str] = set()
        rejected: Counter[Rejection] = Counter(sessions.rejected)
        for user in sessions.users:
            if user.round > latest + SLACK:
                rejected["bad_time"] += 1
            elif (wanted := key(user.key)) is None:
                unwanted.add(user.id)
            else:
                users.append(user if wanted == user.key else msgspec.structs.replace(user, key=wanted))
        networks = [network for network in sessions.networks if network.id not in unwanted]
        networks, future = _until(networks, latest + SLACK)
        rejected["filtered"] += len(unwanted)
        rejected["bad_time"] += future
        return Sessions(users, networks, +rejected)

    def agent(self, name: str) -> bool:
        """Tell whether an agent is wanted."""
        return _passes(name, self.include_agents, self.exclude_agents)

    def _key(self, key: Key) -> Key | None:
        site = host(key.site)
        if not (
            self.agent(key.agent)
            and _passes(site, self.include_sites, self.exclude_sites)
            and _passes(key.protocol, self.include_protocols, ())
        ):
            return None
        group = next((name for pattern, name in self.site_groups if pattern.fullmatch(site)), site)
        return Key(key.agent, group, key.protocol)


def host(site: str) -> str:
    """Return a visited site in its normal form: lower case, without port and without the dot at the end."""
    name, _, port = site.rpartition(":")
    has_port = name and not port.strip(digits) and (":" not in name or name.endswith("]"))
    return (name if has_port else site).lower().rstrip(".")


def _passes(text: str, include: Patterns, exclude: Patterns) -> bool:
    included = not include or any(pattern.fullmatch(text) for pattern in include)
    return included and not any(pattern.fullmatch(text) for pattern in exclude)


def _until(networks: list[NetworkSession], latest: float) -> tuple[list[NetworkSession], int]:
    kept = [network for network in networks if network.round <= latest]
    return kept, len(networks) - len(kept)
