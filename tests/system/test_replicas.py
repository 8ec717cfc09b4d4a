"""Queries with one exporter and with two replicas of it: the values are the same.

Prometheus has the past samples of one target, or the same samples of two, with an API that often
fails. Polls, requests and alerts of two exporters add up, unless a query has a value for each of
them.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from system.servers import AFTERNOON, PATH, RULES
from system.test_grafana import INTERVALS, QUERIES, documented_queries, overloaded_agent

from exporter.simulator import World
from grafana.interpolation import DEFAULTS, interpolate
from grafana.render import history
from grafana.render.prometheus import Prometheus

WORLD = World(agents=30, sites=6)
END = AFTERNOON // 60 * 60
START = END - 1200
SELECTION = DEFAULTS | INTERVALS | {"agent": overloaded_agent(WORLD)}
SELECTION |= {"__rate_interval": "4m", "__range": "20m"}
DASHBOARDS = [(q.name, interpolate(q.expr, SELECTION)) for q in QUERIES]
DOCUMENTED = [
    (page, query.replace("AGENT", SELECTION["agent"]).replace("HOST:9350", "one:9350"))
    for page, query in documented_queries()
]
ADDS_UP = re.compile(
    r"(polls_skipped|poll_failures|api_requests|api_retries)_total|build_info|count.*ALERTS"
)
PER_INSTANCE = re.compile(r"instance=\"|by \(instance\)|^increase|^rate|_seconds_")
RANKED = re.compile(r"k\(10, aid_agent:")
Values = dict[frozenset[tuple[str, str]], float]


def values(server: Prometheus, expr: str) -> Values:
    """Return values by labels, without those of the target."""
    found: dict[Any, float] = {}
    for series in server.query(expr, END):
        labels = {k: v for k, v in series["metric"].items() if k not in ("job", "instance")}
        found[frozenset(labels.items())] = float(series["value"][1])
    return found


RECORDED = (
    "aid:thousandeyes_endpoint_sessions:count",
    "aid_agent:thousandeyes_endpoint_agent_info:name",
)
"""Recorded series that the queries need."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Values], ...]:
    folder = tmp_path_factory.mktemp("replicas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", PATH)
        single, double = folder / "1.txt", folder / "2.txt"
        faults = ("server_error=0.3", "rate_limited=0.1", "forbidden_agents")
        history.write(single, WORLD, START - 900, END, instance="one:9350", faults=faults)
        samples = single.read_text().removesuffix("# EOF\n")
        double.write_text(samples + samples.replace("one:9350", "two:9350") + "# EOF\n")
        return tuple(evaluate(file) for file in (single, double))


def evaluate(file: Path) -> dict[str, Values]:
    server = Prometheus(file.with_name(f"data{file.stem}"))
    server.add_samples(file)
    while True:  # on a busy machine, a rule can be evaluated before the blocks of another one
        server.add_rules(RULES, START, END)
        with server.running():
            if all(values(server, each) for each in RECORDED):
                return {expr: values(server, expr) for _, expr in (*DASHBOARDS, *DOCUMENTED)}


@pytest.mark.parametrize(("name", "expr"), DASHBOARDS + DOCUMENTED)
def test_replicas_do_not_change_a_query(
    name: str, expr: str, results: tuple[dict[str, Values], ...]
) -> None:
    one, two = (each[expr] for each in results)
    if ADDS_UP.search(expr) and not PER_INSTANCE.search(expr):
        one = {labels: 2 * value for labels, value in one.items()}
    if RANKED.search(expr):  # which of several agents with equal values is in a table is undefined
        common = one.keys() & two.keys()
        assert len(two) == len(one) <= 2 * len(common), name
        one, two = ({key: each[key] for key in common} for each in (one, two))
    assert two == pytest.approx(one, rel=1e-9, nan_ok=True), name


def test_most_queries_return_data(results: tuple[dict[str, Values], ...]) -> None:
    assert len([each for each in results[0].values() if each]) > 0.5 * len(results[0])


pytestmark = pytest.mark.timeout(300)
