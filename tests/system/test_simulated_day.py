"""Alerts in two hours of two simulated companies: each on its problem, and none if all is well.

An exporter polls a company every minute, and `promtool test rules` evaluates the shipped rules on
what it publishes.
"""

import json
import re
from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest
from factories import text_of
from system.notifications import MIDNIGHT
from system.servers import RULES, flags, run, simulator

from exporter.app import Exporter
from exporter.clock import Clock
from exporter.settings import load
from exporter.simulator import World
from exporter.simulator.world import PROBLEMS

MINUTES = 120
METRICS = {*re.findall(r"thousandeyes_endpoint_\w+", RULES.read_text())}
UP = 'up{job="thousandeyes"}'
DEGRADED = 'site="crm.example.com"'
PAGE = 'ALERTS{alertname="ThousandEyesSiteLossHigh", alertstate="firing"}'
EXPECTED = {
    **dict.fromkeys(("AgentCpuHigh", "AgentMemoryHigh"), ""),
    **dict.fromkeys(("AgentMeasurementFailing", "AgentWifiWeak"), ""),
    **dict.fromkeys(("SiteLossHigh", "SiteLatencyHigh"), DEGRADED),
    **dict.fromkeys(("SiteJitterHigh", "SiteExperienceLow"), DEGRADED),
    "DnsResolutionSlow": 'location="New York, New York, US"',
    "GatewayLatencyHigh": 'location="Bengaluru, Karnataka, India"',
    "GatewayLossHigh": 'location="São Paulo, Brazil"',
    "VpnLatencyHigh": 'vpn="cisco-anyconnect"',
}
"""Alerts on the problems, and where they are."""


async def published(world: World, hours: tuple[int, int]) -> dict[str, list[str]]:
    """Return the values of every minute of two hours of the day, by series."""
    series = defaultdict[str, list[str]](list, {UP: ["1"] * MINUTES})
    now = float(MIDNIGHT)
    async with simulator(world, clock=lambda: now) as (_, url):
        settings = load(flags(url, metrics__families="standard"), {}).settings
        exporter = Exporter(settings, clock=Clock(lambda: now, lambda: now), process=False)
        await exporter.manager.update()
        for minute, (hour, minute_of_hour) in enumerate(product(hours, range(60))):
            now = MIDNIGHT + 3600 * hour + 60 * minute_of_hour
            for poller in exporter.manager.pollers:
                if minute % (poller.source.interval // 60) == 0:
                    await poller.poll()
                    assert not poller.failure
            await exporter.publisher.publish()
            for line in text_of(exporter.snapshot.common).splitlines():
                name, _, value = line.rpartition(" ")
                if name.partition("{")[0] in METRICS:
                    if "_timestamp_seconds{" in name:  # relative to the time of promtool
                        value = f"{float(value) - now + 60 * minute:.0f}"
                    values = series[name]
                    if missing := minute - len(values):
                        values += ["stale", *["_"] * (missing - 1)]
                    values.append(value)
        await exporter.close()
    return series


@pytest.mark.parametrize(
    ("problems", "hours"),
    [
        pytest.param((), (2, 14), id="healthy, with a night"),
        pytest.param(tuple(PROBLEMS), (9, 14), id="problems, with a slow VPN in the morning"),
    ],
)
@pytest.mark.timeout(400)
async def test_every_problem_has_its_alert_and_outages_page_once(
    problems: tuple[str, ...], hours: tuple[int, int], tmp_path: Path
) -> None:
    series = await published(World(agents=60, sites=4, problems=problems), hours)
    firing = f'last_over_time(ALERTS{{alertstate="firing"}}[{MINUTES}m])'
    pages = f"sum_over_time(({PAGE} unless {PAGE} offset 1m)[{MINUTES}m:1m])"
    expected = {f'{{alertname="ThousandEyes{k}", {v}}}': 1 for k, v in EXPECTED.items()}
    degraded = f"{{{DEGRADED}}}"
    tests = [
        (MINUTES - 1, f"group by (alertname, site, location, vpn) ({firing})", expected),
        (MINUTES - 1, f"sum by (site) ({pages})", {degraded: 2}),
    ]
    # The outage from minute 20 to 40 pages within ten minutes, and resolves as fast.
    for minute in (20, 30, 40, 50):
        page = {degraded: 1} if minute in (30, 40) else {}
        tests.append((minute, f"group by (site) ({PAGE})", page))
    case = {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": " ".join([*values, "stale"])}
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": k, "value": v} for k, v in samples.items() if problems],
            }
            for minute, expr, samples in tests
        ],
    }
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "day.yml").write_text(json.dumps(content))
    await run("promtool", "test", "rules", str(tmp_path / "day.yml"), seconds=300)
