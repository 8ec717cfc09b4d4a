"""Write the results of all account groups as a snapshot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from exporter.inventory import AccountGroup, Agent, AgentNames
from exporter.metrics import families as table
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
    write_samples,
)
from exporter.metrics.families import HISTOGRAMS, Family
from exporter.sessions.aggregate import SeriesTable
from exporter.sessions.source import SessionsResult


@dataclass(frozen=True, slots=True)
class GroupResult:
    """Results of all sources of one account group."""

    group: AccountGroup
    sessions: SessionsResult = field(default_factory=SessionsResult)
    agents: Sequence[Agent] = ()


def render(
    groups: Sequence[GroupResult],
    families: Sequence[Family],
    agent_names: AgentNames | None = None,
) -> Snapshot:
    """Write all families of all account groups; without `agent_names`, agents are omitted."""
    writer = Writer()
    labels = [_label_sets(each.group.aid, each.sessions.series) for each in groups]
    series = 0
    for family in families:
        columns = (
            (sets, each.sessions.series.columns[family.short_name])
            for each, sets in zip(groups, labels, strict=True)
            if sets
        )
        series += write_gauges(writer, family.name, family.help, columns)
    _write_histograms(writer, groups)
    agents = [
        (each.group.aid, agent_names(agent))
        for each in groups
        for agent in each.agents
        if agent_names
    ]
    _write_agents(writer, agents)
    named = [each.group for each in groups if each.group.name]
    write_samples(
        writer,
        table.ACCOUNT_GROUP_INFO,
        table.ACCOUNT_GROUP_INFO_HELP,
        ((label_set(aid=group.aid, account_group=group.name), 1) for group in named),
    )
    common = writer.part()
    tails = {format_: compress(_site_sessions(format_, groups), common.crc) for format_ in Format}
    return Snapshot(common, tails, series)


def _label_sets(aid: str, series: SeriesTable) -> list[str]:
    """Format the label sets, each followed by a space.

    The common case does without `label_set`, for speed.
    """
    prefix = f'aid="{escape(aid)}",' if aid else ""
    return [
        f'{{{prefix}agent="{escape(key.agent)}",site="{escape(key.site)}",'
        f'protocol="{escape(key.protocol)}"}} '
        if key.agent and key.site and key.protocol
        else label_set(aid=aid, **msgspec.structs.asdict(key)) + " "
        for key in series.keys
    ]


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


def _write_agents(writer: Writer, agents: Sequence[tuple[str, Agent]]) -> None:
    info = (
        (
            label_set(
                aid=aid,
                agent=agent.id,
                agent_name=agent.name,
                platform=agent.platform,
                agent_version=agent.version,
                os_version=agent.os_version,
                location=agent.location,
            ),
            1,
        )
        for aid, agent in agents
    )
    write_samples(writer, table.AGENT_INFO, table.AGENT_INFO_HELP, info)
    seen = (
        (label_set(aid=aid, agent=agent.id), agent.last_seen)
        for aid, agent in agents
        if not math.isnan(agent.last_seen)
    )
    write_samples(writer, table.AGENT_LAST_SEEN, table.AGENT_LAST_SEEN_HELP, seen)


def _site_sessions(format_: Format, groups: Sequence[GroupResult]) -> str:
    """Write the session counter; the only family whose metadata differs between the formats."""
    name = f"{table.SITE_SESSIONS}_total"
    lines = "".join(
        f"{name}{label_set(aid=each.group.aid, site=site, protocol=protocol)} {metrics.sessions}\n"
        for each in groups
        for (site, protocol), metrics in each.sessions.sites.items()
    )
    family = table.SITE_SESSIONS if format_ is Format.OPENMETRICS else name
    return lines and metadata(family, "counter", table.SITE_SESSIONS_HELP) + lines
