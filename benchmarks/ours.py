"""The exporter as it ships: one poll from pages to a compressed snapshot, and its web application with that snapshot.

Each is started in a process of its own by `benchmarks.runs`; nothing here is faster or shorter than what the poller
does.
"""

from collections import Counter

from benchmarks.data import AID, END, Pages
from exporter.aggregate import aggregate
from exporter.api import v7
from exporter.api.wire import decode
from exporter.exposition import Format, Group, Part, Snapshot, gzip, render
from exporter.model import Sessions
from exporter.publisher import give_back
from exporter.selection import Selection
from exporter.store import Store

LOOKBACK = 900


class Company:
    """One account group as the poller keeps it: what is inside the look-back, and what was counted of it."""

    def __init__(self) -> None:
        self._selection = Selection()
        self._store = Store()

    def poll(self, pages: Pages, now: int = END) -> Snapshot:
        """Take the pages of one poll the way of the poller."""
        sessions = Sessions([], [], Counter())
        for page in pages.users:
            sessions.users.extend(decode(page, v7.USERS).records)
        for page in pages.networks:
            sessions.networks.extend(decode(page, v7.NETWORKS).records)
        taken = self._selection.take(sessions, now)
        self._store.upsert(taken.users, taken.networks)
        self._store.forget(now - LOOKBACK)
        snapshot = render([Group(AID, aggregate(self._store.joined()))])
        give_back()
        return snapshot


def poll(pages: Pages) -> Snapshot:
    """Take the pages of a first poll."""
    return Company().poll(pages)


def compressed(snapshot: Snapshot) -> bytes:
    """Return the snapshot as one gzip member, in the text format."""
    parts: list[Part] = [snapshot.common, snapshot.tails[Format.TEXT]]
    return b"".join(gzip(parts))
