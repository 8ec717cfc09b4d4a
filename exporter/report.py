"""What `check` found, and what follows from it: findings in words, each with what to do, and one verdict.

Pure. Who asks is `exporter.check`, who writes it for people `exporter.table`. The names of the fields are the keys of
`check --output json`: they stay. Times are seconds, points in time seconds since 1970; null is what is not known.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from exporter.errors import HINTS, Reason
from exporter.values import written_duration

CLOSE = 0.8
"""Share of a limit from which on it is worth a warning."""
ORGANIZATION = 240.0
"""Requests a minute of an organization that was told no other limit (API documentation, *Rate limits*)."""
FEW_JOINED = 0.5
MANY_REJECTED = 0.01
CLOCKS_DIFFER = 30.0
"""Seconds by which this machine's clock may differ from the API's before it is said."""

ACCESS = "API access"
DATA = "View endpoint agent data"
AGENTS = "View endpoint agent settings"
NAMES = "View endpoint data that identifies endpoint agents"
PAGES = "View endpoint data that identifies visited pages"

Severity = Literal["error", "warning", "note"]
Verdict = Literal["good", "warnings", "too_much", "nothing", "failed"]


class Setting(Struct, frozen=True):
    """One setting as it is in force; `source` is a flag, a variable, `file:line:column`, or `default`."""

    name: str
    value: str
    """As a user would write it; `<secret>` for what nobody should see."""
    source: str


class Failure(Struct, frozen=True):
    """Why something was not answered; the reasons are those of `thousandeyes_exporter_poll_failures_total`."""

    reason: Reason
    message: str


class Permission(Struct, frozen=True):
    """One permission of the token's user, judged by what was refused and by what came."""

    permission: str
    state: Literal["granted", "missing", "unknown"]
    seen: str
    """What says so."""


class Rounds(Struct, frozen=True):
    """The rounds of the user sessions."""

    oldest: int
    newest: int
    rounds: int


class Delays(Struct, frozen=True):
    """How long after a session it was committed."""

    median: float
    p95: float
    longest: float


class Pages(Struct, frozen=True):
    """How many pages were read: by the first poll, of the whole look-back, and by each later one, estimated."""

    first_poll: int
    later_poll: int
    agents: int


class Group(Struct, frozen=True, kw_only=True):
    """One account group that was polled."""

    aid: str
    """Empty for the token's own, where the API does not say which that is."""
    name: str
    current: bool
    """Whether it is the token's own."""
    failure: Failure | None = None
    permissions: Sequence[Permission] = ()
    agents: int | None = None
    """Agents that the API listed, before filters."""
    user_sessions_read: int = 0
    network_sessions_read: int = 0
    rejected: Mapping[str, int] = {}
    """Records that could not be read, by reason."""
    filtered: int = 0
    """User sessions that a filter left out."""
    filtered_by: Mapping[str, int] = {}
    """How many each filter alone would leave out, by setting."""
    often: Mapping[str, Sequence[str]] = {}
    """The commonest agents, sites and protocols of the user sessions that were read, as filters see them."""
    agents_searched: int | None = None
    """How many of the agents that the API was asked for by id are in this account group."""
    joined: int = 0
    user_only: int = 0
    network_only: int = 0
    rounds: Rounds | None = None
    commit_delay_seconds: Delays | None = None
    pages: Pages | None = None

    @property
    def title(self) -> str:
        """How people call it."""
        return f"account group {self.aid}" if self.aid else "the token's own account group"

    @property
    def users(self) -> int:
        """User sessions that are taken in."""
        return self.joined + self.user_only


class Visible(Struct, frozen=True):
    """An account group that the token may see."""

    aid: str
    name: str
    current: bool
    """Whether it is the token's own."""


class Api(Struct, frozen=True, kw_only=True):
    """What was asked, and what it said of itself."""

    url: str
    version: str
    reached: bool
    """Whether any request got an answer, be it a refusal."""
    answered: bool
    """Whether any got a 200."""
    account_groups: Sequence[Visible] = ()
    failure: Failure | None = None
    """Why the account groups could not be listed."""
    clock_ahead_seconds: float | None = None
    """By how much this machine's clock is ahead of the API's."""
    rate_limit_requests: float | None = None
    rate_limit_remaining_requests: float | None = None
    requests: Mapping[str, Mapping[str, int]] = {}
    """Requests that were sent by now, by route and status."""
    search: Mapping[str, Sequence[str]] = {}
    """The filters that the API applies itself, its `searchFilters`."""


class Series(Struct, frozen=True, kw_only=True):
    """Per-session gauges, after `metrics.max_series`."""

    published: int
    limit: int
    folded: int
    by_family: Mapping[str, int]
    by_site: Mapping[str, int]
    """Both with the largest first."""


class Scrape(Struct, frozen=True):
    """What one scrape weighs, with everything that it has."""

    samples: int
    text_bytes: int
    gzip_bytes: int


class Requests(Struct, frozen=True, kw_only=True):
    """Requests to the API once the first polls are done."""

    a_poll: int
    """Of all account groups together."""
    a_minute: float
    share: int
    """`api.requests_per_minute`."""
    organization: float

    @property
    def limit(self) -> float:
        """How many there can be."""
        return min(self.share, self.organization)


class Poll(Struct, frozen=True):
    """The settings that the rest is measured by."""

    interval_seconds: float
    lookback_seconds: float
    overlap_seconds: float


class Finding(Struct, frozen=True):
    """Something to know; `advice` is what to do about it."""

    severity: Severity
    about: str
    """An account group, or the part of this program."""
    what: str
    advice: str


class Found(Struct, frozen=True, kw_only=True):
    """Everything that was asked and measured."""

    settings: Sequence[Setting]
    warnings: Sequence[str]
    """Of the settings."""
    api: Api
    account_groups: Sequence[Group]
    series: Series
    scrape: Scrape
    requests: Requests
    poll: Poll


class Report(Found, frozen=True, kw_only=True):
    """All of it, with what follows: the object of `check --output json`."""

    version: str
    """Of this program."""
    findings: Sequence[Finding]
    verdict: Verdict


def report(version: str, found: Found) -> Report:
    """Judge what was found."""
    findings = sorted(_findings(found), key=lambda finding: ("error", "warning", "note").index(finding.severity))
    verdict: Verdict = "warnings" if any(finding.severity == "warning" for finding in findings) else "good"
    if (found.api.failure and not found.account_groups) or any(group.failure for group in found.account_groups):
        verdict = "failed"
    elif not any(group.users for group in found.account_groups):
        verdict = "nothing"
    elif found.requests.a_minute > found.requests.limit:
        verdict = "too_much"
    return Report(**msgspec.structs.asdict(found), version=version, findings=findings, verdict=verdict)


def pages_later(pages: int, share: float) -> int:
    """Estimate the pages of one listing for a share of the range that took so many; there is always one."""
    return max(1, math.ceil(round(pages * share, 6)))


def _findings(found: Found) -> Iterator[Finding]:
    yield from (Finding("warning", "settings", *_split(warning)) for warning in found.warnings)
    yield from _of_api(found)
    for group in found.account_groups:
        yield from _of_group(group, found)
    yield from _of_series(found)
    if any(group.pages for group in found.account_groups):
        yield from _of_requests(found)


def _split(warning: str) -> tuple[str, str]:
    what, _, advice = warning.partition("; ")
    return what, advice


def _of_api(found: Found) -> Iterator[Finding]:
    api = found.api
    if api.failure:
        severity: Severity = "note" if found.account_groups else "error"
        yield Finding(severity, "API", f"account groups not listed: {api.failure.message}", HINTS[api.failure.reason])
    if api.answered and api.clock_ahead_seconds is None:
        advice = "keep this machine's clock right: it now decides which sessions are asked for"
        yield Finding("warning", "API", "its answers have no Date header", advice)
    elif api.clock_ahead_seconds is not None and abs(api.clock_ahead_seconds) > CLOCKS_DIFFER:
        side = "ahead of" if api.clock_ahead_seconds > 0 else "behind"
        what = f"this machine's clock is {duration(abs(api.clock_ahead_seconds))} {side} the API's"
        yield Finding("warning", "API", what, "set it; sessions are asked for on the API's clock, alerts are not")
    if api.answered and api.rate_limit_requests is None:
        yield Finding("note", "API", "its answers tell of no rate limit", f"{ORGANIZATION:.0f} a minute is assumed")


def _of_group(group: Group, found: Found) -> Iterator[Finding]:
    if group.failure:
        advice = HINTS[group.failure.reason]
        known = [visible.aid for visible in found.api.account_groups]
        if group.aid and known and group.aid not in known:
            advice = f"the token sees the account groups {_listed(known)}: correct api.account_groups"
        yield Finding("error", group.title, group.failure.message, advice)
        return
    for permission in group.permissions:
        if permission.state == "missing":
            advice = f"give the role of the token's user the permission '{permission.permission}'"
            yield Finding("warning", group.title, permission.seen, advice)
    if not group.users:
        others = any(each.users for each in found.account_groups)
        yield Finding("warning" if others else "error", group.title, *_why_nothing(group, found))
        return
    yield from _of_sessions(group, found.poll)


def _why_nothing(group: Group, found: Found) -> tuple[str, str]:
    """Say why no user session came through, and what to do."""
    lost = sum(group.rejected.values())
    if group.filtered:
        most = sorted(group.filtered_by, key=lambda name: -group.filtered_by[name])
        by = ", ".join(f"{name} {count(group.filtered_by[name])}" for name in most if group.filtered_by[name])
        seen = ", ".join(group.often[most[0].rpartition("_")[2].removesuffix("s")])
        return (
            f"all {count(group.filtered)} user sessions were left out by filters: {by}",
            f"correct {most[0]}: a pattern has to match the whole value, such as {seen}",
        )
    if lost:
        return f"no user session is left: {count(lost)} records were rejected: {_counted(group.rejected)}", _CHANGED
    if group.agents_searched == 0:
        what = "none of the agents that are asked for by id is in this account group"
        return what, "correct filter.include_agents, or agentId in filter.search"
    if found.api.search:
        keys = ", ".join(f"{key} ({count(len(values))})" for key, values in found.api.search.items())
        return f"the API found no session for its filters {keys}", "correct filter.search, or raise poll.lookback"
    others = [visible.aid for visible in found.api.account_groups if visible.aid != group.aid]
    if group.agents == 0:
        elsewhere = f"; the token also sees {_listed(others)}: set api.account_groups" if others else ""
        return "there is no agent in this account group", f"enrol agents in it, or poll another{elsewhere}"
    span = duration(found.poll.lookback_seconds)
    also = f", or set api.account_groups: the token also sees {_listed(others)}" if others else ""
    return (
        f"nobody visited a monitored site within the last {span}, as far as the API knows",
        f"look at Endpoint Agents → Views for a session; at night raise poll.lookback{also}",
    )


_CHANGED = "check api.version; if it is right, the API has changed: please report it, with these reasons"


def _of_sessions(group: Group, poll: Poll) -> Iterator[Finding]:
    if not group.joined:
        what = f"none of {count(group.users)} user sessions has a network session: no latency, loss or memory"
        advice = (
            f"let the agents measure the network (monitoring settings), and the token's user have '{DATA}'"
            if not group.network_sessions_read
            else "please report it: the ids of both listings should be the same"
        )
        yield Finding("warning", group.title, what, advice)
    elif group.joined < FEW_JOINED * group.users:
        what = f"only {share(group.joined, group.users)} of the user sessions have a network session"
        yield Finding("warning", group.title, what, "look which agents measure no network: platform, or settings")
    lost, read = sum(group.rejected.values()), group.user_sessions_read + group.network_sessions_read
    if lost:
        severity: Severity = "warning" if lost >= MANY_REJECTED * (lost + read) else "note"
        what = f"{count(lost)} of {count(lost + read)} records were rejected: {_counted(group.rejected)}"
        yield Finding(severity, group.title, what, _CHANGED)
    delays = group.commit_delay_seconds
    if delays and delays.p95 > poll.overlap_seconds:
        what = (
            f"one session in twenty is committed later than {duration(delays.p95)}, "
            f"but poll.overlap is {duration(poll.overlap_seconds)}: these are missed"
        )
        enough = _rounded_up(delays.p95)
        also = ", and poll.lookback to more than that" if enough >= poll.lookback_seconds else ""
        yield Finding("warning", group.title, what, f"set poll.overlap to {duration(enough)} or more{also}")


def _of_series(found: Found) -> Iterator[Finding]:
    series = found.series
    enough = _round(series.published + series.folded)
    advice = f"raise metrics.max_series to {enough}, or publish less: metrics.site_groups, metrics.families, filter.*"
    if series.folded:
        yield Finding("warning", "series", f"{count(series.folded)} series are folded into __other__", advice)
    elif series.published >= CLOSE * series.limit:
        what = f"{count(series.published)} series are {share(series.published, series.limit)} of metrics.max_series"
        yield Finding("warning", "series", what, advice)


def _round(needed: int) -> int:
    """Return a round number with which what is needed is not close to the limit."""
    digits: int = 10 ** max(len(str(needed)) - 2, 0)
    return math.ceil(round(needed / CLOSE / digits, 6)) * digits


def _of_requests(found: Found) -> Iterator[Finding]:
    requests = found.requests
    used = requests.a_minute / requests.limit
    if used < CLOSE:
        return
    whose = "the organization's" if requests.organization < requests.share else "our share of"
    of = f"{share(requests.a_minute, requests.limit)} of {whose} {count(requests.limit)}"
    what = f"{count(requests.a_minute)} requests a minute are {of}"
    enough = _rounded_up(found.poll.interval_seconds * used / CLOSE)
    ways = [f"poll.interval {duration(enough)} or more"] if enough <= found.poll.lookback_seconds else []
    ways += ["a shorter poll.overlap", "filter.search"]
    ways += ["fewer api.account_groups"] if len(found.account_groups) > 1 else []
    ways += ["a larger api.requests_per_minute"] if requests.share < requests.organization * CLOSE else []
    late = "too much, so polls come late: " if used > 1 else ""
    yield Finding("warning", "requests", late + what, "any of: " + ", ".join(ways))


def _rounded_up(seconds: float) -> float:
    """Return whole minutes."""
    return math.ceil(round(seconds / 60, 6)) * 60.0


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count(number)}" for name, number in sorted(counts.items(), key=lambda each: -each[1]))


def count(number: float) -> str:
    """Write a number with commas between thousands."""
    return f"{number:,.0f}"


def share(part: float, whole: float) -> str:
    """Write a share in percent: 0 % only for nothing, 100 % only for all."""
    percent = 100.0 * part / whole if whole else 0.0
    if 0 < percent < 0.5:
        return "under 1 %"
    return "over 99 %" if 99.5 <= percent < 100 else f"{percent:.0f} %"


def duration(seconds: float) -> str:
    """Write seconds as the settings have them, without fractions that nobody wants to know."""
    return written_duration(round(seconds) if seconds >= 1 else seconds)
