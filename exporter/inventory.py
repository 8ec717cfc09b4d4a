"""Account groups and agents, and how agent names are published."""

import hashlib
import hmac
import math
from collections.abc import Callable
from typing import Literal

import msgspec


class Agent(msgspec.Struct, frozen=True, gc=False):
    """One endpoint agent; empty strings and NaN for what the API did not send."""

    id: str
    name: str = ""
    platform: str = ""
    version: str = ""
    os_version: str = ""
    location: str = ""
    last_seen: float = math.nan
    """Unix seconds."""


class AccountGroup(msgspec.Struct, frozen=True, gc=False):
    """One account group that the token has access to."""

    aid: str
    """Empty if unknown: requests without `aid` use the token's own group."""
    name: str = ""
    current: bool = False
    """Whether it is the token's own group."""


AgentNames = Callable[[Agent], Agent]
"""Returns the agent as it is published."""


def agent_names(mode: Literal["plain", "hashed", "off"], key: str = "") -> AgentNames:
    """Return the function that replaces or removes agent names.

    A hashed name is the first 16 hexadecimal digits of the HMAC-SHA-256 of the name: the same for
    the same key in every replica and after every restart.
    """

    def hashed(agent: Agent) -> Agent:
        digest = hmac.digest(key.encode(), agent.name.encode(), hashlib.sha256).hex()[:16]
        return msgspec.structs.replace(agent, name=digest if agent.name else "")

    def hidden(agent: Agent) -> Agent:
        return msgspec.structs.replace(agent, name="")

    return {"plain": lambda agent: agent, "hashed": hashed, "off": hidden}[mode]
