"""The dashboard *Agent*: which leg of the path to the sites is slow, or the device."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dashboards as d
from grafana import queries as q
from grafana.panels import (
    ALERT_COUNT,
    CPU,
    DASHED,
    DNS,
    FREE_DISK,
    GATEWAY,
    JITTER,
    LATENCY,
    LINK,
    LOSS,
    MEMORY,
    SCORE,
    SECONDS,
    SHARE,
    VPN,
    WIFI,
    Column,
    Panel,
    leg,
    override,
    right_axis,
    stat,
    table,
    text,
    timeseries,
    with_link,
)

ROUND = q.endpoint("round_timestamp_seconds", q.ONE_AGENT)
AGENT = 'aid=~"$aid", agent="$agent"'

INTRO = """
**The first red leg of the path is the cause**, because later legs include it. Device: CPU or memory
is exhausted. Wi-Fi or gateway: the user's own network. VPN or proxy: its gateway. Only the sites
are red: compare with all agents at the same sites; if they are as slow, open the site.
"""


def dashboard() -> Dashboard:
    """Build the dashboard."""
    return d.build(
        "agent",
        "ThousandEyes / Agent",
        "One endpoint agent: which leg of the path is slow, or is it the device?",
        variables=[d.data_source(), d.account_group(), d.agent(), d.protocol(), d.site()],
        intro=text("Which leg is slow?", INTRO),
        rows={
            "Path: device → Wi-Fi → gateway → VPN or proxy → sites": [*_path(), *_by_leg()],
            "Overview": [_details(), *_overview()],
            "Network and device": [_latency_and_load(), _device()],
            "Local network": _local_network(),
            "Sites": [*_by_site(), _visited_sites()],
        },
        alerts='aid=~"$aid|", agent="$agent"',
    )


def _mean(metric: str, by: str = "") -> str:
    return q.mean(metric, by, q.ONE_AGENT)


def _one(metric: str) -> str:
    """Select a metric of the agent; replicas export the same."""
    return f"max({q.endpoint(metric, AGENT)})"


def _target(metric: str, type_: str) -> str:
    return f"max({q.target(metric, type_, AGENT)})"


def _target_latency(type_: str) -> str:
    """Round-trip time to a target; a target that blocks ICMP is measured by TCP."""
    return f"{_target('latency_seconds', type_)} or {_target('tcp_connect_seconds', type_)}"


# Local networks are measured all day. Without them (API v6), values are those of the sessions.
CPU_UTILIZATION = f"{_one('agent_cpu_utilization_ratio')} or {_mean('cpu_utilization_ratio')}"
MEMORY_UTILIZATION = (
    f"{_one('agent_memory_used_bytes')} / {_one('agent_memory_size_bytes')} or "
    f"{_mean('memory_used_bytes')} / max({q.endpoint('memory_size_bytes', q.ONE_AGENT)})"
)
HOPS = {
    name: {
        "latency": f"{_target_latency(name.lower())} or {_mean(f'{name.lower()}_latency_seconds')}",
        "loss": f"{_target('loss_ratio', name.lower())} or {_mean(f'{name.lower()}_loss_ratio')}",
    }
    for name in ("VPN", "proxy")
}


def _path() -> list[Panel]:
    return [
        leg(
            "Device",
            "CPU utilization (red above 90%) and share of physical memory in use (red above 95%).",
            {"CPU": (CPU_UTILIZATION, CPU), "memory": (MEMORY_UTILIZATION, MEMORY)},
        ),
        leg(
            "Wi-Fi or Ethernet",
            "Signal of the Wi-Fi (yellow below -70 dBm, red below -80 dBm) or link speed of the "
            "Ethernet, and the score of the connection from 0 (worst) to 1 (best).",
            {
                "signal": (_one("agent_wifi_signal_dbm"), WIFI),
                "link speed": (f"8 * {_one('agent_link_speed_bytes_per_second')}", LINK),
                "score": (_one("agent_connection_score_ratio"), SCORE),
            },
        ),
        leg(
            "Gateway",
            "Round-trip time (red from 50 ms) and packet loss (red from 5%) to the default "
            "gateway: the home router, or the gateway of the office.",
            {
                "latency": (_target_latency("gateway"), GATEWAY),
                "loss": (_target("loss_ratio", "gateway"), LOSS),
            },
        ),
        *(
            leg(
                title,
                f"Round-trip time (red from 150 ms) and packet loss (red from 5%) to the {what}, "
                "if the agent uses one.",
                {"latency": (HOPS[name]["latency"], VPN), "loss": (HOPS[name]["loss"], LOSS)},
            )
            for title, what, name in (("VPN", "VPN gateway", "VPN"), ("Proxy", "proxy", "proxy"))
        ),
        leg(
            "Sites",
            "Mean round-trip time (red from 300 ms) and packet loss (red from 5%) of the sessions "
            "at all visited sites, with all legs before.",
            {
                "latency": (_mean("latency_seconds"), LATENCY),
                "loss": (_mean("loss_ratio"), LOSS),
            },
        ),
    ]


def _by_leg() -> list[Panel]:
    hops = {name: each["latency"] for name, each in HOPS.items()}
    losses = {name: each["loss"] for name, each in HOPS.items()}
    return [
        timeseries(
            "Latency by leg",
            "Round-trip time to the gateway, to the VPN gateway or proxy, and to the sites. Each "
            "includes the legs before: the leg where the line rises first is the cause.",
            {
                "gateway": _target_latency("gateway"),
                **hops,
                "sites": _mean("latency_seconds"),
            },
            SECONDS,
        ),
        timeseries(
            "Loss by leg",
            "Packet loss to the gateway, to the VPN gateway or proxy, and to the sites. One lost "
            "packet is about 10%, because a measurement sends few packets. Dashed: thresholds.",
            {
                "gateway": _target("loss_ratio", "gateway"),
                **losses,
                "sites": _mean("loss_ratio"),
            },
            LOSS,
        ),
    ]


def _details() -> Panel:
    return table(
        "Agent details",
        "From the agents listing, updated every five minutes (agents.interval). Empty if the "
        "token cannot list agents.",
        [
            Column("Name", label="agent_name"),
            Column("Location", label="location", width=245),
            Column("Platform", label="platform", width=75),
            Column("Operating system", label="os_version", width=240),
            Column("Version", label="agent_version", width=80),
            Column("Connection", label="connection", width=95),
            Column("ISP", label="isp", width=145),
            Column("VPN", label="vpn", width=160),
            Column("Id", label="agent", width=315),
            Column("Info", expr=q.recorded("aid_agent", "agent_info", "name", AGENT), hidden=True),
            Column(
                "Connection info",
                expr=q.recorded("aid_agent", "agent_connection_info", "name", AGENT),
                hidden=True,
            ),
        ],
        height=4,
    )


def _overview() -> list[Panel]:
    last_seen = q.endpoint("agent_last_seen_timestamp_seconds", AGENT)
    failure = q.endpoint("agent_measurement_failure", AGENT)
    return [
        stat(
            "Experience score",
            "Mean score of its sessions from 0 (worst) to 1 (best). A score of 0 is ignored, "
            "because the API also sends it if there is no score.",
            _mean("experience_score"),
            SCORE,
            width=3,
        ),
        stat(
            "Agent score",
            "Score of the device and its local network from 0 (worst) to 1 (best). API v7.",
            _one("agent_score_ratio"),
            SCORE,
            width=3,
        ),
        stat("Jitter", "Mean jitter over its sites.", _mean("jitter_seconds"), JITTER, width=3),
        stat(
            "DNS resolution",
            "Time to resolve a name. Red from 200 ms. API v7.",
            _target("dns_resolution_seconds", "dns"),
            DNS,
            width=3,
        ),
        stat(
            "Free disk",
            "Share of the disk space that is free. API v7.",
            _one("agent_disk_free_ratio"),
            FREE_DISK,
            width=3,
        ),
        stat(
            "Last session",
            "Time since its newest round.",
            f"time() - max({ROUND})",
            SECONDS,
            width=3,
        ),
        stat(
            "Last seen",
            "Time since it last contacted the API.",
            f"time() - max({last_seen})",
            SECONDS,
            width=3,
        ),
        stat(
            "Measurement failures",
            "Number of reasons why it cannot measure, such as dns_failure.",
            f"count(max by (reason) ({failure})) or 0 * max({last_seen})",
            ALERT_COUNT,
            width=3,
        ),
    ]


def _latency_and_load() -> Panel:
    visited = q.endpoint("latency_seconds", q.ONE_AGENT)
    by_site = q.recorded("aid_site", "latency_seconds", "avg", q.SITES)
    panel = timeseries(
        "Latency vs. CPU and memory",
        "Left axis: mean round-trip time of this agent, and of all agents at the same "
        "sites. Right axis: CPU and memory utilization.",
        {
            "latency": _mean("latency_seconds"),
            "all agents, same sites": f"avg({by_site} and on (aid, site) {visited})",
            "CPU": CPU_UTILIZATION,
            "memory": MEMORY_UTILIZATION,
        },
        LATENCY,
        width=16,
        height=10,
    )
    utilization = right_axis("percentunit", 1, "CPU and memory")
    panel = panel.override_by_name("latency", [override("custom.lineWidth", 2)])
    panel = panel.override_by_name("all agents, same sites", DASHED)
    return panel.override_by_name("CPU", utilization).override_by_name("memory", utilization)


def _device() -> Panel:
    return timeseries(
        "CPU, memory, battery and disk",
        "CPU utilization, share of physical memory in use, battery level, and share of the disk "
        "space that is free.",
        {
            "CPU": CPU_UTILIZATION,
            "memory": MEMORY_UTILIZATION,
            "battery": _one("agent_battery_level_ratio"),
            "free disk": _one("agent_disk_free_ratio"),
        },
        SHARE,
        width=8,
        height=10,
    )


def _local_network() -> list[Panel]:
    return [
        timeseries(
            "Gateway latency and jitter",
            "Mean and maximum round-trip time to the default gateway, and its mean deviation. "
            "Every five minutes, with or without a browser. Dashed: thresholds.",
            {
                "mean": _target_latency("gateway"),
                "max": _target("max_latency_seconds", "gateway"),
                "jitter": _target("jitter_seconds", "gateway"),
            },
            GATEWAY,
            width=6,
            height=9,
        ),
        timeseries(
            "Wi-Fi signal",
            "Signal of the Wi-Fi in use; none on Ethernet. Dashed: -70 dBm and -80 dBm.",
            {"signal": _one("agent_wifi_signal_dbm")},
            WIFI,
            width=6,
            height=9,
        ),
        timeseries(
            "DNS resolution",
            "Time to resolve a name. Dashed: thresholds.",
            {"mean": _target("dns_resolution_seconds", "dns")},
            DNS,
            width=6,
            height=9,
        ),
        timeseries(
            "Scores",
            "Scores of the agent, its connection and its targets from 0 (worst) to 1 (best).",
            {
                "agent": _one("agent_score_ratio"),
                "connection": _one("agent_connection_score_ratio"),
                "gateway": _target("score_ratio", "gateway"),
                "VPN": _target("score_ratio", "vpn"),
                "proxy": _target("score_ratio", "proxy"),
            },
            SCORE,
            width=6,
            height=9,
        ),
    ]


def _by_site() -> list[Panel]:
    return [
        with_link(
            timeseries(
                f"{title} by site",
                f"{what} at each visited site. Dashed: alert threshold.",
                {"{{site}}": _mean(metric, "site")},
                quantity,
            ),
            d.SERIES_SITE_LINK,
        )
        for title, what, metric, quantity in (
            ("Latency", "Mean round-trip time", "latency_seconds", LATENCY),
            ("Loss", "Mean packet loss", "loss_ratio", LOSS),
            ("Jitter", "Mean jitter", "jitter_seconds", JITTER),
        )
    ]


def _visited_sites() -> Panel:
    def total(metric: str) -> str:
        each = f"max by (aid, site, protocol) ({q.endpoint(metric, q.ONE_AGENT)})"
        return f"sum by (site) ({each})"

    last_visit = f"time() - max by (site) ({ROUND})"
    return table(
        "Visited sites",
        "Sites visited in the look-back window, most recent first. Click on a site to open it.",
        [
            Column("Site", label="site", link=d.SITE_LINK),
            Column("Last visit", expr=last_visit, quantity=SECONDS, width=95),
            Column("Sessions", expr=total("sessions"), width=80),
            Column("Pages", expr=total("pages"), width=70),
            Column("Latency", expr=_mean("latency_seconds", "site"), quantity=LATENCY, width=80),
            Column("Loss", expr=_mean("loss_ratio", "site"), quantity=LOSS, width=70),
            Column("Jitter", expr=_mean("jitter_seconds", "site"), quantity=JITTER, width=75),
            Column("Score", expr=_mean("experience_score", "site"), quantity=SCORE, width=70),
        ],
        sort="Last visit",
        ascending=True,
        width=12,
    )
