"""The dashboard *Fleet*: who is unhappy now."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import queries as q
from grafana.parts import (
    AFFECTED,
    AGE,
    ALERTS,
    COUNT,
    JITTER,
    LATENCY,
    LOSS,
    SCORE,
    SECONDS,
    Column,
    account_group,
    board,
    buckets,
    data_source,
    lines,
    linked,
    note,
    number,
    protocol,
    ranking,
    rows,
    series_to_site,
    site,
    to_agent,
    to_site,
)

ALERT_SCOPE = 'aid=~"$aid|", site=~"$site|"'
NOBODYS = f'{ALERT_SCOPE}, agent=""'
"""Of a site or of the exporter: one laptop marks no graph of all."""
WORST_SITES = f"topk(10, max_over_time(({q.mean('latency_seconds', 'site')})[$__range:$__interval] @ end()))"
"""The sites that were slowest at any time of the range: one and the same ten for every point of the graph."""
UNHAPPY = f"bottomk(10, {q.mean('experience_score', 'aid, agent', q.PEOPLE)})"

NOTE = """
Every number is about the newest round of each agent at each site; means weigh by sessions.
One red row in the table: that site is ill, open it. Many rows yellow or red at once: look at *Exporter* first, then
at what the sites share. No red row, but people complain: look for them among the unhappiest agents.
"""


def dashboard() -> Dashboard:
    """Return it."""
    return board(
        "fleet",
        "ThousandEyes / Fleet",
        "Who is unhappy now: all sites and all endpoint agents.",
        [data_source(), account_group(), protocol(), site()],
        [note("Who is unhappy now?", NOTE), *_numbers(), *_sites(), *_people(), *_over_time()],
        alert_scope=NOBODYS,
    )


def _numbers() -> list[object]:
    lossy = f"avg(({q.mean('loss_ratio', 'aid, agent', q.PEOPLE)}) > bool {q.LOSS_LIMIT})"
    succeeded = q.own("last_poll_success_timestamp_seconds", 'aid=~"$aid"')
    return [
        number("Agents", "Agents with a session within the look-back (15 minutes by default).", q.AGENTS),
        number("Sites", "Sites that they visited.", f"count(count by (site) ({q.endpoint('sessions')}))"),
        number(
            "Sessions in the last hour",
            "Visits that were counted, each once: user session and network session joined.",
            f"round({q.sessions('increase', '1h')})",
        ),
        number(
            "Agents with loss above 5 %",
            "Share of the agents that lose more than one packet in twenty, over all sites that they visit. "
            "Below 5 % it is some people's Wi-Fi; above 20 % it is not.",
            lossy,
            AFFECTED,
        ),
        number(
            "Age of the data",
            "Time since the last complete poll of the account group that is furthest behind. Yellow: two polls are "
            "missing. Red: what you see is old; see the dashboard Exporter.",
            f"clamp_min(max(time() - {succeeded}), 0)",
            AGE,
        ),
        number(
            "Alerts that fire",
            "Alerts of this project that fire now, of the selected sites or of no site.",
            f"count({q.firing(ALERT_SCOPE)}) or vector(0)",
            ALERTS,
        ),
    ]


def _sites() -> list[object]:
    return [
        rows(
            "Sites",
            "Every site now, the slowest first. Yellow at 150 ms, 1 % and 30 ms; red above 300 ms, 5 % and 50 ms, "
            "as in the alerts. A site that does not answer pings has a score only. Click on a site to open it.",
            [
                Column("Site", label="site", link=to_site()),
                Column("Agents", expr=q.AGENTS_BY_SITE, width=80),
                Column("Latency", expr=q.mean("latency_seconds", "site"), measure=LATENCY, width=100),
                Column("Loss", expr=q.mean("loss_ratio", "site"), measure=LOSS, width=90),
                Column("Jitter", expr=q.mean("jitter_seconds", "site"), measure=JITTER, width=90),
                Column("Score", expr=q.mean("experience_score", "site"), measure=SCORE, width=80),
            ],
            sort="Latency",
            width=14,
            height=14,
        ),
        linked(
            ranking(
                "Ten slowest sites",
                "Mean round-trip time now. Click on a bar to open the site.",
                f"sort_desc(topk(10, {q.mean('latency_seconds', 'site')}))",
                "{{site}}",
                LATENCY,
                width=10,
                height=14,
            ),
            series_to_site(),
        ),
    ]


def _people() -> list[object]:
    among = f"and on (aid, agent) {UNHAPPY}"
    return [
        rows(
            "Ten unhappiest agents",
            "The agents with the lowest experience score over all sites that they visit. Click on a name to see "
            "whether it is the network or the laptop.",
            [
                Column("Name", label="agent_name", link=to_agent()),
                Column("Location", label="location"),
                Column("Score", expr=q.named(UNHAPPY), measure=SCORE, width=70),
                Column(
                    "Latency",
                    expr=f"{q.mean('latency_seconds', 'aid, agent', q.PEOPLE)} {among}",
                    measure=LATENCY,
                    width=85,
                ),
                Column("Loss", expr=f"{q.mean('loss_ratio', 'aid, agent', q.PEOPLE)} {among}", measure=LOSS, width=80),
                Column("Id", label="agent", width=100),
            ],
            sort="Score",
            ascending=True,
            width=14,
            height=10,
        ),
        rows(
            "Alerts that fire",
            "Alerts of this project, of the selected sites or of no site. Empty is good.",
            [
                Column("Alert", label="alertname"),
                Column("Severity", label="severity", width=80),
                Column("Site", label="site"),
                Column("Count", expr=f"count by (alertname, severity, site) ({q.firing(ALERT_SCOPE)})", width=70),
            ],
            width=10,
            height=10,
        ),
    ]


def _over_time() -> list[object]:
    latency = q.endpoint("site_latency_seconds_bucket")
    return [
        linked(
            lines(
                "Latency of the slowest sites",
                "Mean round-trip time of the ten sites that were slowest at any time of the range. The dashed line is "
                "the limit of the alert.",
                {"{{site}}": f"({q.mean('latency_seconds', 'site')}) and on (site) {WORST_SITES}"},
                LATENCY,
                width=14,
                height=11,
            ),
            series_to_site(),
        ),
        buckets(
            "Latency of all sessions",
            "How many sessions a minute fell into which span of round-trip times. A band that parts in two: some have "
            "trouble and most have none.",
            f"60 * sum by (le) (rate({latency}[$__rate_interval]))",
            SECONDS.unit,
            width=10,
            height=11,
        ),
        linked(
            lines(
                "Sessions a minute",
                "Visits that were counted, by site: the ten sites with most. A drop at one site is an outage of that "
                "site, a drop of all is an outage of the data.",
                {
                    "{{site}}": f"60 * ({q.sessions('rate', '$__rate_interval', 'site')}) and on (site) "
                    f"topk(10, {q.sessions('increase', '$__range', 'site', ' @ end()')})"
                },
                COUNT,
                width=14,
            ),
            series_to_site(),
        ),
        lines(
            "Agents above a limit",
            "Agents whose mean over all sites is above the limit of an alert: 300 ms, 5 % or 50 ms.",
            {name: f"count({condition}) or vector(0)" for name, condition in q.SUFFERING.items()},
            COUNT,
            width=10,
        ),
    ]
