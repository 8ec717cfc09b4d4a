"""Write the results of all account groups as a snapshot."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import cast

from exporter.account_group import AccountGroup
from exporter.metrics.exposition import (
    Format,
    Snapshot,
    Writer,
    compress,
    escape,
    histogram_lines,
    label_set,
    metadata,
    write_gauges,
)
from exporter.metrics.families import COUNT, Family, SeriesTable, Table
from exporter.sources.results import Result, SessionsResult
from exporter.sources.rows import Floats
from exporter.sources.site_histograms import HISTOGRAMS, SITE_SESSIONS, SITE_SESSIONS_HELP

ACCOUNT_GROUP_INFO = Table(
    ("account_group",),
    (Family("account_group_info", "Name of an account group", "", COUNT, "last", "Always 1."),),
)


@dataclass(frozen=True, slots=True)
class GroupResult:
    """Results of all sources of one account group."""

    group: AccountGroup
    sources: Mapping[str, Result] = field(default_factory=dict)
    """By name of the source."""

    @property
    def sessions(self) -> SessionsResult:
        """The result of sessions; empty until the first poll."""
        return cast("SessionsResult", self.sources.get("sessions", SessionsResult()))


def render(groups: Sequence[GroupResult]) -> Snapshot:
    """Write all tables and all histograms of all account groups."""
    writer = Writer()
    columns: dict[Family, list[tuple[Sequence[str], Floats]]] = {}
    for group in groups:
        for table in tables(group):
            label_sets = _label_sets(group.group.aid, table)
            for family in table.families if table.keys else ():
                column = table.columns[family.short_name]
                columns.setdefault(family, []).append((label_sets, column))
    for family, parts in columns.items():
        write_gauges(writer, family.name, family.help, parts)
    _write_histograms(writer, groups)
    common = writer.part()
    tails = {format_: compress(_site_sessions(format_, groups), common.crc) for format_ in Format}
    return Snapshot(common, tails)


def tables(group: GroupResult) -> Iterator[SeriesTable]:
    """Yield all tables of an account group; the last one has its name."""
    for result in group.sources.values():
        yield from result.tables
    yield ACCOUNT_GROUP_INFO.ones([(group.group.name,)] if group.group.name else [])


def _label_sets(aid: str, table: SeriesTable) -> list[str]:
    """Format the label sets, each followed by a space; an empty value is no label."""
    pairs: list[Iterable[str]] = [repeat(f',aid="{escape(aid)}"' if aid else "", len(table.keys))]
    for position, name in enumerate(table.labels):
        values = [key[position] for key in table.keys]
        text = {value: f',{name}="{escape(value)}"' if value else "" for value in set(values)}
        pairs.append(map(text.__getitem__, values))
    return [f"{{{text[1:]}}} " for text in map("".join, zip(*pairs, strict=True))]


def _write_histograms(writer: Writer, groups: Sequence[GroupResult]) -> None:
    for index, family in enumerate(HISTOGRAMS):
        lines = [
            histogram_lines(
                family.name,
                label_set(aid=each.group.aid, site=site, protocol=protocol),
                family.buckets,
                metrics.histograms[index].buckets,
                metrics.histograms[index].sum,
            )
            for each in groups
            for (site, protocol), metrics in each.sessions.sites.items()
        ]
        if lines:
            writer.write(metadata(family.name, "histogram", family.help) + "".join(lines))


def _site_sessions(format_: Format, groups: Sequence[GroupResult]) -> str:
    """Write the session counter; the only family whose metadata differs between the formats."""
    name = f"{SITE_SESSIONS}_total"
    lines = "".join(
        f"{name}{label_set(aid=each.group.aid, site=site, protocol=protocol)} {metrics.sessions}\n"
        for each in groups
        for (site, protocol), metrics in each.sessions.sites.items()
    )
    family = SITE_SESSIONS if format_ is Format.OPENMETRICS else name
    return lines and metadata(family, "counter", SITE_SESSIONS_HELP) + lines
