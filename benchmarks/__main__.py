"""`python -m benchmarks`: measure everything, print one table, write RESULTS.md and growth.svg.

It fails where a target is missed. With `--quick` it takes less than two minutes, leaves out what takes long, and writes
only where `--write` says so.
"""

# ruff: noqa: T201 - it is a command

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measures, report
from benchmarks.processes import MissingError, fetch


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 where a target is missed, 2 where something to measure against is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under two minutes")
    parser.add_argument("--write", action="store_true", help="write the results of a quick run, too")
    options = parser.parse_args(argv)
    extent = measures.QUICK if options.quick else measures.FULL
    found: list[measures.Measure] = []
    figures = measures.Figures()
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    folder.chmod(0o755)  # nginx reads it as somebody else
    try:
        fetch()
        found.extend(measures.run(extent, folder, figures, lambda line: print(line, file=sys.stderr, flush=True)))
    except (MissingError, measures.UnequalError) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder)
    print(report.table(found))
    if not options.quick or options.write:
        command = "make bench-quick" if options.quick else "make bench"
        (report.HERE / "RESULTS.md").write_text(report.page(found, figures, extent, command))
        (report.HERE / "growth.svg").write_text(report.drawing(figures.growth))
    missed = [measure for measure in found if not measure.good]
    print(*(f"missed: {measure.target} {measure.what}" for measure in missed), sep="\n", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
