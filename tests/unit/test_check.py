"""The check command: findings, verdicts and the report, with the simulated API."""

import json
import math
import re
import socket
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_faults import faults
from structlog.testing import capture_logs

from exporter.check import Report, check, run_check
from exporter.errors import SettingsError
from exporter.settings import load
from exporter.simulator import Fault, Simulator, World
from exporter.simulator.api import ApiRequest, Payload
from exporter.simulator.faults import records
from exporter.sources.sessions import SERIES

TOKEN = "canary-check"
Capture = pytest.CaptureFixture[str]
WORLD = World(agents=20, sites=5, account_groups=2, sessions_per_minute=20)


@asynccontextmanager
async def simulated(*flags: str, fault: str = "", ahead: float = 0, page_size: int = 1000) -> Any:
    """Run the simulated API with a fault; yields the settings that query it."""
    active = (FAULTS[fault],) if fault in FAULTS else faults(*fault.split())
    simulator = Simulator(WORLD, token=TOKEN, clock=lambda: time.time() + ahead, faults=active)
    simulator.page_size = page_size
    variables = {"THOUSANDEYES_API_URL": await simulator.start(), "THOUSANDEYES_TOKEN": TOKEN}
    try:
        with capture_logs():
            yield load(["check", *flags], variables)
    finally:
        await simulator.stop()


async def report(flags: str = "", **options: Any) -> Report:
    async with simulated(*flags.split(), **options) as loaded:
        return await check(loaded)


def findings(report: Report) -> str:
    return "\n".join(f"{f.severity}: {f.about}: {f.what}; {f.advice}" for f in report.findings)


def no_sessions(request: ApiRequest, payload: Payload) -> None:
    if "agents" not in request.path:
        records(payload).clear()


def late_commits(_request: ApiRequest, payload: Payload) -> None:
    for record in records(payload):
        if "committed" in record:
            later = datetime.fromisoformat(record["date"]) + timedelta(minutes=10)
            record["committed"] = later.isoformat()


def control_characters(_request: ApiRequest, payload: Payload) -> None:
    for record in [*records(payload), *payload.get("accountGroups", [])]:
        for name in {"visitedSite", "accountGroupName"} & record.keys():
            record[name] = "\x1b[31m\x07red\r\u202e.example"


COUNTS = ("user_sessions", "network_sessions")
CHANGES = (late_commits, no_sessions, control_characters)
FAULTS = {change.__name__: Fault("", "", payload=change) for change in CHANGES}
FAST = "--poll.interval=1s --poll.overlap=1s --api.requests-per-minute="
SEARCH = '--filter.search={"platform":["amiga"]}'
# flags, fault, verdict, and a pattern of the findings, lines "severity: about: text"
CASES = (
    ("--metrics.families=standard", "", "good", "^$"),
    ("", "", "good", "^note: series: metrics.families: standard saves.*$"),
    (f"--api.token={TOKEN}", "", "warnings", "warning: settings: --api.token"),
    ("", "unauthorized", "failed", "^error: API: .*api.token_file"),
    ("", "forbidden", "failed", "^error: the token's own .*permission(.|\n)*View .* data"),
    ("--api.account-groups=1001,9", "", "failed", "error: .* 9: .*_groups: .* 1001, 1002"),
    ("", "forbidden_agents", "warnings", "warning: .* 1001: .*View .* agent settings"),
    ("", "masked", "warnings", "warning: .* 1001: .*identifies visited(.|\n)*identifies endpoint"),
    ("--filter.include-sites=no", "", "nothing", "warning: .* whole value; .*sites [^;]*mail.exam"),
    (SEARCH, "", "nothing", r"warning: .* 1001: .*filter.search \(platform\)"),
    ("", "empty", "nothing", "warning: .* 1001: .*no agents.*has access to 1002"),
    ("", "no_sessions", "nothing", "warning: .* 1001: .*poll.lookback"),
    ("", "bad_records", "warnings", "warning: .* 1001: .*out_of_range [1-9]"),
    ("", "no_networks", "warnings", "warning: .* 1001: only 0%"),
    ("", "late_commits", "warnings", "warning: .* 1001: .*set poll.overlap to 10m"),
    ("--metrics.max-series=200", "", "warnings", "warning: series: .*__other__"),
    (f"{FAST}100", "", "too_much", r"warning: requests: 12\d .* limit 100"),
    (f"{FAST}150", "", "warnings", "warning: requests: .*intervals"),
)


@pytest.mark.parametrize(("flags", "fault", "verdict", "pattern"), CASES)
async def test_findings_and_verdict(flags: str, fault: str, verdict: str, pattern: str) -> None:
    result = await report(flags, fault=fault)
    assert result.verdict == verdict
    assert re.search(pattern, findings(result))
    severities = [each.severity for each in result.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


async def test_warns_of_clock_skew_and_near_the_limit_of_series() -> None:
    ahead = await report(ahead=3600.0)
    assert "warning: API: the local clock" in findings(ahead)
    assert "warning: series: " not in findings(ahead)
    limit = int(ahead.series["published"] / 0.9)
    assert "warning: series: " in findings(await report(f"--metrics.max-series={limit}"))


async def test_reports_sessions_series_and_requests() -> None:
    result = await report("--api.account-groups=all --filter.exclude-sites=mail.*", page_size=100)
    for group in result.account_groups:
        assert set(group["permissions"].values()) == {"granted"}
        assert group["agents"] == 10
        assert 0 < group["filtered"] < group["filtered"] + group["joined"] <= group["user_sessions"]
    series, demand = result.series, result.requests["per_minute"]
    names = {family.short_name for family in SERIES.families}
    published = sum(count for name, count in series["by_family"].items() if name in names)
    assert series["published"] == published == sum(series["by_site"].values())
    assert published < sum(series["by_family"].values()) < series["scrape_samples"]
    assert "mail.example.com" not in series["by_site"]
    counts = [group[name] for group in result.account_groups for name in COUNTS]
    # Of 15 minutes, later polls read 7: the overlap, the interval and a round.
    assert demand["sessions"] == math.ceil(sum(math.ceil(n / 100) for n in counts) * 7 / 15)
    assert (demand["agents"], demand["account_groups"]) == (pytest.approx(0.4), pytest.approx(0.2))
    assert result.requests["total_per_minute"] == pytest.approx(sum(demand.values()))


KEYS = {
    "": "version settings api account_groups series requests findings verdict",
    "settings": "name value source",
    "api": "url version failure account_groups clock_skew_seconds",
    "account_groups": "aid name failure permissions agents local_networks user_sessions "
    "network_sessions rejected filtered joined user_only network_only newest_round "
    "commit_delay_median_seconds commit_delay_p95_seconds",
    "series": "published limit folded with_standard_families by_family by_site scrape_samples "
    "scrape_text_bytes scrape_gzip_bytes",
    "requests": "per_minute total_per_minute limit_per_minute organization_limit_per_minute",
    "findings": "severity about what advice",
}


async def test_json_always_has_the_same_keys(capsys: Capture) -> None:
    for fault in ("", "forbidden"):
        async with simulated("--output=json", fault=fault) as loaded:
            assert await run_check(loaded) == (not fault)
        document = json.loads(capsys.readouterr().out)
        for section, keys in KEYS.items():
            part = document[section] if section else document
            for each in part if isinstance(part, list) else [part]:
                assert list(each) == keys.split()


async def test_prints_no_secrets_or_control_characters_and_opens_no_port(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"--web.listen-address=127.0.0.1:{busy.getsockname()[1]}"
        async with simulated(address, fault="control_characters") as loaded:
            assert await run_check(loaded)
    output, _ = capsys.readouterr()
    assert output.replace("\n", "").isprintable()
    assert "[31m" in output
    assert TOKEN not in output
    assert "***" in output
    assert "poll.interval" not in output, "a default"


async def test_an_invalid_web_config_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text("basic_auth_users: 7\n")
    with pytest.raises(SettingsError):
        await report(f"--web.config-file={path}")
