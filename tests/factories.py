"""Sessions with given values, and hypothesis strategies for them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exporter.metrics.exposition import Part, plain_chunks
from exporter.sources.aggregate import PERIOD_FIELDS
from exporter.sources.rows import Batch, Joined, Row, RowStore
from exporter.sources.sessions import FIELDS

USER_FIELDS, NETWORK_FIELDS = FIELDS

Values = Mapping[str, float]
"""By API field, in base units."""

ROUND = 1_700_000_040
"""Start of a round, Unix seconds."""
CPU = "systemMetrics.cpuUtilization"
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


def _values(fields: Iterable[str], numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Values]:
    """Draw the values of a session: any may be missing; few periods, so that they repeat."""
    special = dict.fromkeys(PERIOD_FIELDS, st.sampled_from([10.0, 20.0]))
    special |= {f: st.integers(0, 50).map(float) for f in fields if f.endswith(".count")}
    return st.fixed_dictionaries({}, optional={f: special.get(f, numbers) for f in fields})


any_text = st.text(st.characters(exclude_categories=[]), max_size=400)
"""Text with all characters that JSON can contain, including lone surrogates."""
any_values = _values((*USER_FIELDS, *NETWORK_FIELDS), st.just(0.0) | st.floats(1e-100, 1e100))
"""Values of one session, of all fields."""
_some_fields = [
    *USER_FIELDS, *PERIOD_FIELDS, "destination.latency", "systemMetrics.physicalMemoryTotalBytes",
    *(field for field in NETWORK_FIELDS if field.startswith(CPU)),
]  # fmt: skip
_some_numbers = st.sampled_from([0.0, 0.5]) | st.integers(0, 7000).map(lambda number: number / 7)
_some_values = _values(_some_fields, _some_numbers)
_labels = st.tuples(*map(st.sampled_from, ("ab", "xxy", ("https", "https", "http"))))


@st.composite
def listings(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Draw both listings: few keys and rounds, so that sessions share them; some are unmatched."""
    users, networks = [], []
    for number in range(draw(st.integers(0, 12))):
        start = ROUND + draw(st.sampled_from([0, 0, 60]))
        values = draw(_some_values)
        users.append(user(f"{number:02}", *draw(_labels), start=start, values=values))
        if draw(st.integers(0, 7)):
            networks.append(network(f"{number:02}", start=start, values=values))
    return users, networks
