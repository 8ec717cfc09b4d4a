"""The status page: what it shows in each state, and that values never become markup."""

import html
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from web_server import GROUP, NOW, POLL, SESSIONS, VIEW

from exporter.account_group import AccountGroup
from exporter.app import Exporter
from exporter.clock import Clock
from exporter.errors import HINTS, REASONS, PollError
from exporter.settings import load
from exporter.simulator import Simulator, World
from exporter.sources.results import PollRecord
from exporter.web.status import FIRST_SITES, QUANTITIES, SiteView, SourceView, render

RULES = Path(__file__).parents[2] / "deploy/prometheus/thousandeyes.rules.yml"
FAILED = PollRecord(0.1, "auth", NOW - 12)
NETWORKS = SourceView("local_networks", 300.0, [POLL], NOW + 240, NOW - 60, 7)
NAN, DASH = math.nan, "\N{EN DASH}"


def site(name: str, *values: float, agents: int = 1) -> SiteView:
    """Make a site from its score, loss, latency and jitter; those left out are not measured."""
    means = dict(itertools.zip_longest(QUANTITIES, values, fillvalue=NAN))
    return SiteView(name, agents, means)


def text_of(**changes: Any) -> str:
    """Return the text of the page with a changed view, with single spaces."""
    page = render(replace(VIEW, **changes))
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", page))


def sessions(*others: SourceView, group: AccountGroup = GROUP, **changes: Any) -> str:
    return text_of(account_groups=[(group, [replace(SESSIONS, **changes), *others])])


WORKING = text_of()
ERROR = PollError("auth", "rejected")
NO_DATA = sessions(polls=[FAILED], failure=ERROR, last_success=None)
LIMITS = "Requests in the last minute 14 of 120 Remaining for the organization"
SITES = text_of(sites=[site("mail.example", 0.4, 0.102, 0.25, 0.01, agents=3), site("")])
AGES = {1.9: "1 second", 119: "119 seconds", 7199: "119 minutes", 7300: "2 hours"}
REFUSED = text_of(failure=PollError("dns", "refused"), next_listing=NOW + 9)
TWO = sessions(replace(NETWORKS, polls=[FAILED], failure=ERROR))
SETTINGS = text_of(settings=[("api.url", "http://x", "--api.url"), ("api.email", "", "default")])
CASES = [
    (WORKING, "Example (1001) Sessions Polling OK."),
    (WORKING, "Last poll 2026-11-18 14:32:18 UTC (12 seconds ago) Next poll 2026-11-18"),
    (WORKING, "14:33:18 UTC (in 48 seconds) Sessions 1,000 Joined 990 (99.0%) Not joined 10"),
    (WORKING, "of the last 3, the longest took 0.20 s and none failed."),
    (WORKING, f"{LIMITS} 226 of 240 Series 16,000 of 500,000"),
    (text_of(remaining=None), f"{LIMITS} {DASH} Series"),
    (text_of(series_dropped=120), "120 series are folded into __other__ or dropped."),
    (TWO, "Local networks The last poll failed: rejected."),
    (sessions(polls=[POLL, FAILED, FAILED], failure=ERROR), "The last 2 polls failed: rejected."),
    (sessions(note="stretched: interval 90 s"), "Polling OK. stretched: interval 90 s."),
    (NO_DATA, "No data yet. Last poll"),
    *((sessions(polls=[FAILED], failure=ERROR, last_success=NOW - n), f"Data from {age} ago.")
      for n, age in AGES.items()),
    *((sessions(polls=[FAILED], failure=PollError(each, "")), HINTS[each]) for each in REASONS),
    (sessions(polls=[], last_success=None), f"The first poll is running. Last poll {DASH}"),
    (sessions(records=0), "there are no sessions. None started in the last 15 minutes."),
    (sessions(replace(NETWORKS, records=0)), "there are no local networks."),
    (text_of(account_groups=[]), "The account groups are not known yet."),
    (REFUSED, f"could not be listed: refused. What to do: {HINTS['dns']}. Next attempt"),
    (sessions(group=AccountGroup("7", "")), "Documentation (7) Sessions"),
    (sessions(group=AccountGroup("", "")), "The token's own account group Sessions"),
    (sessions(polls=[PollRecord(0.3, None, NOW)]), "The last poll took 0.30 s. 0.5 s 0.25 s 0 s"),
    (SITES, "score < 0.5, loss > 5%, latency > 300 ms, jitter > 50 ms."),
    (SITES, "mail.example Low score, high loss 0.40 10.2% 250 ms 10 ms 3"),
    (SITES, f"unknown {DASH} {DASH} {DASH} {DASH} {DASH} 1"),
    (text_of(sites=[site("x", 0.5, NAN, 0.3)]), f"x OK 0.50 {DASH} 300 ms {DASH} 1"),
    (SETTINGS, f"api.url http://x --api.url Defaults (1) Setting Value Origin api.email {DASH}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES, ids=itertools.count())
def test_the_page_shows(text: str, expected: str) -> None:
    assert expected in text


def test_the_limits_of_sites_are_the_thresholds_of_the_alerts() -> None:
    rules = [rule for each in yaml.safe_load(RULES.read_text())["groups"] for rule in each["rules"]]
    mean = re.compile(r"aid_site:thousandeyes_endpoint_(\w+):avg[^<>\n]* ([<>]) ([\d.]+)")
    found = [mean.findall(rule["expr"]) for rule in rules if "alert" in rule]
    thresholds = {name: (beyond, float(limit)) for each in found for name, beyond, limit in each}
    assert thresholds == {name: (each.beyond, each.limit) for name, each in QUANTITIES.items()}


def test_all_sites_are_shown_and_the_worst_ones_first() -> None:
    sites = [site("unmeasured"), *(site(f"site{n}", 0.9 - n / 100) for n in range(FIRST_SITES))]
    page = render(replace(VIEW, sites=sites))
    first, _, others = page.partition("<details>")
    assert re.findall('scope="row">([^<]+)', first) == [f"site{n}" for n in range(19, -1, -1)]
    assert re.findall('scope="row">([^<]+)', others) == ["unmeasured"]
    assert "<details>" not in render(replace(VIEW, sites=sites[1:]))


def test_a_chart_places_polls_by_time_and_marks_failed_ones() -> None:
    polls = [PollRecord(n, None if n % 7 else "auth", NOW - n * 60) for n in range(70, 0, -1)]
    page = render(replace(VIEW, account_groups=[(GROUP, [replace(SESSIONS, polls=polls)])]))
    bars = re.findall(r'<rect( class=bad)? x="([\d.]+)%" y="([\d.]+)" .* height="([\d.]+)"', page)
    assert (len(bars), page.count("<rect class=bad"), page.count("</text>")) == (60, 8, 8)
    assert (bars[0], bars[-1]) == (("", "0.0", "32.0", "48.0"), ("", "96.72", "79.0", "1.0"))
    assert "of the last 70, the longest took 70.00 s and 10 failed." in page


async def test_the_view_is_collected_from_all_components() -> None:
    simulator = Simulator(World(agents=20, sites=5), clock=lambda: NOW)
    flags = f"--api.url={await simulator.start()} --api.token=demo --filter.exclude-agents=x"
    loaded = load(flags.split(), {})
    exporter = Exporter(loaded.settings, clock=Clock(lambda: NOW, lambda: NOW), process=False)
    exporter.shown = loaded.shown()
    await exporter.manager.update()
    for poller in exporter.manager.pollers:
        await poller.poll()
    await exporter.publisher.publish()
    [table] = exporter.publisher.current.groups[0].sessions.tables
    table.columns["experience_score"][:] = 0.0  # as the API sends those that it cannot compute
    view = await exporter.status()
    await exporter.close()
    await simulator.stop()
    [(group, sources)], sites = view.account_groups, view.sites
    assert group.name == "Example Headquarters"
    assert [each.source for each in sources] == ["sessions", "agents", "local_networks"]
    assert 0 < sources[0].records == sources[0].joins["joined"] + sources[0].joins["user_only"]
    assert (sources[0].last_success, sources[0].next_poll) == (NOW, pytest.approx(NOW, abs=5))
    assert {each.site for each in sites} == {key[1] for key in table.keys}
    assert all(math.isnan(each.means["experience_score"]) for each in sites)
    assert ("poll.interval", "1m", "default") in view.settings
    assert ("api.token", "*" * 10, "--api.token") in view.settings
    assert ("filter.exclude_agents", "*" * 10, "--filter.exclude-agents") in view.settings


def test_values_never_become_markup() -> None:
    evil = "<script>alert(1)</script>\"'&"
    failure, rows = PollError("dns", evil), [(evil, evil, evil)]
    source = replace(SESSIONS, source=evil, polls=[FAILED], failure=failure, note=evil)
    groups = [(AccountGroup(evil, evil), [source])]
    page = render(replace(VIEW, account_groups=groups, sites=[site(evil)], settings=rows))
    page += render(replace(VIEW, account_groups=[], failure=failure, telemetry_path=evil))
    assert (page.count("<script"), page.count("&lt;script&gt;")) == (0, 12)
