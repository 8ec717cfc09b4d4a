"""The metric table: one line for each family, with its API field, unit and aggregation.

Decoding, aggregation, exposition, documentation and the checks of dashboards and rules are derived
from it.
"""

# ruff: noqa: E501  one line for each family

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

PREFIX = "thousandeyes_endpoint_"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of the API, its conversion to a base unit, and its valid range."""

    api: str
    """Name of the API's unit; empty if it is the base unit."""
    base: str
    divisor: float
    """API value / divisor = value in the base unit."""
    low: float
    high: float
    """Inclusive bounds of the API value; a record with a value outside is rejected."""


MILLISECONDS = Unit("milliseconds", "seconds", 1000.0, 0.0, 1e6)
PERCENT = Unit("percent", "ratio", 100.0, 0.0, 100.0)
RATIO = Unit("", "ratio", 1.0, 0.0, 1.0)
BYTES = Unit("", "bytes", 1.0, 0.0, 2.0**60)
COUNT = Unit("", "", 1.0, 0.0, 2.0**53)
EPOCH_MILLISECONDS = Unit("milliseconds since 1970", "seconds", 1000.0, 0.0, 2.0**53)

Aggregation = Literal[
    "mean", "max", "min", "sum", "median", "weighted_mean", "pooled", "count", "round"
]
DESCRIPTIONS: dict[Aggregation, str] = {
    "mean": "mean over the sessions",
    "max": "maximum over the sessions",
    "min": "minimum over the sessions",
    "sum": "sum over the sessions",
    "median": "median of the sessions' medians",
    "weighted_mean": "mean over the sessions, weighted by count",
    "pooled": "pooled over the sessions",
    "count": "",
    "round": "",
}


@dataclass(frozen=True, slots=True)
class Family:
    """One per-session gauge family with the labels `aid`, `agent`, `site`, `protocol`."""

    short_name: str
    """Name without the common prefix, as in the setting `metrics.families`."""
    description: str
    field: str
    """Path of the API field in a session record."""
    unit: Unit
    aggregation: Aggregation
    note: str = ""
    detail: bool = False
    """Whether `metrics.families: standard` omits it."""

    @property
    def name(self) -> str:
        """Full metric name."""
        return PREFIX + self.short_name

    @property
    def help(self) -> str:
        """HELP text: description, API field, conversion, aggregation."""
        conversion = f", {self.unit.api} to {self.unit.base}" if self.unit.api else ""
        source = f" (API field {self.field}{conversion})" if self.field else ""
        aggregation = DESCRIPTIONS[self.aggregation]
        over = f": {aggregation} of the newest round" if aggregation else ""
        return f"{self.description}{source}{over}.{' ' + self.note if self.note else ''}"


_CPU = "systemMetrics.cpuUtilization"
_MEMORY = "systemMetrics.physicalMemoryUsedBytes"
_V6 = "API v6 only."
_V7 = "API v7 only."

FAMILIES: tuple[Family, ...] = (
    Family("latency_seconds", "Round-trip time to the site", "destination.latency", MILLISECONDS, "mean"),
    Family("jitter_seconds", "Jitter of the round-trip time to the site", "destination.jitter", MILLISECONDS, "mean"),
    Family("loss_ratio", "Packet loss to the site, 0 to 1", "destination.loss", PERCENT, "mean"),
    Family("avg_rtt_seconds", "Average round-trip time to the site", "destination.avgRtt", MILLISECONDS, "mean", _V6),
    Family("max_rtt_seconds", "Maximum round-trip time to the site", "destination.maxRtt", MILLISECONDS, "max", _V6),
    Family("mean_dev_rtt_seconds", "Mean deviation of the round-trip time to the site", "destination.meanDevRtt", MILLISECONDS, "mean", _V6),
    Family("vpn_latency_seconds", "Round-trip time to the VPN gateway", "vpn.latency", MILLISECONDS, "mean", _V7),
    Family("vpn_jitter_seconds", "Jitter of the round-trip time to the VPN gateway", "vpn.jitter", MILLISECONDS, "mean", _V7),
    Family("vpn_loss_ratio", "Packet loss to the VPN gateway, 0 to 1", "vpn.loss", PERCENT, "mean", _V7),
    Family("proxy_latency_seconds", "Round-trip time to the proxy", "proxy.latency", MILLISECONDS, "mean", _V7),
    Family("proxy_jitter_seconds", "Jitter of the round-trip time to the proxy", "proxy.jitter", MILLISECONDS, "mean", _V7),
    Family("proxy_loss_ratio", "Packet loss to the proxy, 0 to 1", "proxy.loss", PERCENT, "mean", _V7),
    Family("cpu_utilization_ratio", "CPU utilization, 0 to 1", f"{_CPU}.mean", RATIO, "weighted_mean"),
    Family("cpu_utilization_min_ratio", "Minimum CPU utilization", f"{_CPU}.min", RATIO, "min", detail=True),
    Family("cpu_utilization_max_ratio", "Maximum CPU utilization", f"{_CPU}.max", RATIO, "max", detail=True),
    Family("cpu_utilization_median_ratio", "Median CPU utilization", f"{_CPU}.median", RATIO, "median", detail=True),
    Family("cpu_utilization_stddev_ratio", "Standard deviation of CPU utilization", f"{_CPU}.stdDev", RATIO, "pooled", detail=True),
    Family("cpu_samples", "Number of CPU utilization samples", f"{_CPU}.count", COUNT, "sum", detail=True),
    Family("memory_used_bytes", "Physical memory in use", f"{_MEMORY}.mean", BYTES, "weighted_mean"),
    Family("memory_used_min_bytes", "Minimum physical memory in use", f"{_MEMORY}.min", BYTES, "min", detail=True),
    Family("memory_used_max_bytes", "Maximum physical memory in use", f"{_MEMORY}.max", BYTES, "max", detail=True),
    Family("memory_used_median_bytes", "Median physical memory in use", f"{_MEMORY}.median", BYTES, "median", detail=True),
    Family("memory_used_stddev_bytes", "Standard deviation of physical memory in use", f"{_MEMORY}.stdDev", BYTES, "pooled", detail=True),
    Family("memory_samples", "Number of memory samples", f"{_MEMORY}.count", COUNT, "sum", detail=True),
    Family("memory_size_bytes", "Physical memory size", "systemMetrics.physicalMemoryTotalBytes", BYTES, "max"),
    Family("experience_score", "Experience score, 0 (worst) to 1 (best)", "experienceScore", RATIO, "mean", "The API also sends 0 if the score could not be computed."),
    Family("pages", "Number of pages visited", "numberOfPages", COUNT, "sum"),
    Family("sessions", "Number of user sessions in the newest round", "", COUNT, "count"),
    Family("round_timestamp_seconds", "Start of the newest round, Unix time", "roundId", COUNT, "round"),
)  # fmt: skip

USER_FIELDS = ("experienceScore", "numberOfPages")
"""Numeric fields of a user session record; all other fields belong to the network session
record."""

PERIOD_FIELDS = ("systemMetrics.startTimeMs", "systemMetrics.endTimeMs")
"""Sampling period of the system metrics. Sessions of one agent overlap, and each period counts
once."""

NETWORK_FIELDS: tuple[str, ...] = PERIOD_FIELDS + tuple(
    family.field for family in FAMILIES if "." in family.field
)
"""Numeric fields of a network session record, in the column order of `NetworkSession.values`."""

UNITS: dict[str, Unit] = {
    **dict.fromkeys(PERIOD_FIELDS, EPOCH_MILLISECONDS),
    **{family.field: family.unit for family in FAMILIES if family.field},
}


@dataclass(frozen=True, slots=True)
class HistogramFamily:
    """One per-site histogram with the labels `aid`, `site`, `protocol`."""

    short_name: str
    description: str
    field: str
    """The API field; its unit is that of the gauge family with the same field."""
    buckets: tuple[float, ...]
    """Upper bounds in the base unit, ascending, without infinity."""

    @property
    def name(self) -> str:
        """Full metric name."""
        return PREFIX + self.short_name

    @property
    def help(self) -> str:
        """HELP text."""
        unit = UNITS[self.field]
        conversion = f", {unit.api} to {unit.base}" if unit.api else ""
        return f"{self.description} (API field {self.field}{conversion}): each complete session is observed once."


_LATENCY = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_JITTER = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
_LOSS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SCORE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

HISTOGRAMS: tuple[HistogramFamily, ...] = (
    HistogramFamily(
        "site_latency_seconds", "Round-trip time to the site", "destination.latency", _LATENCY
    ),
    HistogramFamily(
        "site_jitter_seconds",
        "Jitter of the round-trip time to the site",
        "destination.jitter",
        _JITTER,
    ),
    HistogramFamily(
        "site_loss_ratio", "Packet loss to the site, 0 to 1", "destination.loss", _LOSS
    ),
    HistogramFamily(
        "site_experience_score",
        "Experience score, 0 (worst) to 1 (best)",
        "experienceScore",
        _SCORE,
    ),
)
SITE_SESSIONS = PREFIX + "site_sessions"
SITE_SESSIONS_HELP = (
    "Complete sessions (user session and network session joined), each counted once."
)

AGENT_INFO = PREFIX + "agent_info"
AGENT_INFO_HELP = (
    "Information about an agent (API endpoint agents): always 1, one series per agent."
)
AGENT_LAST_SEEN = PREFIX + "agent_last_seen_timestamp_seconds"
AGENT_LAST_SEEN_HELP = "When the agent last contacted the API (API field lastSeen), Unix time."
ACCOUNT_GROUP_INFO = PREFIX + "account_group_info"
ACCOUNT_GROUP_INFO_HELP = (
    "Name of an account group (API account groups): always 1, one series per account group."
)


def select_families(selection: Sequence[str]) -> tuple[Family, ...]:
    """Return the selected families in table order.

    Args:
        selection: Short names, `all`, `standard` (without detail), `none`, or a list of these.
    """
    everything, standard = "all" in selection, "standard" in selection
    return tuple(
        family
        for family in FAMILIES
        if everything or (standard and not family.detail) or family.short_name in selection
    )
