"""Filters and site groups, applied to the sessions of a poll before they are stored."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import digits
from typing import Protocol

import msgspec
import re2  # type: ignore[import-untyped]

from exporter.labels import sanitize
from exporter.sources.rows import Batch, Row


class Pattern(Protocol):
    """A regular expression of RE2, which takes linear time, whatever the pattern and the text."""

    @property
    def pattern(self) -> str:
        """Its text."""

    def fullmatch(self, text: str) -> object:
        """Return `None` if the whole text does not match."""


Patterns = Sequence[Pattern]


def compile_pattern(text: str) -> Pattern:
    """Compile a pattern as Prometheus does: `.` matches line breaks, too. Raises ValueError."""
    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    try:
        compiled: Pattern = re2.compile(text, options)
    except re2.error as error:
        problem = f"{text!r} is not a pattern of RE2 ({error.args[0].decode(errors='replace')})"
        problem = " ".join(sanitize(problem).split())
        syntax = "which has no look-around and no back-references"
        link = "https://github.com/google/re2/wiki/Syntax"
        raise ValueError(f"{problem}, {syntax}; see {link}") from None
    return compiled


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
    site_groups: Sequence[tuple[Pattern, str]] = ()
    """Pattern and name of each group; a site gets the name of the first match."""

    def apply(self, batch: Batch, latest: float) -> Batch:
        """Return the accepted sessions, with all others counted in `rejected`.

        Args:
            batch: User sessions and network sessions that the API returned.
            latest: Rounds that start after this Unix time are rejected.
        """
        site_name, accepts_agent = cache(self._site_name), cache(self.accepts_agent)
        accepts_protocol = cache(self._accepts_protocol)
        users: list[Row] = []
        filtered: set[str] = set()
        rejected = Counter(batch.rejected)
        for user in batch.listings[0]:
            agent, visited_site, protocol = user.key
            site = site_name(visited_site)
            if user.round > latest:
                rejected["bad_time"] += 1
            elif site is None or not accepts_agent(agent) or not accepts_protocol(protocol):
                filtered.add(user.id)
            elif site == visited_site:
                users.append(user)
            else:
                users.append(msgspec.structs.replace(user, key=(agent, site, protocol)))
        wanted = [network for network in batch.listings[1] if network.id not in filtered]
        networks = [network for network in wanted if network.round <= latest]
        rejected["filtered"] += len(filtered)
        rejected["bad_time"] += len(wanted) - len(networks)
        return Batch((users, networks), +rejected)

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
