"""Whether two expositions publish the same samples: read both, compare names, labels and values.

Only the per-session families are compared, in whatever order of families, samples and labels they come.
"""

import gzip
import math

from exporter.metrics import PREFIX

TOLERANCE = 1e-9
"""Sums in another order differ in their last bits."""

Samples = dict[tuple[str, ...], float]


def samples(exposition: bytes) -> Samples:
    """Read the per-session samples of a compressed exposition: name and sorted labels → value."""
    found: Samples = {}
    for line in gzip.decompress(exposition).decode().splitlines():
        if line.startswith(PREFIX):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.removesuffix("}").partition("{")
            found[name, *sorted(labels.split(","))] = float(value)
    return found


def differences(ours: Samples, theirs: Samples) -> list[str]:
    """Describe up to ten samples that only one has, or that have another value."""
    missing = [f"only one has {series}" for series in ours.keys() ^ theirs.keys()]
    other = [
        f"{series}: {value!r} is not {theirs[series]!r}"
        for series, value in ours.items()
        if series in theirs and not math.isclose(value, theirs[series], rel_tol=TOLERANCE, abs_tol=1e-12)
    ]
    return sorted(missing + other)[:10]
