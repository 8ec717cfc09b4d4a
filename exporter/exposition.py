"""Rows and counters to a snapshot: the text that Prometheus reads, compressed once, ready to be sent as it is.

Pure. What the numbers are stands in `exporter.metrics`; who asks for which format in `exporter.web`.
"""

import math
import operator
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import compress, pairwise

import msgspec
import numpy as np
from isal import isal_zlib

from exporter.aggregate import Rows
from exporter.distributions import Site, SiteCounters
from exporter.metrics import (
    AGENT_INFO,
    AGENT_INFO_HELP,
    AGENT_LAST_SEEN,
    AGENT_LAST_SEEN_HELP,
    DISTRIBUTIONS,
    FAMILIES,
    SITE_SESSIONS,
    SITE_SESSIONS_HELP,
    Family,
)
from exporter.model import Agent

CHUNK = 1024
"""Samples that are written in one go: a fraction of a millisecond, so that the event loop gets its turn in between."""

STEP = 8192
"""Compressed bytes that are decompressed in one go: what is left of them is a copy, so it has to be little."""
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LEVEL = 1


class Format(Enum):
    """The two texts that Prometheus reads; the value is the Content-Type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Group:
    """What one account group publishes; without an aid the label is left out."""

    aid: str
    rows: Rows
    sites: Mapping[Site, SiteCounters] = field(default_factory=dict)
    agents: Sequence[Agent] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text, compressed: deflate blocks that end on a byte and refer to nothing before them.

    Such parts can be put one behind the other inside one gzip member, so nothing is ever compressed twice.
    """

    deflated: bytes
    size: int
    """Bytes of the text."""
    crc: int
    """CRC-32 of all text up to the end of this part, of the parts before it as well."""


EMPTY = Part(b"", 0, 0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one poll publishes; never changed."""

    common: Part
    """The families that read the same in both formats."""
    tails: Mapping[Format, Part]
    """The rest; its checksums go on from `common`."""
    series: int
    """Per-session gauge series."""

    @property
    def size(self) -> int:
        """Bytes of the text in the default format."""
        return self.common.size + self.tails[Format.TEXT].size


class _Writer:
    """Text in, a `Part` out: the text itself is never held as a whole."""

    def __init__(self, crc: int = 0) -> None:
        self._compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
        self._parts: list[bytes] = []
        self._size = 0
        self._crc = crc

    def write(self, text: str) -> None:
        data = text.encode()
        self._crc = isal_zlib.crc32(data, self._crc)
        self._size += len(data)
        self._parts.append(self._compressor.compress(data))

    def part(self) -> Part:
        self._parts.append(self._compressor.flush(isal_zlib.Z_FULL_FLUSH))
        return Part(b"".join(self._parts), self._size, self._crc)


def deflate(text: str, crc: int) -> Part:
    """Compress a text that follows on a text with that checksum."""
    writer = _Writer(crc)
    writer.write(text)
    return writer.part()


def gzip(parts: Sequence[Part]) -> list[bytes]:
    """Put parts together to one gzip member, as chunks to be sent one after another."""
    trailer = struct.pack("<2sLL", b"\x03\x00", parts[-1].crc, sum(part.size for part in parts) & 0xFFFFFFFF)
    return [GZIP_HEADER, *(part.deflated for part in parts), trailer]


def plain(part: Part, chunk: int = 1 << 18) -> Iterator[bytes]:
    """Yield the text of a part in chunks of at most that many bytes."""
    decompressor = isal_zlib.decompressobj(-15)
    deflated = memoryview(part.deflated)
    for start in range(0, len(deflated), STEP):
        data: memoryview | bytes = deflated[start : start + STEP]
        while text := decompressor.decompress(data, chunk):
            yield text
            data = decompressor.unconsumed_tail


def render(groups: Iterable[Group], families: Sequence[Family] = FAMILIES) -> Snapshot:
    """Write what all account groups publish."""
    groups = sorted(groups, key=lambda group: group.aid)
    common = _Writer()
    series = 0
    labels = [_key_labels(group) for group in groups]
    for family in families:
        series += _gauge(common, family, groups, labels)
    _histograms(common, groups)
    _agents(common, groups)
    part = common.part()
    return Snapshot(part, {format_: deflate(_site_sessions(format_, groups), part.crc) for format_ in Format}, series)


def escape(value: str) -> str:
    """Escape a label value as both formats want it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def label_set(**labels: str) -> str:
    """Write a label set; labels without a value are left out, which means the same."""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels.items() if value) + "}"


def header(name: str, kind: str, help_: str) -> str:
    """Write the lines that open a family."""
    return f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"


def _key_labels(group: Group) -> list[str]:
    """Write label sets with a space behind them: in one go where nothing is empty, which is nearly always."""
    aid = f'aid="{escape(group.aid)}",' if group.aid else ""
    return [
        f'{{{aid}agent="{escape(key.agent)}",site="{escape(key.site)}",protocol="{escape(key.protocol)}"}} '
        if key.agent and key.site and key.protocol
        else label_set(aid=group.aid, **msgspec.structs.asdict(key)) + " "
        for key in group.rows.keys
    ]


def _gauge(writer: _Writer, family: Family, groups: Sequence[Group], labels: Sequence[list[str]]) -> int:
    """Write one per-session family; return its number of series."""
    series = 0
    for group, names in zip(groups, labels, strict=True):
        column = group.rows.columns.get(family.short)
        if column is None:
            continue
        present = ~np.isnan(column)
        values = column[present]
        chosen = names if len(values) == len(names) else list(compress(names, present.tolist()))
        if not series and len(values):
            writer.write(header(family.name, "gauge", family.help))
        series += len(values)
        for start, end in pairwise([*range(0, len(values), CHUNK), len(values)]):
            numbers = msgspec.json.encode(values[start:end].tolist())[1:-1].decode().split(",")
            lines = map(operator.add, chosen[start:end], numbers)
            writer.write(family.name + f"\n{family.name}".join(lines) + "\n")
    return series


def _histograms(writer: _Writer, groups: Sequence[Group]) -> None:
    for index, distribution in enumerate(DISTRIBUTIONS):
        bounds = [*map(repr, distribution.buckets), "+Inf"]
        opened = False
        for group in groups:
            for (site, protocol), counters in group.sites.items():
                if not opened:
                    writer.write(header(distribution.name, "histogram", distribution.help))
                    opened = True
                labels = label_set(aid=group.aid, site=site, protocol=protocol)
                open_labels = labels[:-1] + ("," if len(labels) > 2 else "")
                histogram = counters.histograms[index]
                buckets = "".join(
                    f'{distribution.name}_bucket{open_labels}le="{bound}"}} {count}\n'
                    for bound, count in zip(bounds, histogram.buckets, strict=True)
                )
                writer.write(
                    f"{buckets}{distribution.name}_sum{labels} {histogram.sum!r}\n"
                    f"{distribution.name}_count{labels} {histogram.buckets[-1]}\n"
                )


def _agents(writer: _Writer, groups: Sequence[Group]) -> None:
    info = [
        AGENT_INFO
        + label_set(
            aid=group.aid,
            agent=agent.id,
            agent_name=agent.name,
            platform=agent.platform,
            agent_version=agent.version,
            os_version=agent.os_version,
            location=agent.location,
        )
        + " 1\n"
        for group in groups
        for agent in group.agents
    ]
    seen = [
        f"{AGENT_LAST_SEEN}{label_set(aid=group.aid, agent=agent.id)} {agent.last_seen!r}\n"
        for group in groups
        for agent in group.agents
        if not math.isnan(agent.last_seen)
    ]
    for name, help_, lines in ((AGENT_INFO, AGENT_INFO_HELP, info), (AGENT_LAST_SEEN, AGENT_LAST_SEEN_HELP, seen)):
        if lines:
            writer.write(header(name, "gauge", help_) + "".join(lines))


def _site_sessions(format_: Format, groups: Sequence[Group]) -> str:
    """Write the counter of sessions: the one family whose head differs between the formats."""
    name = f"{SITE_SESSIONS}_total"
    lines = [
        f"{name}{label_set(aid=group.aid, site=site, protocol=protocol)} {counters.sessions}\n"
        for group in groups
        for (site, protocol), counters in group.sites.items()
    ]
    if not lines:
        return ""
    return header(SITE_SESSIONS if format_ is Format.OPENMETRICS else name, "counter", SITE_SESSIONS_HELP) + "".join(
        lines
    )


NOTHING = render([])
"""The snapshot before the first poll."""
