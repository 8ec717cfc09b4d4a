"""The check command: poll once, report what would be published, and what to improve."""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import numpy as np
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter import __version__
from exporter.account_groups import PolledGroup
from exporter.app import Exporter
from exporter.clock import Clock
from exporter.metrics.exposition import Format
from exporter.poller import Poller
from exporter.settings import Loaded, Settings, format_duration
from exporter.sources.agents import AgentsSource
from exporter.sources.round_source import RoundSource
from exporter.sources.rows import Batch
from exporter.sources.session_filter import normalize_host
from exporter.sources.sessions import SERIES, SessionsSource
from exporter.web.app import ExpositionCache
from exporter.web.auth import Authenticator

NEAR_LIMIT_RATIO = 0.8
MIN_JOIN_RATIO = 0.5
MAX_REJECTED_RATIO = 0.01
MAX_CLOCK_SKEW_SECONDS = 30.0
DEFAULT_ORGANIZATION_LIMIT = 240.0
"""Requests per minute if the API sends no rate limit (API documentation, *Rate limits*)."""
TOP = 8
"""Entries of long lists that are printed; the JSON report has all of them."""

VIEW_DATA = "View endpoint agent data"

Section = Mapping[str, Any]
"""Fields of a part of the report, always the same; null is unknown."""
STYLES = {"error": "bold red", "warning": "bold yellow", "note": "dim"}
"""By severity, the worst first."""
VERDICTS = {
    "good": ("OK: ready to serve", "bold green"),
    "warnings": ("OK with warnings: ready to serve, see above", "bold yellow"),
    "too_much": ("Too many requests: polls would take longer than their interval", "bold red"),
    "nothing": ("No data: nothing would be published", "bold red"),
    "failed": ("Failed: not all required data could be queried", "bold red"),
}
"""Text and style."""


class Finding(Struct, frozen=True):
    """One observation, and what to do about it."""

    severity: str
    about: str
    what: str
    advice: str


class Report(Struct, frozen=True):
    """The object of `check --output json`."""

    version: str
    settings: Sequence[Section]
    api: Section
    account_groups: Sequence[Section]
    series: Section
    requests: Section
    findings: Sequence[Finding]
    verdict: str


class RecordedSessions(SessionsSource):
    """Sessions, with what the last poll read, and what of it was accepted."""

    read = accepted = Batch(([], []), Counter())

    def accept(self, batch: Batch, latest: float) -> Batch:
        """See `RoundSource.accept`."""
        self.read, self.accepted = batch, super().accept(batch, latest)
        return self.accepted


async def run_check(loaded: Loaded) -> bool:
    """Check, and print the report on standard output; return whether the exporter can serve.

    Raises:
        SettingsError: A file that the settings name is invalid.
    """
    with Console(stderr=True).status("Querying the API"):  # only on a terminal
        report = await check(loaded)
    if loaded.options["output"] == "json":
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print_report(report, all_settings=loaded.options["all"])
    return report.verdict in ("good", "warnings")


async def check(loaded: Loaded) -> Report:
    """Poll every account group once and report.

    Raises:
        SettingsError: A file that the settings name is invalid; nothing was queried.
    """
    if config_file := loaded.settings.web.config_file:
        Authenticator(config_file, Clock())
    exporter = Exporter(loaded.settings)
    (_, config), *others = exporter.sources
    exporter.sources = [(RecordedSessions, config), *others]
    try:
        await exporter.manager.update()
        for poller in exporter.manager.pollers:  # not at once, because polls have a time limit
            await poller.poll()
        await exporter.publisher.publish()
        return _report(loaded, exporter)
    finally:
        await exporter.close()


def _report(loaded: Loaded, exporter: Exporter) -> Report:
    """Return the report of an exporter that has polled once."""
    keys = ("name", "value", "source")
    settings = [dict(zip(keys, each, strict=True)) for each in loaded.shown()]
    polled = list(exporter.manager.groups.values())
    api, groups = _api(exporter), list(map(_group, polled))
    series, requests = _series(exporter), _requests(exporter)
    findings = list(_findings(loaded, exporter, api, series, requests))
    for group, section in zip(polled, groups, strict=True):
        findings += _group_findings(loaded.settings, group, section, api["account_groups"])
    findings.sort(key=lambda each: [*STYLES].index(each.severity))
    verdict = "good"
    if not groups or any(group["failure"] for group in groups):
        verdict = "failed"
    elif not any(group["joined"] + group["user_only"] for group in groups):
        verdict = "nothing"
    elif requests["per_minute"]["sessions"] > requests["limit_per_minute"]:
        verdict = "too_much"
    elif any(each.severity == "warning" for each in findings):
        verdict = "warnings"
    return Report(__version__, settings, api, groups, series, requests, findings, verdict)


def _api(exporter: Exporter) -> Section:
    api, clock = exporter.settings.api, exporter.client.api_clock
    return {
        "url": api.url,
        "version": api.version,
        "failure": str(exporter.manager.failure or ""),
        "account_groups": [group.aid for group in exporter.manager.listed],
        "clock_skew_seconds": clock.clock.wall() - clock.now() if clock.synchronized else None,
    }


def _group(polled: PolledGroup) -> Section:
    sessions, agents, *_ = polled.pollers
    source = cast("RecordedSessions", sessions.source)
    users, networks = source.read.listings
    rejected = Counter(source.accepted.rejected)
    filtered = rejected.pop("filtered", 0)
    joined = [user for user, _ in source.result.rows]
    delays = [user.commit_delay for user in joined if user.commit_delay >= 0]
    median, p95 = np.quantile(delays, [0.5, 0.95]).tolist() if delays else (None, None)
    newest = max((user.round for user in joined), default=None)
    return {
        "aid": polled.group.aid,
        "name": polled.group.name,
        "failure": str(sessions.failure or ""),
        "permissions": dict(_permissions([user.key[1] for user in users], sessions, agents)),
        **{
            each.source.name: None if each.failure else each.source.result.records
            for each in polled.pollers[1:]
        },
        "user_sessions": len(users),
        "network_sessions": len(networks),
        "rejected": rejected,
        "filtered": filtered,
        "joined": 0,
        "user_only": 0,
        "network_only": 0,
        **source.result.counts,
        "newest_round": newest and datetime.fromtimestamp(newest, UTC),
        "commit_delay_median_seconds": median,
        "commit_delay_p95_seconds": p95,
    }


def _permissions(
    sites: Sequence[str], sessions: Poller, agents: Poller
) -> Iterator[tuple[str, str]]:
    """Infer permissions from what was refused, and from names replaced by numbers."""
    views = (
        (VIEW_DATA, sessions, bool(sites)),
        ("View endpoint agent settings", agents, not agents.failure),
    )
    for permission, poller, proven in views:
        forbidden = poller.failure and poller.failure.reason == "forbidden"
        yield permission, "missing" if forbidden else "granted" if proven else "unknown"
    names = [agent.name for agent in cast("AgentsSource", agents.source).result.agents]
    for what, found in (("visited pages", sites), ("endpoint agents", names)):
        masked = all(name.isdigit() or not name for name in found)
        state = "unknown" if not found else "missing" if masked else "granted"
        yield f"View endpoint data that identifies {what}", state


def _series(exporter: Exporter) -> Section:
    publication = exporter.publisher.current
    families, sites = Counter[str](), Counter[str]()
    for group in publication.groups:
        for table in (table for each in group.sources.values() for table in each.tables):
            for family, column in table.columns.items():
                families[family] += int(np.count_nonzero(~np.isnan(column)))
        for table in group.sessions.tables:
            for (_, site, _), samples in zip(table.keys, table.samples.tolist(), strict=True):
                sites[site] += samples
    detail = sum(families[family.short_name] for family in SERIES.families if family.detail)
    body = ExpositionCache(exporter, exporter.clock).body(Format.TEXT)
    text = b"".join(body.chunks(gzip=False))
    return {
        "published": publication.series,
        "limit": exporter.settings.metrics.max_series,
        "folded": publication.dropped,
        "with_standard_families": publication.series - detail,
        "by_family": dict((+families).most_common()),
        "by_site": dict(sites.most_common()),
        "scrape_samples": sum(not line.startswith(b"#") for line in text.splitlines()),
        "scrape_text_bytes": len(text),
        "scrape_gzip_bytes": body.size(gzip=True),
    }


def _requests(exporter: Exporter) -> Section:
    """Estimate the steady state: later polls read the overlap, and a page of each listing."""
    settings = exporter.settings
    (family,) = exporter.metrics.api_requests.collect()
    complete = [each for each in family.samples if each.labels["code"] == "200"]
    pages = {each.labels["route"]: each.value for each in complete}
    demand = {"account_groups": 60 / settings.agents.interval}
    for source, config in exporter.sources:
        listings = source.listings[settings.api.version]
        read = sum(pages[each.path] for each in listings)
        if issubclass(source, RoundSource):
            later = config.overlap + config.interval + source.round_seconds
            least = len(listings) * len(exporter.manager.groups)
            read = max(least, math.ceil(read * min(1.0, later / config.lookback)))
        demand[source.name] = 60 * read / config.interval
    organization = exporter.client.rate_limiter.limits.limit
    limit = min(settings.api.requests_per_minute, organization or DEFAULT_ORGANIZATION_LIMIT)
    return {
        "per_minute": demand,
        "total_per_minute": sum(demand.values()),
        "limit_per_minute": limit,
        "organization_limit_per_minute": organization,
    }


def _findings(
    loaded: Loaded, exporter: Exporter, api: Section, series: Section, requests: Section
) -> Iterator[Finding]:
    """Yield what concerns all account groups."""
    for warning in loaded.warnings:
        what, _, advice = warning.partition("; ")
        yield Finding("warning", "settings", what, advice)
    if failure := exporter.manager.failure:
        yield Finding("error", "API", str(failure), failure.hint)
    skew = api["clock_skew_seconds"]
    if skew and abs(skew) > MAX_CLOCK_SKEW_SECONDS:
        what = f"the local clock differs from the API's clock by {skew:+.0f} s"
        yield Finding("warning", "API", what, "synchronize it: alerts use the local clock")

    published, folded, most = series["published"], series["folded"], series["limit"]
    advice = "raise metrics.max_series, or use metrics.families, site groups or filters"
    if folded:
        what = f"{folded:,} series above metrics.max_series are in __other__ or dropped"
        yield Finding("warning", "series", what, advice)
    elif published >= NEAR_LIMIT_RATIO * most:
        what = f"{published / most:.0%} of metrics.max_series are used"
        yield Finding("warning", "series", what, advice)
    if detail := published - series["with_standard_families"]:
        what = f"metrics.families: standard saves {detail:,} series ({detail / published:.0%})"
        yield Finding("note", "series", what, "dashboards and alerts do not need them")

    total, limit = requests["total_per_minute"], requests["limit_per_minute"]
    if total >= NEAR_LIMIT_RATIO * limit:
        what = f"{total:.0f} requests a minute, limit {limit:.0f}"
        if requests["per_minute"]["sessions"] < NEAR_LIMIT_RATIO * limit:
            what += "; agents and local networks are polled less often, sessions are not"
        advice = "raise api.requests_per_minute or the intervals, shorten poll.overlap, "
        advice += "restrict local_networks.types, or request less with filter.search"
        yield Finding("warning", "requests", what, advice)


def _group_findings(
    settings: Settings, polled: PolledGroup, section: Section, visible: Sequence[str]
) -> Iterator[Finding]:
    """Yield what concerns an account group; `visible` are those that the token has access to."""
    sessions, _, *others = polled.pollers
    aid, rejected = polled.group.aid, section["rejected"]
    read = cast("RecordedSessions", sessions.source).read
    about = f"account group {aid}" if aid else "the token's own account group"
    users = section["joined"] + section["user_only"]
    if failure := sessions.failure:
        advice = failure.hint
        if aid and visible and aid not in visible:
            advice = f"correct api.account_groups: the token has access to {_format(visible)}"
        yield Finding("error", about, str(failure), advice)
    elif not users and (section["filtered"] or not rejected):
        yield Finding("warning", about, *_why_no_data(settings, section, read, visible))
    elif section["joined"] < MIN_JOIN_RATIO * users:
        what = f"only {section['joined'] / users:.0%} of user sessions have a network session"
        advice = f"check the agents' monitoring settings and the permission {VIEW_DATA!r}"
        yield Finding("warning", about, what, advice)
    for poller in others:  # that of agents is a missing permission
        if failure := poller.failure:
            what = f"{poller.source.name}: {failure}"
            yield Finding("warning", about, what, failure.hint)
    for permission, state in section["permissions"].items():
        if state == "missing":
            advice = "grant it to the role of the token's user"
            yield Finding("warning", about, f"missing permission: {permission}", advice)
    if rejected:
        total, lost = sum(map(len, read.listings)) + read.rejected.total(), rejected.total()
        severity = "warning" if lost > MAX_REJECTED_RATIO * total else "note"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
        what = f"{lost:,} of {total:,} records were rejected: {reasons}"
        advice = "check api.version; if it is correct, please report it with these reasons"
        yield Finding(severity, about, what, advice)
    p95 = section["commit_delay_p95_seconds"]
    if p95 and p95 > settings.poll.overlap:
        what = f"5% of sessions are committed later than poll.overlap: {p95:.0f} s"
        advice = f"set poll.overlap to {format_duration(math.ceil(p95 / 60) * 60)} or more"
        yield Finding("warning", about, what, advice)


def _why_no_data(
    settings: Settings, section: Section, read: Batch, visible: Sequence[str]
) -> tuple[str, str]:
    """Return why none of the user sessions that were read is published, and what to do."""
    if section["filtered"]:
        frequent = []
        for index, label in enumerate(SERIES.labels):
            values = Counter(normalize_host(user.key[index]) for user in read.listings[0])
            texts = [text for text, _ in values.most_common(3)]
            frequent.append(f"{label}s such as {_format(texts)}")
        what = f"the filters dropped all {section['filtered']:,} sessions"
        return what, f"patterns must match the whole value; there are {'; '.join(frequent)}"
    if search := settings.filter.search:
        what = f"the API has no session for filter.search ({', '.join(search)})"
        return what, "correct filter.search"
    if section["agents"] == 0:
        what, advice = "the account group has no agents", "enroll agents"
    else:
        what = f"no session within poll.lookback ({format_duration(settings.poll.lookback)})"
        advice = "check Endpoint Agents > Views; outside working hours, raise poll.lookback"
    if others := [aid for aid in visible if aid != section["aid"]]:
        advice += f", or set api.account_groups: the token has access to {_format(others)}"
    return what, advice


def _print_report(report: Report, *, all_settings: bool) -> None:
    """Print the sections of a report as tables; findings and the verdict come last."""
    console = Console(highlight=False, markup=False, emoji=False)
    settings = [each for each in report.settings if all_settings or each["source"] != "default"]
    rows = [(each["name"], each["value"] or "-", each["source"]) for each in settings]
    _print_table(console, "Settings", rows)
    _print_table(console, "API", _rows(report.api))
    for group in report.account_groups[:TOP]:
        _print_table(console, f"Account group {group['aid']} {group['name']}", _rows(group))
    _print_table(console, "Per-session series", _rows(report.series))
    _print_table(console, "API requests", _rows(report.requests))
    for finding in report.findings:
        console.print(Text(f"{finding.severity}: ", STYLES[finding.severity]), end="")
        console.print(Text(f"{finding.about}: {finding.what}\n  → {finding.advice}"))
    console.print(Text(*VERDICTS[report.verdict]))


def _rows(section: Section) -> Iterator[tuple[str, str]]:
    """Yield name and text of the fields that have a value."""
    for name, value in section.items():
        if name not in ("aid", "name") and value not in (None, "", {}, []):
            yield name.replace("_", " "), _format(value)


def _format(value: object) -> str:
    match value:
        case float():
            return f"{value:,.1f}"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case Mapping():
            return _join("\n", (f"{key}: {_format(each)}" for key, each in value.items()))
        case list():
            return _join(", ", map(_format, value))
        case _:
            return str(value)


def _join(separator: str, texts: Iterable[str]) -> str:
    shown = list(texts)
    if len(shown) > TOP:
        shown[TOP:] = [f"and {len(shown) - TOP:,} more"]
    return separator.join(shown)


def _print_table(console: Console, title: str, rows: Iterable[Sequence[str]]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(text, overflow="fold") for text in row))
    console.print(Text(title.strip(), "bold"))
    console.print(table)
    console.print()
