"""Writes what `check` found for people: sections of short lines, what to do at the end; and how far it is meanwhile.

What it all means stands in `exporter.report`. Rich is loaded with this file, and so for `check` alone.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from exporter.report import Api, Report, Series, Severity, Verdict, count, duration, share
from exporter.report import Group as AccountGroup

TOP = 8
"""Lines of what there may be many of; `--output json` has all."""
NARROWEST, WIDEST = 60, 120

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "dim"}
_BAD = {False: "", True: _STYLES["error"]}
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "good": ("good: it can serve as it is", "bold green"),
    "warnings": ("good, with warnings: it can serve, and does better when they are heeded", "bold yellow"),
    "too_much": ("too much is asked of the API: polls will come late", "bold red"),
    "nothing": ("nothing would be published", "bold red"),
    "failed": ("failed: not everything that is needed was answered", "bold red"),
}


def written(report: Report, terminal: bool, width: int) -> str:
    """Return a report as text; colours only for a terminal, and not where `NO_COLOR` is set."""
    colours = terminal and not os.environ.get("NO_COLOR")
    console = Console(
        file=io.StringIO(),
        width=min(max(width, NARROWEST), WIDEST),
        force_terminal=terminal,
        color_system="auto" if colours else None,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in _parts(report):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n")) + "\n"


@contextmanager
def progress(stream: TextIO | None) -> Iterator[Callable[[str], None]]:
    """Yield what tells people how far it is: one line on a terminal, nothing elsewhere; it is gone at the end."""
    if stream is None or not stream.isatty():
        yield lambda _: None
        return
    line = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*line, console=_Calm(file=stream), transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda words: shown.update(task, description=_plain(words))


class _Calm(Console):
    """A console that never hides the cursor: who stops the program amid a line would miss it."""

    def show_cursor(self, show: bool = True) -> bool:
        del show
        return False


def _parts(report: Report) -> Iterator[RenderableType]:
    yield from _section("Settings", _settings(report))
    yield from _section("API", _pairs(_api(report.api)))
    troubled = {finding.about for finding in report.findings}
    for group in sorted(report.account_groups, key=lambda group: group.title not in troubled)[:TOP]:
        title = " ".join(filter(None, (group.title, group.name)))
        title = title[0].upper() + title[1:]
        yield from _section(title, _pairs(_group(group, report.poll.overlap_seconds)))
    if (more := len(report.account_groups) - TOP) > 0:
        yield Text(f"And {count(more)} more account groups\n", "bold")
    if report.series.published:
        yield from _section("Series by metric", _counts("metric", report.series.by_family, report.series))
        yield from _section("Series by site", _counts("site", report.series.by_site, report.series))
    if report.requests.a_poll:
        yield from _section("What it will take", _pairs(_cost(report)))
    yield from _section("Verdict", _verdict(report))


def _section(title: str, content: RenderableType) -> Iterator[RenderableType]:
    yield Text(_plain(title), "bold")
    yield Padding(content, (0, 0, 1, 2))


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def _pairs(pairs: Iterator[tuple[str, str | Text]]) -> Table:
    table = _table()
    table.show_header = False
    table.add_column(no_wrap=True, min_width=14, style="dim")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value if isinstance(value, Text) else Text(_plain(value)))
    return table


def _settings(report: Report) -> Table:
    table = _table()
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for setting in report.settings:
        style = "dim" if setting.source == "default" else ""
        table.add_row(*(Text(_plain(each) or "-", style) for each in (setting.name, setting.value, setting.source)))
    return table


def _api(api: Api) -> Iterator[tuple[str, str | Text]]:
    yield "address", f"{api.url}, version {api.version[1:]}"
    reached = "yes" if api.answered else "yes, but every request was refused" if api.reached else "no"
    yield "reached", Text(reached, _BAD[not api.answered])
    for number, group in enumerate(api.account_groups[:TOP]):
        own = " (its own)" if group.current else ""
        yield ("" if number else "token sees"), f"account group {group.aid} {group.name}{own}"
    if not api.account_groups:
        yield "token sees", "account groups are not listed"
    elif len(api.account_groups) > TOP:
        yield "", f"and {count(len(api.account_groups) - TOP)} more"
    ahead = api.clock_ahead_seconds
    if ahead is not None:
        side = "ahead of" if ahead > 0 else "behind"
        equal = abs(ahead) < 2
        yield "clock", "as this machine's" if equal else f"this machine's is {duration(abs(ahead))} {side} it"
    if api.rate_limit_requests is not None:
        left = api.rate_limit_remaining_requests
        also = "" if left is None else f", {count(left)} left"
        yield "rate limit", f"{count(api.rate_limit_requests)} requests a minute for the organization{also}"
    for number, (route, codes) in enumerate(api.requests.items()):
        said = ", ".join(f"{code} ({count(times)})" for code, times in codes.items())
        yield ("" if number else "asked"), f"{route}: {said}"
    for key, values in api.search.items():
        yield "filters itself", f"{key}: {', '.join(values)}"


def _group(group: AccountGroup, overlap: float) -> Iterator[tuple[str, str | Text]]:
    if group.failure:
        yield "failed", Text(_plain(f"{group.failure.reason}: {group.failure.message}"), _STYLES["error"])
    else:
        yield "agents", "not listed" if group.agents is None else count(group.agents)
        joined = f", {share(group.joined, group.users)} with a network session" if group.users else ""
        yield "user sessions", Text(f"{count(group.users)}{joined}", _BAD[not group.joined])
        if group.network_only:
            yield "network alone", f"{count(group.network_only)}, without a user session and so without a site"
        if group.filtered:
            by = ", ".join(f"{name} {count(number)}" for name, number in group.filtered_by.items() if number)
            yield "filtered", f"{count(group.filtered)} user sessions: {by}"
        if group.rejected:
            by = ", ".join(f"{name} {count(number)}" for name, number in group.rejected.items())
            yield "rejected", f"{count(sum(group.rejected.values()))} records: {by}"
    if group.rounds:
        oldest, newest = (datetime.fromtimestamp(each, UTC) for each in (group.rounds.oldest, group.rounds.newest))
        yield "rounds", f"{group.rounds.rounds}, from {oldest:%H:%M} to {newest:%H:%M} UTC on {newest:%Y-%m-%d}"
    if delays := group.commit_delay_seconds:
        words = f"median {duration(delays.median)}, 95 % within {duration(delays.p95)}"
        yield "commit delay", f"{words}, longest {duration(delays.longest)}; poll.overlap is {duration(overlap)}"
    for state, style in (("granted", ""), ("missing", _STYLES["error"]), ("unknown", "dim")):
        names = ", ".join(each.permission for each in group.permissions if each.state == state)
        if names:
            yield state, Text(_plain(names), style)


def _counts(what: str, counts: Mapping[str, int], series: Series) -> Table:
    table = _table()
    table.add_column(what, overflow="fold")
    table.add_column("series", justify="right")
    table.add_column("share", justify="right")
    shown = list(counts.items())[:TOP]
    rest = series.published - sum(number for _, number in shown)
    for name, number in shown:
        table.add_row(Text(_plain(name) or "(none)"), count(number), share(number, series.published))
    if rest:
        others = f"and {count(len(counts) - len(shown))} more"
        table.add_row(*(Text(each, "dim") for each in (others, count(rest), share(rest, series.published))))
    return table


def _cost(report: Report) -> Iterator[tuple[str, str | Text]]:
    series, scrape, requests = report.series, report.scrape, report.requests
    folded = f"; {count(series.folded)} are folded" if series.folded else ""
    of = f"{share(series.published, series.limit)} of metrics.max_series, {count(series.limit)}"
    yield "series", f"{count(series.published)}: {of}{folded}"
    weight = f"{_size(scrape.text_bytes)} of text, {_size(scrape.gzip_bytes)} with gzip"
    yield "a scrape", f"{count(scrape.samples)} samples: {weight}"
    ours = f"{share(requests.a_minute, requests.share)} of our share of {count(requests.share)}"
    all_ = f"{share(requests.a_minute, requests.organization)} of the organization's {count(requests.organization)}"
    yield "requests", f"{count(requests.a_poll)} a poll, {requests.a_minute:.1f} a minute: {ours}, {all_}"


def _verdict(report: Report) -> RenderableType:
    """Write every finding once, whatever it is about; the verdict stands last, where the eye is."""
    about: dict[tuple[Severity, str, str], list[str]] = {}
    for finding in report.findings:
        about.setdefault((finding.severity, finding.what, finding.advice), []).append(finding.about)
    findings = (_finding(*told, where) for told, where in about.items())
    return Group(*findings, Text(*_VERDICTS[report.verdict]))


def _finding(severity: Severity, what: str, advice: str, where: list[str]) -> Table:
    table = _table()
    table.show_header = False
    table.add_column(no_wrap=True, min_width=7)
    table.add_column(overflow="fold")
    places = ", ".join(where[:TOP]) + (f" and {count(len(where) - TOP)} more" if len(where) > TOP else "")
    table.add_row(Text(severity, _STYLES[severity]), Text(_plain(f"{places}: {what}")))
    if advice:
        table.add_row("", Text(_plain(f"→ {advice}")))
    return table


def _size(size: float) -> str:
    """Write bytes in the unit that leaves two or three digits."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _plain(text: str) -> str:
    """Return a text that moves no cursor and breaks no line."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
