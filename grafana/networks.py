"""The dashboard *Local networks*: which office, VPN or kind of connection is slow."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dashboards as d
from grafana import queries as q
from grafana.panels import (
    AFFECTED,
    DNS,
    GATEWAY,
    LATENCY,
    LOSS,
    POLL_AGE,
    SCORE,
    VPN,
    WIFI,
    Column,
    Panel,
    Quantity,
    lower_is_better,
    stat,
    table,
    text,
    timeseries,
)

LOCATIONS = f'{q.GROUPS}, location=~"$location"'
GATEWAYS = f'{LOCATIONS}, target_type="gateway"'
VPNS = f'{LOCATIONS}, target_type="vpn"'
VPN_USERS = f'{q.GROUPS}, vpn!=""'
LOCAL = "local_network_"
ROUND = "agent_local_network_round_timestamp_seconds"
MANY = lower_is_better("percentunit", 0.25, 0.5, decimals=0)

INTRO = """
Agents measure their gateway, VPN, proxy and DNS servers every five minutes, with or without a
browser (API v7). **One location is slow at the gateway**: its Wi-Fi, LAN or uplink. **One VPN is
slow, gateways are fine**: the VPN. **Wi-Fi is slow, Ethernet is fine**: the access points.
**Nothing is slow here**: look at the sites.
"""


def dashboard() -> Dashboard:
    """Build the dashboard."""
    return d.build(
        "networks",
        "ThousandEyes / Local networks",
        "Gateways, VPNs and DNS of all agents: which office or VPN is slow?",
        variables=[d.data_source(), d.account_group(), d.location()],
        intro=text("Which office or VPN is slow?", INTRO),
        rows={
            "Overview": _overview(),
            "Locations": [_by_location(), *_location_history()],
            "VPNs and connections": [_by_vpn(), _by_connection(), *_vpn_history()],
            "Agents": [slowest_gateways(), weakest_wifi()],
        },
        # An alert on a single location is not marked in the graphs of all locations.
        alerts='alertname=~"ThousandEyes(Vpn|Source).+", aid=~"$aid|"',
    )


def _at_locations(expr: str) -> str:
    """Select the agents at the selected locations."""
    info = f'{q.ONE_INFO[:-1]}, location=~"$location"}}'
    return f"{expr} and on (aid, agent) {info}"


def _smooth(series: str, label: str) -> str:
    """Mean of 15 minutes, because the ten pings of a round are few."""
    return f"avg by ({label}) (avg_over_time({series}[15m]))"


def _overview() -> list[Panel]:
    count = f"sum({q.recorded('aid_location', ROUND, 'count', LOCATIONS)})"

    def over(level: str, metric: str, matchers: str) -> str:
        return f"sum({q.recorded(level, LOCAL + metric, 'over', matchers)}) / {count}"

    signal = f"max by (aid, agent) ({q.endpoint('agent_wifi_signal_dbm', q.GROUPS)})"
    return [
        stat("Agents", "Agents that measured their local network in the look-back window.", count),
        stat(
            "Slow gateway",
            "Share of the agents whose round-trip time to the gateway exceeds 50 ms.",
            over("aid_location_target_type", "latency_seconds", GATEWAYS),
            AFFECTED,
        ),
        stat(
            "Lossy gateway",
            "Share of the agents whose packet loss to the gateway exceeds 5%.",
            over("aid_location_target_type", "loss_ratio", GATEWAYS),
            AFFECTED,
        ),
        stat(
            "Slow DNS",
            "Share of the agents whose DNS resolution takes more than 200 ms.",
            over("aid_location", "dns_resolution_seconds", LOCATIONS),
            AFFECTED,
        ),
        stat(
            "Weak Wi-Fi",
            "Share of the agents on Wi-Fi whose signal is below -80 dBm.",
            f"avg({_at_locations(f'({signal} < bool {q.WIFI_THRESHOLD})')})",
            AFFECTED,
        ),
        stat(
            "Data age",
            "Time since the last complete poll of local networks, for the account group that is "
            "furthest behind. Yellow: two polls are missing. Red: all values are outdated; see "
            "the Exporter dashboard.",
            q.data_age(f'{q.GROUPS}, source="local_networks"'),
            POLL_AGE,
        ),
    ]


def _by_location() -> Panel:
    def mean(level: str, metric: str, matchers: str = LOCATIONS) -> str:
        return f"avg by (location) ({q.recorded(level, metric, 'avg', matchers)})"

    def target(metric: str, matchers: str = GATEWAYS) -> str:
        return mean("aid_location_target_type", LOCAL + metric, matchers)

    loss = q.recorded("aid_location_target_type", f"{LOCAL}loss_ratio", "avg", GATEWAYS)
    agents = q.recorded("aid_location", ROUND, "count", LOCATIONS)
    sites = mean("aid_location", "latency_seconds")
    return table(
        "Locations",
        "Current means over agents (loss: of 15 minutes), slowest gateway first. Gateway: red from "
        "50 ms and 5% loss; VPN: from 150 ms; DNS: from 200 ms. Sites: latency of the sessions at "
        "all sites.",
        [
            Column("Location", label="location"),
            Column("Agents", expr=f"sum by (location) ({agents})", width=80),
            Column("Gateway latency", expr=target("latency_seconds"), quantity=GATEWAY, width=140),
            Column("Gateway loss", expr=_smooth(loss, "location"), quantity=LOSS, width=120),
            Column("Gateway score", expr=target("score_ratio"), quantity=SCORE, width=125),
            Column(
                "Connection score",
                expr=mean("aid_location", "agent_connection_score_ratio"),
                quantity=SCORE,
                width=145,
            ),
            Column("VPN latency", expr=target("latency_seconds", VPNS), quantity=VPN, width=115),
            Column(
                "DNS resolution",
                expr=mean("aid_location", f"{LOCAL}dns_resolution_seconds"),
                quantity=DNS,
                width=130,
            ),
            Column("Sites latency", expr=sites, quantity=LATENCY, width=120),
        ],
        sort="Gateway latency",
        height=10,
    )


def _location_history() -> list[Panel]:
    def history(
        title: str,
        what: str,
        series: str,
        quantity: Quantity,
        function: str = "topk",
    ) -> Panel:
        order = "highest" if function == "topk" else "lowest"
        return timeseries(
            f"{title} by location",
            f"{what}: mean over the agents, of the ten locations where it is {order}. Dashed: "
            "thresholds.",
            {"{{location}}": q.worst(series, "location", function)},
            quantity,
            height=9,
        )

    def target(metric: str, matchers: str) -> str:
        return q.recorded("aid_location_target_type", LOCAL + metric, "avg", matchers)

    def location(metric: str) -> str:
        return q.recorded("aid_location", metric, "avg", LOCATIONS)

    return [
        history(
            "Gateway latency",
            "Round-trip time to the default gateway",
            target("latency_seconds", GATEWAYS),
            GATEWAY,
        ),
        history(
            "Gateway loss",
            "Packet loss to the default gateway",
            target("loss_ratio", GATEWAYS),
            LOSS,
        ),
        history(
            "Gateway score",
            "Score of the gateway from 0 (worst) to 1 (best)",
            target("score_ratio", GATEWAYS),
            SCORE,
            "bottomk",
        ),
        history(
            "Connection score",
            "Score of the connection from 0 (worst) to 1 (best)",
            location("agent_connection_score_ratio"),
            SCORE,
            "bottomk",
        ),
        history(
            "DNS resolution",
            "Time to resolve a name",
            location(f"{LOCAL}dns_resolution_seconds"),
            DNS,
        ),
        history(
            "VPN latency",
            "Round-trip time to the VPN gateway of the agents that use a VPN",
            target("latency_seconds", VPNS),
            VPN,
        ),
    ]


def _by_vpn() -> Panel:
    def mean(metric: str) -> str:
        return q.connection_mean(metric, "vpn", VPN_USERS)

    latency = f"{LOCAL}latency_seconds"
    loss = q.recorded("aid_vpn", f"{LOCAL}loss_ratio", "avg")
    over, count = (q.recorded("aid_vpn", latency, operation) for operation in ("over", "count"))
    share = f"sum by (vpn) ({over}) / sum by (vpn) ({count})"
    return table(
        "VPNs",
        "Current means over the agents that use the VPN (loss: of 15 minutes). Over 150 ms: share "
        "of these agents, without those whose own gateway is slow. Sites: latency of their "
        "sessions at all sites. All locations.",
        [
            Column("VPN", label="vpn"),
            Column("Agents", expr=q.connection_count("vpn", VPN_USERS), width=70),
            Column("Latency", expr=mean(latency), quantity=VPN, width=85),
            Column("Over 150 ms", expr=share, quantity=MANY, width=110),
            Column("Loss", expr=_smooth(loss, "vpn"), quantity=LOSS, width=75),
            Column("Score", expr=mean(f"{LOCAL}score_ratio"), quantity=SCORE, width=70),
            Column("Sites", expr=mean("latency_seconds"), quantity=LATENCY, width=85),
        ],
        sort="Latency",
        width=13,
        height=6,
    )


def _by_connection() -> Panel:
    gateway = q.connection_mean(f"{LOCAL}latency_seconds", "connection")
    sites = q.connection_mean("latency_seconds", "connection")
    loss = _smooth(q.recorded("aid_connection", f"{LOCAL}loss_ratio", "avg"), "connection")
    return table(
        "Connections",
        "Current means over the agents (loss: of 15 minutes) by hardware of the interface in use "
        "(wireless: Wi-Fi). Sites: latency of the sessions at all sites. All locations.",
        [
            Column("Connection", label="connection"),
            Column("Agents", expr=q.connection_count("connection"), width=70),
            Column("Gateway latency", expr=gateway, quantity=GATEWAY, width=140),
            Column("Gateway loss", expr=loss, quantity=LOSS, width=120),
            Column("Sites", expr=sites, quantity=LATENCY, width=85),
        ],
        sort="Gateway latency",
        width=11,
        height=6,
    )


def _vpn_history() -> list[Panel]:
    def history(title: str, what: str, series: str, label: str, quantity: Quantity) -> Panel:
        return timeseries(
            title,
            f"{what}: mean over the agents. Dashed: thresholds.",
            {f"{{{{{label}}}}}": q.worst(series, label)},
            quantity,
            height=8,
        )

    latency = f"{LOCAL}latency_seconds"
    return [
        history(
            "VPN latency by VPN",
            "Round-trip time to the VPN gateway",
            q.recorded("aid_vpn", latency, "avg"),
            "vpn",
            VPN,
        ),
        history(
            "Latency of sites by VPN",
            "Round-trip time of the sessions at all sites, through the VPN",
            q.recorded("aid_vpn", "latency_seconds", "avg", VPN_USERS),
            "vpn",
            LATENCY,
        ),
        history(
            "Gateway latency by connection",
            "Round-trip time to the default gateway",
            q.recorded("aid_connection", latency, "avg"),
            "connection",
            GATEWAY,
        ),
        history(
            "Latency of sites by connection",
            "Round-trip time of the sessions at all sites",
            q.recorded("aid_connection", "latency_seconds", "avg"),
            "connection",
            LATENCY,
        ),
    ]


def slowest_gateways(matchers: str = LOCATIONS) -> Panel:
    """Return a table of the agents with the slowest gateways."""
    series = q.recorded("aid_agent", f"{LOCAL}latency_seconds", "topk", matchers)
    slowest = f"topk(10, {series})"
    loss, score = (q.target(metric, "gateway") for metric in ("loss_ratio", "score_ratio"))
    return d.agents_table(
        "10 slowest gateways",
        "Agents with the highest round-trip time to their default gateway: the home router, or the "
        "gateway of the office. Red from 50 ms. Click on a name to open the agent. API v7.",
        Column("Latency", expr=slowest, quantity=GATEWAY, width=80),
        Column("Loss", expr=_of(slowest, loss), quantity=LOSS, width=70),
        Column("Score", expr=_of(slowest, score), quantity=SCORE, width=65),
        sort="Latency",
        width=12,
        height=12,
    )


def weakest_wifi(matchers: str = LOCATIONS) -> Panel:
    """Return a table of the agents with the weakest Wi-Fi signals."""
    series = q.recorded("aid_agent", "agent_wifi_signal_dbm", "bottomk", matchers)
    weakest = f"bottomk(10, {series})"
    score = q.endpoint("agent_connection_score_ratio", q.GROUPS)
    matchers = f'{q.GROUPS}, target_type="gateway"'
    latency = q.recorded("aid_agent_target_type", f"{LOCAL}latency_seconds", "avg", matchers)
    loss = q.target("loss_ratio", "gateway")
    return d.agents_table(
        "10 weakest Wi-Fi signals",
        "Yellow below -70 dBm, red below -80 dBm. Gateway: round-trip time and loss. Click on a "
        "name to open the agent. API v7.",
        Column("Signal", expr=weakest, quantity=WIFI, width=80),
        Column("Score", expr=_of(weakest, score), quantity=SCORE, width=65),
        Column("Gateway", expr=_of(weakest, latency), quantity=GATEWAY, width=80),
        Column("Loss", expr=_of(weakest, loss), quantity=LOSS, width=70),
        sort="Signal",
        ascending=True,
        width=12,
        height=12,
    )


def _of(agents: str, series: str) -> str:
    """Select the values of some agents."""
    return f"avg by (aid, agent) ({series}) and on (aid, agent) {agents}"
