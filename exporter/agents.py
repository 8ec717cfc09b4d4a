"""The source `agents`: names, platforms and versions of the agents of an account group."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from exporter.clock import poll_deadline
from exporter.inventory import Agent

TIME_LIMIT_RATIO = 0.95
"""Time limit of a poll as a share of its interval."""


class AgentsApi(Protocol):
    """Queries agents."""

    async def agents(self, aid: str, deadline: asyncio.Timeout) -> list[Agent]:
        """Return all agents of an account group, sorted by id; raises `PollError`."""


class AgentsSource:
    """Agents of one account group; the last complete listing stays published until the next."""

    name = "agents"
    required = False

    def __init__(
        self, aid: str, api: AgentsApi, interval: float, accepts: Callable[[str], bool]
    ) -> None:
        """Create the source; `accepts` returns whether an agent id is published."""
        self.interval = interval
        self.result: tuple[Agent, ...] = ()
        self._aid = aid
        self._api = api
        self._accepts = accepts

    async def poll(self) -> dict[str, object]:
        """Query the agents; returns fields for the log. Raises `PollError`."""
        async with poll_deadline(self.interval * TIME_LIMIT_RATIO) as deadline:
            agents = await self._api.agents(self._aid, deadline)
        self.result = tuple(agent for agent in agents if self._accepts(agent.id))
        return {"agents": len(agents)}

    async def refresh(self, *, complete: bool) -> None:
        """Do nothing: agents do not expire."""
