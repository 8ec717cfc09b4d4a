"""A day of two simulated companies, every fourth hour: one page for each outage, else none.

`promtool test rules` evaluates the rules every minute. Its input is what the exporter publishes:
the newest round of each agent at each site within the look-back. Account group 1001 has all
problems that are simulated, 1002 has none. A real Alertmanager runs for one of the hours; the
notifications of the whole day are printed by `notifications.py`.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from system.notifications import MIDNIGHT as DAY
from system.notifications import notifications
from system.servers import RULES, run

from exporter.simulator import World

HOURS = range(0, 24, 4)
"""The hours of the day that are simulated, one after another; every hour has an outage."""
LOOKBACK_SECONDS = 420  # more than the five minutes that the rules use
DEGRADED_SITE = "crm.example.com"
PAGE = 'ALERTS{alertname="ThousandEyesSiteLossHigh", alertstate="firing"}'
FIRING = 'ALERTS{alertname=~"ThousandEyesSite.+", alertstate="firing"}'


def samples(aid: int, world: World, now: float) -> Iterator[tuple[str, float]]:
    """Yield series and values of the families that site alerts use; rounds relative to `now`."""
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
        values = {"round_timestamp_seconds": float(newest - now)}
        if pings:
            values["latency_seconds"] = fmean(each.latency or 0 for each in pings) / 1000
            values["jitter_seconds"] = fmean(each.jitter or 0 for each in pings) / 1000
            values["loss_ratio"] = fmean(each.loss or 0 for each in pings) / 100
        if scores:
            values["experience_score"] = fmean(scores)
        for name, value in values.items():
            labels = f'{{aid="{aid}",agent="{agent}",site="{site}"}}'
            yield f"thousandeyes_endpoint_{name}{labels}", value


def input_series(worlds: dict[int, World]) -> list[dict[str, str]]:
    """Return the samples of every minute in the notation of promtool, by account group."""
    series = defaultdict[str, list[str]](list)
    times = [DAY + 3600 * hour + 60 * minute for hour, minute in product(HOURS, range(60))]
    for (minute, now), (aid, world) in product(enumerate(times), worlds.items()):
        for name, value in samples(aid, world, now):
            if "round_timestamp" in name:
                value += 60 * minute  # noqa: PLW2901
            values = series[name]
            if (missing := minute - len(values)) > 0:
                values += ["stale", *["_"] * (missing - 1)]
            values.append(f"{value:.9g}")
    return [{"series": name, "values": " ".join([*v, "stale"])} for name, v in series.items()]


async def test_every_outage_pages_once_and_healthy_sites_never(tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [rules]}))
    degraded = f'{{aid="1001", site="{DEGRADED_SITE}"}}'
    pages = f"sum_over_time(({PAGE} unless {PAGE} offset 1m)[{len(HOURS)}h:1m])"
    tests: list[dict[str, Any]] = [
        {
            "expr": f"sum by (aid, site) ({pages})",
            "exp_samples": [{"labels": degraded, "value": len(HOURS)}],
        },
        {
            "expr": f"group by (aid, site) (last_over_time({FIRING}[{len(HOURS)}h]))",
            "exp_samples": [{"labels": degraded, "value": 1}],
        },
    ]
    for each in tests:
        each["eval_time"] = f"{60 * len(HOURS) - 1}m"
    # From minute 20 to 40, half as bad as at its worst from minute 23: fires and resolves within
    # ten minutes.
    for hour, minute in product(range(len(HOURS)), (20, 30, 40, 50)):
        samples = [{"labels": degraded, "value": 1}] if minute in (30, 40) else []
        tests.append({"expr": f"group by (aid, site) ({PAGE})", "exp_samples": samples})
        tests[-1]["eval_time"] = f"{60 * hour + minute}m"
    worlds = {1001: World(agents=60, sites=6), 1002: World(agents=60, sites=6, problems=())}
    case = {"interval": "1m", "input_series": input_series(worlds)}
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "1m"}
    content["tests"] = [case | {"promql_expr_test": tests}]
    (tmp_path / "day.yml").write_text(json.dumps(content))
    await run("promtool", "test", "rules", str(tmp_path / "day.yml"), seconds=400)


async def test_alertmanager_sends_one_notification_per_outage(tmp_path: Path) -> None:
    world = World(agents=60, sites=6, problems=("degraded_site",))
    day = notifications(tmp_path, world, start=13 * 3600 + 960, seconds=2700)
    sent = [each for each in await day if each.receiver != "info"]
    assert [(each.status, each.about) for each in sent] == [
        ("firing", DEGRADED_SITE),
        ("resolved", DEGRADED_SITE),
    ]
    assert {each.alerts for each in sent} == {frozenset({"SiteLossHigh"})}
    assert {each.receiver for each in sent} == {"critical"}


pytestmark = pytest.mark.timeout(420)
