"""The metric table: one line a family, with its name, its help, its unit and how it comes from the sessions.

The numbers are computed in `exporter.aggregate`; how a family is written stands in `exporter.exposition`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

PREFIX = "thousandeyes_endpoint_"


@dataclass(frozen=True, slots=True)
class Unit:
    """How the API counts a quantity, and what is possible in that unit."""

    api: str
    """The unit of the API, in words; empty where it is the base unit already."""
    base: str
    divisor: float
    """API value / divisor = value in the base unit."""
    low: float
    high: float
    """Bounds of the API value, both possible; what lies outside is no measurement."""


MILLISECONDS = Unit("milliseconds", "seconds", 1000.0, 0.0, 1e6)
PERCENT = Unit("percent", "ratio", 100.0, 0.0, 100.0)
RATIO = Unit("", "ratio", 1.0, 0.0, 1.0)
BYTES = Unit("", "bytes", 1.0, 0.0, 2.0**60)
COUNT = Unit("", "", 1.0, 0.0, 2.0**53)
EPOCH_MILLISECONDS = Unit("milliseconds since 1970", "seconds", 1000.0, 0.0, 2.0**53)

Over = Literal["mean", "max", "min", "sum", "median", "weighted_mean", "pooled", "count", "round"]
OVER_WORDS: dict[Over, str] = {
    "mean": "mean over the sessions",
    "max": "maximum over the sessions",
    "min": "minimum over the sessions",
    "sum": "sum over the sessions",
    "median": "median of the medians of the sessions",
    "weighted_mean": "mean, weighted by count, over the sessions",
    "pooled": "pooled over the sessions",
    "count": "",
    "round": "",
}


@dataclass(frozen=True, slots=True)
class Family:
    """One per-session gauge family, labels `aid`, `agent`, `site`, `protocol`."""

    short: str
    """The name without the common prefix, as the setting `metrics.families` has it."""
    what: str
    field: str
    """Path of the API field inside a session; the two listings are told apart by `USER_FIELDS`."""
    unit: Unit
    over: Over
    note: str = ""

    @property
    def name(self) -> str:
        """The full name of the family."""
        return PREFIX + self.short

    @property
    def help(self) -> str:
        """The HELP text: what, the API field with its conversion, the aggregation. Constant."""
        source = f" {self.field}" if self.field else ""
        converted = f", {self.unit.api} to {self.unit.base}" if self.unit.api else ""
        api = f" (API{source}{converted})" if source else ""
        words = f": {OVER_WORDS[self.over]} of the newest round" if OVER_WORDS[self.over] else ""
        return f"{self.what}{api}{words}.{' ' + self.note if self.note else ''}"


_CPU = "systemMetrics.cpuUtilization"
_MEMORY = "systemMetrics.physicalMemoryUsedBytes"
_V6 = "Only API v6 sends it."
_V7 = "Only API v7 sends it."

FAMILIES: tuple[Family, ...] = (
    Family("latency_seconds", "Round-trip time to the site", "destination.latency", MILLISECONDS, "mean"),
    Family("jitter_seconds", "Jitter of the round trips to the site", "destination.jitter", MILLISECONDS, "mean"),
    Family("loss_ratio", "Lost packets on the way to the site, 0 to 1", "destination.loss", PERCENT, "mean"),
    Family("avg_rtt_seconds", "Average round-trip time", "destination.avgRtt", MILLISECONDS, "mean", _V6),
    Family("max_rtt_seconds", "Longest round-trip time", "destination.maxRtt", MILLISECONDS, "max", _V6),
    Family("mean_dev_rtt_seconds", "Mean deviation of the round-trip time", "destination.meanDevRtt", MILLISECONDS,
           "mean", _V6),
    Family("vpn_latency_seconds", "Round-trip time to the VPN gateway", "vpn.latency", MILLISECONDS, "mean", _V7),
    Family("vpn_jitter_seconds", "Jitter to the VPN gateway", "vpn.jitter", MILLISECONDS, "mean", _V7),
    Family("vpn_loss_ratio", "Lost packets to the VPN gateway, 0 to 1", "vpn.loss", PERCENT, "mean", _V7),
    Family("proxy_latency_seconds", "Round-trip time to the proxy", "proxy.latency", MILLISECONDS, "mean", _V7),
    Family("proxy_jitter_seconds", "Jitter to the proxy", "proxy.jitter", MILLISECONDS, "mean", _V7),
    Family("proxy_loss_ratio", "Lost packets to the proxy, 0 to 1", "proxy.loss", PERCENT, "mean", _V7),
    Family("cpu_utilization_ratio", "Utilization of the processors, 0 to 1", f"{_CPU}.mean", RATIO, "weighted_mean"),
    Family("cpu_utilization_min_ratio", "Lowest utilization of the processors", f"{_CPU}.min", RATIO, "min"),
    Family("cpu_utilization_max_ratio", "Highest utilization of the processors", f"{_CPU}.max", RATIO, "max"),
    Family("cpu_utilization_median_ratio", "Median utilization of the processors", f"{_CPU}.median", RATIO, "median"),
    Family("cpu_utilization_stddev_ratio", "Standard deviation of the utilization of the processors", f"{_CPU}.stdDev",
           RATIO, "pooled"),
    Family("cpu_samples", "Samples behind the utilization of the processors", f"{_CPU}.count", COUNT, "sum"),
    Family("memory_used_bytes", "Used physical memory", f"{_MEMORY}.mean", BYTES, "weighted_mean"),
    Family("memory_used_min_bytes", "Least used physical memory", f"{_MEMORY}.min", BYTES, "min"),
    Family("memory_used_max_bytes", "Most used physical memory", f"{_MEMORY}.max", BYTES, "max"),
    Family("memory_used_median_bytes", "Median of the used physical memory", f"{_MEMORY}.median", BYTES, "median"),
    Family("memory_used_stddev_bytes", "Standard deviation of the used physical memory", f"{_MEMORY}.stdDev", BYTES,
           "pooled"),
    Family("memory_samples", "Samples behind the used physical memory", f"{_MEMORY}.count", COUNT, "sum"),
    Family("memory_size_bytes", "Physical memory", "systemMetrics.physicalMemoryTotalBytes", BYTES, "max"),
    Family("experience_score", "Experience score, 0 (worst) to 1 (best)", "experienceScore", RATIO, "mean",
           "The API sends 0 also where it could not be computed."),
    Family("pages", "Pages visited", "numberOfPages", COUNT, "sum"),
    Family("sessions", "User sessions of the newest round", "", COUNT, "count"),
    Family("round_timestamp_seconds", "Start of the newest round, seconds since 1970", "roundId", COUNT, "round"),
)  # fmt: skip

USER_FIELDS = ("experienceScore", "numberOfPages")
"""The measured fields of a user session; all others are of the network session."""

PERIOD_FIELDS = ("systemMetrics.startTimeMs", "systemMetrics.endTimeMs")
"""Sessions of one agent overlap: system metrics of one and the same period count once."""

NETWORK_FIELDS: tuple[str, ...] = PERIOD_FIELDS + tuple(
    family.field for family in FAMILIES if "." in family.field
)  # fmt: skip
"""The measured fields of a network session, in the order of the columns of `exporter.model.NetworkSession.values`."""

UNITS: dict[str, Unit] = {
    **dict.fromkeys(PERIOD_FIELDS, EPOCH_MILLISECONDS),
    **{family.field: family.unit for family in FAMILIES if family.field},
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """One per-site histogram family, labels `aid`, `site`, `protocol`: every session is observed once."""

    short: str
    what: str
    field: str
    """The API field, as in `Family`; its unit is the one of the family with the same field."""
    buckets: tuple[float, ...]
    """Upper bounds in the base unit, rising, without infinity."""

    @property
    def name(self) -> str:
        """The full name of the family."""
        return PREFIX + self.short

    @property
    def help(self) -> str:
        """The HELP text. Constant."""
        unit = UNITS[self.field]
        converted = f", {unit.api} to {unit.base}" if unit.api else ""
        return f"{self.what} (API {self.field}{converted}): every complete session once."


_LATENCY = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_JITTER = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

DISTRIBUTIONS: tuple[Distribution, ...] = (
    Distribution("site_latency_seconds", "Round-trip time to the site", "destination.latency", _LATENCY),
    Distribution("site_jitter_seconds", "Jitter of the round trips to the site", "destination.jitter", _JITTER),
    Distribution("site_loss_ratio", "Lost packets on the way to the site, 0 to 1", "destination.loss", (0.0, *_TENTHS)),
    Distribution("site_experience_score", "Experience score, 0 (worst) to 1 (best)", "experienceScore", _TENTHS),
)
SITE_SESSIONS = PREFIX + "site_sessions"
SITE_SESSIONS_HELP = "Complete user sessions (user session and network session joined), every one once."

AGENT_INFO = PREFIX + "agent_info"
AGENT_INFO_HELP = "What is known of an agent (API endpoint agents): always 1, exactly one series an agent."
AGENT_LAST_SEEN = PREFIX + "agent_last_seen_timestamp_seconds"
AGENT_LAST_SEEN_HELP = "When the agent last reported (API lastSeen), seconds since 1970."

OTHER = "__other__"
"""Label value of `agent` and `site` under which everything above a cap is folded."""


def select(families: Sequence[str]) -> tuple[Family, ...]:
    """Return the chosen families in the order of the table, by their short names, or `all`, or `none`."""
    if families == "all":
        return FAMILIES
    return () if families == "none" else tuple(family for family in FAMILIES if family.short in families)
