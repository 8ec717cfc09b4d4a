"""The exporter with clocks that run faster: `python fast_exporter.py SPEED ARGUMENT...`."""

import sys
import time

from exporter import app, cli
from exporter.clock import Clock, monotonic_including_suspend


def clock() -> Clock:
    """Return the clocks."""
    speed, began = float(sys.argv[1]), time.time()
    return Clock(
        lambda: speed * monotonic_including_suspend(),
        lambda: began + speed * (time.time() - began),
    )


app.Clock = clock  # type: ignore[misc, assignment]
sys.exit(cli.run(sys.argv[2:]))
