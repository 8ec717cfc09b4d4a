"""Alerts on their whole way: from the pretend API through the exporter, Prometheus and Alertmanager to who is told."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from benchmarks.processes import free_port
from exporter.simulator import World
from exporter.simulator.faults import Fault, parse_faults
from exporter.simulator.wire import Call, Payload
from tests.servers import EXPORTER, ROOT, TOKEN, finished, running, simulated, tool, until

DEPLOY = ROOT / "deploy"
ROUTING = DEPLOY / "alertmanager/alertmanager.yml"
RULES = DEPLOY / "prometheus/thousandeyes.rules.yml"
PROMETHEUS = DEPLOY / "prometheus/prometheus.yml"

HURRY = 120
"""How many times faster than in the shipped files everything goes; but nothing is shorter than a second."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def hurried(text: str, **replaced: str) -> str:
    """Return a shipped file with all durations shortened, and with other addresses and numbers."""
    for old, new in replaced.items():
        assert text.count(old) == 1, f"{old!r} should stand once in the shipped file"
        text = text.replace(old, new)

    def shorter(match: re.Match[str]) -> str:
        return f"{max(1000, int(match[2]) * UNITS[match[3]] * 1000 // HURRY)}ms"

    return re.sub(r"((?<=\[)|(?<=: )|(?<=offset ))(\d+)([smhdw])(?=\]|$|\W)", shorter, text, flags=re.MULTILINE)


@dataclass
class Told:
    """Who is told: everything that Alertmanager posts, as receiver, status and alert, in order."""

    messages: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        for alert in (await request.json())["alerts"]:
            self.messages.append((request.path.strip("/"), alert["status"], alert))
        return web.Response()

    def of(self, name: str, status: str = "firing") -> list[tuple[str, dict[str, Any]]]:
        """Return the receivers and alerts of all messages about this alert with this status."""
        return [
            (receiver, alert)
            for receiver, said, alert in self.messages
            if said == status and alert["labels"]["alertname"] == name
        ]

    def names(self, status: str = "firing") -> list[str]:
        return sorted(alert["labels"]["alertname"] for _, said, alert in self.messages if said == status)


@asynccontextmanager
async def told() -> AsyncIterator[tuple[Told, int]]:
    """Be the one who is told; yield what was, and the port."""
    listener = Told()
    app = web.Application()
    app.router.add_post("/{receiver}", listener.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield listener, runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Api:
    """Asks a server for JSON."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self.http, self.url = http, f"http://127.0.0.1:{port}"

    async def get(self, path: str, **params: str) -> Any:
        async with self.http.get(self.url + path, params=params) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def ready(self) -> bool:
        try:
            async with self.http.get(f"{self.url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def states(self) -> dict[str, str]:
        """Return what Alertmanager makes of each alert: `active` or `suppressed`, by name."""
        return {each["labels"]["alertname"]: each["status"]["state"] for each in await self.get("/api/v2/alerts")}

    async def query(self, query: str) -> list[Any]:
        """Return what Prometheus knows now."""
        return (await self.get("/api/v1/query", query=query))["data"]["result"]


@asynccontextmanager
async def alertmanager(folder: Path, receiver: int) -> AsyncIterator[Api]:
    """Run the real Alertmanager with the shipped settings, which tells this test instead of the placeholders."""
    text = ROUTING.read_text()
    assert text.count("localhost:9095") == 3, "the placeholders"
    config = folder / "alertmanager.yml"
    config.write_text(hurried(text.replace("localhost:9095", f"127.0.0.1:{receiver}")))
    port = free_port()
    command = (
        tool("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    async with running(*command), aiohttp.ClientSession() as http:
        api = Api(http, port)
        await until(api.ready, 20)
        yield api


@asynccontextmanager
async def prometheus(folder: Path, exporter: int, alerts: str) -> AsyncIterator[Api]:
    """Run the real Prometheus with the shipped settings and rules."""
    config = folder / "prometheus.yml"
    replaced = {"localhost:9350": f"127.0.0.1:{exporter}", "localhost:9093": alerts.removeprefix("http://")}
    config.write_text(hurried(PROMETHEUS.read_text(), **replaced))
    (folder / RULES.name).write_text(hurried(RULES.read_text(), **{"600\n": f"{600 // HURRY}\n"}))
    port = free_port()
    command = (
        tool("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    async with running(*command), aiohttp.ClientSession() as http:
        api = Api(http, port)
        await until(api.ready, 20)
        yield api


class Loss:
    """A fault of the pretend API: every visit loses half of its packets."""

    def strikes(self, elapsed: float, call: Call, seed: int) -> bool:
        return "/networks/" in call.path

    @property
    def fault(self) -> Fault:
        return Fault("", payload=self.payload)

    @staticmethod
    def payload(payload: Payload, call: Call) -> None:
        for record in payload["results"]:
            if "loss" in record.get("destination", {}):
                record["destination"]["loss"] = 50.0


LOSS: Any = Loss()
(FORBIDDEN,) = parse_faults(["forbidden"])


async def test_pain_reaches_people_once_waits_while_data_are_old_and_ends(tmp_path: Path) -> None:
    """A fault of the API becomes one message with all it should say; a cause silences what follows from it."""
    world = World(agents=12, sites=1, sessions_per_minute=30)
    port = free_port()
    async with (
        simulated(world, clock=time.time) as (simulator, url),
        told() as (people, receiver),
        alertmanager(tmp_path, receiver) as alerts,
        running(
            *EXPORTER,
            f"--api.url={url}",
            f"--api.token={TOKEN}",
            "--api.requests-per-minute=10000",
            "--poll.interval=1s",
            "--poll.overlap=14m",
            f"--web.listen-address=127.0.0.1:{port}",
        ) as exporter,
        prometheus(tmp_path, port, alerts.url) as metrics,
    ):
        site, aid = world.websites[0].host, str(world.groups[0].aid)

        simulator.faults = (LOSS,)
        await until(lambda: metrics.query('ALERTS{alertname="ThousandEyesSiteLossHigh",alertstate="pending"}'), 15)

        # The API refuses: data grow old before the site's alert may fire, so that this one is not told.
        simulator.faults = (LOSS, FORBIDDEN)
        silenced = {"ThousandEyesSiteLossHigh": "suppressed", "ThousandEyesPollFailing": "suppressed"}
        causes = {"ThousandEyesDataStale": "active", "ThousandEyesApiAuthFailing": "active"}

        async def silent() -> bool:
            return (silenced | causes).items() <= (await alerts.states()).items()

        await until(silent, 25)
        await until(lambda: people.of("ThousandEyesDataStale") and people.of("ThousandEyesApiAuthFailing"))
        assert not people.of("ThousandEyesSiteLossHigh")

        # It answers again, and half of the packets are still lost.
        simulator.faults = (LOSS,)
        ((to, alert),) = await until(lambda: people.of("ThousandEyesSiteLossHigh"), 15)
        assert to == "critical"
        assert alert["labels"] == {
            "alertname": "ThousandEyesSiteLossHigh", "severity": "critical", "aid": aid, "site": site,
        }  # fmt: skip
        said = alert["annotations"]
        assert re.fullmatch(
            rf"50% of the packets to {re.escape(site)} are lost, as 1?\d agents see it, in account group {aid}\.",
            said["description"],
        )
        assert said["dashboard_url"] == f"/d/thousandeyes-site?var-aid={aid}&var-site={site}"
        await until(lambda: people.of("ThousandEyesDataStale", "resolved"), 15)
        assert await recorded(metrics) == set()
        await asked_of_runbooks(
            metrics, {"crm.example.com": site, "AGENT": world.people[0].id, "HOST:9350": f"127.0.0.1:{port}"}
        )

        # One laptop is tired, as the story of the pretend company has it; it is called by its name.
        ((to, alert),) = await until(lambda: people.of("ThousandEyesAgentCpuHigh"), 20)
        assert (to, alert["labels"]["agent_name"]) == ("info", world.people[0].name)

        # All is well.
        simulator.faults = ()
        await until(lambda: people.of("ThousandEyesSiteLossHigh", "resolved"), 20)

        # The exporter goes, and nobody hears of anything else.
        await exporter.stop()
        ((to, alert),) = await until(lambda: people.of("ThousandEyesExporterDown"), 15)
        assert (to, alert["labels"]["instance"]) == ("critical", f"127.0.0.1:{port}")
    assert people.names() == [
        "ThousandEyesAgentCpuHigh",
        "ThousandEyesAgentMemoryHigh",
        "ThousandEyesApiAuthFailing",
        "ThousandEyesDataStale",
        "ThousandEyesExporterDown",
        "ThousandEyesSiteLossHigh",
    ]


async def recorded(metrics: Api) -> set[str]:
    """Return the recording rules that have no result."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    names = {rule["record"] for rule in rules if "record" in rule}
    found = await asyncio.gather(*(metrics.query(name) for name in names))
    return {name for name, result in zip(names, found, strict=True) if not result}


async def asked_of_runbooks(metrics: Api, names: dict[str, str]) -> None:
    """Ask all queries of the runbooks, with these names in the place of the examples: all can be answered."""
    for page in sorted((ROOT / "docs/runbooks").iterdir()):
        for query in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            asked = re.sub("|".join(map(re.escape, names)), lambda match: names[match[0]], query)
            found = await metrics.query(asked)
            assert found or ONLY_IN_TROUBLE.search(asked), asked


ONLY_IN_TROUBLE = re.compile(r"_failures_|> 0\)?$|> 0\.|code=|offset|proxy|vpn|== 0|commit_delay|\[1h\]", re.MULTILINE)
"""What queries may find nothing about while all is well, or minutes after the start."""


def alert(name: str, **labels: str) -> dict[str, str]:
    return {"alertname": f"ThousandEyes{name}", **labels}


HERE = {"job": "thousandeyes", "instance": "one:9350"}
THERE = {"job": "thousandeyes", "instance": "two:9350"}
CAUSES = (
    (
        alert("ExporterDown", **HERE),
        [alert("ApiRateLimited", **HERE), alert("RecordsRejected", **HERE, aid="1", reason="bad_type")],
        [alert("ApiRateLimited", **THERE), alert("DataStale", aid="3"), alert("SiteLossHigh", aid="2", site="crm")],
    ),
    (
        alert("DataStale", aid="1"),
        [
            alert("SiteLossHigh", aid="1", site="crm"),
            alert("SiteExperienceLow", aid="1", site="crm"),
            alert("AgentLossHigh", aid="1", agent="a"),
            alert("AgentCpuHigh", aid="1", agent="a", agent_name="ada"),
            alert("PollFailing", **HERE, aid="1"),
        ],
        [alert("SiteLossHigh", aid="2", site="crm"), alert("ApiAuthFailing", **HERE, aid="1"), alert("X", **HERE)],
    ),
    (
        alert("ApiAuthFailing", **HERE, aid="1", reason="auth"),
        [alert("PollFailing", **HERE, aid="1")],
        [alert("PollFailing", **THERE, aid="1"), alert("PollFailing", **HERE, aid="2"), alert("DataStale", aid="3")],
    ),
    (
        alert("ApiRateLimited", **HERE),
        [alert("ApiRateLimitLow", **HERE), alert("PollSlow", **HERE, aid="1"), alert("PollFailing", **HERE, aid="1")],
        [alert("ApiRateLimitLow", **THERE), alert("DataStale", aid="3"), alert("SeriesLimitReached", **HERE)],
    ),
)


@pytest.mark.parametrize(("cause", "silenced", "heard"), CAUSES, ids=[cause["alertname"] for cause, *_ in CAUSES])
async def test_a_cause_silences_what_follows_from_it_and_nothing_else(
    tmp_path: Path, cause: dict[str, str], silenced: list[dict[str, str]], heard: list[dict[str, str]]
) -> None:
    """The real Alertmanager says so, of the shipped settings."""
    async with told() as (_, receiver), alertmanager(tmp_path, receiver) as alerts:
        fired = [{"labels": labels} for labels in (cause, *silenced, *heard)]
        async with alerts.http.post(f"{alerts.url}/api/v2/alerts", json=fired) as response:
            assert response.status == 200, await response.text()

        async def inhibited() -> list[dict[str, str]]:
            found = await alerts.get("/api/v2/alerts")
            assert len(found) == len(fired)
            return ordered(each["labels"] for each in found if each["status"]["inhibitedBy"])

        async def settled() -> bool:
            return await inhibited() == ordered(silenced)

        with suppress(AssertionError):
            await until(settled, 5)
        assert await inhibited() == ordered(silenced)


def ordered(alerts: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(alerts, key=lambda labels: sorted(labels.items()))


def test_every_cause_is_proved() -> None:
    """There is no inhibition without a test above."""
    sources = [rule["source_matchers"] for rule in yaml.safe_load(ROUTING.read_text())["inhibit_rules"]]
    assert sources == [[f"alertname = {cause['alertname']}"] for cause, *_ in CAUSES]


async def test_alertmanager_takes_the_shipped_settings() -> None:
    """Nobody has to change anything before it starts."""
    code, output, errors = await finished(tool("amtool"), "check-config", str(ROUTING))
    assert (code, errors) == (0, ""), output + errors
    assert "SUCCESS" in output


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
async def test_every_severity_has_its_receiver(severity: str) -> None:
    """Alerts go where their severity says."""
    command = ("config", "routes", "test", f"--config.file={ROUTING}")
    code, output, _ = await finished(tool("amtool"), *command, "alertname=ThousandEyesX", f"severity={severity}")
    assert (code, output.strip()) == (0, f"thousandeyes-{severity}")


def test_the_rules_know_no_other_severity() -> None:
    """So no alert takes a way by accident."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert {rule["labels"]["severity"] for rule in rules if "alert" in rule} == {"critical", "warning", "info"}


def test_messages_are_grouped_by_alert_account_group_and_site() -> None:
    """One message for all agents with the same trouble, one for each site."""
    assert yaml.safe_load(ROUTING.read_text())["route"]["group_by"] == ["alertname", "aid", "site"]


def test_durations_are_shortened_wherever_they_stand() -> None:
    """The helper of these tests misses none: it would take hours to notice."""
    text = hurried(RULES.read_text() + PROMETHEUS.read_text() + ROUTING.read_text())
    assert re.findall(r"(?:for: |\[|offset |interval: |wait: |timeout: )\d+[smhdw]\b", text) == []
