"""The records of the API in base units, the same for every API version.

Where they come from stands in `exporter.api`; what is done with them in `exporter.store` and `exporter.aggregate`.
"""

import hashlib
import math
import unicodedata
from collections import Counter

import msgspec

from exporter.errors import Rejection

MAX_LABEL = 256
"""Characters of a label value that are kept; hosts, names and ids are far shorter."""


class Key(msgspec.Struct, frozen=True, order=True, gc=False):
    """What one series of a per-session family is about, inside an account group.

    No named tuple: the garbage collector would visit a hundred thousand of them again and again, while all else waits.
    """

    agent: str
    site: str
    protocol: str


class UserSession(msgspec.Struct, frozen=True, gc=False):
    """One visit of one agent to one site (v6 user session, v7 real user test)."""

    id: str
    key: Key
    round: int
    """Start of the API's measurement round, Unix seconds."""
    values: tuple[float, ...]
    """The fields of `exporter.metrics.USER_FIELDS` in that order; NaN where the API sent none."""
    commit_delay: float = math.nan
    """Seconds from the session to its commit; NaN where one of the two times is unknown."""


class NetworkSession(msgspec.Struct, frozen=True, gc=False):
    """What the agent measured of the network and of itself during one visit."""

    id: str
    round: int
    """As in `UserSession`."""
    values: bytes
    """The fields of `exporter.metrics.NETWORK_FIELDS` in base units: packed native doubles, NaN where the API sent
    none. A hundred thousand sessions are 27 MB this way, and one join makes them a matrix."""


class Agent(msgspec.Struct, frozen=True, gc=False):
    """One endpoint agent; empty text and NaN where the API sent nothing."""

    id: str
    name: str = ""
    platform: str = ""
    version: str = ""
    os_version: str = ""
    location: str = ""
    last_seen: float = math.nan
    """Unix seconds."""


class AccountGroup(msgspec.Struct, frozen=True, gc=False):
    """One account group that the token may see."""

    aid: str
    name: str = ""
    current: bool = False
    """True for the group in which a request without `aid` is answered."""


class Sessions(msgspec.Struct, frozen=True):
    """Everything that one poll of one account group read."""

    users: list[UserSession]
    networks: list[NetworkSession]
    rejected: Counter[Rejection]


def label(text: str | None) -> str:
    """Return the text as a label value: printable, on one form, at most about `MAX_LABEL` characters.

    Space characters become spaces and go at both ends, a line feed stays, everything else that can not be printed
    (controls, bidirectional overrides, lone surrogates) becomes U+FFFD. What is cut ends in `…` and eight hexadecimal
    digits of its own hash, so that two values that only differ behind the cut stay two.
    """
    if text is None:
        return ""
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", "".join(map(_printable, text)))
    text = text.strip(" ")
    if len(text) > MAX_LABEL:
        text = text[:MAX_LABEL] + "…" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return text


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
