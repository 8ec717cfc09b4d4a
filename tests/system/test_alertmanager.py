"""Alerts from a fault of the API to a notification, with the shipped configuration files.

All durations are shortened, but not below a second, so that hours pass in a minute.
"""

import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from system import servers
from system.servers import ROOT, RULES, Server, until

from exporter.simulator import Fault, World, parse_faults
from exporter.simulator.api import ApiRequest, Payload

CONFIG = ROOT / "deploy/alertmanager/alertmanager.yml"
ACCELERATION = 120
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = re.compile(r"((?<=\[)|(?<=: )|(?<=offset ))(\d+)([smhdw])(?=\]|$|\W)", re.MULTILINE)


def accelerate(text: str) -> str:
    """Shorten all durations in a configuration file, or in the expressions of rules."""

    def shorten(match: re.Match[str]) -> str:
        return f"{max(1000, int(match[2]) * UNITS[match[3]] * 1000 // ACCELERATION)}ms"

    return DURATION.sub(shorten, text)


class Receiver:
    """Alerts that Alertmanager has sent, by name and status (`firing`, `resolved`)."""

    def __init__(self) -> None:
        self.alerts = defaultdict[tuple[str, str], list[dict[str, Any]]](list)

    async def receive(self, request: web.Request) -> web.Response:
        payload = await request.json()
        for alert in payload["alerts"]:
            alert["receiver"] = payload["receiver"]
            self.alerts[alert["labels"]["alertname"], alert["status"]].append(alert)
        return web.Response()

    async def wait_for(self, name: str, status: str = "firing") -> Any:
        async def received() -> list[dict[str, Any]]:
            return self.alerts[f"ThousandEyes{name}", status]

        return (await until(received, 30, name=name))[0]


@asynccontextmanager
async def alertmanager(folder: Path) -> AsyncIterator[tuple[Server, Receiver]]:
    """Run Alertmanager with the shipped configuration, and receive its notifications."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = yaml.safe_load(accelerate(CONFIG.read_text()))
    for each in config["receivers"]:
        each["webhook_configs"] = [{"url": f"http://127.0.0.1:{runner.addresses[0][1]}/"}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{servers.free_port()}"
    try:
        async with servers.running(
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
            "--log.level=error",
            address=address,
        ) as server:
            yield server, receiver
    finally:
        await runner.cleanup()


def _degrade(_request: ApiRequest, payload: Payload) -> None:
    for record in payload.get("results", []):
        if "loss" in record.get("destination", {}):
            record["destination"] |= {"loss": 50.0, "latency": 900, "jitter": 200}
        if record.get("experienceScore"):
            record["experienceScore"] = 0.1


OUTAGE = Fault("outage", "half of all packets are lost, the others are late", payload=_degrade)
(MAINTENANCE,) = parse_faults(["maintenance"])


async def test_faults_become_notifications(tmp_path: Path) -> None:
    world = World(agents=12, sites=1, sessions_per_minute=30)
    address = f"127.0.0.1:{servers.free_port()}"
    fast = {"poll__interval": "1s", "poll__overlap": "14m"}
    async with (
        servers.simulator(world, clock=time.time) as (api, url),
        alertmanager(tmp_path) as (alerts, receiver),
        servers.exporter(url, address, **fast) as exporter_server,
    ):
        (tmp_path / RULES.name).write_text(
            accelerate(RULES.read_text()).replace("600\n", f"{600 // ACCELERATION}\n")
        )
        config = accelerate(RULES.with_name("prometheus.yml").read_text())
        config = config.replace("localhost:9350", address).replace(
            RULES.name, str(tmp_path / RULES.name)
        )
        config = config.replace("localhost:9093", str(alerts.http._base_url.authority))  # type: ignore[union-attr]
        async with servers.prometheus(tmp_path / "prometheus", yaml.safe_load(config)):
            api.faults = (OUTAGE,)
            alert = await receiver.wait_for("SiteLossHigh")
            assert alert["receiver"] == "thousandeyes-critical"
            assert alert["labels"].keys() == {"alertname", "severity", "aid", "site"}
            assert "50%" in alert["annotations"]["description"]

            async def suppressed(*names: str) -> bool:
                states = {
                    each["labels"]["alertname"]: each["status"]["state"]
                    for each in await alerts.get("/api/v2/alerts")
                }
                return all(states.get(f"ThousandEyes{name}") == "suppressed" for name in names)

            others = ("SiteLatencyHigh", "SiteJitterHigh", "SiteExperienceLow")
            await until(lambda: suppressed(*others))

            api.faults = (OUTAGE, MAINTENANCE)
            await receiver.wait_for("DataStale")
            await until(lambda: suppressed("SiteLossHigh", "PollFailing"))

            api.faults = ()
            await receiver.wait_for("DataStale", "resolved")
            await receiver.wait_for("SiteLossHigh", "resolved")

            exporter_server.process.terminate()
            alert = await receiver.wait_for("ExporterDown")
            assert alert["labels"]["instance"] == address
    notified = {name.removeprefix("ThousandEyes") for name, _ in receiver.alerts}
    assert notified.isdisjoint({"PollFailing", *others})
    assert len(receiver.alerts["ThousandEyesSiteLossHigh", "firing"]) == 1
    texts = [str(each["annotations"]) for sent in receiver.alerts.values() for each in sent]
    assert [text for text in texts if "<error" in text or "<no value>" in text] == []


INHIBITIONS = {
    "ExporterDown job=x instance=1": (
        ["ApiRateLimited job=x instance=1", "RecordsRejected job=x instance=1 aid=1 reason=x"],
        ["ApiRateLimited job=x instance=2", "DataStale aid=3", "SiteLossHigh aid=2 site=crm"],
    ),
    "DataStale aid=1": (
        ["SiteLossHigh aid=1 site=crm", "AgentCpuHigh aid=1 agent=a", "PollFailing aid=1"],
        ["SiteLossHigh aid=2 site=crm", "ApiAuthFailing job=x instance=1 aid=1"],
    ),
    "SiteLossHigh aid=1 site=crm": (
        [f"Site{name} aid=1 site=crm" for name in ("LatencyHigh", "JitterHigh", "ExperienceLow")],
        ["SiteLatencyHigh aid=1 site=hr", "SiteJitterHigh aid=2 site=crm"],
    ),
    "SiteLatencyHigh aid=1 site=crm": (
        ["SiteJitterHigh aid=1 site=crm", "SiteExperienceLow aid=1 site=crm"],
        ["SiteExperienceLow aid=2 site=crm", "SiteJitterHigh aid=1 site=hr"],
    ),
    "ApiAuthFailing job=x instance=1 aid=1 reason=auth": (
        ["PollFailing job=x instance=1 aid=1"],
        ["PollFailing job=x instance=2 aid=1", "PollFailing job=x instance=1 aid=2"],
    ),
    "ApiRateLimited job=x instance=1": (
        ["ApiRateLimitLow job=x instance=1", "PollSlow job=x instance=1 aid=1"],
        ["ApiRateLimitLow job=x instance=2", "SeriesLimitReached job=x instance=1"],
    ),
}
"""Alert: alerts that it inhibits, and alerts that it does not."""


def labels(alert: str) -> dict[str, str]:
    name, *pairs = alert.split()
    return {"alertname": f"ThousandEyes{name}", **dict(pair.split("=") for pair in pairs)}


@pytest.mark.parametrize("source", INHIBITIONS)
async def test_a_cause_inhibits_its_consequences_only(tmp_path: Path, source: str) -> None:
    inhibited, others = INHIBITIONS[source]
    async with alertmanager(tmp_path) as (server, _):
        fired = [{"labels": labels(each)} for each in (source, *inhibited, *others)]
        async with server.http.post("/api/v2/alerts", json=fired) as response:
            assert response.status == 200
        expected = [labels(each) for each in inhibited]

        async def settled() -> bool:
            alerts = await server.get("/api/v2/alerts")
            found = [each["labels"] for each in alerts if each["status"]["inhibitedBy"]]
            return len(found) == len(expected) and all(each in found for each in expected)

        await until(settled, 10)


def test_every_inhibition_is_tested() -> None:
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    sources = [f"alertname = {labels(source)['alertname']}" for source in INHIBITIONS]
    assert [rule["source_matchers"] for rule in rules] == [[source] for source in sources]


async def test_configuration_is_valid() -> None:
    assert "SUCCESS" in await servers.run("amtool", "check-config", str(CONFIG))


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
async def test_every_severity_has_a_receiver(severity: str) -> None:
    command = ("amtool", "config", "routes", "test", f"--config.file={CONFIG}")
    output = await servers.run(*command, "alertname=ThousandEyesX", f"severity={severity}")
    assert output.splitlines()[-1] == f"thousandeyes-{severity}"
