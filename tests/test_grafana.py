"""The dashboards: what they say is true, and every query of theirs answers.

A real Prometheus scrapes real exporters of the pretend company, one that is well and some with a fault each, on a clock
that runs ten times as fast as ours. Every query is asked as Grafana would ask it, with the variables filled in.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import promql_parser as promql
import pytest
import yaml

from benchmarks.processes import free_port
from exporter.api.budget import RateLimit
from exporter.metrics import AGENT_INFO, AGENT_LAST_SEEN, DISTRIBUTIONS, FAMILIES, SITE_SESSIONS
from exporter.simulator import Simulator, World, parse_faults
from exporter.telemetry import Telemetry
from grafana.fill import CHOSEN, fill, joined
from grafana.generate import DASHBOARDS, pages
from tests.servers import EXPORTER, ROOT, TOKEN, running, simulated, tool, until

FILES = {path: path.read_text() for path in sorted(DASHBOARDS.iterdir())}
BOARDS = {path.stem.removeprefix("thousandeyes-"): json.loads(text) for path, text in FILES.items()}
RULES = ROOT / "deploy/prometheus/thousandeyes.rules.yml"

EMPTY_WHEN_WELL = {
    "agent: annotation Alerts": "server_error",
    "exporter: Alerts that fire A": "server_error",
    "exporter: Polls that failed A": "server_error",
    "exporter: Polls that failed B": "slow",
    "exporter: Records not taken in A": "bad_records",
    "exporter: Requests sent again A": "server_error",
    "exporter: annotation Alerts": "server_error",
    "fleet: Alerts that fire A": "server_error",
    "fleet: annotation Alerts": "server_error",
    "site: annotation Alerts": "server_error",
}
"""The queries that have no answer while all is well, and the fault that each is for."""

TOLD: dict[str, tuple[str, Callable[[float], bool]]] = {
    "exporter: Last poll A": ("server_error", lambda value: value == 0),
    "exporter: Refused requests A": ("rate_limited", lambda value: value > 0),
    "exporter: Sessions without a partner A": ("no_networks", lambda value: value > 0.2),
}
"""What numbers say of a fault: they are so in the fault, and are not so while all is well."""

FAULTS = ("server_error", "slow", "bad_records", "rate_limited", "no_networks")
FROM_THE_START = ("no_networks",)
"""The other faults come when all has been well for a while."""

SPEED = 10
AILING = "crm.example.com"


# The queries of the dashboards.


@dataclass(frozen=True)
class Query:
    """One query of a dashboard as it is written, with all that its answer is used for."""

    board: str
    where: str
    expr: str
    instant: bool = False
    legend: str = ""
    columns: frozenset[str] = frozenset()
    """Labels that the table of its panel shows."""

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.board}: {self.where}"


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*board["panels"], *(inner for row in board["panels"] for inner in row.get("panels", []))]


def queries() -> Iterator[Query]:
    for name, board in BOARDS.items():
        for panel in panels(board):
            renamed = [t["options"]["renameByName"] for t in panel.get("transformations", []) if t["id"] == "organize"]
            columns = frozenset(label for names in renamed for label in names if not label.startswith("Value"))
            for target in panel.get("targets", []):
                where, legend = f"{panel['title']} {target['refId']}", target.get("legendFormat", "")
                yield Query(name, where, target["expr"], target.get("instant", False), legend, columns)
        for annotation in board["annotations"]["list"]:
            yield Query(name, f"annotation {annotation['name']}", annotation["target"]["expr"])


QUERIES = list(queries())


TIMES = {"__rate_interval": "20s", "__range": "60s", "__interval": "5s"}
"""Grafana's own variables, for a Prometheus that scrapes every second and has done so for a minute."""
EVERYTHING = CHOSEN | TIMES


# What the queries may name.

SCRAPED = {"job", "instance"}
SESSION = {"aid", "agent", "site", "protocol"}
SITE = {"aid", "site", "protocol"}
INFO = {"aid", "agent", "agent_name", "platform", "agent_version", "os_version", "location"}


@cache
def metrics() -> dict[str, set[str]]:
    """Every metric that there is, with its labels, from the code that publishes it."""
    telemetry = Telemetry(lambda: RateLimit(240.0, 239.0, 60.0))
    telemetry.configured(60.0, 500_000, ["/"])
    telemetry.watch("1")
    telemetry.polled("1", 60.0, 1.0, None)
    telemetry.stored("1", {"joined": 1}, 60)
    known = {family.name: SESSION for family in FAMILIES}
    for distribution in DISTRIBUTIONS:
        known |= {f"{distribution.name}_bucket": {*SITE, "le"}, f"{distribution.name}_count": SITE}
    known |= {f"{SITE_SESSIONS}_total": SITE, AGENT_INFO: INFO, AGENT_LAST_SEEN: {"aid", "agent"}}
    for collected in telemetry.registry.collect():
        for sample in collected.samples:
            known.setdefault(sample.name, set()).update(sample.labels)
    known |= {"up": set(), "scrape_duration_seconds": set()}
    known["ALERTS"] = {"alertname", "alertstate", "severity", *SESSION}
    return {name: labels | SCRAPED for name, labels in known.items()}


def nodes(expr: str) -> list[Any]:
    """Return every part of an expression."""
    found: list[Any] = []
    promql.walk(promql.parse(expr), pre_visit=lambda node: bool(found.append(node)) or True)
    return found


def selectors(expr: str) -> list[promql.VectorSelector]:
    parts = nodes(expr)
    inner = [part.vector_selector for part in parts if isinstance(part, promql.MatrixSelector)]
    return inner + [part for part in parts if isinstance(part, promql.VectorSelector)]


def spelled(query: Query, **changed: str) -> str:
    return fill(query.expr, EVERYTHING | changed)


every_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def test_the_files_are_what_the_code_makes() -> None:
    """`python -m grafana` would change nothing."""
    assert pages() == FILES


def test_there_are_four_dashboards_with_stable_uids() -> None:
    """Links and alerts lead to them by these."""
    assert {board["uid"] for board in BOARDS.values()} == {
        f"thousandeyes-{name}" for name in ("fleet", "site", "agent", "exporter")
    }


@every_query
def test_a_query_names_metrics_and_labels_that_exist(query: Query) -> None:
    """A typing error would be an empty panel for ever."""
    for split in ("location", "platform", "os_version", "agent_version"):
        for rank in ("latency_seconds", "loss_ratio", "jitter_seconds"):
            expr = spelled(query, split=split, rank=rank)
            labels = {"vector"}
            for selector in selectors(expr):
                assert selector.name in metrics()
                assert {matcher.name for matcher in selector.matchers.matchers} <= metrics()[selector.name]
                labels |= metrics()[selector.name]
            for node in nodes(expr):
                modifier = getattr(node, "modifier", None)
                grouping = getattr(modifier, "matching", None) or getattr(modifier, "labels", None)
                if isinstance(node, promql.AggregateExpr) and modifier:
                    assert set(modifier.labels) <= labels
                elif isinstance(node, promql.BinaryExpr) and grouping:
                    assert set(modifier.matching.labels) <= labels


@every_query
def test_rates_are_of_counters_and_counters_are_only_rated(query: Query) -> None:
    """The rate of a gauge means nothing, and the height of a counter neither."""
    rated = {
        part.vector_selector.name
        for node in nodes(spelled(query))
        if isinstance(node, promql.Call) and node.func.name in ("rate", "increase")
        for part in node.args
        if isinstance(part, promql.MatrixSelector)
    }
    named = {selector.name for selector in selectors(spelled(query))}
    assert rated == {name for name in named if re.search(r"_(total|bucket|count|sum)$", name)}


@every_board
def test_every_panel_is_explained_and_asks_the_chosen_prometheus(board: Mapping[str, Any]) -> None:
    """A title, a description, a unit; no stack, every axis from zero; the first panel explains the dashboard."""
    first, *others = panels(board)
    assert first["type"] == "text"
    assert first["options"]["content"].strip()
    for panel in others:
        assert panel["title"]
        assert len(panel["description"]) > 10
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert all(target["interval"] == "1m" for target in panel["targets"])
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        assert defaults.get("unit") or panel["options"]["yAxis"]["unit"]
        assert defaults.get("custom", {}).get("stacking", {}).get("mode", "none") == "none"
        if panel["type"] == "timeseries":
            assert defaults["min"] == 0


@every_board
def test_a_dashboard_refreshes_with_the_data_and_links_to_the_others(board: Mapping[str, Any]) -> None:
    """Not more often than data come; links keep variables and time; alerts are marked."""
    assert board["refresh"] == "1m"
    (link,) = board["links"]
    assert (link["includeVars"], link["keepTime"], link["tags"]) == (True, True, board["tags"])
    (marks,) = board["annotations"]["list"]
    assert marks["target"]["expr"].startswith('ALERTS{alertname=~"ThousandEyes.*", alertstate="firing"')


@every_board
def test_no_two_panels_share_an_id_or_a_place(board: Mapping[str, Any]) -> None:
    """Every cell of the grid has at most one panel, and every row is full."""
    ids = [panel["id"] for panel in panels(board)]
    assert len(ids) == len(set(ids))
    taken = [
        (x, y)
        for panel in panels(board)
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert len(taken) == 24 * (1 + max(y for _, y in taken))


def links(value: Any) -> Iterator[str]:
    """Find the addresses of links, however deep."""
    if isinstance(value, dict):
        yield from [value["url"]] if isinstance(value.get("url"), str) else []
        for inner in value.values():
            yield from links(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from links(inner)


@every_board
def test_links_lead_to_a_dashboard_and_set_variables_that_it_has(board: Mapping[str, Any]) -> None:
    """What is selected and the time range go with them."""
    for url in filter(None, links(board["panels"])):
        uid, asked = re.fullmatch(r"/d/thousandeyes-(\w+)\?(.*)", url).groups()  # type: ignore[union-attr]
        there = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
        here = {variable["name"] for variable in board["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", asked)) <= there
        assert set(re.findall(r"\$\{(\w+):queryparam\}", asked)) <= there & here
        assert "${__url_time_range}" in asked


def test_alerts_lead_to_dashboards_and_variables_that_exist() -> None:
    """The address in an annotation of an alert is one of ours."""
    for uid, asked in re.findall(r"dashboard_url: /d/thousandeyes-(\w+)\??(.*)", RULES.read_text()):
        there = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", asked)) <= there


def test_grafana_finds_the_dashboards_and_the_data_source() -> None:
    """The provisioning files are of the form that Grafana reads."""
    folder = ROOT / "grafana/provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards/thousandeyes.yaml").read_text())["providers"]
    assert (provider["type"], provider["folder"]) == ("file", "ThousandEyes")
    assert Path(provider["options"]["path"]).is_absolute()
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["access"], source["jsonData"]["timeInterval"]) == ("prometheus", "proxy", "1m")


# The real thing.


@dataclass
class Answers:
    """What two Prometheus answered: one watches an exporter that is well, one those with a fault."""

    well: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    """By name of the query and by what was chosen."""
    faulty: dict[str, list[Any]] = field(default_factory=dict)
    """By name of the query, of those that are for a fault."""
    variables: dict[str, list[str]] = field(default_factory=dict)
    raw: dict[str, list[Any]] = field(default_factory=dict)


class Prometheus:
    """Asks one over HTTP."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def get(self, path: str, **parameters: str | float) -> Any:
        async with self._http.post(f"{self.url}/api/v1/{path}", data=parameters) as reply:
            answer = await reply.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def ask(self, expr: str, *, instant: bool) -> list[Any]:
        """Return the series that have a number at least once: NaN is none."""
        now = time.time()
        if instant:
            found = (await self.get("query", query=expr, time=now))["result"]
            return [each for each in found if each["value"][1] != "NaN"]
        found = (await self.get("query_range", query=expr, start=now - 15, end=now, step=5))["result"]
        return [each for each in found if any(value != "NaN" for _, value in each["values"])]


@asynccontextmanager
async def scraping(folder: Path, targets: list[str], rules: Path | None = None) -> AsyncIterator[str]:
    """Run a Prometheus that scrapes these exporters every second; yield its address."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [{"job_name": "thousandeyes", "static_configs": [{"targets": targets}]}],
    }
    (folder.parent / f"{folder.name}.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [tool("prometheus"), f"--config.file={folder}.yml", f"--storage.tsdb.path={folder}"]
    async with running(*command, f"--web.listen-address=127.0.0.1:{port}") as program:
        await program.said("Server is ready")
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def company(world: World, *faults: str) -> AsyncIterator[tuple[Simulator, str]]:
    """Run the pretend company on a fast clock, with an exporter; yield it, and the exporter's host and port."""
    began = time.time()
    noon = datetime(2026, 11, 18, 14, 22, tzinfo=UTC).timestamp()  # everybody works, and a site ails

    def clock() -> float:
        return noon + SPEED * (time.time() - began)

    async with simulated(world, clock=clock, faults=faults, rate_limit=240) as (simulator, api):
        address = f"127.0.0.1:{free_port()}"
        settings = {
            "api.url": api, "api.token": TOKEN, "api.requests-per-minute": "10000", "poll.interval": "3s",
            "web.listen-address": address,
        }  # fmt: skip
        flags = [f"--{name}={value}" for name, value in settings.items()]
        async with running(*EXPORTER, *flags) as program:
            await program.said("listening")
            yield simulator, address


def impatient(rules: Path, target: Path) -> Path:
    """Write the rules so that alerts fire at once."""
    content = yaml.safe_load(rules.read_text())
    for group in content["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule.pop("for", None)
            rule.pop("keep_firing_for", None)
    target.write_text(yaml.safe_dump(content))
    return target


async def patiently(prometheus: Prometheus, query: Query, expr: str) -> list[Any]:
    """Ask until the answer is what it should be in a fault, for a while; return the last one."""
    _, is_so = TOLD.get(query.name, ("", lambda _: True))
    for _ in range(60):
        rows = await prometheus.ask(expr, instant=query.instant)
        if rows and is_so(_newest(rows[0])):
            break
        await asyncio.sleep(1)
    return rows


AGENTS = {"tired": lambda agent: agent.tired, "vpn": lambda agent: agent.uses_vpn, "proxy": lambda a: a.office.proxy}


def choices(world: World, known: Mapping[str, list[str]]) -> dict[str, dict[str, str]]:
    """Return what people choose: everything, one thing, several things, and some agents."""
    people = {kind: [agent.id for agent in world.people if is_one(agent)] for kind, is_one in AGENTS.items()}
    some = {"site": joined(AILING, "mail.example.com", "wiki.example.com"), "aid": "1001", "protocol": "https"}
    return {
        "all": {},
        "one": {"site": joined(AILING)},
        "some": some,
        "all instances": {"instance": joined(*known["instance"], "127.0.0.1:1")},
        **{f"{kind} {n}": {"agent": agent} for kind, agents in people.items() for n, agent in enumerate(agents[:6])},
        **{f"split {label}": {"split": label} for label in ("platform", "os_version", "agent_version")},
        **{f"rank {family}": {"rank": family} for family in ("loss_ratio", "jitter_seconds")},
    }


async def answers(folder: Path) -> Answers:
    """Start everything, let it run for a while, and ask everything."""
    found = Answers()
    world, small = World(), World(agents=30)
    tired = next(agent for agent in small.people if agent.tired)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        http = await enter(aiohttp.ClientSession())
        _, well = await enter(company(world))
        faulty = {fault: await enter(company(small, *{fault} & {*FROM_THE_START})) for fault in FAULTS}
        first = Prometheus(await enter(scraping(folder / "well", [well])), http)
        rules = impatient(RULES, folder / "rules.yml")
        second = Prometheus(
            await enter(scraping(folder / "faulty", [each for _, each in faulty.values()], rules)), http
        )
        counted = "sum(thousandeyes_endpoint_site_sessions_total) > 450"
        await until(lambda: second.ask(f"count(thousandeyes_up == 1) == {len(FAULTS)}", instant=True), 60, 1)
        for fault, (simulator, _) in faulty.items():
            simulator.faults = parse_faults([fault])
        await until(lambda: first.ask(counted, instant=True), 180, 1)
        found.variables = await variables(first)
        chosen = choices(world, found.variables)
        for query in QUERIES:
            used = set(re.findall(r"\$\{?(\w+)", query.expr + query.legend))
            for choice, values in chosen.items():
                if values.keys() <= used or not values:
                    expr = fill(query.expr, EVERYTHING | values)
                    found.well[query.name, choice] = await first.ask(expr, instant=query.instant)
            if fault := EMPTY_WHEN_WELL.get(query.name) or TOLD.get(query.name, ("",))[0]:
                chosen_ = EVERYTHING | {"instance": joined(faulty[fault][1]), "agent": tired.id}
                found.faulty[query.name] = await patiently(second, query, fill(query.expr, chosen_))
        moment = time.time() - 3  # what was scraped by then is stored by now
        for name in ("latency_seconds", "sessions"):
            query_ = f"thousandeyes_endpoint_{name}"
            found.raw[name] = (await first.get("query", query=query_, time=moment))["result"]
        mean = next(query for query in QUERIES if query.name == "site: Latency A" and query.instant)
        expr = fill(mean.expr, EVERYTHING)
        found.raw["mean"] = (await first.get("query", query=expr, time=moment))["result"]
    return found


async def variables(prometheus: Prometheus) -> dict[str, list[str]]:
    """Return the values that each variable of the dashboards offers."""
    offered: dict[str, list[str]] = {}
    for board in BOARDS.values():
        for variable in board["templating"]["list"]:
            if variable["type"] != "query":
                continue
            text = fill(variable["query"]["query"], EVERYTHING)
            if match := re.fullmatch(r"label_values\((.*), (\w+)\)", text):
                values = await prometheus.get("query", query=f"group by ({match[2]}) ({match[1]})")
                offered[variable["name"]] = [each["metric"][match[2]] for each in values["result"]]
            elif match := re.fullmatch(r"query_result\((.*)\)", text):
                values = await prometheus.get("query", query=match[1])
                lines = [_as_text(each["metric"]) for each in values["result"]]
                pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
                found = [pattern.search(line) for line in lines]
                offered[variable["name"]] = [each["value"] for each in found if each]
                offered["agent names"] = [each["text"] for each in found if each]
    return offered


def _as_text(labels: Mapping[str, str]) -> str:
    """Return a series as Grafana hands it to the regular expression of a variable."""
    pairs = ",".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return f"{labels.get('__name__', '')}{{{pairs}}} 1 1700000000000"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return asyncio.run(answers(tmp_path_factory.mktemp("grafana")))


pytestmark = pytest.mark.timeout(400)


@every_query
def test_a_query_has_an_answer_as_soon_as_there_is_something_to_show(query: Query, asked: Answers) -> None:
    """With all selected, with one or several, and for each choice of the other variables.

    Of the agents, one that is like that is enough: not everybody uses a VPN. Queries that are empty while all is well
    are listed, and answer in the fault that they are for.
    """
    if query.name in EMPTY_WHEN_WELL:
        assert not any(rows for (name, _), rows in asked.well.items() if name == query.name)
        assert asked.faulty[query.name]
        return
    mine = {choice: rows for (name, choice), rows in asked.well.items() if name == query.name}
    if query.board == "agent":
        assert any(rows for choice, rows in mine.items())
    else:
        assert [choice for choice, rows in mine.items() if not rows] == []


@every_query
def test_a_legend_names_labels_that_the_answer_has(query: Query, asked: Answers) -> None:
    """Every label that a legend names is on every series."""
    answer = asked.faulty[query.name] if query.name in EMPTY_WHEN_WELL else asked.well[query.name, "all"]
    legend = set(re.findall(r"\{\{(\w+)\}\}", fill(query.legend, EVERYTHING)))
    assert all(legend <= each["metric"].keys() for each in answer)


def test_columns_of_tables_are_labels_of_one_of_their_queries(asked: Answers) -> None:
    """A column that no query has would stay empty."""
    wanted: dict[tuple[str, str], frozenset[str]] = {}
    found: dict[tuple[str, str], set[str]] = {}
    for query in QUERIES:
        panel = (query.board, query.where.rpartition(" ")[0])
        wanted[panel] = query.columns
        answered = [rows for (name, _), rows in asked.well.items() if name == query.name]
        answered.append(asked.faulty.get(query.name, []))
        found.setdefault(panel, set()).update(label for rows in answered for each in rows for label in each["metric"])
    missing = {panel: labels - found[panel] for panel, labels in wanted.items() if labels - found[panel]}
    assert missing == {("fleet", "Alerts that fire"): {"site"}}  # of the alerts about sites alone


def test_variables_offer_what_there_is(asked: Answers) -> None:
    """Agents are chosen by name, and stand for their id."""
    world = World()
    assert asked.variables["aid"] == ["1001"]
    assert set(asked.variables["site"]) == {site.host for site in world.websites}
    assert set(asked.variables["protocol"]) == {"http", "https"}
    assert dict(zip(asked.variables["agent"], asked.variables["agent names"], strict=True)) == {
        agent.id: agent.name for agent in world.people
    }


def test_a_mean_weighs_by_sessions(asked: Answers) -> None:
    """A site that does not answer pings has sessions, but no share in the mean."""

    def by_key(name: str) -> dict[tuple[str, ...], float]:
        keys = ("aid", "agent", "site", "protocol")
        return {tuple(each["metric"][key] for key in keys): float(each["value"][1]) for each in asked.raw[name]}

    latency, sessions = by_key("latency_seconds"), by_key("sessions")
    assert latency.keys() < sessions.keys()
    weighted = sum(value * sessions[key] for key, value in latency.items()) / sum(sessions[key] for key in latency)
    (mean,) = asked.raw["mean"]
    assert float(mean["value"][1]) == pytest.approx(weighted)


def test_the_dashboards_show_what_is_wrong(asked: Answers) -> None:
    """The site that ails, the office that is slow and the laptop that is tired come out on top."""

    def values(answer: list[Any], *labels: str) -> dict[Any, float]:
        return {tuple(each["metric"].get(label) for label in labels): _newest(each) for each in answer}

    def top(name: str, *labels: str, choice: str = "all") -> tuple[str, ...]:
        found = values(asked.well[name, choice], *labels)
        return max(found, key=found.__getitem__)

    assert top("fleet: Sites C", "site") == (AILING,)
    assert top("fleet: Ten slowest sites A", "site") == (AILING,)
    assert top("site: Latency by $split A", "location") == ("Bengaluru, Karnataka, India",)
    unhappy = values(asked.well["fleet: Ten unhappiest agents A", "all"], "agent")
    assert (next(agent.id for agent in World().people if agent.tired),) in unhappy


@pytest.mark.parametrize("name", TOLD)
def test_a_number_tells_of_the_fault_that_it_is_for(name: str, asked: Answers) -> None:
    """It is as listed in the fault, and is not while all is well."""
    (well,), (faulty,) = asked.well[name, "all"], asked.faulty[name]
    _, is_so = TOLD[name]
    assert (is_so(_newest(well)), is_so(_newest(faulty))) == (False, True)


def _newest(series: Mapping[str, Any]) -> float:
    return float(series["value"][1] if "value" in series else series["values"][-1][1])
