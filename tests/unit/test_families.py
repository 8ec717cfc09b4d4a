"""The metric tables: names, units and HELP texts are consistent."""

import re

import pytest

from exporter.render import ACCOUNT_GROUP_INFO
from exporter.sources import agents, local_networks
from exporter.sources.sessions import SERIES
from exporter.sources.site_histograms import HISTOGRAMS

TABLES = (SERIES, local_networks.TARGETS, local_networks.AGENTS, *agents.TABLES, ACCOUNT_GROUP_INFO)
FAMILIES = [*(family for table in TABLES for family in table.families), *HISTOGRAMS]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_name_and_help_agree_with_field_and_unit(family):
    unit = family.unit
    if not family.name.endswith(("timestamp_seconds", "experience_score")):
        suffix = re.search(r"_(bytes_per_second|seconds|ratio|bytes|dbm)$", family.name)
        base = {"0 or 1": "", "dBm": "dbm"}.get(unit.base, unit.base.replace(" ", "_"))
        assert (suffix[1] if suffix else "") == base
    conversion = f", {unit.api} to {unit.base}" if unit.divisor != 1 else ""
    source = f" (API field {family.field}{conversion})" if family.field else ""
    assert family.help.startswith(family.description + source)
    assert family.help.endswith(".")
    assert not set(family.help) & set('\\"\n')
    assert [each.name for each in FAMILIES].count(family.name) == 1
    leg, _, quantity = family.field.rpartition(".")
    if leg in ("destination", "vpn", "proxy") and quantity in ("latency", "jitter", "loss"):
        prefix = "(site_)?" if leg == "destination" else f"{leg}_"
        assert re.fullmatch(f"{prefix}{quantity}_(seconds|ratio)", family.short_name)


def test_families_are_selected_in_table_order():
    def select(*selection: str) -> list[str]:
        return [family.short_name for family in SERIES.select(selection).families]

    detail = re.compile(r"(cpu|memory)_(.*_(min|max|median|stddev)_.*|samples)")
    assert select("standard") == [name for name in select("all") if not detail.fullmatch(name)]
    assert select("none") == select() == []
    assert select("sessions", "loss_ratio", "unknown") == ["loss_ratio", "sessions"]
