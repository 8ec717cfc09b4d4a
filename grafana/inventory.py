"""The dashboard *Inventory*: all agents, their versions, and when they were last seen."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dashboards as d
from grafana import queries as q
from grafana.panels import (
    COUNT,
    LATENCY,
    LOSS,
    SCORE,
    SECONDS,
    Column,
    Panel,
    stat,
    table,
    text,
)

INFO = q.ONE_INFO
CPU = q.recorded("aid_agent", "cpu_utilization_ratio", "avg")
LAST_SEEN = f"max by (aid, agent) ({q.endpoint('agent_last_seen_timestamp_seconds', q.GROUPS)})"
CPU_CLASSES = {"below 50%": "<= 0.5", "50% to 90%": "> 0.5 <= 0.9", "above 90%": "> 0.9"}

INTRO = """
All agents of the listing, including those without a session in the look-back window. **Old agent
versions**: update them. **Latency grows with CPU**: the devices are slow, not the network.
"""


def dashboard() -> Dashboard:
    """Build the dashboard."""
    return d.build(
        "inventory",
        "ThousandEyes / Inventory",
        "All endpoint agents: versions, operating systems, and when they were last seen.",
        variables=[d.data_source(), d.account_group()],
        intro=text("Which agents are there?", INTRO),
        rows={
            "Overview": _overview(),
            "Versions": [
                _by_label("Agents by version", "Agent version", "agent_version"),
                _by_label("Agents by operating system", "Operating system", "os_version"),
                _by_cpu(),
            ],
            "Agents": [_all_agents()],
        },
        alerts='aid=~"$aid|", agent!=""',
    )


def _overview() -> list[Panel]:
    unseen = f"time() - {LAST_SEEN} > 86400"
    with_session = q.recorded("aid", "sessions", "count")
    return [
        stat("Agents", "Agents in the listing.", f"count({INFO})", width=6),
        stat(
            "With a session",
            "Agents with a session in the look-back window.",
            f"sum({with_session})",
            width=6,
        ),
        stat(
            "Not seen for a day",
            "Agents that have not contacted the API for 24 hours.",
            f"count({unseen}) or vector(0)",
            width=6,
        ),
        stat(
            "Agent versions",
            "Different versions in use.",
            f"count(count by (agent_version) ({INFO}))",
            width=6,
        ),
    ]


def _by_label(title: str, column: str, label: str) -> Panel:
    latency = q.agent_mean("latency_seconds")
    joined = f"{latency} * on (aid, agent) group_left ({label}) {INFO}"
    return table(
        title,
        "Number of agents and their mean round-trip time.",
        [
            Column(column, label=label),
            Column("Agents", expr=f'count by ({label}) ({INFO[:-1]}, {label}!=""}})', width=75),
            Column("Latency", expr=f"avg by ({label}) ({joined})", quantity=LATENCY, width=85),
        ],
        sort="Agents",
        width=8,
    )


def _by_cpu() -> Panel:
    classes = " or ".join(
        f'label_replace({CPU} {condition}, "cpu", "{name}", "", "")'
        for name, condition in CPU_CLASSES.items()
    )

    def mean(metric: str) -> str:
        class_ = f"group by (aid, agent, cpu) ({classes})"
        return f"avg by (cpu) ({q.agent_mean(metric)} * on (aid, agent) group_left (cpu) {class_})"

    return table(
        "CPU vs. latency",
        "Mean round-trip time and score of agents by CPU utilization. If both are worse with high "
        "CPU utilization, the devices are the cause.",
        [
            Column("CPU", label="cpu"),
            Column("Agents", expr=f"count by (cpu) ({classes})", width=75),
            Column(
                "Latency",
                expr=mean("latency_seconds"),
                quantity=LATENCY,
                width=85,
            ),
            Column(
                "Score",
                expr=mean("experience_score"),
                quantity=SCORE,
                width=70,
            ),
        ],
        width=8,
    )


def _all_agents() -> Panel:
    labels = "agent_name, platform, agent_version, os_version, location"
    seen = f"(time() - {LAST_SEEN}) * on (aid, agent) group_left ({labels}) {INFO}"
    return table(
        "All agents",
        "Every agent of the listing. Search with the filter of a column; click on a name to open "
        "the agent. Without a session in the look-back window, latency, loss and score are empty.",
        [
            Column("Name", label="agent_name", link=d.AGENT_LINK, filterable=True),
            Column("Location", label="location", width=265, filterable=True),
            Column("Platform", label="platform", width=85, filterable=True),
            Column("Operating system", label="os_version", filterable=True),
            Column("Version", label="agent_version", width=90, filterable=True),
            Column("Last seen", expr=seen, quantity=SECONDS, width=95),
            Column("Latency", expr=_known("latency_seconds"), quantity=LATENCY, width=85),
            Column("Loss", expr=_known("loss_ratio"), quantity=LOSS, width=75),
            Column("Sessions", expr=_sessions(), quantity=COUNT, width=80),
            Column("Id", label="agent", width=315, filterable=True),
        ],
        sort="Last seen",
        height=20,
    )


def _known(metric: str) -> str:
    return f"{q.agent_mean(metric)} and on (aid, agent) {LAST_SEEN}"


def _sessions() -> str:
    each = f"max by (aid, agent, site, protocol) ({q.endpoint('sessions', q.GROUPS)})"
    return f"sum by (aid, agent) ({each}) and on (aid, agent) {LAST_SEEN}"
