"""The dashboards: consistent, and every query of theirs returns data from a real Prometheus.

One Prometheus scrapes a healthy exporter, another one scrapes exporters of an API with faults. The
simulated company runs ten times as fast as the real time.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from api_faults import faults
from system import servers
from system.promql import nodes, undefined
from system.servers import AFTERNOON, ROOT, RULES, Server, until

from exporter.simulator import World
from grafana.generate import FOLDER, dashboard_files
from grafana.interpolation import DEFAULTS, as_regex, interpolate

FILES = {path: path.read_text() for path in FOLDER.glob("*.json")}
DASHBOARDS = {path.stem.removeprefix("thousandeyes-"): json.loads(t) for path, t in FILES.items()}
INTERVALS = {"__rate_interval": "20s", "__range": "60s", "__interval": "5s"}
WORLD = World(agents=60, sites=12)
SPEED = 10
START = AFTERNOON - 600
"""Everybody works, and one site is degraded."""
DEGRADED_SITE = "crm.example.com"
FAILING = ("server_error=0.7", "rate_limited=0.2")
INCOMPLETE = ("no_networks", "bad_records", "forbidden_agents")

EMPTY_IF_HEALTHY = {
    *(f"{name}: annotation Alerts" for name in DASHBOARDS),
    *("exporter: Firing alerts table A", "fleet: Firing alerts table A"),
    *("exporter: Failed polls timeseries A", "exporter: Failed polls timeseries B"),
    *("exporter: Retries timeseries A", "exporter: Rejected records timeseries A"),
}
"""Queries of tables and graphs that only return data if something is wrong."""
SHOWS_FAULT: dict[str, Callable[[float], bool]] = {
    "exporter: Polls of sessions stat A": lambda value: value == 0,
    "exporter: 429 responses stat A": lambda value: value > 0,
    "exporter: Unmatched sessions stat A": lambda value: value > 0.2,
}
"""Queries of single values, and whether a value shows that something is wrong."""


@dataclass(frozen=True)
class Query:
    """A query of a dashboard."""

    dashboard: str
    place: str
    expr: str
    instant: bool = False
    legend: str = ""
    columns: frozenset[str] = frozenset()
    """Labels that the table of the panel shows."""

    @property
    def name(self) -> str:
        return f"{self.dashboard}: {self.place}"


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            settings = {each["id"]: each["options"] for each in panel.get("transformations", [])}
            fields = settings.get("organize", {}).get("renameByName", {})
            columns = frozenset(each for each in fields if not each.startswith("Value"))
            for each in panel.get("targets", []):
                place = f"{panel['title']} {panel['type']} {each['refId']}"
                instant, legend = each.get("instant", False), each["legendFormat"]
                yield Query(name, place, each["expr"], instant, legend, columns)
        for annotation in dashboard["annotations"]["list"]:
            yield Query(name, f"annotation {annotation['name']}", annotation["target"]["expr"])


QUERIES = list(queries())
every_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)


def expression(query: Query, **values: str) -> str:
    return interpolate(query.expr, DEFAULTS | INTERVALS | values)


def test_generated_files_are_up_to_date() -> None:
    assert dashboard_files() == FILES


@every_query
def test_query_uses_metrics_and_labels_that_exist(query: Query) -> None:
    for split in ("location", "platform", "os_version", "agent_version"):
        assert undefined(expression(query, split=split)) == set()


@every_query
def test_counters_and_only_counters_are_rated(query: Query) -> None:
    parts = nodes(expression(query))
    rated = {
        argument.vector_selector.name
        for node in parts
        if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase")
        for argument in node.args
    }
    named = {node.name for node in parts if isinstance(node, promql_parser.VectorSelector)}
    assert rated == {name for name in named if re.search(r"_(total|bucket|count|sum)$", name or "")}


@every_dashboard
def test_panels_have_description_unit_and_data_source(dashboard: Mapping[str, Any]) -> None:
    intro, *others = panels(dashboard)
    assert intro["type"] == "text"
    for panel in others:
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        assert defaults.get("unit") or panel["options"]["yAxis"]["unit"]
        if panel["type"] == "timeseries":
            assert defaults["min"] == (-100 if "dBm" in defaults["unit"] else 0)


@every_dashboard
def test_panels_fill_the_grid_without_overlap(dashboard: Mapping[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(cells) == len(set(cells)) == 24 * (1 + max(y for _, y in cells))


@every_dashboard
def test_links_set_variables_that_the_other_dashboard_has(dashboard: Mapping[str, Any]) -> None:
    (link,) = dashboard["links"]
    assert (link["includeVars"], link["keepTime"], link["tags"]) == (True, True, dashboard["tags"])
    here = {variable["name"] for variable in dashboard["templating"]["list"]}
    urls = re.findall(r'"url": "(/d/[^"]+)"', json.dumps(dashboard["panels"]))
    for url in urls:
        match = re.fullmatch(r"/d/thousandeyes-(\w+)\?(.*)", url)
        assert match
        there = {each["name"] for each in DASHBOARDS[match[1]]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", match[2])) <= there
        assert set(re.findall(r"\$\{(\w+):queryparam\}", match[2])) <= there & here
        assert "${__url_time_range}" in match[2]


# Queries against real servers


@dataclass
class Results:
    """Series that the queries returned."""

    healthy: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    """By name of the query and of the selection."""
    faulty: dict[str, list[Any]] = field(default_factory=dict)
    variables: dict[str, list[str]] = field(default_factory=dict)
    documented: dict[str, list[Any]] = field(default_factory=dict)
    """By page and query."""


async def execute(server: Server, expr: str, *, instant: bool) -> list[Any]:
    """Return the series that have a number."""
    now = time.time()
    if instant:
        series = await server.query(expr, time=now)
        return [each for each in series if each["value"][1] != "NaN"]
    series = await server.query(expr, start=now - 15, end=now, step=5)
    return [each for each in series if any(value != "NaN" for _, value in each["values"])]


def last(series: Mapping[str, Any]) -> float:
    return float(series["value"][1] if "value" in series else series["values"][-1][1])


def write_rules(path: Path, started: float, *, alerts: bool) -> Path:
    """Write the recording rules, on the clock of the API, and alerts that fire immediately."""
    content = yaml.safe_load(RULES.read_text())
    for group in content["groups"]:
        group["rules"] = [rule for rule in group["rules"] if alerts or "record" in rule]
        for rule in group["rules"]:
            rule.pop("for", None)
            rule.pop("keep_firing_for", None)
            if "record" in rule:
                clock = f"({START} + {SPEED} * (time() - {started}))"
                rule["expr"] = rule["expr"].replace("time()", clock)
    path.write_text(yaml.safe_dump(content))
    return path


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


async def variable_values(server: Server) -> dict[str, list[str]]:
    """Return the values that the variables of the dashboards offer."""
    found: dict[str, list[str]] = {}
    variables = {
        each["name"]: each
        for dashboard in DASHBOARDS.values()
        for each in dashboard["templating"]["list"]
        if each["type"] == "query"
    }
    for variable in variables.values():
        query = interpolate(variable["query"]["query"], DEFAULTS)
        if match := re.fullmatch(r"label_values\((.*), (\w+)\)", query):
            series = await server.query(f"group by ({match[2]}) ({match[1]})")
            found[variable["name"]] = [each["metric"][match[2]] for each in series]
        elif match := re.fullmatch(r"query_result\((.*)\)", query):
            pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
            for each in await server.query(match[1]):
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(each["metric"].items()))
                option = pattern.search(f"{{{labels}}} 1 1700000000000")
                for group, suffix in (("value", ""), ("text", " name")):
                    name = variable["name"] + suffix
                    found.setdefault(name, []).append(option[group] if option else "")
    return found


async def collect(folder: Path) -> Results:
    """Run all servers for a while, and execute all queries."""
    results = Results()
    small = World(agents=30)
    start = time.time()

    def clock() -> float:
        return START + SPEED * (time.time() - start)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context

        async def export(world: World, *specs: str, **settings: str) -> tuple[Any, str]:
            address = f"127.0.0.1:{servers.free_port()}"
            api, url = await enter(
                servers.simulator(world, clock=clock, faults=faults(*specs), rate_limit=240)
            )
            intervals = {"poll__interval": "3s", "local_networks__interval": "60s"}
            await enter(servers.exporter(url, address, **intervals, **settings))
            return api, address

        _, healthy_address = await export(WORLD, metrics__families="standard")
        failing, failing_address = await export(small)
        # Polls that wait for the rate limit are longer than the interval.
        _, incomplete_address = await export(small, *INCOMPLETE, api__requests_per_minute="20")
        # Without alerts, because the clock of the API differs from that of Prometheus.
        rules = write_rules(folder / "recording.yml", start, alerts=False)
        config = servers.scrape_config(healthy_address, rules=rules)
        healthy = await enter(servers.prometheus(folder / "healthy", config))
        rules = write_rules(folder / "alerts.yml", start, alerts=True)
        config = servers.scrape_config(failing_address, incomplete_address, rules=rules)
        faulty = await enter(servers.prometheus(folder / "faulty", config))
        await until(lambda: faulty.query('count(thousandeyes_up{source="sessions"} == 1) == 2'))
        failing.faults = faults(*FAILING)
        enough = "sum(thousandeyes_endpoint_site_sessions_total) > 150"
        await until(lambda: healthy.query(enough), 180, 1)
        results.variables = await variable_values(healthy)
        for query in QUERIES:
            used = set(re.findall(r"\$\{?(\w+)", query.expr + query.legend))
            for selection, values in SELECTIONS.items():
                if values.keys() <= used:
                    expr = expression(query, **values)
                    series = await execute(healthy, expr, instant=query.instant)
                    results.healthy[query.name, selection] = series
            if query.name in EMPTY_IF_HEALTHY or query.name in SHOWS_FAULT:
                overloaded = next(agent.id for agent in small.agents if agent.overloaded)
                results.faulty[query.name] = await wait_for_fault(faulty, query, overloaded)
        examples = {"crm.example.com": DEGRADED_SITE, "AGENT": overloaded_agent(WORLD)}
        examples |= {"HOST:9350": healthy_address}
        for page, query_text in documented_queries():
            expr = re.sub("|".join(examples), lambda match: examples[match[0]], query_text)
            results.documented[f"{page}: {query_text}"] = await healthy.query(expr)
    return results


def overloaded_agent(world: World) -> str:
    return next(agent.id for agent in world.agents if agent.overloaded)


async def wait_for_fault(server: Server, query: Query, agent: str) -> list[Any]:
    shows_fault = SHOWS_FAULT.get(query.name, lambda _: True)
    expr = expression(query, agent=agent)

    async def series() -> list[Any]:
        found = await execute(server, expr, instant=query.instant)
        return found if found and shows_fault(last(found[0])) else []

    return await until(series, 120, 0.5, query.name)  # type: ignore[no-any-return]


def documented_queries() -> Iterator[tuple[str, str]]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for query in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            yield page.stem, query


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return asyncio.run(collect(tmp_path_factory.mktemp("grafana")))


pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("grafana")]


@every_query
def test_query_returns_data(query: Query, results: Results) -> None:
    series = {choice: s for (name, choice), s in results.healthy.items() if name == query.name}
    faulty = results.faulty.get(query.name, [])
    if query.name in EMPTY_IF_HEALTHY:
        assert not any(series.values())
        assert faulty
    elif query.name in SHOWS_FAULT:
        shows_fault = SHOWS_FAULT[query.name]
        assert (shows_fault(last(series["all"][0])), shows_fault(last(faulty[0]))) == (False, True)
    elif query.dashboard == "agent":  # not every agent has a VPN or a proxy
        assert any(series.values())
    else:
        assert [choice for choice, found in series.items() if not found] == []
    labels = set(re.findall(r"\{\{(\w+)\}\}", interpolate(query.legend, DEFAULTS)))
    assert all(labels <= each["metric"].keys() for each in faulty or series["all"])


def test_table_columns_are_in_the_results(results: Results) -> None:
    columns: dict[tuple[str, str], set[str]] = {}
    labels: dict[tuple[str, str], set[str]] = {}
    for query in QUERIES:
        panel = (query.dashboard, query.place[:-2])
        columns[panel] = set(query.columns)
        series = [
            s for (name, _), found in results.healthy.items() if name == query.name for s in found
        ]
        for each in [*series, *results.faulty.get(query.name, [])]:
            labels.setdefault(panel, set()).update(each["metric"])
    assert [panel for panel, each in columns.items() if each - labels[panel]] == []


def test_variables_offer_the_existing_values(results: Results) -> None:
    assert results.variables["aid"] == ["1001"]
    assert results.variables["aid name"] == ["Example Headquarters"]
    assert set(results.variables["site"]) == {site.host for site in WORLD.sites}
    assert set(results.variables["protocol"]) == {"http", "https"}
    assert set(results.variables["location"]) == {agent.office.location for agent in WORLD.agents}
    agents = zip(results.variables["agent"], results.variables["agent name"], strict=True)
    assert dict(agents) == {agent.id: agent.name for agent in WORLD.agents}


@every_dashboard
def test_series_of_a_panel_have_different_colors(dashboard: Mapping[str, Any]) -> None:
    for panel in panels(dashboard):
        overrides = panel.get("fieldConfig", {}).get("overrides", [])
        properties = [each for override in overrides for each in override["properties"]]
        colors = [each["value"].get("fixedColor") for each in properties if each["id"] == "color"]
        fixed = [color for color in colors if color]
        assert len(fixed) == len(set(fixed)), panel["title"]


def test_dashboards_show_the_problems_of_the_company(results: Results) -> None:
    def values(name: str, label: str) -> dict[str, float]:
        return {each["metric"][label]: last(each) for each in results.healthy[name, "all"]}

    sites = values("fleet: Sites table B", "site")
    assert max(sites, key=sites.__getitem__) == DEGRADED_SITE
    locations = values("site: Latency by $split timeseries A", "location")
    assert max(locations, key=locations.__getitem__).startswith("Bengaluru")
    lowest = values("fleet: 10 agents with the lowest experience score table A", "agent")
    assert overloaded_agent(WORLD) in lowest
    gateways = values("networks: Locations table B", "location")
    assert max(gateways, key=gateways.__getitem__).startswith("Bengaluru")
    weak = values("fleet: 10 weakest Wi-Fi signals table A", "agent")
    assert {each for each, signal in weak.items() if signal < -80} <= {
        agent.id for agent in WORLD.agents if agent.weak_wifi
    }
    failing = values("fleet: Agents that cannot measure table A", "agent")
    assert failing.keys() == {agent.id for agent in WORLD.agents if agent.failure}


EMPTY_DOCUMENTED = re.compile(
    r"_failures?[_{]|> 0\)?$|[<>] -?\d+|code=|offset|proxy|vpn|otlp|absent|\[1h\]|last_seen|…",
    re.MULTILINE,
)
"""Documented queries that may return nothing if all is well, or minutes after a start."""


def test_documented_queries_return_data(results: Results) -> None:
    empty = [query for query, series in results.documented.items() if not series]
    assert [query for query in empty if not EMPTY_DOCUMENTED.search(query)] == []
