"""Listings made to order for the round before this one: what a scripted API says in place of the simulator."""

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from raw import Call, Script, reply
from wires import Record, changed, envelope, id_name, record

from faults.elastic import wall

Link = str | None | dict[str, Any] | list[Any] | int | bool


def listing(call: Call) -> str | None:
    """Return which listing is asked for: `users`, `networks`, or None for all else."""
    path = urlsplit(call.target.partition(" ")[2]).path
    if "user-sessions" not in path and "real-user-tests" not in path:
        return None
    return "networks" if "network" in path else "users"


def last_round() -> int:
    """Return the round before this one, Unix seconds."""
    return int(wall()) // 60 * 60 - 60


def sessions(version: str, listed: str, number: int = 0, **changes: Any) -> Record:
    """Return a record of the last round; `changes` by path, with `__` for a dot."""
    text = "%Y-%m-%d %H:%M:%S" if version == "v6" else "%Y-%m-%dT%H:%M:%SZ"
    start = last_round()
    made = record(version, listed, number) | {id_name(version): f"made:{start}:{number}", "roundId": start}
    for name, seconds in (("date", 1), ("committed", 3)):
        if name in made:
            made[name] = datetime.fromtimestamp(start + seconds, UTC).strftime(text)
    for path, value in changes.items():
        made = changed(made, path.replace("__", "."), value)
    return made


def links(version: str, link: Link) -> dict[str, Any]:
    """Return what an envelope says of the next page; an object, or what is no text, stands as it is."""
    if version == "v6":
        return {"pages": {"next": link}}
    return {"_links": {"next": {"href": link} if isinstance(link, str) else link}}


def cursor(version: str) -> str:
    """Return the parameter that leads to the next page."""
    return "pageId" if version == "v6" else "cursor"


Said = str | bytes | Callable[[Call], str | bytes]


def says(users: Said, networks: Said | None = None) -> Callable[[Call], Script | None]:
    """Choose these bodies for the two listings, and leave all else to the simulator."""

    def choose(call: Call) -> Script | None:
        said = {"users": users, "networks": networks}.get(listing(call) or "")
        if said is None:
            return None
        return reply(said(call) if callable(said) else said)

    return choose


def page(version: str, listed: str, records: Iterable[Record], link: Link = None) -> str:
    """Write one page."""
    return json.dumps(envelope(version, listed, *records, **(links(version, link) if link is not None else {})))


def only(
    version: str, users: Iterable[Record] = (), networks: Iterable[Record] = ()
) -> Callable[[Call], Script | None]:
    """Choose listings with just these records."""
    return says(page(version, "users", users), page(version, "networks", networks))


async def at_once(_: Call) -> None:
    """Answer without delay."""
    await asyncio.sleep(0)
