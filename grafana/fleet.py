"""The dashboard *Fleet*: all sites and all agents."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dashboards as d
from grafana import networks
from grafana import queries as q
from grafana.panels import (
    AFFECTED,
    ALERT_COUNT,
    COUNT,
    DATA_AGE,
    GATEWAY,
    JITTER,
    LATENCY,
    LOSS,
    SCORE,
    SECONDS,
    VPN,
    Column,
    Panel,
    Quantity,
    heatmap,
    stat,
    table,
    text,
    timeseries,
    with_link,
)

ALERTS = 'aid=~"$aid|"'
"""Alerts of the selected account groups, and alerts without one."""
INTRO = """
Values of sites are from the rounds of the last five minutes, values of agents from their newest
round at each site; means count each agent once.
**One red row in the table of sites**: that site is degraded; click on its name. **Many yellow or
red rows**: check the *Exporter* dashboard first, then what these sites have in common. **No red
row, but complaints**: look at the agents with the lowest score, at the weakest Wi-Fi signals and at
the slowest gateways.
"""


def dashboard() -> Dashboard:
    """Build the dashboard."""
    return d.build(
        "fleet",
        "ThousandEyes / Fleet",
        "Overview of all sites and endpoint agents: who has a poor experience now?",
        variables=[d.data_source(), d.account_group()],
        intro=text("Who has a poor experience now?", INTRO),
        rows={
            "Overview": _overview(),
            "Sites": _sites(),
            "Agents and alerts": _agents(),
            "History": _history(),
            "Connections and local networks": [
                *_connections(),
                *_connection_history(),
                networks.weakest_wifi(q.GROUPS),
                networks.slowest_gateways(q.GROUPS),
                _failing(),
            ],
        },
        # Alerts on a single agent or location are not marked in the graphs of the whole fleet.
        alerts=f'{ALERTS}, agent="", location=""',
    )


def _overview() -> list[Panel]:
    agents = f"sum({q.recorded('aid', 'sessions', 'count')})"
    lossy = f"(sum({q.recorded('aid', 'loss_ratio', 'over')}) or vector(0)) / {agents}"
    return [
        stat(
            "Agents",
            "Agents with a session in the look-back window (default: 15 minutes).",
            agents,
        ),
        stat(
            "Sites",
            "Sites that these agents visited.",
            f"count(count by (site) ({q.recorded('aid_site', 'sessions', 'count')}))",
        ),
        stat(
            "Sessions in the last hour",
            "Complete sessions (user session and network session joined), each counted once.",
            f"round({q.sessions('increase', '1h', matchers=q.GROUPS)})",
        ),
        stat(
            "Agents with loss over 5%",
            "Share of the agents whose packet loss over all their sites exceeds 5%. If only one "
            "agent in twenty is affected, home Wi-Fi is a likely cause; above 20% it is not.",
            lossy,
            AFFECTED,
        ),
        stat(
            "Data age",
            "Time since the last complete poll of sessions, for the account group that is "
            "furthest behind. Yellow: two polls are missing. Red: all values are outdated; see "
            "the Exporter dashboard.",
            q.data_age(f'{q.GROUPS}, source="sessions"'),
            DATA_AGE,
        ),
        stat(
            "Firing alerts",
            "Firing ThousandEyes alerts on sites, on agents and on the exporter.",
            f"count({q.firing(ALERTS)}) or vector(0)",
            ALERT_COUNT,
        ),
    ]


def _sites() -> list[Panel]:
    agents = q.recorded("aid_site", "sessions", "count")
    return [
        table(
            "Sites",
            "Current values, highest latency first. Yellow from 150 ms latency, 1% loss and 30 ms "
            "jitter; red from the alert thresholds 300 ms, 5% and 50 ms. A site that does not "
            "answer pings only has a score. Click on a site to open it.",
            [
                Column("Site", label="site", link=d.SITE_LINK),
                Column("Agents", expr=f"sum by (site) ({agents})", width=80),
                Column("Latency", expr=_by_site("latency_seconds"), quantity=LATENCY, width=100),
                Column("Loss", expr=_by_site("loss_ratio"), quantity=LOSS, width=90),
                Column("Jitter", expr=_by_site("jitter_seconds"), quantity=JITTER, width=90),
                Column("Score", expr=_by_site("experience_score"), quantity=SCORE, width=80),
            ],
            sort="Latency",
            width=14,
            height=14,
        ),
        heatmap(
            "Latency distribution",
            "Sessions per minute by round-trip time, all sites. Two separate bands: some "
            "users are affected and most are not.",
            q.distribution("latency_seconds"),
            SECONDS.unit,
            width=10,
            height=14,
        ),
    ]


def _by_site(metric: str) -> str:
    return q.recorded_mean(metric, "site", q.GROUPS)


def _agents() -> list[Panel]:
    lowest = f"bottomk(10, {q.recorded('aid_agent', 'experience_score', 'bottomk')})"

    def of_lowest(metric: str) -> str:
        return f"{q.agent_mean(metric)} and on (aid, agent) {lowest}"

    firing = f"count by (alertname, severity, site, location, vpn) ({q.firing(ALERTS)})"
    subject = f'label_join({firing}, "subject", "", "site", "location", "vpn")'
    subject = f'label_replace({subject}, "subject", "–", "subject", "")'

    return [
        d.agents_table(
            "10 agents with the lowest experience score",
            "Mean score over all sites that the agent visits. Click on a name to find out whether "
            "the network or the device is the cause.",
            Column("Score", expr=lowest, quantity=SCORE, width=70),
            Column("Latency", expr=of_lowest("latency_seconds"), quantity=LATENCY, width=85),
            Column("Loss", expr=of_lowest("loss_ratio"), quantity=LOSS, width=80),
            sort="Score",
            ascending=True,
            width=14,
            height=12,
        ),
        table(
            "Firing alerts",
            "Firing ThousandEyes alerts on sites, local networks, agents and on the exporter.",
            [
                Column("Alert", label="alertname"),
                Column("Severity", label="severity", width=80),
                Column("Site, location or VPN", label="subject", width=200),
                Column("Count", expr=subject, width=70),
            ],
            sort="Severity",
            ascending=True,
            width=10,
            height=12,
        ),
    ]


def _connections() -> list[Panel]:
    def by(
        title: str, what: str, column: str, label: str, gateway: Quantity, *more: Column
    ) -> Panel:
        def mean(metric: str) -> str:
            return q.named(q.connection_mean(metric, label), label)

        agents = q.named(q.connection_count(label), label)
        return table(
            title,
            f"Latency and score of the sessions, and latency of the {what}. Current means over "
            "agents. API v7.",
            [
                Column(column, label=label),
                Column("Agents", expr=agents, width=70),
                Column("Latency", expr=mean("latency_seconds"), quantity=LATENCY, width=80),
                Column("Score", expr=mean("experience_score"), quantity=SCORE, width=65),
                *more,
                Column(
                    "Gateway",
                    expr=mean("local_network_latency_seconds"),
                    quantity=gateway,
                    width=85,
                ),
            ],
            sort="Latency",
            width=8,
        )

    loss = Column(
        "Loss", expr=q.connection_mean("loss_ratio", "connection"), quantity=LOSS, width=65
    )
    interface = "gateway, by hardware of the interface in use (wireless: Wi-Fi)"
    return [
        by("Wi-Fi vs. Ethernet", interface, "Connection", "connection", GATEWAY, loss),
        by("ISPs", "gateway, by network provider", "ISP", "isp", GATEWAY),
        by("VPNs", "VPN gateway, by VPN", "VPN", "vpn", VPN),
    ]


def _failing() -> Panel:
    reason = f"max by (aid, agent, reason) ({q.endpoint('agent_measurement_failure', q.GROUPS)})"
    return d.agents_table(
        "Agents that cannot measure",
        "And the reason that the API gives. Click on a name to open the agent. API v7.",
        Column("Reason", label="reason"),
        Column("Failure", expr=q.with_info(reason), hidden=True),
        height=5,
    )


def _connection_history() -> list[Panel]:
    by_vpn, by_connection = (
        q.recorded(f"aid_{label}", "latency_seconds", "avg") for label in ("vpn", "connection")
    )
    return [
        timeseries(
            "Latency by connection",
            "Mean round-trip time of the sessions over agents, by hardware of the interface in use "
            "(wireless: Wi-Fi). Dashed: thresholds.",
            {"{{connection}}": f"avg by (connection) ({by_connection})"},
            LATENCY,
        ),
        timeseries(
            "Latency by VPN",
            "Mean round-trip time of the sessions over agents, by VPN. Far above the others, but "
            "only at times: that VPN gateway is overloaded. Dashed: thresholds.",
            {"{{vpn}}": q.named(q.worst(by_vpn, "vpn"), "vpn")},
            LATENCY,
        ),
    ]


def _history() -> list[Panel]:
    latency = _by_site("latency_seconds")
    maximum = f"max_over_time({q.recorded('aid_site', 'latency_seconds', 'avg')}[$__range] @ end())"
    slowest = f"topk(10, max by (site) ({maximum}))"
    rate = q.recorded("aid_site", "site_sessions_total", "rate")
    busiest = f"topk(10, sum by (site) (avg_over_time({rate}[$__range] @ end())))"
    by_location = q.recorded("aid_location", "latency_seconds", "avg")
    farthest = f"topk(10, max by (location) (avg_over_time({by_location}[$__range] @ end())))"
    return [
        with_link(
            timeseries(
                "Latency of the slowest sites",
                "Mean round-trip time of the ten sites with the highest maximum in the time range. "
                "Dashed: thresholds.",
                {"{{site}}": f"({latency}) and on (site) {slowest}"},
                LATENCY,
                width=14,
                height=11,
            ),
            d.SERIES_SITE_LINK,
        ),
        timeseries(
            "Agents over threshold",
            "Agents whose mean over all their sites exceeds the alert threshold of 300 ms latency, "
            "5% loss or 50 ms jitter.",
            q.over_threshold("aid"),
            COUNT,
            width=10,
            height=11,
        ),
        with_link(
            timeseries(
                "Sessions per minute",
                "Complete sessions of the ten sites with the most. A drop at one site indicates an "
                "outage of the site, a drop at all sites an outage of the data.",
                {"{{site}}": f"60 * sum by (site) ({rate}) and on (site) {busiest}"},
                COUNT,
            ),
            d.SERIES_SITE_LINK,
        ),
        timeseries(
            "Latency by location",
            "Mean round-trip time over agents, of the ten locations where it is highest. One line "
            "far above the others: the connection of that location.",
            {"{{location}}": f"avg by (location) ({by_location}) and on (location) {farthest}"},
            LATENCY,
        ),
    ]
