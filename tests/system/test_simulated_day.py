"""The rules over a day of the simulated company: one page for each outage, and none without.

`promtool test rules` evaluates the rules every minute. Its input is what the exporter publishes:
the newest round of each agent at each site within the look-back.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from system.servers import AFTERNOON, RULES, run

from exporter.simulator import World

DAY = AFTERNOON // 86400 * 86400
HOURS = 24
LOOKBACK_SECONDS = 420  # more than the five minutes that the rules use
DEGRADED_SITE = "crm.example.com"
PAGE = 'ALERTS{alertname="ThousandEyesSiteLossHigh", alertstate="firing"}'
FIRING = 'ALERTS{alertname=~"ThousandEyesSite.+", alertstate="firing"}'


def samples(world: World, now: float) -> Iterator[tuple[str, float]]:
    """Yield series and values of the families that site alerts use; rounds since `DAY`."""
    sessions = defaultdict(list)
    for session in world.sessions(1001, now - LOOKBACK_SECONDS, now, now):
        if session.listed:
            sessions[session.agent.id, session.site.host].append(session)
    for (agent, site), found in sessions.items():
        newest = max(each.round_id for each in found)
        newest_round = [each for each in found if each.round_id == newest]
        pings = [
            each.destination
            for each in newest_round
            if each.measured and each.destination and each.destination.latency is not None
        ]
        scores = [s for each in newest_round if (s := each.experience_score) is not None]
        values = {"sessions": len(newest_round), "round_timestamp_seconds": newest - DAY}
        if pings:
            values["latency_seconds"] = fmean(each.latency or 0 for each in pings) / 1000
            values["jitter_seconds"] = fmean(each.jitter or 0 for each in pings) / 1000
            values["loss_ratio"] = fmean(each.loss or 0 for each in pings) / 100
        if scores:
            values["experience_score"] = fmean(scores)
        for name, value in values.items():
            labels = f'{{aid="1001",agent="{agent}",site="{site}"}}'
            yield f"thousandeyes_endpoint_{name}{labels}", value


def input_series(world: World) -> list[dict[str, str]]:
    """Return the samples of every minute in the notation of promtool."""
    series = defaultdict[str, list[str]](list)
    for minute in range(60 * HOURS):
        for name, value in samples(world, DAY + 60 * minute):
            values = series[name]
            if (missing := minute - len(values)) > 0:
                values += ["stale", *["_"] * (missing - 1)]
            values.append(f"{value:.9g}")
    return [{"series": name, "values": " ".join([*v, "stale"])} for name, v in series.items()]


async def test_every_outage_pages_once_and_healthy_sites_never(tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [rules]}))
    degraded = f'{{site="{DEGRADED_SITE}"}}'
    tests: list[dict[str, Any]] = [
        {
            "expr": f"sum by (site) (sum_over_time(({PAGE} unless {PAGE} offset 1m)[{HOURS}h:1m]))",
            "exp_samples": [{"labels": degraded, "value": HOURS}],
        },
        {
            "expr": f"group by (site) (last_over_time({FIRING}[{HOURS}h]))",
            "exp_samples": [{"labels": degraded, "value": 1}],
        },
    ]
    for each in tests:
        each["eval_time"] = f"{60 * HOURS - 1}m"
    # From minute 20 to 40, and half as bad as at its worst from minute 23.
    for hour, minute in product(range(HOURS), (20, 33, 50)):
        samples = [{"labels": degraded, "value": 1}] if minute == 33 else []
        time = f"{60 * hour + minute}m"
        tests.append({"expr": f"group by (site) ({FIRING})", "eval_time": time})
        tests[-1]["exp_samples"] = samples
    case = {"interval": "1m", "input_series": input_series(World(agents=60, sites=6))}
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "1m"}
    content["tests"] = [case | {"promql_expr_test": tests}]
    (tmp_path / "day.yml").write_text(json.dumps(content))
    await run("promtool", "test", "rules", str(tmp_path / "day.yml"), seconds=200)
