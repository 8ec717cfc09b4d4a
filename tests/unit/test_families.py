"""The metric table: names, units and HELP texts are consistent."""

import re

import pytest

from exporter.metrics import families as table
from exporter.metrics.families import FAMILIES, HISTOGRAMS, UNITS, select_families


@pytest.mark.parametrize("family", [*FAMILIES, *HISTOGRAMS], ids=lambda family: family.name)
def test_name_and_help_agree_with_field_and_unit(family):
    unit = UNITS.get(family.field, table.COUNT)
    if not family.name.endswith(("timestamp_seconds", "experience_score")):
        suffix = re.search(r"_(seconds|ratio|bytes)$", family.name)
        assert (suffix[1] if suffix else "") == unit.base
    conversion = f", {unit.api} to {unit.base}" if unit.divisor != 1 else ""
    source = f" (API field {family.field}{conversion})" if family.field else ""
    assert family.help.startswith(family.description + source)
    assert family.help.endswith(".")
    assert not set(family.help) & set('\\"\n')


def test_every_field_belongs_to_one_listing():
    listings = [*table.NETWORK_FIELDS, *table.USER_FIELDS]
    assert len(listings) == len(set(listings))
    assert UNITS.keys() == {*listings, "roundId"}


def test_families_are_selected_in_table_order():
    names = {each: [f.short_name for f in select_families(each)] for each in ("all", "standard")}
    detail = re.compile(r"(cpu|memory)_(.*_(min|max|median|stddev)_.*|samples)")
    assert names["standard"] == [name for name in names["all"] if not detail.fullmatch(name)]
    assert select_families("all") == FAMILIES
    assert select_families("none") == select_families([]) == ()
    selected = select_families(["sessions", "loss_ratio", "unknown"])
    assert [family.short_name for family in selected] == ["loss_ratio", "sessions"]
