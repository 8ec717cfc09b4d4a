"""`python -m fuzz [--replies N] [--seconds N] [--seed SEED]` from `tests`: polls of spoiled replies, without a guide.

It prints the seed, and ends with 1 and the seed of the batch where an invariant broke: that alone is run by
`--batch SEED`. Guided by coverage it is `python -m fuzz.guided`.
"""

# ruff: noqa: T201 - it is a command

import argparse
import asyncio
import logging
import resource
import secrets
import sys
import time
import traceback
from collections.abc import Sequence

from fuzz import polls, replies

BATCH = 2000
"""Replies between two snapshots."""


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz; return 1 where an invariant broke."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--replies", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--batch", help="the seed of the one batch to run")
    options = parser.parse_args(argv)
    logging.disable()
    for version in ("v6", "v7"):
        replies.seeds(version)
    print(f"seed {options.seed}", flush=True)
    tally, began, number = polls.Tally(), time.perf_counter(), 0
    while tally["replies"] < options.replies and time.perf_counter() - began < options.seconds:
        seed = options.batch or f"{options.seed}/{number}"
        try:
            tally += asyncio.run(polls.batch(seed, BATCH))
        except Exception:  # noqa: BLE001  whatever it is, it comes with its seed
            print(f"batch {seed}: {traceback.format_exc()}")
            return 1
        if options.batch:
            break
        number += 1
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{time.perf_counter() - began:.0f} s, {memory} MB:",
        ", ".join(f"{name} {n}" for name, n in tally.most_common()),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
