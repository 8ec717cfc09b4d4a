"""The source `local_networks`: what agents measure all day, with or without a browser.

Each agent probes its default gateway, VPN gateway, proxy and DNS servers in every round of five
minutes. A row is one probe. The address of the target is not read.
"""

# ruff: noqa: E501  one line for each family

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import msgspec
import numpy as np

from exporter.labels import sanitize
from exporter.metrics.families import (
    BOOLEAN,
    BYTES,
    COUNT,
    MILLISECONDS,
    PERCENT,
    RATIO,
    SCORE,
    Family,
    Table,
)
from exporter.sources.aggregate import Columns
from exporter.sources.round_source import RoundsConfig, RoundSource, units
from exporter.sources.rows import Batch, Key, Row
from exporter.sources.session_filter import SessionFilter
from exporter.thousandeyes import v7
from exporter.thousandeyes.schema import Id, Listing, Record, Rejected, Round

TargetType = Literal["gateway", "vpn", "proxy", "dns"]
TYPES: tuple[TargetType, ...] = get_args(TargetType)
"""Values of the label `target_type`, and of the API field `type`."""
LOOKBACK_POLLS = 3
"""How many intervals a row is published at least."""
MAX_LOOKBACK_SECONDS = 12 * 3600.0 - 300.0
"""The API answers at most 12 hours (OpenAPI description), and a range starts on a round."""
OVERLAP_SECONDS = 600.0
"""Each poll reads two rounds again."""
_SCORES = {type_: f"{type_}Score.score" for type_ in ("gateway", "vpn", "proxy")}
_TARGET_SCORE = ", ".join(_SCORES.values())
_CPU = "systemMetrics.cpuUtilization"
_MEMORY = "systemMetrics.physicalMemoryUsedBytes"

TARGETS = Table(
    ("agent", "target_type"),
    (
        Family("local_network_latency_seconds", "Round-trip time to the target", "icmpPing.avgRtt", MILLISECONDS, "mean"),
        Family("local_network_max_latency_seconds", "Maximum round-trip time to the target", "icmpPing.maxRtt", MILLISECONDS, "max"),
        Family("local_network_jitter_seconds", "Mean deviation of the round-trip time to the target", "icmpPing.meanDevRtt", MILLISECONDS, "mean"),
        Family("local_network_loss_ratio", "Packet loss to the target, 0 to 1", "icmpPing.loss", PERCENT, "mean", "No sample if the target blocks ICMP."),
        Family("local_network_icmp_blocked", "Whether the target blocks ICMP, 0 or 1", "isIcmpBlocked", BOOLEAN, "max"),
        Family("local_network_tcp_connect_seconds", "Time to connect to the target by TCP", "tcpConnect.rtt", MILLISECONDS, "mean"),
        Family("local_network_dns_resolution_seconds", "Time to resolve a name", "dnsServerTest.resolutionTime", MILLISECONDS, "mean"),
        Family("local_network_score_ratio", "Score of the target, 0 (worst) to 1 (best)", _TARGET_SCORE, SCORE, "mean"),
    ),
)  # fmt: skip
"""Gauges of each kind of target of an agent."""

AGENTS = Table(
    ("agent",),
    (
        Family("agent_score_ratio", "Score of the agent, 0 (worst) to 1 (best)", "agentScore.score", SCORE, "mean"),
        Family("agent_connection_score_ratio", "Score of the agent's connection, 0 (worst) to 1 (best)", "connectionScore.score", SCORE, "mean"),
        Family("agent_cpu_utilization_ratio", "CPU utilization of the agent, 0 to 1", f"{_CPU}.mean", RATIO, "weighted_mean"),
        Family("agent_memory_used_bytes", "Physical memory of the agent in use", f"{_MEMORY}.mean", BYTES, "weighted_mean"),
        Family("agent_memory_size_bytes", "Physical memory size of the agent", "systemMetrics.physicalMemoryTotalBytes", BYTES, "max"),
        Family("agent_battery_level_ratio", "Battery level, 0 to 1", "batteryMetrics.batteryLevelNormalizedPercent", RATIO, "mean"),
        Family("agent_local_network_round_timestamp_seconds", "Start of the agent's newest round of local network tests, Unix time", "roundId", COUNT, "round"),
    ),
)  # fmt: skip
"""Gauges of each agent, over all of its targets."""


class TopologyRecord(Record[Row]):
    """One probe (API: local network topology)."""

    numbers = units(TARGETS, AGENTS)
    agent_id: Id
    round_id: Round
    type: str | None = None

    def convert(self, values: bytes, rejected: Rejected) -> Row:
        """See `Record.convert`."""
        agent, round_ = sanitize(self.agent_id), int(self.round_id)
        key = (agent, self.type) if self.type in TYPES else (agent,)
        return Row(f"{agent} {round_} {self.type}", key, round_, values)


@dataclass(frozen=True, slots=True)
class LocalNetworksConfig(RoundsConfig):
    """How local networks are polled and aggregated."""

    filter: SessionFilter


class LocalNetworksSource(RoundSource):
    """Local networks of the agents of one account group."""

    name = "local_networks"
    priority = 2
    round_seconds = 300
    fields = (tuple(TopologyRecord.numbers),)
    record_names = ("rows",)
    listings: ClassVar = {
        "v7": (
            Listing(
                "/v7/endpoint/test-results/local-networks/topologies/filter",
                v7.Envelope,
                "results",
                TopologyRecord,
            ),
        )
    }
    config: LocalNetworksConfig

    def accept(self, batch: Batch, latest: float) -> Batch:
        """See `RoundSource.accept`.

        An agent can probe several targets of the same type in a round. They get different ids, in
        the order in which the API sends them, because what tells them apart are addresses.
        """
        rejected, rows, seen = Counter(batch.rejected), list[Row](), Counter[str]()
        for row in batch.listings[0]:
            seen[row.id] += 1
            if row.round > latest:
                rejected["bad_time"] += 1
            elif not self.config.filter.accepts_agent(row.key[0]):
                rejected["filtered"] += 1
            else:
                rows.append(msgspec.structs.replace(row, id=f"{row.id} {seen[row.id]}"))
        return Batch((rows,), rejected)

    def derive(self, keys: Sequence[Key], columns: Columns) -> None:
        """See `RoundSource.derive`: no loss where ICMP is blocked, one score for each target."""
        columns["icmpPing.loss"][columns["isIcmpBlocked"] == 1.0] = np.nan
        types = np.array([key[-1] for key in keys])
        scores = [columns[field] for field in _SCORES.values()]
        columns[_TARGET_SCORE] = np.select([types == each for each in _SCORES], scores, np.nan)
