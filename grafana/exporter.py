"""The dashboard *Exporter*: health of the exporter, and its distance from limits."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dashboards as d
from grafana import queries as q
from grafana.panels import (
    ALERT_COUNT,
    BYTES,
    COUNT,
    DASHED,
    DATA_AGE,
    GREEN,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Panel,
    Quantity,
    flag,
    lower_is_better,
    stat,
    table,
    text,
    timeseries,
)

ALERTS = 'site="", agent="", location="", vpn=""'
"""Alerts on the exporter have neither a site nor an agent."""
INSTANCES = q.SELECTED_INSTANCES
NEWEST_ROUND = q.exporter("newest_round_timestamp_seconds", q.SESSIONS_SOURCE)

LIMIT = q.exporter("api_rate_limit_requests", INSTANCES)
REMAINING = q.exporter("api_rate_limit_remaining_requests", INSTANCES)
REQUESTS = q.exporter("api_requests_total", INSTANCES)
REJECTED_REQUESTS = q.exporter("api_requests_total", f'{INSTANCES}, code="429"')

UNMATCHED = lower_is_better(
    "percentunit", q.UNMATCHED_THRESHOLD / 2, q.UNMATCHED_THRESHOLD, decimals=1
)
SERIES_SHARE = lower_is_better("percentunit", 0.8, 0.95, decimals=1)
RATE_LIMIT_SHARE = Quantity("percentunit", ((RED, None), (YELLOW, 0.1), (GREEN, 0.25)), max=1)

INTRO = """
From left to right: the exporter runs, it polls, its data is current. If polls fail, the first graph
shows the reason. If the newest round is old although polls are complete, sessions are committed
late: compare the commit delay with `poll.overlap`. Many unmatched sessions mean that one of the two
listings is incomplete.
"""


def dashboard() -> Dashboard:
    """Build the dashboard."""
    return d.build(
        "exporter",
        "ThousandEyes / Exporter",
        "The exporter itself: does it work, and how close is it to its limits?",
        variables=[d.data_source(), d.instance(), d.account_group()],
        intro=text("Does it work, and how close is it to its limits?", INTRO),
        rows={
            "Overview": _overview(),
            "Polls": _polls(),
            "API requests": _requests(),
            "Sessions": _sessions(),
            "Exposition": _exposition(),
            "Process": _process(),
            "Alerts": [_alerts()],
        },
        alerts=ALERTS,
    )


def _overview() -> list[Panel]:
    series, limit = q.exporter("series", INSTANCES), q.exporter("series_limit", INSTANCES)

    def polls(title: str, source: str, consequence: str = "") -> Panel:
        up = f'thousandeyes_up{{instance=~"$instance", aid=~"$aid", source="{source}"}}'
        description = "Whether the last poll was complete, in all account groups."
        return stat(title, description + consequence, f"min({up})", flag("OK", "failed"), width=3)

    return [
        stat(
            "Exporter",
            "Whether Prometheus can scrape it.",
            f"min(up{{{INSTANCES}}})",
            flag("up", "down"),
            width=3,
        ),
        polls("Polls of sessions", "sessions"),
        polls("Polls of agents", "agents", " Without it, agent names are missing."),
        polls(
            "Polls of local networks",
            "local_networks",
            " Without it, gateways, VPNs, Wi-Fi and DNS are missing. API v7.",
        ),
        stat(
            "Data age",
            "Time since the last complete poll of sessions, for the account group that is "
            "furthest behind. Red: alert.",
            q.data_age(q.SESSIONS_SOURCE),
            DATA_AGE,
            width=3,
        ),
        stat(
            "Newest round",
            "Time since the newest measurement round. If it is old although polls are complete, "
            "there are no visits or sessions are committed late.",
            f"max(time() - {NEWEST_ROUND})",
            lower_is_better("s", 300, 900),
            width=3,
        ),
        stat(
            "Unmatched sessions",
            "Share of the sessions that are in only one of the two listings. Alert above 20%.",
            f"max({q.UNMATCHED})",
            UNMATCHED,
            width=3,
        ),
        stat(
            "Firing alerts",
            "Firing ThousandEyes alerts on the exporter itself.",
            f"count({q.firing(ALERTS)}) or vector(0)",
            ALERT_COUNT,
            width=3,
        ),
        stat(
            "Rate limit remaining",
            "Remaining share of the organization's requests in this minute; all API clients share "
            "it. Alert at 10%.",
            f"min({REMAINING} / {LIMIT})",
            RATE_LIMIT_SHARE,
            width=5,
        ),
        stat(
            "429 responses",
            "Requests in the time range that exceeded the rate limit.",
            f"round(sum(increase({REJECTED_REQUESTS}[$__range])))",
            lower_is_better("none", 1, 10),
            width=5,
        ),
        stat(
            "Series (% of limit)",
            "Per-session series as a share of metrics.max_series. At 100%, new series are folded.",
            f"max({series} / {limit})",
            SERIES_SHARE,
            width=5,
        ),
        stat(
            "Folded or dropped series",
            "Series over the limit: those of sessions are folded into agent and site `__other__`, "
            "all others are dropped.",
            f"max({q.exporter('series_dropped', INSTANCES)})",
            ALERT_COUNT,
            width=5,
        ),
        stat(
            "Version",
            "Version of the exporter; two versions mean that instances differ.",
            f"count by (version) ({q.exporter('build_info', INSTANCES)})",
            legend="{{version}}",
        ),
    ]


def _polls() -> list[Panel]:
    skipped = q.exporter("polls_skipped_total")
    duration = q.exporter("last_poll_duration_seconds")
    interval = q.exporter("poll_interval_seconds", f'{INSTANCES}, source="sessions"')
    return [
        timeseries(
            "Failed polls",
            "Failed polls by source and reason, and skipped polls. Normally empty.",
            {
                "{{source}}: {{reason}}": q.increase(
                    q.exporter("poll_failures_total"), "source, reason"
                ),
                "{{source}}: skipped": q.increase(skipped, "source"),
            },
            COUNT,
            width=8,
            height=10,
            bars=True,
        ),
        timeseries(
            "Poll duration",
            "Duration of the last poll by account group and source. If polls of sessions exceed "
            "their interval (dashed), the next one is skipped.",
            {
                "{{aid}} {{source}}": f"max by (aid, source) ({duration})",
                "interval": f"max({interval})",
            },
            SECONDS,
            width=8,
            height=10,
        ).override_by_name("interval", DASHED),
        timeseries(
            "Data age",
            "Time since the last complete poll of sessions and since the newest round, by account "
            "group.",
            {
                "poll {{aid}}": q.data_age(q.SESSIONS_SOURCE, "aid"),
                "round {{aid}}": f"max by (aid) (time() - {NEWEST_ROUND})",
            },
            DATA_AGE,
            width=8,
            height=10,
        ),
    ]


def _requests() -> list[Panel]:
    duration = q.exporter("api_request_duration_seconds_bucket", INSTANCES)
    return [
        timeseries(
            "Requests per minute",
            "API requests by status code; `error` means no response.",
            {"{{code}}": q.per_minute(REQUESTS, "code")},
            COUNT,
            width=6,
            height=10,
        ),
        timeseries(
            "Retries",
            "Retried API requests by reason. Normally empty.",
            {"{{reason}}": q.increase(q.exporter("api_retries_total", INSTANCES), "reason")},
            COUNT,
            width=6,
            height=10,
            bars=True,
        ),
        timeseries(
            "Rate limit: remaining and 429s",
            "Requests per minute granted to the organization, remaining requests, and 429 "
            "responses.",
            {
                "limit": f"max({LIMIT})",
                "remaining": f"min({REMAINING})",
                "429 per minute": f"60 * sum(rate({REJECTED_REQUESTS}[$__rate_interval]))",
            },
            COUNT,
            width=6,
            height=10,
        ),
        timeseries(
            "Request duration",
            "95th percentile by route.",
            {"{{route}}": q.quantile(0.95, duration, "route")},
            SECONDS,
            width=6,
            height=10,
        ),
    ]


def _sessions() -> list[Panel]:
    delay = q.exporter("session_commit_delay_seconds_bucket")
    rejected = f"increase({q.exporter('records_rejected_total')}[$__rate_interval])"
    rejected = f"max by (aid, source, reason) ({rejected})"
    return [
        timeseries(
            "Sessions in the look-back window",
            "By join state: user session and network session joined, or only one of them.",
            {"{{state}}": f"sum by (state) (max by (aid, state) ({q.exporter('sessions')}))"},
            COUNT,
            width=6,
        ),
        timeseries(
            "Unmatched sessions",
            "Share of the sessions that are in only one of the two listings, by account group. "
            "Dashed: alert threshold.",
            {"{{aid}}": q.UNMATCHED},
            UNMATCHED,
            width=6,
        ),
        timeseries(
            "Commit delay",
            "Time from a session to its commit. If p95 approaches `poll.overlap`, sessions are "
            "missed: raise it.",
            {"p50": q.quantile(0.5, delay), "p95": q.quantile(0.95, delay)},
            SECONDS,
            width=6,
        ),
        timeseries(
            "Rejected records",
            "API records that were invalid or filtered, by source and reason; those that several "
            "instances read count once.",
            {
                "{{source}}: {{reason}}": f"sum by (source, reason) ({rejected}) > 0",
            },
            COUNT,
            width=6,
            bars=True,
        ),
    ]


def _exposition() -> list[Panel]:
    return [
        timeseries(
            "Series and limit",
            "Per-session series, the limit metrics.max_series (dashed), and the series folded by "
            "the limit.",
            {
                "series": f"max({q.exporter('series', INSTANCES)})",
                "limit": f"max({q.exporter('series_limit', INSTANCES)})",
                "folded": f"max({q.exporter('series_dropped', INSTANCES)})",
            },
            COUNT,
            width=8,
        ).override_by_name("limit", DASHED),
        timeseries(
            "Exposition size",
            "Size of a scrape before compression.",
            {"{{instance}}": q.exporter("snapshot_size_bytes", INSTANCES)},
            BYTES,
            width=8,
        ),
        timeseries(
            "Scrape duration",
            "Time that Prometheus takes to scrape the exporter.",
            {"{{instance}}": f"scrape_duration_seconds{{{INSTANCES}}}"},
            SECONDS,
            width=8,
        ),
    ]


def _process() -> list[Panel]:
    return [
        timeseries(
            "Memory",
            "Resident memory of the process.",
            {"{{instance}}": f"process_resident_memory_bytes{{{INSTANCES}}}"},
            BYTES,
            width=8,
        ),
        timeseries(
            "CPU",
            "CPU usage of the process; 100% is one core.",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{INSTANCES}}}[$__rate_interval])"},
            RATIO,
            width=8,
        ),
        timeseries(
            "Open files",
            "Open file descriptors as a share of the limit.",
            {"{{instance}}": f"process_open_fds{{{INSTANCES}}} / process_max_fds{{{INSTANCES}}}"},
            RATIO,
            width=8,
        ),
    ]


def _alerts() -> Panel:
    return table(
        "Firing alerts",
        "Firing ThousandEyes alerts on the exporter itself. Normally empty.",
        [
            Column("Alert", label="alertname"),
            Column("Severity", label="severity"),
            Column("Account group", label="aid"),
            Column("Count", expr=f"count by (alertname, severity, aid) ({q.firing(ALERTS)})"),
        ],
        height=6,
    )
