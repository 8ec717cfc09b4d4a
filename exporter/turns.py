"""Who has its turn: Python lets only one thread run at a time, and the event loop is the one that somebody waits for.

A thread that wants its turn asks for it after some time; who computes in C does not hear it before that call ends. So
the event loop asks early. What it has to compute itself it does in one go: interrupted, two milliseconds become fifty.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH = 0.0002
"""Seconds after which a thread asks for its turn."""
RARELY = (10_000, 10, 1000)
"""New objects, searches of the young ones, and of the older ones, before the next search."""
UNDISTURBED = 0.005
"""Seconds for the others to wait, while the event loop computes: as long as Python itself lets them."""


def answer_first() -> None:
    """Let the event loop wait neither long for its turn, nor for a search of everything that is in memory.

    Such a search takes 60 ms once there are 100,000 sessions, and one of what is young still 15. What has been loaded
    by now stays anyway, and sessions refer to nothing that could refer back to them: there is little to be found.
    """
    sys.setswitchinterval(SWITCH)
    gc.freeze()
    gc.set_threshold(*RARELY)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the turn for what takes some milliseconds and waits for nothing."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(UNDISTURBED)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
