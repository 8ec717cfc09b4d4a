"""Session records in base units, the same for every API version."""

import math
from collections import Counter

import msgspec

from exporter.errors import RejectionReason


class SeriesKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Labels of one series of a per-session family, within an account group."""

    agent: str
    site: str
    protocol: str


class UserSession(msgspec.Struct, frozen=True, gc=False):
    """One visit of one agent to one site (v6 user session, v7 real user test)."""

    id: str
    key: SeriesKey
    round: int
    """Start of the measurement round, Unix seconds."""
    values: tuple[float, ...]
    """The fields of `exporter.metrics.families.USER_FIELDS`, in that order; NaN for what the API
    did not send."""
    commit_delay: float = math.nan
    """Seconds from the session to its commit; NaN if one of the two times is unknown."""


class NetworkSession(msgspec.Struct, frozen=True, gc=False):
    """Network and system metrics of one visit."""

    id: str
    round: int
    """Start of the measurement round, Unix seconds."""
    values: bytes
    """The fields of `exporter.metrics.families.NETWORK_FIELDS` in base units, as packed native
    doubles; NaN for what the API did not send. Packed, 100,000 sessions take 27 MB, and one join
    makes them a matrix."""


class SessionBatch(msgspec.Struct, frozen=True):
    """All records that one poll of one account group read."""

    users: list[UserSession]
    networks: list[NetworkSession]
    rejected: Counter[RejectionReason]
