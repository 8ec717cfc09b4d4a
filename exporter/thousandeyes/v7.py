"""ThousandEyes API v7.

Source: the OpenAPI description of version 7.0 (endpoint test results, endpoint agents, account
groups), published with the vendor's SDKs. Listings of sessions are `POST …/filter`.
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


class _Envelope(schema.Envelope, rename={"links": "_links"}):
    cursor_parameters = frozenset({"cursor"})
    links: _Links | None = None

    @property
    def next_link(self) -> str | None:
        return self.links.next.href if self.links and self.links.next else None


_TESTS = "/v7/endpoint/test-results/real-user-tests"
USER_SESSIONS = Listing(f"{_TESTS}/filter", _Envelope, "results", schema.UserRecord)
NETWORK_SESSIONS = Listing(f"{_TESTS}/networks/filter", _Envelope, "results", schema.NetworkRecord)
AGENTS = Listing("/v7/endpoint/agents", _Envelope, "agents", schema.AgentRecord)
ACCOUNT_GROUPS = Listing(
    "/v7/account-groups", _Envelope, "accountGroups", schema.AccountGroupRecord
)


def parameters(start: int, end: int, search: schema.Search) -> schema.Parameters:
    """Return the parameters of a request of sessions between two Unix times, inclusive."""
    first, last = (f"{datetime.fromtimestamp(t, UTC):%Y-%m-%dT%H:%M:%SZ}" for t in (start, end))
    return {"startDate": first, "endDate": last}, {"searchFilters": search} if search else {}
