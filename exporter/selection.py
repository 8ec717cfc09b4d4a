"""Which sessions of a poll are taken in, and under which site: filters and groups of sites, before anything is stored.

Pure. What the API itself can leave out is asked of it by `exporter.api`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import digits

import msgspec

from exporter.errors import Rejection
from exporter.model import Key, Sessions, UserSession

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
        sites, agents, protocols = cache(self._site), cache(self.agent), cache(self._protocol)
        until = latest + SLACK
        users: list[UserSession] = []
        unwanted: set[str] = set()
        rejected: Counter[Rejection] = Counter(sessions.rejected)
        for user in sessions.users:
            key = user.key
            if user.round > until:
                rejected["bad_time"] += 1
            elif (site := sites(key.site)) is None or not agents(key.agent) or not protocols(key.protocol):
                unwanted.add(user.id)
            elif site == key.site:
                users.append(user)
            else:
                users.append(msgspec.structs.replace(user, key=Key(key.agent, site, key.protocol)))
        wanted = [network for network in sessions.networks if network.id not in unwanted]
        networks = [network for network in wanted if network.round <= until]
        rejected["filtered"] += len(unwanted)
        rejected["bad_time"] += len(wanted) - len(networks)
        return Sessions(users, networks, +rejected)

    def agent(self, name: str) -> bool:
        """Tell whether an agent is wanted."""
        return _passes(name, self.include_agents, self.exclude_agents)

    def _protocol(self, name: str) -> bool:
        return _passes(name, self.include_protocols, ())

    def _site(self, visited: str) -> str | None:
        """Return under which site a visit counts; None where it does not."""
        site = host(visited)
        if not _passes(site, self.include_sites, self.exclude_sites):
            return None
        return next((name for pattern, name in self.site_groups if pattern.fullmatch(site)), site)


def host(site: str) -> str:
    """Return a visited site in its normal form: lower case, without port and without the dot at the end."""
    name, _, port = site.rpartition(":")
    has_port = name and not port.strip(digits) and (":" not in name or name.endswith("]"))
    return (name if has_port else site).lower().rstrip(".")


def _passes(text: str, include: Patterns, exclude: Patterns) -> bool:
    included = not include or any(pattern.fullmatch(text) for pattern in include)
    return included and not any(pattern.fullmatch(text) for pattern in exclude)
