"""Sessions made to order, for the tests of the rooms that compute."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from exporter.metrics import NETWORK_FIELDS, PERIOD_FIELDS, USER_FIELDS
from exporter.model import Key, NetworkSession, UserSession
from exporter.store import Store

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")  # how busy a machine is decides no test

ROUND = 1_700_000_040
"""A round, Unix seconds."""
NOTHING: Mapping[str, float] = {}

Pair = tuple[UserSession, NetworkSession | None]


def user(
    id_: str = "1",
    agent: str = "agent",
    site: str = "site.example",
    protocol: str = "https",
    *,
    start: int = ROUND,
    measured: Mapping[str, float] = NOTHING,
) -> UserSession:
    """Make a user session; `measured` by API field in base units."""
    values = tuple(measured.get(field, math.nan) for field in USER_FIELDS)
    return UserSession(id_, Key(agent, site, protocol), start, values)


def network(id_: str = "1", *, start: int = ROUND, measured: Mapping[str, float] = NOTHING) -> NetworkSession:
    """Make a network session; `measured` by API field in base units."""
    return NetworkSession(id_, start, np.array([measured.get(field, math.nan) for field in NETWORK_FIELDS]).tobytes())


def pair(
    id_: str = "1",
    agent: str = "agent",
    site: str = "site.example",
    protocol: str = "https",
    *,
    start: int = ROUND,
    measured: Mapping[str, float] = NOTHING,
) -> tuple[UserSession, NetworkSession]:
    """Make both halves of a session."""
    return (
        user(id_, agent, site, protocol, start=start, measured=measured),
        network(id_, start=start, measured=measured),
    )


def measured_by(session: Pair) -> dict[str, float]:
    """Return what a session measured, by API field: the inverse of `pair`."""
    one, other = session
    numbers = [*one.values, *(np.frombuffer(other.values).tolist() if other else [])]
    fields = [*USER_FIELDS, *(NETWORK_FIELDS if other else [])]
    return {field: number for field, number in zip(fields, numbers, strict=True) if not math.isnan(number)}


def joined(users: list[UserSession], networks: list[NetworkSession]) -> list[Pair]:
    """Return the sessions as a store joins them."""
    store = Store()
    store.upsert(users, networks)
    return store.joined()


def _measured(fields: Iterable[str], numbers: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, float]]:
    """Draw what a session may have measured: everything, nothing, and in few periods, so that these overlap."""
    counts = st.integers(0, 50).map(float)
    special = dict.fromkeys(PERIOD_FIELDS, st.sampled_from([10.0, 20.0]))
    drawn = {field: special.get(field, counts if field.endswith("count") else numbers) for field in fields}
    return st.fixed_dictionaries({}, optional=drawn)


_CPU = [field for field in NETWORK_FIELDS if ".cpuUtilization." in field]
"""One of the two objects that are summarized alike."""

anything = st.text(st.characters(exclude_categories=[]), max_size=400)
"""Text with everything that JSON can hold, lone surrogates too."""

measurements = _measured((*USER_FIELDS, *NETWORK_FIELDS), st.just(0.0) | st.floats(1e-100, 1e100))
"""What one session may have measured, of all fields."""

_some_measurements = _measured(
    (*USER_FIELDS, *PERIOD_FIELDS, *_CPU, "destination.latency", "systemMetrics.physicalMemoryTotalBytes"),
    st.sampled_from([0.0, 0.5]) | st.integers(0, 7000).map(lambda number: number / 7),
)


@st.composite
def sessions(draw: st.DrawFn, most: int = 10) -> tuple[list[UserSession], list[NetworkSession]]:
    """Draw both listings: few keys and rounds, so that sessions meet in them; some without their other half."""
    users, networks = [], []
    for number in range(draw(st.integers(0, most))):
        id_, start = f"{number:02}", ROUND + draw(st.sampled_from([0, 0, 60]))
        measured = draw(_some_measurements)
        agent, site, protocol = (draw(st.sampled_from(both)) for both in ("ab", "xy", ("http", "https")))
        users.append(user(id_, agent, site, protocol, start=start, measured=measured))
        if draw(st.integers(0, 7)):
            networks.append(network(id_, start=start, measured=measured))
    return users, networks
