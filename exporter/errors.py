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
