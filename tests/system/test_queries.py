"""Every query of dashboards, rules, and documentation, executed by a real Prometheus.

It has an hour of samples of a simulated company. The API works well at first, then fails in all
ways that dashboards show. A second Prometheus has the same samples twice, as from two replicas.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import promql_parser
import pytest
import yaml
from api_faults import RATE_LIMIT_HEADERS, faults, with_headers
from system.promql import expressions, nodes, selectors, undefined
from system.servers import AFTERNOON, PATH, ROOT, RULES

from exporter.simulator import Fault, World
from grafana.generate import FOLDER
from grafana.interpolation import DEFAULTS, as_regex, interpolate
from grafana.render import history
from grafana.render.prometheus import Prometheus

WORLD = World(agents=30, sites=8)
HEALTHY = AFTERNOON // 60 * 60
"""While everybody works, and one site is degraded; the API has no faults yet."""
START = HEALTHY - 22 * 60
FAILING, END = START + 45 * 60, START + 57 * 60
OTHER_CLIENTS = with_headers({RATE_LIMIT_HEADERS[1]: "0"})
FAULTS = (
    *faults("bad_records@23m", "forbidden_agents@23m", "server_error=0.3@23m"),
    *faults("rate_limited=0.2@23m", "no_networks@41m", "server_error@54m"),
    Fault("busy", "other clients use up the rate limit", response=OTHER_CLIENTS, start=44 * 60),
)
DEGRADED_SITE = "crm.example.com"
OVERLOADED = next(agent.id for agent in WORLD.agents if agent.overloaded)
VALUES = {**DEFAULTS, "agent": OVERLOADED}
VALUES |= {"__rate_interval": "4m", "__range": "20m", "__interval": "1m"}
SITES = as_regex(DEGRADED_SITE, "mail.example.com", "wiki.example.com")
SELECTIONS: dict[str, dict[str, str]] = {
    "all": {},
    "one site": {"site": as_regex(DEGRADED_SITE)},
    "several": {"site": SITES, "aid": "1001", "protocol": "https"},
    **{f"agent {agent.id}": {"agent": agent.id} for agent in WORLD.agents[:8]},
    **{label: {"split": label} for label in ("platform", "os_version", "agent_version")},
    **{metric: {"rank": metric} for metric in ("loss_ratio", "jitter_seconds")},
}
"""What users select: everything, one site, several values, agents, groupings."""

DASHBOARDS = {
    path.stem.removeprefix("thousandeyes-"): json.loads(path.read_text())
    for path in FOLDER.glob("*.json")
}
EMPTY_IF_HEALTHY = {
    *("exporter: Firing alerts table A", "exporter: annotation Alerts"),
    *("exporter: Failed polls timeseries A", "exporter: Failed polls timeseries B"),
    *("exporter: Retries timeseries A", "exporter: Rejected records timeseries A"),
}
"""Queries that only return data if something is wrong."""
SHOWS_FAULT: dict[str, Callable[[float], bool]] = {
    "exporter: Polls of sessions stat A": lambda value: value == 0,
    "exporter: 429 responses stat A": lambda value: value > 0,
    "exporter: Unmatched sessions stat A": lambda value: value > 0.2,
}
"""Queries of single values, and whether a value shows that something is wrong."""
EMPTY_DOCUMENTED = (
    *("absent_over_time", "offset 1w", "_otlp_", "> 0.3 and", "> 0.1)\n"),
    'agent_measurement_failure{aid="1001", agent="AGENT"}',
)
"""Parts of documented queries that may return nothing in this hour."""
ABSENT: dict[str, set[str]] = {
    "thousandeyes_exporter_otlp_last_push_success_timestamp_seconds": set(),
    "aid:thousandeyes_endpoint_jitter_seconds:over": {"aid"},
    "ALERTS": {"vpn"},  # no VPN is slow
}
"""Labels of metrics that do not exist in this hour."""

# Polls and requests of two replicas add up, unless a query has a value for each of them.
ADDS_UP = re.compile(r"(polls_skipped|poll_failures|api_requests|api_retries)_total|build_info")
PER_INSTANCE = re.compile(r"instance=\"|by \(instance\)|^increase|^rate|_seconds_")
RANKED = re.compile(r"k\(10, aid_agent:")


@dataclass(frozen=True)
class Query:
    """A query of a dashboard; `columns` are the labels that the table of its panel shows."""

    panel: str
    ref: str
    expr: str
    legend: str = ""
    columns: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.panel} {self.ref}"


def queries() -> Iterator[Query]:
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            settings = {each["id"]: each["options"] for each in panel.get("transformations", [])}
            fields = settings.get("organize", {}).get("renameByName", {})
            columns = frozenset(each for each in fields if not each.startswith("Value"))
            place = f"{name}: {panel.get('title')} {panel['type']}"
            for each in panel.get("targets", []):
                yield Query(place, each["refId"], each["expr"], each["legendFormat"], columns)
        for annotation in dashboard["annotations"]["list"]:
            yield Query(f"{name}: annotation", annotation["name"], annotation["target"]["expr"])


def documented_queries() -> Iterator[tuple[str, str]]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for query in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            yield page.stem, query.replace("HOST:9350", "one:9350")


QUERIES, DOCUMENTED = list(queries()), list(documented_queries())
RECORDED_AND_ALERTS = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
EXPRESSIONS = {query.name: interpolate(query.expr, VALUES) for query in QUERIES} | {
    f"{rule.get('record') or rule['alert']} {n}": expr
    for rule in RECORDED_AND_ALERTS
    for n, expr in enumerate(expressions(rule))
}
every_expression = pytest.mark.parametrize("expr", EXPRESSIONS.values(), ids=EXPRESSIONS)
every_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Prometheus]]:
    """Run Prometheus with the samples of one exporter, and with those of two."""
    folder = tmp_path_factory.mktemp("queries")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PATH", PATH)
        single, double = folder / "single.txt", folder / "double.txt"
        history.write(single, WORLD, START, END, instance="one:9350", faults=FAULTS)
        samples = single.read_text().removesuffix("# EOF\n")
        double.write_text(samples + samples.replace("one:9350", "two:9350") + "# EOF\n")
        started = []
        for file in (single, double):
            server = Prometheus(folder / file.stem)
            server.add_samples(file)
            server.add_rules(RULES, START, END)
            stack.enter_context(server.running())
            started.append(server)
        yield started


@pytest.fixture(scope="module")
def server(servers: list[Prometheus]) -> Prometheus:
    return servers[0]


@pytest.fixture(scope="module")
def labels(server: Prometheus) -> dict[str, set[str]]:
    """The labels of every metric, of recorded series, and of alerts."""
    found = {name: {*names} for name, names in ABSENT.items()}
    for series in server.query('last_over_time({__name__!=""}[1h])', END):
        found.setdefault(series["metric"]["__name__"], set()).update(series["metric"])
    return found


def execute(server: Prometheus, expr: str, time: float, **values: str) -> list[Any]:
    """Return the series that have a number."""
    series = server.query(interpolate(expr, VALUES | values), time)
    return [each for each in series if each["value"][1] != "NaN"]


def value(series: Mapping[str, Any]) -> float:
    return float(series["value"][1])


@every_query
def test_query_returns_data(query: Query, server: Prometheus) -> None:
    used = set(re.findall(r"\$\{?(\w+)", query.expr + query.legend))
    healthy = {
        name: execute(server, query.expr, HEALTHY, **values)
        for name, values in SELECTIONS.items()
        if values.keys() <= used
    }
    later = [each for time in (FAILING, END) for each in execute(server, query.expr, time)]
    if query.name in EMPTY_IF_HEALTHY:
        assert not any(healthy.values())
        assert later
    elif shows_fault := SHOWS_FAULT.get(query.name):
        assert not shows_fault(value(healthy["all"][0]))
        assert any(shows_fault(value(each)) for each in later)
    elif "ALERTS" in query.expr:
        assert any(healthy.values()) or later
    elif query.panel.startswith("agent:"):  # not every agent has a VPN or a proxy
        assert any(healthy.values())
    else:
        assert [choice for choice, found in healthy.items() if not found] == []
    legend = set(re.findall(r"\{\{(\w+)\}\}", interpolate(query.legend, DEFAULTS)))
    assert all(legend <= each["metric"].keys() for each in [*healthy["all"], *later])


def test_table_columns_are_in_the_results(server: Prometheus) -> None:
    missing = {query.panel: set(query.columns) for query in QUERIES}
    for query in (query for query in QUERIES if query.columns):
        results = execute(server, query.expr, END)
        for agent in WORLD.agents[: 8 if "$agent" in query.expr else 1]:
            results += execute(server, query.expr, HEALTHY, agent=agent.id)
        missing[query.panel] -= {label for series in results for label in series["metric"]}
    assert {panel: columns for panel, columns in missing.items() if columns} == {}


def test_variables_offer_the_existing_values(server: Prometheus) -> None:
    variables = {
        each["name"]: each
        for dashboard in DASHBOARDS.values()
        for each in dashboard["templating"]["list"]
        if each["type"] == "query"
    }

    def offered(name: str) -> dict[str, str]:
        """Return the text of each value."""
        variable = variables[name]
        match = re.fullmatch(r"\w+\((.*?)(?:, (\w+))?\)", variable["query"]["query"])
        assert match
        found = [each["metric"] for each in execute(server, match[1], HEALTHY)]
        if label := match[2]:
            return {each[label]: each[label] for each in found if label in each}
        pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
        pairs = (",".join(f'{k}="{v}"' for k, v in sorted(each.items())) for each in found)
        options = (pattern.search(f"{{{each}}} 1 1700000000000") for each in pairs)
        return {option["value"]: option["text"] for option in options if option}

    assert offered("aid") == {"1001": "Example Headquarters"}
    assert offered("agent") == {agent.id: agent.name for agent in WORLD.agents}
    assert offered("site").keys() == {site.host for site in WORLD.sites}
    assert offered("protocol").keys() == {"http", "https"}
    assert offered("instance").keys() == {"one:9350"}
    locations = {agent.office.location for agent in WORLD.agents}  # some of which are asleep
    assert locations > offered("location").keys() >= {"London, England, UK", "Berlin, Germany"}


def test_dashboards_show_the_problems_of_the_company(server: Prometheus) -> None:
    exprs = {query.name: query.expr for query in QUERIES}

    def values(name: str, label: str) -> dict[str, float]:
        return {
            each["metric"][label]: value(each) for each in execute(server, exprs[name], HEALTHY)
        }

    def highest(name: str, label: str) -> str:
        return max((number, text) for text, number in values(name, label).items())[1]

    assert highest("fleet: Sites table B", "site") == DEGRADED_SITE
    for name in ("site: Latency by $split timeseries A", "networks: Locations table B"):
        assert highest(name, "location").startswith("Bengaluru")
    assert OVERLOADED in values(
        "fleet: 10 agents with the lowest experience score table A", "agent"
    )
    weak = values("fleet: 10 weakest Wi-Fi signals table A", "agent")
    found = {agent for agent, signal in weak.items() if signal < -80}
    assert found == {agent.id for agent in WORLD.agents if agent.home_network.jitter_ms}
    failing = values("fleet: Agents that cannot measure table A", "agent")
    assert failing.keys() == {agent.id for agent in WORLD.agents if agent.failure}


@pytest.mark.parametrize(("page", "query"), DOCUMENTED)
def test_documented_query_returns_data(page: str, query: str, server: Prometheus) -> None:
    expr = query.replace("AGENT", OVERLOADED)
    if not any(part in query for part in EMPTY_DOCUMENTED):
        assert any(server.query(expr, time) for time in (HEALTHY, FAILING, END)), page


@every_expression
def test_metrics_and_labels_exist(expr: str, labels: dict[str, set[str]]) -> None:
    assert undefined(expr, labels) == set()


@every_expression
def test_counters_and_only_counters_are_rated(expr: str) -> None:
    rated = {
        argument.vector_selector.name
        for node in nodes(expr)
        if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase")
        for argument in node.args
    }
    named = {node.name for node in selectors(expr)}
    assert rated == {name for name in named if re.search(r"_(total|bucket|count|sum)$", name or "")}


def test_recording_rules_are_named_after_a_metric(labels: dict[str, set[str]]) -> None:
    for name in (rule["record"] for rule in RECORDED_AND_ALERTS if "record" in rule):
        match = re.fullmatch(r"\w+:(thousandeyes_\w+):[a-z]+", name)
        assert match
        assert match[1] in labels


@pytest.mark.parametrize(
    ("name", "expr"), [(query.name, query.expr) for query in QUERIES] + DOCUMENTED
)
def test_replicas_do_not_change_a_query(name: str, expr: str, servers: list[Prometheus]) -> None:
    text = interpolate(expr, VALUES).replace("AGENT", OVERLOADED)
    for time in (HEALTHY, END):
        one, two = (
            {
                frozenset({**each["metric"], "instance": "", "job": ""}.items()): value(each)
                for each in server.query(text, time)
            }
            for server in servers
        )
        if "ALERTS" in text:  # one alert of each replica, or one of both
            assert two.keys() == one.keys()
            continue
        if ADDS_UP.search(text) and not PER_INSTANCE.search(text):
            one = {labels: 2 * number for labels, number in one.items()}
        if RANKED.search(text):  # which of several agents with equal values is in a table: either
            common = one.keys() & two.keys()
            assert len(two) == len(one) <= 2 * len(common), name
            one, two = ({key: each[key] for key in common} for each in (one, two))
        assert two == pytest.approx(one, rel=1e-9, nan_ok=True), name


pytestmark = pytest.mark.timeout(300)
