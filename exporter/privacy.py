"""How agents are named: as they are, by a keyed hash, or not at all.

Everything else that the API knows of people is never read: user names, computer names, addresses, pages.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Literal

import msgspec

from exporter.model import Agent


def agent_names(mode: Literal["plain", "hashed", "off"], key: str = "") -> Callable[[Agent], Agent]:
    """Return what shows or hides the name of an agent.

    A hashed name is the first 16 hexadecimal digits of HMAC-SHA-256: the same for the same key, on every replica and
    after every restart, and not to be guessed without the key.
    """

    def hashed(agent: Agent) -> Agent:
        digest = hmac.digest(key.encode(), agent.name.encode(), hashlib.sha256).hex()[:16]
        return msgspec.structs.replace(agent, name=digest if agent.name else "")

    def hidden(agent: Agent) -> Agent:
        return msgspec.structs.replace(agent, name="")

    return {"plain": lambda agent: agent, "hashed": hashed, "off": hidden}[mode]
