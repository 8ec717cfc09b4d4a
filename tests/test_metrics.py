"""The metric table, held to the documented names and to the fields of the API."""

import inspect
import re
import types
import typing

import msgspec
import pytest

from exporter.api import wire
from exporter.metrics import (
    AGENT_INFO,
    AGENT_LAST_SEEN,
    DISTRIBUTIONS,
    FAMILIES,
    NETWORK_FIELDS,
    OVER_WORDS,
    PERIOD_FIELDS,
    SITE_SESSIONS,
    UNITS,
    USER_FIELDS,
    select,
)

CPU = "systemMetrics.cpuUtilization"
MEMORY = "systemMetrics.physicalMemoryUsedBytes"

DOCUMENTED = {
    "thousandeyes_endpoint_latency_seconds": ("destination.latency", 1000, "mean"),
    "thousandeyes_endpoint_jitter_seconds": ("destination.jitter", 1000, "mean"),
    "thousandeyes_endpoint_loss_ratio": ("destination.loss", 100, "mean"),
    "thousandeyes_endpoint_avg_rtt_seconds": ("destination.avgRtt", 1000, "mean"),
    "thousandeyes_endpoint_max_rtt_seconds": ("destination.maxRtt", 1000, "max"),
    "thousandeyes_endpoint_mean_dev_rtt_seconds": ("destination.meanDevRtt", 1000, "mean"),
    "thousandeyes_endpoint_vpn_latency_seconds": ("vpn.latency", 1000, "mean"),
    "thousandeyes_endpoint_vpn_jitter_seconds": ("vpn.jitter", 1000, "mean"),
    "thousandeyes_endpoint_vpn_loss_ratio": ("vpn.loss", 100, "mean"),
    "thousandeyes_endpoint_proxy_latency_seconds": ("proxy.latency", 1000, "mean"),
    "thousandeyes_endpoint_proxy_jitter_seconds": ("proxy.jitter", 1000, "mean"),
    "thousandeyes_endpoint_proxy_loss_ratio": ("proxy.loss", 100, "mean"),
    "thousandeyes_endpoint_cpu_utilization_ratio": (f"{CPU}.mean", 1, "weighted_mean"),
    "thousandeyes_endpoint_cpu_utilization_min_ratio": (f"{CPU}.min", 1, "min"),
    "thousandeyes_endpoint_cpu_utilization_max_ratio": (f"{CPU}.max", 1, "max"),
    "thousandeyes_endpoint_cpu_utilization_median_ratio": (f"{CPU}.median", 1, "median"),
    "thousandeyes_endpoint_cpu_utilization_stddev_ratio": (f"{CPU}.stdDev", 1, "pooled"),
    "thousandeyes_endpoint_cpu_samples": (f"{CPU}.count", 1, "sum"),
    "thousandeyes_endpoint_memory_used_bytes": (f"{MEMORY}.mean", 1, "weighted_mean"),
    "thousandeyes_endpoint_memory_used_min_bytes": (f"{MEMORY}.min", 1, "min"),
    "thousandeyes_endpoint_memory_used_max_bytes": (f"{MEMORY}.max", 1, "max"),
    "thousandeyes_endpoint_memory_used_median_bytes": (f"{MEMORY}.median", 1, "median"),
    "thousandeyes_endpoint_memory_used_stddev_bytes": (f"{MEMORY}.stdDev", 1, "pooled"),
    "thousandeyes_endpoint_memory_samples": (f"{MEMORY}.count", 1, "sum"),
    "thousandeyes_endpoint_memory_size_bytes": ("systemMetrics.physicalMemoryTotalBytes", 1, "max"),
    "thousandeyes_endpoint_experience_score": ("experienceScore", 1, "mean"),
    "thousandeyes_endpoint_pages": ("numberOfPages", 1, "sum"),
    "thousandeyes_endpoint_sessions": ("", 1, "count"),
    "thousandeyes_endpoint_round_timestamp_seconds": ("roundId", 1, "round"),
}
"""Name → API field, API units in one base unit, aggregation."""

HELPS = {family.name: family.help for family in (*FAMILIES, *DISTRIBUTIONS)}


def test_the_families_are_the_documented_ones():
    found = {family.name: (family.field, family.unit.divisor, family.over) for family in FAMILIES}
    assert found == DOCUMENTED
    assert len(FAMILIES) == len(DOCUMENTED)


def test_the_other_names_are_the_documented_ones():
    assert [family.name for family in DISTRIBUTIONS] == [
        "thousandeyes_endpoint_site_latency_seconds",
        "thousandeyes_endpoint_site_jitter_seconds",
        "thousandeyes_endpoint_site_loss_ratio",
        "thousandeyes_endpoint_site_experience_score",
    ]
    assert f"{SITE_SESSIONS}_total" == "thousandeyes_endpoint_site_sessions_total"
    assert AGENT_INFO == "thousandeyes_endpoint_agent_info"
    assert AGENT_LAST_SEEN == "thousandeyes_endpoint_agent_last_seen_timestamp_seconds"


@pytest.mark.parametrize("family", [*FAMILIES, *DISTRIBUTIONS], ids=lambda family: family.short)
def test_the_unit_of_a_name_is_the_unit_that_is_converted_to(family):
    base = UNITS[family.field].base if family.field else ""
    in_name = re.search(r"_(seconds|ratio|bytes)$", family.name)
    if family.short != "round_timestamp_seconds" and not family.short.endswith("experience_score"):
        assert (in_name[1] if in_name else "") == base


@pytest.mark.parametrize("family", [*FAMILIES, *DISTRIBUTIONS], ids=lambda family: family.short)
def test_every_help_names_the_field_and_its_conversion(family):
    unit = UNITS.get(family.field)
    if family.field:
        conversion = f", {unit.api} to {unit.base}" if unit.divisor != 1 else ""
        assert f"(API {family.field}{conversion})" in family.help


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.short)
def test_every_help_names_the_aggregation(family):
    assert OVER_WORDS[family.over] in family.help
    assert "newest round" in family.help


@pytest.mark.parametrize("text", HELPS.values(), ids=HELPS)
def test_every_help_is_one_line_that_needs_no_escaping(text):
    assert not set(text) & set('\\"\n')
    assert text == text.strip()
    assert "  " not in text
    assert text.endswith(".")


def test_help_reads_as_a_sentence():
    assert HELPS["thousandeyes_endpoint_loss_ratio"] == (
        "Lost packets on the way to the site, 0 to 1 (API destination.loss, percent to ratio): "
        "mean over the sessions of the newest round."
    )
    assert HELPS["thousandeyes_endpoint_max_rtt_seconds"] == (
        "Longest round-trip time (API destination.maxRtt, milliseconds to seconds): "
        "maximum over the sessions of the newest round. Only API v6 sends it."
    )
    assert HELPS["thousandeyes_endpoint_cpu_utilization_ratio"] == (
        "Utilization of the processors, 0 to 1 (API systemMetrics.cpuUtilization.mean): "
        "mean, weighted by count, over the sessions of the newest round."
    )
    assert HELPS["thousandeyes_endpoint_sessions"] == "User sessions of the newest round."


def test_every_measured_field_belongs_to_one_listing():
    assert not set(NETWORK_FIELDS) & set(USER_FIELDS)
    assert set(PERIOD_FIELDS) <= set(NETWORK_FIELDS)
    assert {family.field for family in FAMILIES if family.field} == {
        *NETWORK_FIELDS,
        *USER_FIELDS,
        "roundId",
    } - set(PERIOD_FIELDS)
    assert len(set(NETWORK_FIELDS)) == len(NETWORK_FIELDS)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda distribution: distribution.short)
def test_buckets_rise_and_end_before_infinity(distribution):
    assert list(distribution.buckets) == sorted(set(distribution.buckets))
    assert distribution.buckets[-1] < float("inf")
    assert distribution.field in {family.field for family in FAMILIES}


def on_the_wire(struct: type, field: str) -> list[object]:
    """Return what is annotated of a field, following its path through the structs of the wire."""
    name, _, rest = field.partition(".")
    (annotation,) = (each.type for each in msgspec.structs.fields(struct) if each.encode_name == name)
    if not rest:
        return parts(annotation)
    (inner,) = (part for part in parts(annotation) if inspect.isclass(part) and issubclass(part, msgspec.Struct))
    return on_the_wire(inner, rest)


def parts(annotation: object) -> list[object]:
    """Return the members of a union and the metadata of annotations, whichever is inside the other."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for member in typing.get_args(annotation) for part in parts(member)]
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *metadata = typing.get_args(annotation)
        return [*parts(kind), *metadata]
    return [annotation]


@pytest.mark.parametrize("field", [*NETWORK_FIELDS, *USER_FIELDS])
def test_every_measured_field_is_read_from_the_wire_within_the_bounds_of_its_unit(field):
    found = on_the_wire(wire.WireNetwork if field in NETWORK_FIELDS else wire.WireUser, field)
    bounds = next(part for part in found if isinstance(part, msgspec.Meta))
    assert (bounds.ge, bounds.le) == (UNITS[field].low, UNITS[field].high)
    assert types.NoneType in found  # every one may be missing


def test_families_are_chosen_by_their_short_names_in_the_order_of_the_table():
    chosen = select(("sessions", "loss_ratio", "unheard_of"))
    assert [family.short for family in chosen] == ["loss_ratio", "sessions"]
    assert select("all") == FAMILIES
    assert select("none") == ()
    assert select(()) == ()
