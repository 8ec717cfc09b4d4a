"""The dashboard *Site*: what is degraded at a site, and which users it affects."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dashboards as d
from grafana import queries as q
from grafana.panels import (
    AFFECTED,
    COUNT,
    JITTER,
    LATENCY,
    LOSS,
    SCORE,
    SHARE,
    Column,
    Panel,
    Quantity,
    stat,
    table,
    text,
    timeseries,
)

RAW_INTERVAL = "5m"
"""Resolution of graphs from the series of all agents of a site, which are slow to query."""
INTRO = """
**Mean and median rise together**: all users are affected; the cause is the site or the network path
to it. **Only p95 rises**: a few users are affected; the breakdown by location or platform and the
table of agents show which. Means are over agents; p50 and p95 are over all
sessions, each counted once.
"""


def dashboard() -> Dashboard:
    """Build the dashboard."""
    breakdowns = {
        "Location": "location",
        "Platform": "platform",
        "Operating system": "os_version",
        "Agent version": "agent_version",
    }
    ranks = {"Latency": "latency_seconds", "Loss": "loss_ratio", "Jitter": "jitter_seconds"}
    return d.build(
        "site",
        "ThousandEyes / Site",
        "One or several sites: what is degraded, and who is affected?",
        variables=[
            d.data_source(),
            d.account_group(),
            d.protocol(),
            d.site(every=False),
            d.choice(
                "split", "Break down by", "Agent attribute of the two breakdown graphs.", breakdowns
            ),
            d.choice("rank", "Rank agents by", "Order of the table of agents.", ranks),
        ],
        intro=text("What is degraded, and who is affected?", INTRO),
        rows={
            "Overview": _overview(),
            "Latency, loss, jitter and experience": _quantities(),
            "Affected agents": _agents(),
            "Network path": _path(),
        },
        alerts='aid=~"$aid|", site=~"$site|", agent="", location="", vpn=""',
    )


def _overview() -> list[Panel]:
    per_minute = f"60 * {q.sessions('rate', '$__rate_interval')}"
    return [
        stat(
            "Agents",
            "Agents with a session at the site in the look-back window.",
            q.AGENTS,
            width=3,
        ),
        stat(
            "Affected agents",
            "Agents over an alert threshold: 300 ms latency, 5% loss or 50 ms jitter.",
            q.AFFECTED,
            width=3,
        ),
        stat(
            "Affected (%)",
            "Share of the agents that are affected.",
            f"{q.AFFECTED} / {q.AGENTS}",
            AFFECTED,
            width=3,
        ),
        stat(
            "Latency",
            "Mean round-trip time, weighted by sessions.",
            q.mean("latency_seconds"),
            LATENCY,
            width=3,
        ),
        stat(
            "Loss", "Mean packet loss, weighted by sessions.", q.mean("loss_ratio"), LOSS, width=3
        ),
        stat(
            "Jitter",
            "Mean jitter, weighted by sessions.",
            q.mean("jitter_seconds"),
            JITTER,
            width=3,
        ),
        stat(
            "Experience score",
            "Mean score from 0 (worst) to 1 (best), weighted by sessions. A score of 0 is "
            "ignored, because the API also sends it if there is no score.",
            q.mean("experience_score"),
            SCORE,
            width=3,
        ),
        stat(
            "Sessions per minute", "Complete sessions.", per_minute, Quantity(decimals=1), width=3
        ),
    ]


def _quantity(
    title: str,
    metric: str,
    quantity: Quantity,
    *,
    tail: str = "p95",
    width: int = 8,
    note: str = "",
) -> Panel:
    """Return mean, median and the bad tail of one quantity over time."""
    level = float(f"0.{tail[1:]}")
    series = {
        "mean": q.recorded_mean(metric),
        "p50": q.site_quantile(0.5, metric),
        tail: q.site_quantile(level, metric),
    }
    description = (
        f"Mean over agents in the last five minutes; median and {tail} over all sessions. "
        f"Dashed: thresholds.{note}"
    )
    return timeseries(title, description, series, quantity, width=width)


def _quantities() -> list[Panel]:
    steps = " One lost packet of a session is about 10%, because a session sends few packets."
    return [
        _quantity("Latency", "latency_seconds", LATENCY, width=12),
        timeseries(
            "Agents over threshold",
            "Agents over the alert threshold of 300 ms latency, 5% loss or 50 ms jitter, and all "
            "agents for comparison.",
            q.over_threshold("aid_site", q.SITES)
            | {"all agents": f"sum({q.recorded('aid_site', 'sessions', 'count', q.SITES)})"},
            COUNT,
        ),
        _quantity("Loss", "loss_ratio", LOSS, note=steps),
        _quantity("Jitter", "jitter_seconds", JITTER),
        _quantity("Experience score", "experience_score", SCORE, tail="p05"),
    ]


def _agents() -> list[Panel]:
    worst = f"topk(20, {q.mean('${rank}', 'aid, agent', q.SELECTED_AGENTS)})"

    def of_worst(metric: str) -> str:
        return f"{q.mean(metric, 'aid, agent', q.SELECTED_AGENTS)} and on (aid, agent) {worst}"

    return [
        table(
            "20 worst agents",
            "Agents with the highest latency, loss or jitter at the selected sites (variable "
            "“Rank agents by”). If most rows share a location or platform, start there. Click on "
            "a name to open the agent.",
            [
                Column("Name", label="agent_name", link=d.AGENT_LINK),
                Column("Location", label="location"),
                Column("Platform", label="platform", width=100),
                Column("Rank", expr=q.with_info(worst), hidden=True),
                Column("Latency", expr=of_worst("latency_seconds"), quantity=LATENCY, width=100),
                Column("Loss", expr=of_worst("loss_ratio"), quantity=LOSS, width=100),
                Column("Jitter", expr=of_worst("jitter_seconds"), quantity=JITTER, width=100),
                Column("Score", expr=of_worst("experience_score"), quantity=SCORE, width=80),
                Column("Id", label="agent", width=310),
            ],
            sort="Latency",
            height=12,
        ),
        timeseries(
            "Latency by $split",
            "Mean round-trip time by group of agents. One line far above the others: the cause is "
            "on the side of these users, not at the site.",
            {"{{$split}}": q.mean_by_info("latency_seconds", "$split")},
            LATENCY,
            height=10,
        ).interval(RAW_INTERVAL),
        timeseries(
            "Loss by $split",
            "Mean packet loss by group of agents.",
            {"{{$split}}": q.mean_by_info("loss_ratio", "$split")},
            LOSS,
            height=10,
        ).interval(RAW_INTERVAL),
    ]


def _path() -> list[Panel]:
    vpn, proxy = q.endpoint("vpn_latency_seconds"), q.endpoint("proxy_latency_seconds")
    latency, sessions = q.endpoint("latency_seconds"), q.endpoint("sessions")

    def by_path(path: str) -> str:
        matchers = f'{q.SITES}, path="{path}"'
        return f"avg({q.recorded('aid_site_path', 'latency_seconds', 'avg', matchers)})"

    return [
        timeseries(
            "Latency by path (direct, VPN, proxy)",
            "Mean round-trip time to the site of users with a direct connection, a VPN or a "
            "proxy. API v7 only.",
            {path: by_path(path) for path in ("direct", "VPN", "proxy")},
            LATENCY,
        ),
        timeseries(
            "Share of latency before the VPN or proxy",
            "Round-trip time to the VPN gateway or proxy as a share of the round-trip time to the "
            "site. Near 100%: the delay is not caused by the site. API v7 only.",
            {
                name: f"sum({hop} * {sessions}) / sum({latency} * {sessions} and {hop})"
                for name, hop in (("VPN", vpn), ("proxy", proxy))
            },
            SHARE,
        ).interval(RAW_INTERVAL),
    ]
