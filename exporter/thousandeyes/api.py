"""Queries of one API version: sessions, agents and account groups, each read to the last page."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from exporter.inventory import AccountGroup, Agent
from exporter.sessions.model import NetworkSession, SessionBatch, UserSession
from exporter.thousandeyes import v6, v7
from exporter.thousandeyes.client import Client
from exporter.thousandeyes.schema import Listing, Page, Parameters, Rejected, Request, Search

R = TypeVar("R")


class Version(Protocol):
    """One API version; implemented by a module."""

    USER_SESSIONS: Listing[UserSession]
    NETWORK_SESSIONS: Listing[NetworkSession]
    AGENTS: Listing[Agent]
    ACCOUNT_GROUPS: Listing[AccountGroup]

    def parameters(self, start: int, end: int, search: Search) -> Parameters:
        """Return query and body of a request of sessions between two Unix times, inclusive."""


VERSIONS: dict[str, Version] = {"v6": v6, "v7": v7}


class Api:
    """Queries one version of the API. An empty `aid` stands for the token's own account group."""

    def __init__(self, client: Client, version: str, search: Search) -> None:
        """Create the API; `search` filters the sessions."""
        self._client = client
        self._version = api = VERSIONS[version]
        self._search = search
        listings = (api.USER_SESSIONS, api.NETWORK_SESSIONS, api.AGENTS, api.ACCOUNT_GROUPS)
        self.routes = tuple(listing.path for listing in listings)
        """Values of the label `route` of the exporter's own metrics."""

    async def sessions(
        self, aid: str, start: int, end: int, deadline: asyncio.Timeout
    ) -> SessionBatch:
        """Return all sessions between two Unix times, inclusive.

        Raises:
            PollError: A page of one of the listings could not be read.
        """
        api, client = self._version, self._client
        query, body = api.parameters(start, end, self._search)
        user_request = Request(api.USER_SESSIONS.path, aid, query, body)
        network_request = Request(api.NETWORK_SESSIONS.path, aid, query, body)
        users = client.pages(user_request, api.USER_SESSIONS, deadline)
        networks = client.pages(network_request, api.NETWORK_SESSIONS, deadline)
        # The first page is read alone, so that a request that fails is sent once, not twice.
        first = await anext(users)
        batch = SessionBatch(first.records, [], first.rejected)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_collect(users, batch.users, batch.rejected))
                tasks.create_task(_collect(networks, batch.networks, batch.rejected))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return batch

    async def agents(self, aid: str, deadline: asyncio.Timeout) -> list[Agent]:
        """Return all agents of an account group, sorted by id, each once; raises `PollError`."""
        listing, agents = self._version.AGENTS, list[Agent]()
        pages = self._client.pages(Request(listing.path, aid), listing, deadline)
        await _collect(pages, agents, Counter())
        return [agent for _, agent in sorted({agent.id: agent for agent in agents}.items())]

    async def account_groups(self, deadline: asyncio.Timeout) -> list[AccountGroup]:
        """Return the account groups that the token has access to; raises `PollError`."""
        listing, groups = self._version.ACCOUNT_GROUPS, list[AccountGroup]()
        pages = self._client.pages(Request(listing.path), listing, deadline)
        await _collect(pages, groups, Counter())
        return groups


async def _collect(pages: AsyncIterator[Page[R]], records: list[R], rejected: Rejected) -> None:
    async for page in pages:
        records += page.records
        rejected += page.rejected
