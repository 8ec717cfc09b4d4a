"""Entry point. A signal during start-up ends the program without a traceback."""

import os
import signal
import sys


def main() -> int:
    """Run the command line of this process; return its exit code."""
    code = 1 if {"once", "check"} & set(sys.argv) else 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(code))
    from exporter.cli import run  # noqa: PLC0415  imports take a while, and a signal may arrive

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
