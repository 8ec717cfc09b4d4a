"""What can be asked of the API, the same for every version: sessions, agents, account groups.

Sending is `exporter.api.http`, paths and JSON are one file a version; this file reads all pages of a listing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from yarl import URL

from exporter.api import v6, v7
from exporter.api.http import Body, Deadline, Http
from exporter.api.wire import Page, Request, Shape, decode
from exporter.errors import PollError, Rejection
from exporter.model import AccountGroup, Agent, NetworkSession, Sessions, UserSession

MAX_PAGES = 1000
"""Pages of one listing; a thousand sessions each, that is a million."""

R = TypeVar("R")
Search = Mapping[str, Sequence[str]]


class Version(Protocol):
    """One version of the API: where its listings are, and how they are read."""

    CURSORS: frozenset[str]
    USERS: Shape[UserSession]
    NETWORKS: Shape[NetworkSession]
    AGENTS: Shape[Agent]
    ACCOUNT_GROUPS: Shape[AccountGroup]

    def user_sessions(self, aid: str, start: int, end: int, search: Search) -> Request:
        """Ask for user sessions."""

    def network_sessions(self, aid: str, start: int, end: int, search: Search) -> Request:
        """Ask for network sessions."""

    def agents(self, aid: str) -> Request:
        """Ask for agents."""

    def account_groups(self) -> Request:
        """Ask for account groups."""


VERSIONS: dict[str, Version] = {"v6": v6, "v7": v7}


class Source(Protocol):
    """Where sessions come from. An `aid` without text asks for the token's own account group."""

    async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
        """Return all sessions between two Unix times, both included; raise `PollError`."""

    async def agents(self, aid: str, deadline: Deadline) -> list[Agent]:
        """Return all agents, sorted by id, each once; raise `PollError`."""

    async def account_groups(self, deadline: Deadline) -> list[AccountGroup]:
        """Return the account groups that the token may see; raise `PollError`."""


Threaded = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments where it does not stall the event loop."""


class Api:
    """A `Source` that asks one version of the real API."""

    def __init__(self, http: Http, version: str, search: Search, threaded: Threaded = asyncio.to_thread) -> None:
        self._http = http
        self._version = VERSIONS[version]
        self._search = search
        self._threaded = threaded

    async def sessions(self, aid: str, start: int, end: int, deadline: Deadline) -> Sessions:
        """Read both listings: the first page alone, so that what is refused is refused once, the rest side by side."""
        users: list[UserSession] = []
        networks: list[NetworkSession] = []
        rejected: Counter[Rejection] = Counter()
        user_pages = self._pages(
            self._version.user_sessions(aid, start, end, self._search), self._version.USERS, deadline
        )
        network_pages = self._pages(
            self._version.network_sessions(aid, start, end, self._search), self._version.NETWORKS, deadline
        )
        first = await anext(user_pages)
        users += first.records
        rejected += first.rejected
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_collect(user_pages, users, rejected))
                both.create_task(_collect(network_pages, networks, rejected))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return Sessions(users, networks, rejected)

    async def agents(self, aid: str, deadline: Deadline) -> list[Agent]:
        """Read all agents."""
        agents: list[Agent] = []
        await _collect(self._pages(self._version.agents(aid), self._version.AGENTS, deadline), agents, Counter())
        return [agent for _, agent in sorted({agent.id: agent for agent in agents}.items())]

    async def account_groups(self, deadline: Deadline) -> list[AccountGroup]:
        """Read all account groups."""
        groups: list[AccountGroup] = []
        pages = self._pages(self._version.account_groups(), self._version.ACCOUNT_GROUPS, deadline)
        await _collect(pages, groups, Counter())
        return groups

    async def _pages(self, request: Request, shape: Shape[R], deadline: Deadline) -> AsyncIterator[Page[R]]:
        """Yield the pages of a listing: a next link only lends its cursor to an address of our own."""
        page_request = request
        seen: set[frozenset[tuple[str, str]]] = {frozenset()}
        for _ in range(MAX_PAGES):
            page = await self._threaded(_page, await self._http.fetch(page_request, deadline), shape)
            yield page
            if page.next is None:
                return
            cursor = self._cursor(page.next, request)
            if frozenset(cursor.items()) in seen:
                raise PollError(
                    "pagination_loop", f"the pages of {request.path} lead back to one that was read already"
                )
            seen.add(frozenset(cursor.items()))
            page_request = Request(request.method, request.path, {**request.query, **cursor}, request.body)
        raise PollError(
            "pagination_limit", f"{request.path} has more than {MAX_PAGES} pages: select less by filter.search"
        )

    def _cursor(self, link: str, request: Request) -> dict[str, str]:
        """Return the cursor of a next link, if it leads where the first request went."""
        aid = request.query.get("aid")
        try:
            url = self._http.origin.join(URL(link))
            there = (url.origin(), url.path.removesuffix(".json"), url.query.get("aid", aid))
        except ValueError:
            raise PollError("pagination_origin", f"the next page of {request.path} has no valid address") from None
        if there != (self._http.origin.origin(), request.path.removesuffix(".json"), aid):
            raise PollError(
                "pagination_origin", f"the next page of {request.path} is on another host, path or account group"
            )
        return {name: value for name, value in url.query.items() if name in self._version.CURSORS}


def _page(body: Body, shape: Shape[R]) -> Page[R]:
    return decode(body.text(), shape)


async def _collect(pages: AsyncIterator[Page[R]], records: list[R], rejected: Counter[Rejection]) -> None:
    async for page in pages:
        records += page.records
        rejected += page.rejected
