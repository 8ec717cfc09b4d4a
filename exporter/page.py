"""The page for people, which tells whether it works, since when not, and why there is nothing to see.

Pure: a view goes in, HTML comes out. Where the figures come from stands in `exporter.app`.
"""

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from exporter import NAME, __version__
from exporter.errors import Reason
from exporter.values import written_duration

DOCS = "https://github.com/thousandeyes-exporter/thousandeyes-exporter"


@dataclass(frozen=True, slots=True)
class PollView:
    """One poll that ended."""

    seconds: float
    reason: Reason | None
    """Why it failed; None where it was complete."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """One account group."""

    aid: str
    name: str
    polls: Sequence[PollView]
    """The last ones, the newest last."""
    age: float | None
    """Seconds since the end of the last complete poll's range; None before the first."""
    failure: str
    """What the last poll failed of, in words; empty where it was complete."""
    joined: int
    user_only: int
    network_only: int
    agents: int
    """Agents that the API listed."""


@dataclass(frozen=True, slots=True)
class SiteView:
    """What people have at one site now: means over its sessions, NaN where nothing was measured."""

    site: str
    agents: int
    latency: float
    """Seconds."""
    loss: float
    """Ratio."""
    score: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything on the page."""

    telemetry_path: str
    lookback: float
    """Seconds."""
    groups: Sequence[GroupView]
    sites: Sequence[SiteView]
    series: int
    series_limit: int
    series_dropped: int
    requests: int
    """Requests sent in the last minute."""
    requests_limit: int
    """Our own share."""
    remaining: float | None
    """Requests that the organization has left in this minute, as the API last told."""
    granted: float | None
    """Requests a minute that the API grants the organization."""
    failure: str = ""
    """Why the API did not tell which account groups there are, in words; empty where it did, or was not asked yet."""


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#60646c;--line:#d9dbe0;--page:#fcfcfd;--card:#fff;--good:#1f7a4d;
--bad:#c0362c;--warn:#8a5a00;--bar:#5b7fb5}
@media(prefers-color-scheme:dark){:root{--ink:#edeef0;--soft:#b0b4ba;--line:#363a3f;--page:#111113;--card:#18191b;
--good:#5cc98f;--bad:#ff8a7d;--warn:#f0b54c;--bar:#7fa3dc}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main,header,footer{max-width:64rem;margin:0 auto;padding:1rem}
h1{font-size:1.3rem;margin:0}h2{font-size:1.05rem;margin:0 0 .6rem}
nav{display:flex;flex-wrap:wrap;gap:0 1rem}a{color:inherit}
section{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:0 0 1rem}
.state{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}.soft{color:var(--soft)}
p{margin:.2rem 0}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem 1rem;margin:.8rem 0 0}
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
tbody tr{border-top:1px solid var(--line)}
th,td{text-align:right;padding:.3rem .5rem;font-weight:400}
thead th{color:var(--soft);font-size:.85rem}
th:first-child{text-align:left;overflow-wrap:anywhere}
@media(max-width:40rem){tr{display:grid;grid-template-columns:4fr 5fr 4fr 6fr}th:first-child{grid-column:1/-1}
th,td{padding:.1rem 0}tr{padding:.3rem 0}}
svg{display:block;width:100%;height:3rem;margin-top:.6rem;border-bottom:1px solid var(--line)}
.ok{fill:var(--bar)}.no{fill:var(--bad)}
"""
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E"
    "%3Ccircle cx='4' cy='4' r='3' fill='%235b7fb5'/%3E%3C/svg%3E"
)
POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)
"""The page's Content-Security-Policy: nothing but its own style, which is known by its hash."""


def render(view: View) -> str:
    """Write the page."""
    groups = "".join(_group(group, view) for group in view.groups) or _unknown(view.failure)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{NAME}</title><link rel="icon" href="{_ICON}"><style>{_STYLE}</style></head><body>
<header><h1>{NAME}</h1><nav><a href="{escape(view.telemetry_path)}">Metrics</a><a href="/-/ready">Ready?</a>
<a href="/-/healthy">Healthy?</a><a href="{DOCS}">Documentation</a></nav></header>
<main>{groups}{_budget(view)}{_sites(view)}</main>
<footer class="soft"><p>Version {__version__}. This page shows what the last polls found.
</p></footer></body></html>
"""


def _unknown(failure: str) -> str:
    state = (
        f'<p class="state bad">The account groups could not be listed: {escape(failure)}.</p>'
        if failure
        else '<p class="state warn">The API has not told yet which account groups there are.</p>'
    )
    return f'<section><h2>Account groups</h2>{state}<p class="soft">No data yet.</p></section>'


def _group(group: GroupView, view: View) -> str:
    sessions = group.joined + group.user_only
    figures = {
        "User sessions": f"{sessions:,}",
        "Joined": _share(group.joined, sessions),
        "Not joined": f"{group.user_only:,}",
        "Network sessions alone": f"{group.network_only:,}",
        "Agents": f"{group.agents:,}",
    }
    title = (
        " ".join(filter(None, (group.name, f"({group.aid})" if group.aid else ""))) or "The token's own account group"
    )
    return f"<section><h2>{escape(title)}</h2>{_state(group, view)}{_figures(figures)}{_chart(group.polls)}</section>"


def _state(group: GroupView, view: View) -> str:
    age = f"Data of {_ago(group.age)}." if group.age is not None else "No data yet."
    if not group.polls:
        return f'<p class="state warn">The first poll is running.</p><p class="soft">{age}</p>'
    if group.failure:
        failed = next((n for n, poll in enumerate(reversed(group.polls)) if poll.reason is None), len(group.polls))
        times = "The last poll failed" if failed == 1 else f"The last {failed} polls failed"
        old = "; it leaves as it grows old" if group.age is not None else ""
        return f'<p class="state bad">{times}: {escape(group.failure)}.</p><p class="soft">{age.rstrip(".")}{old}.</p>'
    if not group.joined + group.user_only:
        return (
            '<p class="state warn">It works, but there was no session in the last '
            f"{written_duration(view.lookback)}.</p>"
            '<p class="soft">Sessions exist only when somebody visits a monitored domain from a monitored network. '
            "If people do: check the filters, the account group, and that the token may "
            "<em>View endpoint agent data</em>. The command <code>check</code> looks into each.</p>"
        )
    return f'<p class="state good">It works.</p><p class="soft">{age}</p>'


def _chart(polls: Sequence[PollView]) -> str:
    """Draw a bar a poll, as long as it took; the newest is on the right."""
    if not polls:
        return ""
    polls = polls[-60:]
    longest = max(poll.seconds for poll in polls)
    scale = 20 / max(longest, 0.1)
    bars = "".join(
        f'<rect class="{"no" if poll.reason else "ok"}" x="{60 - len(polls) + place}" y="{20 - height:.2f}" '
        f'width=".8" height="{height:.2f}"><title>{poll.seconds:.2f} s {poll.reason or "complete"}</title></rect>'
        for place, poll in enumerate(polls)
        for height in [max(poll.seconds * scale, 5.0 if poll.reason else 0.6)]
    )
    failed = sum(poll.reason is not None for poll in polls)
    label = f"The last poll took {polls[-1].seconds:.2f} s"
    if len(polls) > 1:
        label += f"; of the last {len(polls)}, the longest took {longest:.2f} s and {failed or 'none'} failed"
    return (
        f'<svg viewBox="0 0 60 20" preserveAspectRatio="none" role="img" aria-label="{label}">{bars}</svg>'
        f'<p class="soft">{label}.</p>'
    )


def _budget(view: View) -> str:
    told = view.remaining is not None and view.granted is not None
    figures = {
        "Requests in the last minute": f"{view.requests:,} of our {view.requests_limit:,}",
        "Left to the organization": f"{view.remaining:,.0f} of {view.granted:,.0f}" if told else "the API did not say",
        "Series": f"{view.series:,} of {view.series_limit:,}",
    }
    folded = (
        f'<p class="state warn">{view.series_dropped:,} series are folded into __other__.</p>'
        '<p class="soft">There are more than metrics.max_series allows: select less, or group sites.</p>'
        if view.series_dropped
        else ""
    )
    return f"<section><h2>Limits</h2>{folded}{_figures(figures)}</section>"


def _sites(view: View) -> str:
    if not view.sites:
        return ""
    rows = "".join(
        f"<tr><th scope=row>{escape(each.site) or '<em>unknown</em>'}</th><td>{each.agents:,}</td>"
        f"<td>{_number(each.latency, 1000, ' ms')}</td><td>{_number(each.loss, 100, ' %')}</td>"
        f"<td>{_number(each.score, 1, '', 2)}</td></tr>"
        for each in view.sites
    )
    return (
        '<section><h2 id="worst">Worst sites now</h2><table aria-labelledby="worst">'
        "<thead><tr><th scope=col>Site</th><th scope=col>Agents</th><th scope=col>Latency</th>"
        "<th scope=col>Loss</th><th scope=col>Experience</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _figures(figures: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items()) + "</dl>"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "none"


def _number(value: float, factor: float, unit: str, digits: int = 0) -> str:
    return "none" if math.isnan(value) else f"{value * factor:.{digits}f}{unit}"


def _ago(seconds: float) -> str:
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole} second{'' if whole == 1 else 's'} ago"
    return f"{whole // 60} minutes ago" if whole < 7200 else f"{whole // 3600} hours ago"


def worst(sites: Iterable[SiteView], count: int = 10) -> list[SiteView]:
    """Return the sites where people have it worst: by rank in latency, loss and experience, whichever is the worst."""
    sites = list(sites)
    place: dict[str, int] = {}
    for badness in (
        {each.site: each.latency for each in sites},
        {each.site: each.loss for each in sites},
        {each.site: -each.score for each in sites},
    ):
        measured = [site for site, value in badness.items() if not math.isnan(value)]
        for rank, site in enumerate(sorted(measured, key=badness.__getitem__, reverse=True)):
            place[site] = min(place.get(site, rank), rank)
    sites = [each for each in sites if each.site in place]
    return sorted(sites, key=lambda each: (place[each.site], each.site))[:count]
