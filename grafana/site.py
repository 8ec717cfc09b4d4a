"""The dashboard *Site*: what is wrong with it, and for whom."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import queries as q
from grafana.parts import (
    AFFECTED,
    COUNT,
    JITTER,
    LATENCY,
    LOSS,
    SCORE,
    SHARE,
    Column,
    Measure,
    account_group,
    board,
    choice,
    data_source,
    lines,
    note,
    number,
    protocol,
    rows,
    site,
    to_agent,
)

ALERT_SCOPE = 'aid=~"$aid|", site=~"$site|", agent=""'
WORST = f"topk(20, {q.mean('${rank}', 'aid, agent', q.PEOPLE)})"
VPN, PROXY = q.endpoint("vpn_latency_seconds"), q.endpoint("proxy_latency_seconds")

NOTE = """
The mean and the median rise together: all suffer, it is the site or the way to
it. Only p95 rises: a few suffer; the split by location or platform and the table of agents say who. Lines are gauges
of the newest round; p50 and p95 are of every session, each counted once. Choose all sites to see the fleet as one.
"""


def dashboard() -> Dashboard:
    """Return it."""
    ranks = {"Latency": "latency_seconds", "Loss": "loss_ratio", "Jitter": "jitter_seconds"}
    splits = {
        "Location": "location",
        "Platform": "platform",
        "System": "os_version",
        "Agent version": "agent_version",
    }
    return board(
        "site",
        "ThousandEyes / Site",
        "One site, or some: what is wrong with it, and for whom.",
        [
            data_source(),
            account_group(),
            protocol(),
            site(),
            choice("split", "Split by", splits, "What people are split by in two of the graphs."),
            choice("rank", "Worst by", ranks, "What the table of the worst agents is ordered by."),
        ],
        [note("What is wrong with it, and for whom?", NOTE), *_numbers(), *_distributions(), *_whom(), *_way()],
        alert_scope=ALERT_SCOPE,
    )


def _numbers() -> list[object]:
    return [
        number("Agents", "Agents with a session at it within the look-back.", q.AGENTS, width=3),
        number(
            "Affected",
            "Agents above the limit of an alert: 300 ms, 5 % loss or 50 ms jitter.",
            q.AFFECTED,
            width=3,
        ),
        number(
            "Affected, share", "The same as a share of the agents.", f"{q.AFFECTED} / {q.AGENTS}", AFFECTED, width=3
        ),
        number("Latency", "Mean round-trip time, weighted by sessions.", q.mean("latency_seconds"), LATENCY, width=3),
        number("Loss", "Mean share of lost packets, weighted by sessions.", q.mean("loss_ratio"), LOSS, width=3),
        number("Jitter", "Mean jitter, weighted by sessions.", q.mean("jitter_seconds"), JITTER, width=3),
        number(
            "Experience score",
            "Mean score from 0 to 1, weighted by sessions. A score of 0 is left out: the API sends it also for none.",
            q.mean("experience_score"),
            SCORE,
            width=3,
        ),
        number(
            "Sessions a minute",
            "Visits that were counted.",
            f"60 * {q.sessions('rate', '$__rate_interval')}",
            Measure(decimals=1),
            width=3,
        ),
    ]


def _distribution(title: str, what: str, family: str, measure: Measure, *, width: int) -> object:
    """Return mean, median and 95th percentile of one quantity."""
    series = {
        "mean": q.mean(family),
        "p50": q.site_quantile(0.5, f"site_{family}"),
        "p95": q.site_quantile(0.95, f"site_{family}"),
    }
    return lines(title, f"{what} The dashed line is the limit of the alert.", series, measure, width=width)


def _distributions() -> list[object]:
    scores = {
        "mean": q.mean("experience_score"),
        "p50": q.site_quantile(0.5, "site_experience_score"),
        "p05": q.site_quantile(0.05, "site_experience_score"),
    }
    return [
        _distribution(
            "Latency",
            "Round-trip time: mean over agents now, median and 95th percentile of all sessions.",
            "latency_seconds",
            LATENCY,
            width=12,
        ),
        lines(
            "Agents affected",
            "Agents above the limit of an alert, by which: 300 ms, 5 % loss, 50 ms jitter. All agents for comparison.",
            {name: f"count({condition}) or vector(0)" for name, condition in q.SUFFERING.items()}
            | {"all agents": q.AGENTS},
            COUNT,
        ),
        _distribution(
            "Loss",
            "Lost packets: mean over agents now, median and 95th percentile of all sessions. A session sends few "
            "packets, so one that loses any loses a tenth.",
            "loss_ratio",
            LOSS,
            width=8,
        ),
        _distribution(
            "Jitter",
            "How much round trips differ: mean over agents now, median and 95th percentile of all sessions.",
            "jitter_seconds",
            JITTER,
            width=8,
        ),
        lines(
            "Experience score",
            "From 0 to 1: mean over agents now, median and 5th percentile of all sessions (the unhappiest twentieth).",
            scores,
            SCORE,
            width=8,
        ),
    ]


def _whom() -> list[object]:
    among = f"and on (aid, agent) {WORST}"
    return [
        rows(
            "Twenty worst agents",
            "The agents with most latency, loss or jitter at the selected sites (variable “Worst by”). One location or "
            "platform in most rows: that is where to look. Click on a name to open the agent.",
            [
                Column("Name", label="agent_name", link=to_agent()),
                Column("Location", label="location"),
                Column("Platform", label="platform", width=100),
                Column("Ranked by", expr=q.named(WORST), hidden=True),
                Column(
                    "Latency",
                    expr=f"{q.mean('latency_seconds', 'aid, agent', q.PEOPLE)} {among}",
                    measure=LATENCY,
                    width=100,
                ),
                Column("Loss", expr=f"{q.mean('loss_ratio', 'aid, agent', q.PEOPLE)} {among}", measure=LOSS, width=100),
                Column(
                    "Jitter",
                    expr=f"{q.mean('jitter_seconds', 'aid, agent', q.PEOPLE)} {among}",
                    measure=JITTER,
                    width=100,
                ),
                Column(
                    "Score",
                    expr=f"{q.mean('experience_score', 'aid, agent', q.PEOPLE)} {among}",
                    measure=SCORE,
                    width=80,
                ),
                Column("Id", label="agent", width=310),
            ],
            sort="Latency",
            height=12,
        ),
        lines(
            "Latency by $split",
            "Mean round-trip time of the people in each group. One line above all others: their link, not the site.",
            {"{{$split}}": q.mean_by_info("latency_seconds", "$split")},
            LATENCY,
            height=10,
        ),
        lines(
            "Loss by $split",
            "Mean share of lost packets of the people in each group.",
            {"{{$split}}": q.mean_by_info("loss_ratio", "$split")},
            LOSS,
            height=10,
        ),
    ]


def _way() -> list[object]:
    ways = {
        "direct": f"unless ({VPN} or {PROXY})",
        "VPN": f"and {VPN}",
        "proxy": f"and {PROXY}",
    }
    latency, sessions = q.endpoint("latency_seconds"), q.endpoint("sessions")
    return [
        lines(
            "Latency by the way",
            "Mean round-trip time to the site of those who come directly, through a VPN or through a proxy. "
            "Only API v7 tells.",
            {name: q.mean("latency_seconds", only=only) for name, only in ways.items()},
            LATENCY,
        ),
        lines(
            "Share of the latency up to the VPN or proxy",
            "Round-trip time to the VPN gateway or proxy, as a share of that to the site, for those who use one. Near "
            "100 %: the time is lost before the site. Only API v7 tells.",
            {
                name: f"sum({hop} * {sessions}) / sum({latency} * {sessions} and {hop})"
                for name, hop in (("VPN", VPN), ("proxy", PROXY))
            },
            SHARE,
        ),
    ]
