"""ThousandEyes API v7.

Source: the OpenAPI description of version 7.0, published with the vendor's SDKs. Listings of
measurements are `POST …/filter`.
"""

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from exporter.thousandeyes import schema
from exporter.thousandeyes.schema import Listing


class _Link(Struct):
    href: str | None


class _Links(Struct):
    next: _Link | Literal[""] | None = None


class Envelope(schema.Envelope, rename={"links": "_links"}):
    """What surrounds the records of a page."""

    cursor_parameters = frozenset({"cursor"})
    links: _Links | None = None

    @property
    def next_link(self) -> str | None:
        """See `schema.Envelope`."""
        return self.links.next.href if self.links and self.links.next else None


ACCOUNT_GROUPS = Listing("/v7/account-groups", Envelope, "accountGroups", schema.AccountGroupRecord)


def parameters(start: int, end: int, search: schema.Search) -> schema.Parameters:
    """Return the parameters of a request of records between two Unix times, inclusive."""
    first, last = (f"{datetime.fromtimestamp(t, UTC):%Y-%m-%dT%H:%M:%SZ}" for t in (start, end))
    return {"startDate": first, "endDate": last}, {"searchFilters": search} if search else {}
