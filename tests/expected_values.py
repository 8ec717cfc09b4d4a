"""What is published of a simulated company, calculated from it in plain Python.

Names are without prefix. `lookback` and times are in seconds.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from exporter.simulator import World, v7
from exporter.simulator.world import Session

Values = dict[tuple[str, ...], float]
LEGS = {"destination": "", "vpn": "vpn_", "proxy": "proxy_"}
TARGETS = {
    "latency_seconds": ("icmpPing.avgRtt", 1000),
    "loss_ratio": ("icmpPing.loss", 100),
    "tcp_connect_seconds": ("tcpConnect.rtt", 1000),
    "dns_resolution_seconds": ("dnsServerTest.resolutionTime", 1000),
    "icmp_blocked": ("isIcmpBlocked", 1),
}
AGENTS = {
    "score_ratio": ("agentScore.score", 100),
    "connection_score_ratio": ("connectionScore.score", 100),
    "cpu_utilization_ratio": ("systemMetrics.cpuUtilization.mean", 1),
    "memory_used_bytes": ("systemMetrics.physicalMemoryUsedBytes.mean", 1),
    "battery_level_ratio": ("batteryMetrics.batteryLevelNormalizedPercent", 1),
    "local_network_round_timestamp_seconds": ("roundId", 1),
}


def of_sessions(
    world: World, version: str, first: float, end: float, now: float, aid: int = 1001
) -> Values:
    """Return values by name, account group, agent, site and protocol; `first` is a round."""
    by_key = defaultdict(list)
    for each in world.sessions(aid, first, end, now):
        if each.listed and each.round_id >= first:
            by_key[str(aid), each.agent.id, each.site.host, each.site.protocol].append(each)
    values: Values = {}
    for key, sessions in by_key.items():
        newest = max(each.round_id for each in sessions)
        columns = _of_round([each for each in sessions if each.round_id == newest], version)
        values |= {(name, *key): value for name, value in columns.items() if not math.isnan(value)}
    return values


def _of_round(sessions: list[Session], version: str) -> dict[str, float]:
    """Return the values of one series key from the sessions of its newest round."""
    measured = [each for each in sessions if each.measured]
    periods = {(e.system.start_time_ms, e.system.end_time_ms): e.system for e in measured}.values()
    sizes = [each.physical_memory_total_bytes for each in periods]
    values = {
        "experience_score": mean(each.experience_score for each in sessions),
        "pages": sum(each.pages for each in sessions),
        "sessions": len(sessions),
        "round_timestamp_seconds": sessions[0].round_id,
        "memory_size_bytes": max(sizes, default=math.nan),
        **_summary("cpu", "utilization", "ratio", [p.cpu_utilization for p in periods]),
        **_summary("memory", "used", "bytes", [p.physical_memory_used_bytes for p in periods]),
    }
    for leg, prefix in LEGS.items() if version == "v7" else [("destination", "")]:
        pings = [ping for each in measured if (ping := getattr(each, leg))]
        values[f"{prefix}latency_seconds"] = mean((each.latency for each in pings), 1000)
        values[f"{prefix}jitter_seconds"] = mean((each.jitter for each in pings), 1000)
        values[f"{prefix}loss_ratio"] = mean((each.loss for each in pings), 100)
        if version == "v6":
            longest = [each.max_rtt for each in pings if each.max_rtt is not None]
            values["avg_rtt_seconds"] = values["latency_seconds"]
            values["max_rtt_seconds"] = max(longest, default=math.nan) / 1000
            values["mean_dev_rtt_seconds"] = values["jitter_seconds"]
    return values


def mean(values: Iterable[float | None], divisor: float = 1) -> float:
    """Return the mean of the values that exist in base units; NaN without any."""
    known = [value / divisor for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


def _summary(what: str, of: str, unit: str, periods: Sequence[Any]) -> dict[str, float]:
    samples = [each for each in periods if each]
    if not samples:
        return {}
    total = sum(each.count for each in samples)
    center = sum(each.mean * each.count for each in samples) / total
    squares = sum(s.count * (s.std_dev**2 + (s.mean - center) ** 2) for s in samples)
    return {
        f"{what}_{of}_{unit}": center,
        f"{what}_{of}_min_{unit}": min(each.min for each in samples),
        f"{what}_{of}_max_{unit}": max(each.max for each in samples),
        f"{what}_{of}_median_{unit}": statistics.median(each.median for each in samples),
        f"{what}_{of}_stddev_{unit}": math.sqrt(squares / total),
        f"{what}_samples": total,
    }


def of_local_networks(world: World, now: float, lookback: float = 900) -> Values:
    """Return values by name, agent, and type of target, if any."""
    rows = defaultdict(list)
    for probe in world.probes(1001, now - lookback, now, now):
        if probe.round_id >= now - lookback:
            rows[probe.agent.id, ""].append(v7.local_network(probe))
            rows[probe.agent.id, probe.type].append(v7.local_network(probe))
    values: Values = {}
    for (agent, type_), found in rows.items():
        newest = [row for row in found if row["roundId"] == max(row["roundId"] for row in found)]
        prefix, columns = ("local_network", TARGETS) if type_ else ("agent", AGENTS)
        columns = columns | ({"score_ratio": (f"{type_}Score.score", 100)} if type_ else {})
        for name, (path, divisor) in columns.items():
            value = mean((_get(row, path) for row in newest), divisor)
            # Blocked pings of one target are reported.
            value = math.ceil(value) if name == "icmp_blocked" else value
            values[f"{prefix}_{name}", agent, type_] = value
    return {k: v for k, v in values.items() if k[2] != "unknown" and not math.isnan(v)}


def _get(row: Any, path: str) -> Any:
    """Return a field of a row; loss is unknown where pings are blocked."""
    if path == "icmpPing.loss" and row["isIcmpBlocked"]:
        return None
    for name in path.split("."):
        row = row.get(name, {})
    return row if row != {} else None
