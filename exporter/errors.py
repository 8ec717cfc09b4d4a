"""Exceptions, and the closed set of reasons for which a poll can fail."""

# ruff: noqa: E501  one line for each hint

from collections.abc import Iterable
from typing import Literal, get_args

Reason = Literal[
    "dns", "connect", "tls", "timeout", "reset", "protocol", "auth", "forbidden", "not_found", "rate_limited",
    "server_error", "maintenance", "redirect", "proxy", "content_type", "too_large", "decompress", "json", "schema",
    "pagination_origin", "pagination_loop", "pagination_limit", "deadline", "internal",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)

HINTS: dict[Reason, str] = {
    "dns": "check api.url and the DNS servers of this host; behind a proxy, set api.proxy",
    "connect": "check api.url and outbound firewall rules; behind a proxy, set api.proxy",
    "tls": "check api.url and the clock of this host; if a proxy inspects TLS, set api.ca_file to its CA certificate",
    "timeout": "the next poll retries; if it persists, check outbound firewall rules and proxies, or raise api.timeout",
    "reset": "the next poll retries; if it persists, check proxies and firewalls between this host and the API",
    "protocol": "check api.version, api.account_groups and filter.search: the API rejects one of them",
    "auth": "check the file of api.token_file, or write a new token to it; it is read again on every poll",
    "forbidden": "grant the missing permission to the token's user, or remove the group from api.account_groups",
    "not_found": "check api.url and api.version, and that the token's user belongs to the account group",
    "rate_limited": "lower api.requests_per_minute or raise poll.interval: the organization's limit is shared",
    "server_error": "the next poll retries; see https://status.thousandeyes.com for outages",
    "maintenance": "wait: polling continues and recovers when maintenance ends",
    "redirect": "check api.url and api.version; redirects are not followed",
    "proxy": "check api.proxy: address, user name and password, and firewalls between this host and the proxy",
    "content_type": "open api.url from this host: a captive portal or proxy may be answering instead of the API",
    "too_large": "request less data with filter.search",
    "decompress": "check for a proxy that modifies responses between this host and the API",
    "json": "check for a proxy that modifies responses between this host and the API",
    "schema": "check api.version; if it is correct, the API has changed: please report it",
    "pagination_origin": "set api.url to the address that the API uses in its own links",
    "pagination_loop": "the next poll retries; if it persists, please report it: the API returns circular links",
    "pagination_limit": "request less data with filter.search, or shorten poll.lookback",
    "deadline": "raise poll.interval or api.requests_per_minute, or request less data with filter.search",
    "internal": "please report it, with the log line event=poll_crashed",
}
"""What an operator can do about each reason."""

RejectionReason = Literal["missing_field", "bad_type", "out_of_range", "bad_time", "filtered"]
REJECTION_REASONS: tuple[RejectionReason, ...] = get_args(RejectionReason)


class ExporterError(Exception):
    """Base class of the errors that this program raises deliberately."""


class SettingsError(ExporterError, ValueError):
    """Invalid settings; `problems` has one message for each problem found, without any secret."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PollError(ExporterError):
    """A poll failed for one of the closed reasons; the message contains no secret."""

    def __init__(
        self, reason: Reason, message: str, status: int | None = None, hint: str = ""
    ) -> None:
        self.reason: Reason = reason
        self.status = status
        """HTTP status, if there was a response."""
        self.hint = hint or HINTS[reason]
        """What an operator can do; that of the reason unless the cause is known better."""
        super().__init__(message)
