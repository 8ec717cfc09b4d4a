"""The dashboard *Agent*: whether it is the network or the laptop."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import queries as q
from grafana.parts import (
    CPU,
    DASHED,
    GREY,
    JITTER,
    LATENCY,
    LOSS,
    MEMORY,
    PALETTE,
    SCORE,
    SECONDS,
    UNFILLED,
    Column,
    account_group,
    agent,
    board,
    colour,
    data_source,
    lines,
    linked,
    note,
    number,
    on_the_right,
    protocol,
    rows,
    series_to_site,
    set_value,
    site,
    to_site,
)

MEAN = {family: q.mean(family, scope=q.AGENT) for family in ("latency_seconds", "loss_ratio", "jitter_seconds")}
LATENCY_OF_OTHERS = q.mean(
    "latency_seconds", scope=q.OTHERS, only=f"and on (aid, site, protocol) {q.endpoint('latency_seconds', q.AGENT)}"
)
PROCESSORS = q.mean("cpu_utilization_ratio", scope=q.AGENT, weight="cpu_samples")
USED = q.mean("memory_used_bytes", scope=q.AGENT, weight="memory_samples")
FULL = f"({USED}) / max({q.endpoint('memory_size_bytes', q.AGENT)})"
SEEN = f'{q.ENDPOINT}agent_last_seen_timestamp_seconds{{aid=~"$aid", agent="$agent"}}'
ROUND = q.endpoint("round_timestamp_seconds", q.AGENT)
INFO = f'{q.ENDPOINT}agent_info{{aid=~"$aid", agent="$agent"}}'

NOTE = """
The graph below has both on one time axis. Latency above that of the others at the same sites,
processors and memory idle: the network of this person. Processors or memory full, and the latency as that of the
others: the laptop. As slow as the others: neither, open the site. Slow at every site: the own link or Wi-Fi (look at
loss and jitter); slow at one: that site.
"""


def dashboard() -> Dashboard:
    """Return it."""
    return board(
        "agent",
        "ThousandEyes / Agent",
        "One endpoint agent: is it the network or the laptop.",
        [data_source(), account_group(), agent(), protocol(), site()],
        [note("Network or laptop?", NOTE), _known(), *_numbers(), *_both(), *_by_site(), _visited()],
        alert_scope='aid=~"$aid|", agent="$agent"',
    )


def _numbers() -> list[object]:
    return [
        number("Latency", "Mean round-trip time over its sites.", MEAN["latency_seconds"], LATENCY, width=3),
        number("Loss", "Mean share of lost packets over its sites.", MEAN["loss_ratio"], LOSS, width=3),
        number("Jitter", "Mean jitter over its sites.", MEAN["jitter_seconds"], JITTER, width=3),
        number(
            "Experience score",
            "Mean score from 0 to 1. A score of 0 is left out: the API sends it also where there is none.",
            q.mean("experience_score", scope=q.AGENT),
            SCORE,
            width=3,
        ),
        number("Processors", "Utilization of its processors. Red above 90 %.", PROCESSORS, CPU, width=3),
        number("Memory", "Share of its memory that is used. Red above 95 %.", FULL, MEMORY, width=3),
        number(
            "Last session", "Time since the newest round with a session.", f"time() - max({ROUND})", SECONDS, width=3
        ),
        number(
            "Last seen",
            "Time since it last reported; updated with the names.",
            f"time() - max({SEEN})",
            SECONDS,
            width=3,
        ),
    ]


def _both() -> list[object]:
    panel = lines(
        "Latency beside processors and memory",
        "Left: its mean round-trip time, and that of all others at the sites that it visits. Right: how full its "
        "processors and its memory are.",
        {
            "latency": MEAN["latency_seconds"],
            "others, same sites": LATENCY_OF_OTHERS,
            "CPU": PROCESSORS,
            "memory": FULL,
        },
        LATENCY,
        width=24,
        height=10,
    )
    panel = panel.override_by_name("latency", [colour(PALETTE["latency"]), set_value("custom.lineWidth", 2)])
    panel = panel.override_by_name("others, same sites", [colour(GREY), DASHED, UNFILLED])
    panel = panel.override_by_name("CPU", [colour("orange"), *on_the_right("percentunit", 1, "CPU and memory")])
    return [panel.override_by_name("memory", [colour("purple"), *on_the_right("percentunit", 1, "CPU and memory")])]


def _by_site() -> list[object]:
    return [
        *(
            linked(
                lines(
                    f"{title} by site",
                    f"{what} at each site that it visits. The dashed line is the limit of the alert.",
                    {"{{site}}": q.mean(family, "site", q.AGENT)},
                    measure,
                ),
                series_to_site(),
            )
            for title, what, family, measure in (
                ("Latency", "Round-trip time", "latency_seconds", LATENCY),
                ("Loss", "Share of lost packets", "loss_ratio", LOSS),
                ("Jitter", "Jitter", "jitter_seconds", JITTER),
            )
        ),
        lines(
            "On the way",
            "Round-trip time to the site, and to the VPN gateway or proxy before it, where it uses one. Only API v7 "
            "tells.",
            {
                "latency": MEAN["latency_seconds"],
                "VPN": q.mean("vpn_latency_seconds", scope=q.AGENT),
                "proxy": q.mean("proxy_latency_seconds", scope=q.AGENT),
            },
            LATENCY,
        ),
    ]


def _visited() -> object:
    return rows(
        "Sites visited",
        "The sites that it visited within the look-back, by how long ago. Click on a site to open it.",
        [
            Column("Site", label="site", link=to_site()),
            Column("Last visit", expr=f"time() - max by (site) ({ROUND})", measure=SECONDS, width=120),
            Column("Sessions", expr=f"sum by (site) ({q.endpoint('sessions', q.AGENT)})", width=80),
            Column("Pages", expr=f"sum by (site) ({q.endpoint('pages', q.AGENT)})", width=70),
            Column("Latency", expr=q.mean("latency_seconds", "site", q.AGENT), measure=LATENCY, width=90),
            Column("Loss", expr=q.mean("loss_ratio", "site", q.AGENT), measure=LOSS, width=80),
            Column("Jitter", expr=q.mean("jitter_seconds", "site", q.AGENT), measure=JITTER, width=80),
            Column("Score", expr=q.mean("experience_score", "site", q.AGENT), measure=SCORE, width=70),
        ],
        sort="Last visit",
        ascending=True,
        width=24,
        height=9,
    )


def _known() -> object:
    return rows(
        "What is known of it",
        "What the list of agents tells; updated twice an hour. Empty where the token may not list agents.",
        [
            Column("Name", label="agent_name"),
            Column("Location", label="location"),
            Column("Platform", label="platform"),
            Column("System", label="os_version"),
            Column("Agent version", label="agent_version"),
            Column("Account group", label="aid"),
            Column("Id", label="agent"),
            Column("Info", expr=INFO, hidden=True),
        ],
        height=4,
    )
