"""Exposition formats: metric families to text, compressed once, ready to be sent.

Text is compressed in independent parts that can be concatenated into one gzip member, so nothing is
compressed twice.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import compress as select

import msgspec
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
COMPRESSION_LEVEL = 1
BATCH_SIZE = 512
"""Samples formatted in one step; short steps let the event loop run in between."""


class Format(Enum):
    """The exposition formats; the value is the Content-Type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Part:
    """Compressed text: deflate blocks that end on a byte boundary.

    They do not refer to preceding data, so parts can be concatenated.
    """

    deflated: bytes
    size: int
    """Size of the text in bytes."""
    crc: int
    """CRC-32 of all text up to the end of this part, including the parts before it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is published, except the exporter's own metrics; immutable."""

    common: Part
    """The families whose text is the same in both formats."""
    tails: Mapping[Format, Part]
    """The other families; checksums continue from `common`."""

    @property
    def size(self) -> int:
        """Size of the text format in bytes."""
        return self.common.size + self.tails[Format.TEXT].size


class Writer:
    """Compresses text as it is written, so that the whole text is never in memory."""

    def __init__(self, crc: int = 0) -> None:
        """Start after a text with this checksum."""
        self._compressor = isal_zlib.compressobj(COMPRESSION_LEVEL, isal_zlib.DEFLATED, -15)
        self._deflated: list[bytes] = []
        self._size = 0
        self._crc = crc

    def write(self, text: str) -> None:
        """Append text."""
        data = text.encode()
        self._crc = isal_zlib.crc32(data, self._crc)
        self._size += len(data)
        self._deflated.append(self._compressor.compress(data))

    def part(self) -> Part:
        """Return what was written."""
        self._deflated.append(self._compressor.flush(isal_zlib.Z_FULL_FLUSH))
        return Part(b"".join(self._deflated), self._size, self._crc)


def compress(text: str, crc: int) -> Part:
    """Compress text that follows a text with this checksum."""
    writer = Writer(crc)
    writer.write(text)
    return writer.part()


def gzip_chunks(parts: Sequence[Part]) -> list[bytes]:
    """Concatenate parts to one gzip member, as chunks to send one after another."""
    size = sum(part.size for part in parts) & 0xFFFFFFFF
    trailer = struct.pack("<2sLL", b"\x03\x00", parts[-1].crc, size)
    return [GZIP_HEADER, *(part.deflated for part in parts), trailer]


def plain_chunks(part: Part, max_size: int = 1 << 18) -> Iterator[bytes]:
    """Decompress a part in chunks of at most `max_size` bytes."""
    step = (
        8192  # the decompressor copies the rest of its input for each chunk, so the input is short
    )
    decompressor = isal_zlib.decompressobj(-15)
    deflated = memoryview(part.deflated)
    for start in range(0, len(deflated), step):
        data: memoryview | bytes = deflated[start : start + step]
        while text := decompressor.decompress(data, max_size):
            yield text
            data = decompressor.unconsumed_tail


def escape(value: str) -> str:
    """Escape a label value; both formats have the same rules."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def label_set(**labels: str) -> str:
    """Format a label set; an empty value is the same as no label, and is omitted."""
    pairs = ",".join(f'{name}="{escape(value)}"' for name, value in labels.items() if value)
    return "{" + pairs + "}"


def metadata(name: str, type_: str, help_: str) -> str:
    """Format the HELP and TYPE lines of a family."""
    return f"# HELP {name} {help_}\n# TYPE {name} {type_}\n"


def write_gauges(
    writer: Writer,
    name: str,
    help_: str,
    columns: Iterable[tuple[Sequence[str], npt.NDArray[np.float64]]],
) -> None:
    """Write a gauge family from columns.

    Args:
        writer: Receives the text.
        name: Metric name.
        help_: HELP text.
        columns: Label sets, each followed by a space, and their values; NaN: no sample.
    """
    started = False
    for label_sets, column in columns:
        present = ~np.isnan(column)
        values = column[present]
        selected = label_sets
        if len(values) < len(label_sets):
            selected = list(select(label_sets, present.tolist()))
        if not started and len(values):
            writer.write(metadata(name, "gauge", help_))
            started = True
        for start in range(0, len(values), BATCH_SIZE):
            end = start + BATCH_SIZE
            # One call formats all numbers of the batch, with the shortest digits that round-trip.
            numbers = msgspec.json.encode(values[start:end].tolist())[1:-1].decode()
            tokens = [name] * (3 * len(values[start:end]))
            tokens[1::3] = selected[start:end]
            tokens[2::3] = numbers.replace(",", "\n,").split(",")
            writer.write("".join(tokens) + "\n")


def histogram_lines(
    name: str, labels: str, bounds: Sequence[float], buckets: Sequence[int], total: float
) -> str:
    """Format one histogram; `buckets` are cumulative and end with that of infinity."""
    prefix = f"{name}_bucket{labels[:-1]}{',' if len(labels) > 2 else ''}"
    lines = "".join(
        f'{prefix}le="{bound}"}} {count}\n'
        for bound, count in zip([*map(repr, bounds), "+Inf"], buckets, strict=True)
    )
    return f"{lines}{name}_sum{labels} {total!r}\n{name}_count{labels} {buckets[-1]}\n"
