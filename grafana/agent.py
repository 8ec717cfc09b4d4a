"""The dashboard *Agent*: whether the network or the device is slow."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dashboards as d
from grafana import queries as q
from grafana.panels import (
    CPU,
    DASHED,
    JITTER,
    LATENCY,
    LOSS,
    MEMORY,
    SCORE,
    SECONDS,
    Column,
    Panel,
    override,
    right_axis,
    stat,
    table,
    text,
    timeseries,
    with_link,
)

CPU_UTILIZATION = q.mean("cpu_utilization_ratio", matchers=q.ONE_AGENT)
MEMORY_USED = q.mean("memory_used_bytes", matchers=q.ONE_AGENT)
MEMORY_UTILIZATION = f"({MEMORY_USED}) / max({q.endpoint('memory_size_bytes', q.ONE_AGENT)})"
ROUND = q.endpoint("round_timestamp_seconds", q.ONE_AGENT)
AGENT = 'aid=~"$aid", agent="$agent"'

INTRO = """
**Latency above that of other agents at the same sites, CPU and memory idle**: the user's network.
**CPU or memory high, latency normal**: the device. **As slow as other agents**: neither; open the
site. **Slow at every site**: the user's own connection or Wi-Fi (check loss and jitter). **Slow at
one site**: that site.
"""


def dashboard() -> Dashboard:
    """Build the dashboard."""
    return d.build(
        "agent",
        "ThousandEyes / Agent",
        "One endpoint agent: is the network slow, or the device?",
        variables=[d.data_source(), d.account_group(), d.agent(), d.protocol(), d.site()],
        intro=text("Network or device?", INTRO),
        rows={
            "Overview": [_details(), *_overview()],
            "Network and device": [_latency_and_load()],
            "Sites": [*_by_site(), _hops(), _visited_sites()],
        },
        alerts='aid=~"$aid|", agent="$agent"',
    )


def _mean(metric: str, by: str = "") -> str:
    return q.mean(metric, by, q.ONE_AGENT)


def _details() -> Panel:
    return table(
        "Agent details",
        "From the agents listing, updated every five minutes (agents.interval). Empty if the "
        "token cannot list agents.",
        [
            Column("Name", label="agent_name"),
            Column("Location", label="location"),
            Column("Platform", label="platform", width=100),
            Column("Operating system", label="os_version"),
            Column("Agent version", label="agent_version", width=130),
            Column("Account group", label="aid", width=130),
            Column("Id", label="agent", width=320),
            Column("Info", expr=q.recorded("aid_agent", "agent_info", "name", AGENT), hidden=True),
        ],
        height=4,
    )


def _overview() -> list[Panel]:
    last_seen = q.endpoint("agent_last_seen_timestamp_seconds", AGENT)
    return [
        stat(
            "Latency",
            "Mean round-trip time over its sites.",
            _mean("latency_seconds"),
            LATENCY,
            width=3,
        ),
        stat("Loss", "Mean packet loss over its sites.", _mean("loss_ratio"), LOSS, width=3),
        stat("Jitter", "Mean jitter over its sites.", _mean("jitter_seconds"), JITTER, width=3),
        stat(
            "Experience score",
            "Mean score from 0 (worst) to 1 (best). A score of 0 is ignored, because the API also "
            "sends it if there is no score.",
            _mean("experience_score"),
            SCORE,
            width=3,
        ),
        stat("CPU", "CPU utilization. Red above 90%.", CPU_UTILIZATION, CPU, width=3),
        stat(
            "Memory",
            "Share of physical memory in use. Red above 95%.",
            MEMORY_UTILIZATION,
            MEMORY,
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
        width=24,
        height=10,
    )
    utilization = right_axis("percentunit", 1, "CPU and memory")
    panel = panel.override_by_name("latency", [override("custom.lineWidth", 2)])
    panel = panel.override_by_name("all agents, same sites", DASHED)
    return panel.override_by_name("CPU", utilization).override_by_name("memory", utilization)


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


def _hops() -> Panel:
    return timeseries(
        "Latency per hop (VPN, proxy, site)",
        "Round-trip time to the VPN gateway or proxy, if used, and to the site. VPN and proxy: "
        "API v7 only.",
        {
            "latency": _mean("latency_seconds"),
            "VPN": _mean("vpn_latency_seconds"),
            "proxy": _mean("proxy_latency_seconds"),
        },
        LATENCY,
    )


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
            Column("Last visit", expr=last_visit, quantity=SECONDS, width=120),
            Column("Sessions", expr=total("sessions"), width=80),
            Column("Pages", expr=total("pages"), width=70),
            Column("Latency", expr=_mean("latency_seconds", "site"), quantity=LATENCY, width=90),
            Column("Loss", expr=_mean("loss_ratio", "site"), quantity=LOSS, width=80),
            Column("Jitter", expr=_mean("jitter_seconds", "site"), quantity=JITTER, width=80),
            Column("Score", expr=_mean("experience_score", "site"), quantity=SCORE, width=70),
        ],
        sort="Last visit",
        ascending=True,
        height=9,
    )
