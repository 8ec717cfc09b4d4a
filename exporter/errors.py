"""The error tree: one base, and one closed set of reasons why a poll can fail.

What an error looks like on the wire, and who decides to try again, stands in `exporter.api.http`.
"""

from typing import Literal, get_args

Reason = Literal[
    "dns", "connect", "tls", "timeout", "reset", "protocol", "auth", "forbidden", "not_found", "rate_limited",
    "server_error", "maintenance", "redirect", "proxy", "content_type", "too_large", "decompress", "json", "schema",
    "pagination_origin", "pagination_loop", "pagination_limit", "deadline", "internal",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)
HINTS: dict[Reason, str] = {
    "dns": "check api.url, and the name servers of this machine; behind a proxy set api.proxy",
    "connect": "check api.url, and that a firewall lets this machine out; behind a proxy set api.proxy",
    "tls": "check the clock of this machine; where a proxy opens TLS, put its authority into api.ca_file",
    "timeout": "it is tried again with every poll; if it stays so, raise api.timeout",
    "reset": "it is tried again with every poll; if it stays so, look at what is between this machine and the API",
    "protocol": "check api.version, api.account_groups, filter.search and filter.include_agents: one is not accepted",
    "auth": "make a new token and put it into the file of api.token_file, which is read again for every poll",
    "forbidden": "give the role of the token's user these permissions, or leave the group out of api.account_groups",
    "not_found": "check api.url and api.version, and that the token's user belongs to the account group",
    "rate_limited": "lower api.requests_per_minute, or raise poll.interval: other programs of the organization ask too",
    "server_error": "it is tried again with every poll; https://status.thousandeyes.com tells of outages",
    "maintenance": "wait: polls go on, and the first that is answered heals it",
    "redirect": "check api.url and api.version: v6 is no longer supported",
    "proxy": "check api.proxy: address, user and password",
    "content_type": "open api.url from this machine: a portal or a proxy answers in place of the API",
    "too_large": "select less by filter.search",
    "decompress": "look for a proxy between this machine and the API that changes answers",
    "json": "look for a proxy between this machine and the API that changes answers",
    "schema": "check api.version; if it is right, the API has changed: please report it",
    "pagination_origin": "set api.url to the address that the API itself uses in its links",
    "pagination_loop": "it is tried again with every poll; if it stays so, the API is at fault: please report it",
    "pagination_limit": "select less by filter.search, or shorten poll.lookback",
    "deadline": "raise poll.interval or api.requests_per_minute, or select less by filter.search",
    "internal": "please report it, with the log line event=poll_crashed; check writes it with --log.level=debug",
}
"""What to do about each reason, for people."""

Rejection = Literal[
    "missing_id", "missing_field", "bad_type", "non_finite", "out_of_range", "bad_time", "bad_label", "filtered",
]  # fmt: skip
REJECTIONS: tuple[Rejection, ...] = get_args(Rejection)


class ExporterError(Exception):
    """Anything that this program raises on purpose."""


class SettingsError(ExporterError):
    """The settings can not be used: every problem found, not only the first."""

    def __init__(self, problems: list[str] | tuple[str, ...]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PollError(ExporterError):
    """A poll failed, for one of the closed reasons; its text is for people and holds no secret."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        super().__init__(message)
