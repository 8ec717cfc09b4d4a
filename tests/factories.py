"""Sessions with given or random values."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.metrics.exposition import Format, Part, plain_chunks
from exporter.metrics.families import SeriesTable
from exporter.sources.aggregate import PERIOD_FIELDS
from exporter.sources.rows import Batch, Joined, Key, Row, RowStore
from exporter.sources.sessions import FIELDS

USER_FIELDS, NETWORK_FIELDS = FIELDS

Values = Mapping[str, float]
"""By API field, in base units."""
ROUND = 1_700_000_040  # its start, Unix seconds
NOTHING: Values = {}


def user(
    id_: str = "1", agent: str = "agent", site: str = "site.example", protocol: str = "https",
    *, start: int = ROUND, values: Values = NOTHING, commit_delay: float = math.nan,
) -> Row:  # fmt: skip
    """Make a user session."""
    row = np.array([values.get(field, math.nan) for field in USER_FIELDS])
    return Row(id_, (agent, site, protocol), start, row.tobytes(), commit_delay)


def network(id_: str = "1", *, start: int = ROUND, values: Values = NOTHING) -> Row:
    """Make a network session."""
    row = np.array([values.get(field, math.nan) for field in NETWORK_FIELDS])
    return Row(id_, (), start, row.tobytes())


def session(*args: str, start: int = ROUND, **options: Any) -> tuple[Row, Row]:
    """Make a user session, with the arguments of `user`, and its network session."""
    half = user(*args, start=start, **options)
    return half, network(half.id, start=start, values=options.get("values", NOTHING))


def values_of(session: Joined) -> dict[str, float]:
    """Return the values of a session: the inverse of `session`."""
    _, other = session
    row = [x for each in session if each for x in np.frombuffer(each.values).tolist()]
    fields = [*USER_FIELDS, *(NETWORK_FIELDS if other else [])]
    return {f: value for f, value in zip(fields, row, strict=True) if not math.isnan(value)}


def batch(*sessions: Joined, **rejected: int) -> Batch:
    """Make what one poll reads."""
    networks = [network for _, network in sessions if network]
    return Batch(([user for user, _ in sessions], networks), Counter(rejected))  # type: ignore[arg-type]


def join(users: Iterable[Row], networks: Iterable[Row]) -> list[Joined]:
    """Return the sessions as the store joins them."""
    store = RowStore()
    store.upsert((users, networks))
    return store.join()


def text_of(*parts: Part) -> str:
    """Return the text of parts of an exposition."""
    return b"".join(chunk for part in parts for chunk in plain_chunks(part)).decode()


def parse(
    text: str, format_: Format = Format.TEXT, prefix: str = ""
) -> dict[tuple[str, frozenset[Any]], float]:
    """Return the samples of an exposition by name and labels: valid, and each series once."""
    parser = parse_text if format_ is Format.TEXT else parse_openmetrics
    samples = [sample for family in parser(text) for sample in family.samples]
    found = {(s.name.removeprefix(prefix), frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples)
    assert all(s.timestamp is None and math.isfinite(s.value) for s in samples)
    return found


def values_by_key(table: SeriesTable) -> dict[Key, dict[str, float]]:
    """Return the values of a table that exist, by key and short name."""
    found: dict[Key, dict[str, float]] = {key: {} for key in table.keys}
    for name, column in table.columns.items():
        for key, value in zip(table.keys, column.tolist(), strict=True):
            found[key] |= {} if math.isnan(value) else {name: value}
    return found


any_text = st.text(st.characters(exclude_categories=[]), max_size=400)
"""Text with all characters that JSON can contain, including lone surrogates."""
randoms = st.randoms(use_true_random=True)
"""Pseudo-random numbers; drawing every value by itself takes ten times as long."""


def listings(rng: Random) -> tuple[list[Row], list[Row]]:
    """Make both listings: few keys, rounds and periods, so that they repeat; some are unmatched."""
    users, networks = [], []
    for number in range(rng.randrange(13)):
        id_, start = f"{number:02}", ROUND + rng.choice((0, 0, 60))
        labels = map(rng.choice, ("ab", "xxy", ("https", "https", "http")))
        chosen = [field for field in (*USER_FIELDS, *NETWORK_FIELDS) if rng.random() < 0.7]
        values = {field: rng.choice((0.0, *[rng.randrange(7000) / 7] * 4)) for field in chosen}
        values |= {field: float(rng.randrange(12)) for field in chosen if field.endswith(".count")}
        values |= {f: rng.choice((10.0, 20.0)) for f in PERIOD_FIELDS if f in values}
        users.append(user(id_, *labels, start=start, values=values))
        if rng.random() < 0.85:
            networks.append(network(id_, start=start, values=values))
    return users, networks
