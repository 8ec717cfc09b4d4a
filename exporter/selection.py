"""Which sessions of a poll are taken in, and under which site: filters and groups of sites, before anything is stored.

Pure. What the API itself can leave out stands in `searched`; it is sent by `exporter.api`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from string import digits

import msgspec

from exporter.errors import Rejection
from exporter.model import Key, Sessions, UserSession

Patterns = Sequence[re.Pattern[str]]

MOST_SEARCHED = 200
"""Agents that the API is asked for by id: a body of some 8 kB; where there are more it is asked for all."""
_TEXT = r"(?:[^\\.^$*+?{}\[\]|()]|\\[^0-9A-Za-z\s])+"
_LITERALS = re.compile(rf"{_TEXT}(?:\|{_TEXT})*")
"""A regular expression that only lists texts: no operator but `|`, and punctuation escaped or not."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

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


def literals(pattern: re.Pattern[str]) -> list[str] | None:
    """Return the texts that a regular expression matches whole, where it only lists them; else None."""
    if pattern.flags != re.UNICODE or not _LITERALS.fullmatch(pattern.pattern):
        return None
    return [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in re.findall(r"(?:\\.|[^|\\])+", pattern.pattern)]


def searched(include_agents: Patterns, search: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return the API's own `searchFilters`: what the user set, and what the API can do of the filter of agents.

    Only agents that are listed by their whole id are asked of the API. Its `agentId` is described as a list of ids, of
    the format uuid (API description, *RealUserEndpointTestResultRequestFilter*), so it can only mean the same. What the
    user set for `agentId` wins. Sites are not asked: the description does not say how `visitedSite` compares letters
    of another case, ports and the dot at the end, which are one site here, nor what the base of a `domain` is. For
    protocols it has no filter.
    """
    listed = [literals(pattern) for pattern in include_agents]
    ids = sorted({text for texts in listed for text in texts or ()})
    if None in listed or not 0 < len(ids) <= MOST_SEARCHED or not all(map(_UUID.fullmatch, ids)):
        return dict(search)
    return {"agentId": ids, **search}


def host(site: str) -> str:
    """Return a visited site in its normal form: lower case, without port and without the dot at the end."""
    name, _, port = site.rpartition(":")
    has_port = name and not port.strip(digits) and (":" not in name or name.endswith("]"))
    return (name if has_port else site).lower().rstrip(".")


def _passes(text: str, include: Patterns, exclude: Patterns) -> bool:
    included = not include or any(pattern.fullmatch(text) for pattern in include)
    return included and not any(pattern.fullmatch(text) for pattern in exclude)
