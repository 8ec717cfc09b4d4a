"""ThousandEyes API v6.

Source: the vendor's documentation of version 6 (endpoint user session list, endpoint network
sessions list, endpoint agents, account groups). The vendor ended support on 2025-05-27. Listings
are GET, and POST if they are filtered.
"""

from datetime import UTC, datetime

from msgspec import Struct, field

from exporter.thousandeyes import schema
from exporter.thousandeyes.schema import Listing


class _AccountGroupRecord(schema.AccountGroupRecord):
    is_current_account_group: bool | int | None = field(name="current", default=None)


class _Pages(Struct):
    next: str | None = None


class Envelope(schema.Envelope):
    """What surrounds the records of a page."""

    cursor_parameters = frozenset({"page", "pageId", "lastRoundId"})
    pages: _Pages | None = None

    @property
    def next_link(self) -> str | None:
        """See `schema.Envelope`."""
        return self.pages.next if self.pages else None


ACCOUNT_GROUPS = Listing("/v6/account-groups.json", Envelope, "accountGroups", _AccountGroupRecord)


def parameters(start: int, end: int, search: schema.Search) -> schema.Parameters:
    """Return the parameters of a request of records between two Unix times, inclusive."""
    first, last = (f"{datetime.fromtimestamp(t, UTC):%Y-%m-%dT%H:%M:%S}" for t in (start, end))
    filters = [{"key": key, "values": values} for key, values in search.items()]
    return {"from": first, "to": last}, {"searchFilters": filters} if filters else None
