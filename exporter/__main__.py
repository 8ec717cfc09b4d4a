"""The way in: from the first moment on a signal ends the program without a traceback; then the rest is loaded.

What can be typed stands in `exporter.commands`.
"""

import os
import signal
import sys

UNFINISHED = {"once", "check"}
"""Commands that have failed when they are stopped; the others have done what they were for."""
OF_A_TERMINAL = {*UNFINISHED, "demo", "simulate"}
"""Commands that end with their terminal; what serves without them reads its settings again at SIGHUP."""


def main() -> int:
    """Run this process' command line; return its exit code: 0 done, 1 failed, 2 settings."""
    stopped = 0 if UNFINISHED.isdisjoint(sys.argv) else 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(stopped))
    if OF_A_TERMINAL.isdisjoint(sys.argv):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from exporter.commands import run  # noqa: PLC0415  loading takes a moment, in which a signal may come

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
