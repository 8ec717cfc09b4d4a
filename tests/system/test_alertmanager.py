"""Alerts from a fault of the API to a notification, with the shipped configuration files.

All durations are shortened, so that an hour passes in a minute.
"""

import operator
from pathlib import Path

import pytest
import yaml
from system import servers
from system.notifications import simulated_day
from system.servers import ALERTMANAGER_CONFIG, alertmanager, until

from exporter.simulator import Fault, World, parse_faults
from exporter.simulator.api import ApiRequest, Payload


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
    async with simulated_day(tmp_path, world, 12) as (api, server, receiver, _):

        async def suppressed(*names: str) -> bool:
            states = {
                each["labels"]["alertname"]: each["status"]["state"]
                for each in await server.get("/api/v2/alerts")
            }
            return all(states.get(f"ThousandEyes{name}") == "suppressed" for name in names)

        api.faults = (OUTAGE,)
        alert = await receiver.wait_for("SiteLossHigh")
        assert alert["receiver"] == "thousandeyes-critical"
        assert alert["labels"].keys() == {"alertname", "severity", "aid", "site"}
        assert "50%" in alert["annotations"]["description"]
        others = ("SiteLatencyHigh", "SiteJitterHigh", "SiteExperienceLow")
        await until(lambda: suppressed(*others))

        api.faults = (OUTAGE, MAINTENANCE)
        await receiver.wait_for("DataStale")
        await until(lambda: suppressed("SiteLossHigh"))

        api.faults = ()
        await receiver.wait_for("DataStale", "resolved")
        await receiver.wait_for("SiteLossHigh", "resolved")
    sent = [alert for each in receiver.notifications for alert in each["alerts"]]
    notified = {each["labels"]["alertname"].removeprefix("ThousandEyes") for each in sent}
    assert notified.isdisjoint(others)
    assert len(receiver.alerts("SiteLossHigh", "firing")) == 1
    texts = [str(each["annotations"]) for each in sent]
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
    "GatewayLossHigh aid=1 location=BER": (
        ["GatewayLatencyHigh aid=1 location=BER"],
        ["GatewayLatencyHigh aid=1 location=NYC", "VpnLatencyHigh aid=1 vpn=v"],
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


def test_every_inhibition_is_tested() -> None:
    rules = yaml.safe_load(ALERTMANAGER_CONFIG.read_text())["inhibit_rules"]
    sources = [f"alertname = {labels(source)['alertname']}" for source in INHIBITIONS]
    assert [rule["source_matchers"] for rule in rules] == [[source] for source in sources]


@pytest.mark.parametrize("source", INHIBITIONS)
async def test_a_cause_inhibits_its_consequences_only(tmp_path: Path, source: str) -> None:
    inhibited, others = INHIBITIONS[source]
    async with alertmanager(tmp_path) as (server, _):
        fired = [{"labels": labels(each)} for each in (source, *inhibited, *others)]
        async with server.http.post("/api/v2/alerts", json=fired) as response:
            assert response.status == 200

        async def settled() -> bool:
            alerts = await server.get("/api/v2/alerts")
            found = [each["labels"] for each in alerts if each["status"]["inhibitedBy"]]
            key = operator.itemgetter("alertname")
            return sorted(found, key=key) == sorted(map(labels, inhibited), key=key)

        await until(settled, 10)


async def test_configuration_is_valid_and_every_severity_has_a_receiver() -> None:
    assert "SUCCESS" in await servers.run("amtool", "check-config", str(ALERTMANAGER_CONFIG))
    command = ("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER_CONFIG}")
    for severity in ("critical", "warning", "info"):
        output = await servers.run(*command, "alertname=ThousandEyesX", f"severity={severity}")
        assert output.splitlines()[-1] == f"thousandeyes-{severity}"
