"""Filters and site groups, applied to the sessions of a poll before they are stored."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import digits

import msgspec

from exporter.errors import RejectionReason
from exporter.sessions.model import SeriesKey, SessionBatch, UserSession

Patterns = Sequence[re.Pattern[str]]

CLOCK_SKEW_SECONDS = 60
"""How long after the end of the requested range a round may start: the clocks of the API's servers
differ."""


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Regular expressions that must match the whole value.

    Without patterns, everything is accepted.
    """

    include_sites: Patterns = ()
    exclude_sites: Patterns = ()
    include_agents: Patterns = ()
    exclude_agents: Patterns = ()
    include_protocols: Patterns = ()
    site_groups: Sequence[tuple[re.Pattern[str], str]] = ()
    """Pattern and name of each group; a site gets the name of the first match."""

    def apply(self, batch: SessionBatch, latest: float) -> SessionBatch:
        """Return the accepted sessions, with all others counted in `rejected`.

        Args:
            batch: What the API returned.
            latest: End of the requested range, Unix seconds. Rounds more than `CLOCK_SKEW_SECONDS`
                later are rejected.
        """
        site_name, accepts_agent = cache(self._site_name), cache(self.accepts_agent)
        accepts_protocol = cache(self._accepts_protocol)
        newest_accepted = latest + CLOCK_SKEW_SECONDS
        users: list[UserSession] = []
        filtered: set[str] = set()
        rejected: Counter[RejectionReason] = Counter(batch.rejected)
        for user in batch.users:
            key = user.key
            site = site_name(key.site)
            if user.round > newest_accepted:
                rejected["bad_time"] += 1
            elif site is None or not accepts_agent(key.agent) or not accepts_protocol(key.protocol):
                filtered.add(user.id)
            elif site == key.site:
                users.append(user)
            else:
                key = SeriesKey(key.agent, site, key.protocol)
                users.append(msgspec.structs.replace(user, key=key))
        wanted = [network for network in batch.networks if network.id not in filtered]
        networks = [network for network in wanted if network.round <= newest_accepted]
        rejected["filtered"] += len(filtered)
        rejected["bad_time"] += len(wanted) - len(networks)
        return SessionBatch(users, networks, +rejected)

    def accepts_agent(self, agent: str) -> bool:
        """Return whether the sessions of an agent id are accepted."""
        return _matches(agent, self.include_agents, self.exclude_agents)

    def _accepts_protocol(self, protocol: str) -> bool:
        return _matches(protocol, self.include_protocols, ())

    def _site_name(self, visited_site: str) -> str | None:
        """Return the published name of a site; `None` if it is filtered."""
        site = normalize_host(visited_site)
        if not _matches(site, self.include_sites, self.exclude_sites):
            return None
        return next((name for pattern, name in self.site_groups if pattern.fullmatch(site)), site)


def normalize_host(site: str) -> str:
    """Return a host name in lower case, without port and trailing dot."""
    name, _, port = site.rpartition(":")
    has_port = name and not port.strip(digits) and (":" not in name or name.endswith("]"))
    return (name if has_port else site).lower().rstrip(".")


def _matches(text: str, include: Patterns, exclude: Patterns) -> bool:
    included = not include or any(pattern.fullmatch(text) for pattern in include)
    return included and not any(pattern.fullmatch(text) for pattern in exclude)
