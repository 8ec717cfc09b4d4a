"""Queries of one API version: listings, each read to the last page."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol, TypeVar

from exporter.account_group import AccountGroup
from exporter.errors import PollError
from exporter.thousandeyes import v6, v7
from exporter.thousandeyes.client import Client
from exporter.thousandeyes.schema import Listing, Page, Parameters, Rejected, Request, Search

R = TypeVar("R")
Version = Literal["v6", "v7"]

MAX_RECORDS = 1_000_000
"""Maximum number of records of a listing in one poll: 1,000 pages of the API, which bounds time and
memory."""


class VersionModule(Protocol):
    """What differs between the API versions; implemented by a module."""

    ACCOUNT_GROUPS: Listing[AccountGroup]

    def parameters(self, start: int, end: int, search: Search) -> Parameters:
        """Return query and body of a request of records between two Unix times, inclusive."""


VERSIONS: dict[Version, VersionModule] = {"v6": v6, "v7": v7}


class Api:
    """Queries one version of the API. An empty `aid` stands for the token's own account group."""

    def __init__(self, client: Client, version: Version) -> None:
        self.version = version
        self.parameters = VERSIONS[version].parameters
        self.account_groups_listing = VERSIONS[version].ACCOUNT_GROUPS
        self._client = client

    async def read(
        self,
        listings: Sequence[Listing[R]],
        aid: str,
        deadline: asyncio.Timeout,
        *,
        parameters: Parameters = ({}, None),
        priority: int = 0,
    ) -> tuple[Sequence[list[R]], Rejected]:
        """Return all records of each listing, and how many were rejected.

        Raises:
            PollError: A page of one of the listings could not be read.
        """
        requests = [Request(each.path, aid, *parameters, priority) for each in listings]
        readers = [
            self._client.pages(request, listing, deadline)
            for request, listing in zip(requests, listings, strict=True)
        ]
        # The first page is read alone, so that a request that fails is sent once, not twice.
        first = await anext(readers[0])
        records = [first.records, *([] for _ in listings[1:])]
        rejected = Counter(first.rejected)
        try:
            async with asyncio.TaskGroup() as tasks:
                for reader, collected in zip(readers, records, strict=True):
                    tasks.create_task(_collect(reader, collected, rejected))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return records, rejected

    async def account_groups(self, deadline: asyncio.Timeout) -> list[AccountGroup]:
        """Return the account groups that the token has access to; raises `PollError`."""
        (groups,), _ = await self.read([self.account_groups_listing], "", deadline)
        return groups


async def _collect(pages: AsyncIterator[Page[R]], records: list[R], rejected: Rejected) -> None:
    async for page in pages:
        records += page.records
        if len(records) > MAX_RECORDS:
            raise PollError("too_large", f"a listing has more than {MAX_RECORDS:,} records")
        rejected += page.rejected
