"""Alerts on local networks over eight hours: none if all is well, and each on its problem.

An exporter polls the simulated company every five minutes, the length of a round, and `promtool
test rules` evaluates the rules on what it publishes.
"""

import json
from pathlib import Path

import pytest
import yaml
from factories import text_of
from system.notifications import MIDNIGHT
from system.servers import RULES, TOKEN, run

from exporter.app import Exporter
from exporter.clock import Clock
from exporter.settings import load
from exporter.simulator import Simulator, World
from exporter.simulator.world import PROBLEMS

START_HOUR, HOURS = 7, 8
STEP_MINUTES = 5
"""Time between two polls of agents and local networks."""
RULE_GROUP = "thousandeyes-local-networks"
NAMES = {
    f"thousandeyes_endpoint_{name}"
    for name in (
        "agent_info", "agent_connection_info", "agent_wifi_signal_dbm",
        "agent_measurement_failure", "agent_local_network_round_timestamp_seconds",
        "local_network_latency_seconds", "local_network_tcp_connect_seconds",
        "local_network_loss_ratio", "local_network_dns_resolution_seconds",
    )
}  # fmt: skip
"""Families that the alerts use."""
EXPECTED = [
    {"alertname": "ThousandEyesAgentMeasurementFailing"},
    {"alertname": "ThousandEyesAgentWifiWeak"},
    {"alertname": "ThousandEyesDnsResolutionSlow", "location": "New York, New York, US"},
    {"alertname": "ThousandEyesGatewayLatencyHigh", "location": "Bengaluru, Karnataka, India"},
    {"alertname": "ThousandEyesGatewayLossHigh", "location": "São Paulo, Brazil"},
    {"alertname": "ThousandEyesVpnLatencyHigh", "vpn": "cisco-anyconnect"},
]


async def day(world: World) -> dict[str, list[str]]:
    """Return what is published during these hours: by series, a value for each poll."""
    now, series = float(MIDNIGHT + 3600 * START_HOUR), dict[str, list[str]]()
    simulator = Simulator(world, token=TOKEN, clock=lambda: now, rate_limit=1_000_000)
    flags = {"url": await simulator.start(), "token": TOKEN, "requests-per-minute": 10_000}
    settings = load([f"--api.{name}={value}" for name, value in flags.items()], {}).settings
    exporter = Exporter(settings, clock=Clock(lambda: now, lambda: now), process=False)
    await exporter.manager.update()
    for poll in range(60 * HOURS // STEP_MINUTES):
        for poller in exporter.manager.pollers[1:]:
            await poller.poll()
            assert not poller.failure
        await exporter.publisher.publish()
        for line in text_of(exporter.snapshot.common).splitlines():
            name, _, value = line.rpartition(" ")
            if name.partition("{")[0] in NAMES:
                values = series.setdefault(name, [])
                if missing := poll - len(values):
                    values += ["stale", *["_"] * (missing - 1)]
                values.append(value)
        now += 60 * STEP_MINUTES
    await exporter.close()
    await simulator.stop()
    return series


@pytest.mark.parametrize(
    ("problems", "expected"), [((), []), (tuple(PROBLEMS), EXPECTED)], ids=["healthy", "problems"]
)
@pytest.mark.timeout(400)
async def test_alerts_fire_on_their_problem_only(
    problems: tuple[str, ...], expected: list[dict[str, str]], tmp_path: Path
) -> None:
    series = await day(World(agents=70, sites=5, problems=problems))
    firing = 'ALERTS{alertname!="ThousandEyesSourceFailing", alertstate="firing"}'
    labels = "alertname, location, vpn"
    rules = [
        rule
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if group["name"] == RULE_GROUP or rule.get("record", "").endswith("_info:name")
    ]
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": RULE_GROUP, "rules": rules}]})
    )
    test = {
        "interval": f"{STEP_MINUTES}m",
        "input_series": [
            {"series": name, "values": " ".join([*values, "stale"])}
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"group by ({labels}) (last_over_time({firing}[{HOURS}h]))",
                "eval_time": f"{HOURS}h",
                "exp_samples": [{"labels": _selector(each), "value": 1} for each in expected],
            }
        ],
    }
    content = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{STEP_MINUTES}m",
        "tests": [test],
    }
    (tmp_path / "day.yml").write_text(json.dumps(content))
    await run("promtool", "test", "rules", str(tmp_path / "day.yml"), seconds=200)


def _selector(labels: dict[str, str]) -> str:
    pairs = (f"{name}={json.dumps(text, ensure_ascii=False)}" for name, text in labels.items())
    return f"{{{', '.join(pairs)}}}"
