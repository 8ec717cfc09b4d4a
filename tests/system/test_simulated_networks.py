"""Alerts on local networks over a simulated day: none if all is well, and each on its problem.

A complete exporter polls the simulated company on virtual time, and `promtool test rules` evaluates
the rules every minute on what it publishes.
"""

import asyncio
import json
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from failures.harness import trial
from fake_clock import fake_time
from system.servers import RULES, run

from exporter.simulator import World
from exporter.simulator.world import PROBLEMS

HOURS = 24
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


@fake_time
async def day(world: World, series: dict[str, list[str]]) -> None:
    """Record what is published during a day: by series, a value for each poll."""
    async with trial(world=world, ready=False, poll__interval="1h", poll__lookback="1h") as t:
        await asyncio.sleep(30)
        for poll in range(60 * HOURS // STEP_MINUTES):
            for line in (await t.get("/metrics")).splitlines():
                name, _, value = line.rpartition(" ")
                if name.partition("{")[0] in NAMES:
                    values = series[name]
                    if missing := poll - len(values):
                        values += ["stale", *["_"] * (missing - 1)]
                    values.append(value)
            await asyncio.sleep(60 * STEP_MINUTES)


@pytest.mark.parametrize(
    ("problems", "expected"), [((), []), (tuple(PROBLEMS), EXPECTED)], ids=["healthy", "problems"]
)
@pytest.mark.timeout(400)
def test_alerts_fire_on_their_problem_only(
    problems: tuple[str, ...], expected: list[dict[str, str]], tmp_path: Path
) -> None:
    series: dict[str, list[str]] = defaultdict(list)
    day(World(agents=70, sites=5, problems=problems), series)
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
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "day.yml").write_text(json.dumps(content))
    asyncio.run(run("promtool", "test", "rules", str(tmp_path / "day.yml"), seconds=200))


def _selector(labels: dict[str, str]) -> str:
    pairs = (f"{name}={json.dumps(text, ensure_ascii=False)}" for name, text in labels.items())
    return f"{{{', '.join(pairs)}}}"
