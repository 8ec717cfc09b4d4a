"""The dashboard *Exporter*: whether it works, and how close it is to a limit."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import queries as q
from grafana.parts import (
    AGE,
    ALERTS,
    BYTES,
    COUNT,
    DASHED,
    RATIO,
    SECONDS,
    UNFILLED,
    Column,
    Measure,
    account_group,
    board,
    data_source,
    instance,
    lines,
    note,
    number,
    rising,
    rows,
    yes_no,
)
from grafana.queries import PROCESS, a_minute, grown, own

OWN = 'site="", agent=""'
"""The alerts about the exporter are of no site and of no agent."""
LEFT = own("api_rate_limit_remaining_requests", PROCESS)
GRANTED = own("api_rate_limit_requests", PROCESS)
REFUSED_REQUESTS = own("api_requests_total", f'{PROCESS}, code="429"')
UNMATCHED = rising("percentunit", q.UNMATCHED_LIMIT / 2, q.UNMATCHED_LIMIT, decimals=1)
FULL = rising("percentunit", 0.8, 0.95, decimals=1)
SCARCE = Measure("percentunit", (("red", None), ("yellow", 0.1), ("green", 0.25)), high=1)
MANY_REFUSED = rising("none", 1, 10)

NOTE = """
From left to right: it runs, it polls, what it has is new. When polls
fail, the reason is in the first graph below. A long gap between the newest round and now means late commits: compare
the commit delay with the setting `poll.overlap`. Many sessions without a partner mean that one listing is incomplete.
"""


def dashboard() -> Dashboard:
    """Return it."""
    return board(
        "exporter",
        "ThousandEyes / Exporter",
        "The exporter itself: does it work, and how close is it to a limit.",
        [data_source(), instance(), account_group()],
        [
            note("Does it work, and how close is it to a limit?", NOTE),
            *_numbers(),
            *_polls(),
            *_requests(),
            *_sessions(),
            *_size(),
            *_process(),
            _alerts(),
        ],
        alert_scope=OWN,
    )


def _numbers() -> list[object]:
    newest = own("newest_round_timestamp_seconds")
    return [
        number("Exporter", "Whether Prometheus can scrape it.", f"min(up{{{PROCESS}}})", yes_no("up", "down")),
        number(
            "Last poll",
            "Whether the last poll was complete, in every account group.",
            f"min(thousandeyes_up{{{q.GROUPS}}})",
            yes_no("good", "failed"),
        ),
        number(
            "Age of the data",
            "Time since the last complete poll, of the account group that is furthest behind. Red: alert.",
            f"clamp_min(max(time() - {own('last_poll_success_timestamp_seconds')}), 0)",
            AGE,
        ),
        number(
            "Age of the newest round",
            "Time since the newest round of any session. Older than a few minutes while polls are complete: nobody "
            "visits anything, or sessions are committed late.",
            f"max(time() - {newest})",
            rising("s", 300, 900),
        ),
        number(
            "Requests left",
            "Share of the organization's requests that is left in this minute; all its programs use it up. Alert below "
            "10 %.",
            f"min({LEFT} / {GRANTED})",
            SCARCE,
        ),
        number(
            "Refused requests",
            "Answers 429 in the time range: the organization asks more than it may.",
            f"round(sum(increase({REFUSED_REQUESTS}[$__range])))",
            MANY_REFUSED,
        ),
        number(
            "Sessions without a partner",
            "Share of the sessions that are in only one of the two listings. Alert above 20 %.",
            f"max({q.UNMATCHED})",
            UNMATCHED,
        ),
        number(
            "Series, of the limit",
            "Series of the per-session metrics as a share of `metrics.max_series`. At 100 % new ones are folded.",
            f"max({own('series', PROCESS)} / {own('series_limit', PROCESS)})",
            FULL,
        ),
        number(
            "Series folded",
            "Series that had no room and are counted under `__other__`.",
            f"max({own('series_dropped', PROCESS)})",
            ALERTS,
        ),
        number(
            "Settings",
            "Whether the settings were last read without error; if not, the ones before are in force.",
            f"min({own('config_last_reload_successful', PROCESS)})",
            yes_no("good", "refused"),
        ),
        number(
            "Alerts that fire",
            "Alerts of this project about the exporter itself.",
            f"count({q.firing(OWN)}) or vector(0)",
            ALERTS,
        ),
        number(
            "Version",
            "Version of the exporter. Two names: two exporters differ.",
            f"count by (version) ({own('build_info', PROCESS)})",
            name="{{version}}",
        ),
    ]


def _polls() -> list[object]:
    interval = f"max({own('poll_interval_seconds', PROCESS)})"
    took = lines(
        "Duration of polls",
        "How long the last poll took, by account group. Longer than the interval (dashed), and the next "
        "one is left out.",
        {"{{aid}}": f"max by (aid) ({own('last_poll_duration_seconds')})", "interval": interval},
        SECONDS,
        width=8,
    )
    return [
        lines(
            "Polls that failed",
            "Polls that failed by reason, and polls that were left out. Empty is good.",
            {
                "{{reason}}": grown(own("poll_failures_total"), "reason"),
                "left out": f"sum(increase({own('polls_skipped_total')}[$__rate_interval])) > 0",
            },
            COUNT,
            width=8,
            bars=True,
        ),
        took.override_by_name("interval", [DASHED, UNFILLED]),
        lines(
            "Age of the data",
            "Time since the last complete poll and since the newest round, by account group.",
            {
                "poll {{aid}}": f"clamp_min(max by (aid) (time() - {own('last_poll_success_timestamp_seconds')}), 0)",
                "round {{aid}}": f"max by (aid) (time() - {own('newest_round_timestamp_seconds')})",
            },
            AGE,
            width=8,
        ),
    ]


def _requests() -> list[object]:
    requests = own("api_requests_total", PROCESS)
    seconds = own("api_request_duration_seconds_bucket", PROCESS)
    return [
        lines(
            "Requests a minute",
            "Requests to the API by the code of the answer; `error` is no answer. Only codes that occurred.",
            {"{{code}}": a_minute(requests, "code", " > 0")},
            COUNT,
            width=6,
        ),
        lines(
            "Requests sent again",
            "Requests that were sent again after an error, by what had gone wrong. Empty is good.",
            {"{{reason}}": grown(own("api_retries_total", PROCESS), "reason")},
            COUNT,
            width=6,
            bars=True,
        ),
        lines(
            "Requests left, and refused",
            "What the API grants the organization in a minute, what was left of it, and the answers 429.",
            {
                "granted": f"max({GRANTED})",
                "left": f"min({LEFT})",
                "429 a minute": f"60 * sum(rate({REFUSED_REQUESTS}[$__rate_interval]))",
            },
            COUNT,
            width=6,
        ),
        lines(
            "Duration of requests",
            "95th percentile of the time until a request was answered, by route.",
            {"{{route}}": q.quantile(0.95, seconds, "route")},
            SECONDS,
            width=6,
        ),
    ]


def _sessions() -> list[object]:
    delay = own("session_commit_delay_seconds_bucket")
    return [
        lines(
            "Sessions inside the look-back",
            "By what was joined: user session and network session, or one of them alone.",
            {"{{state}}": f"sum by (state) (max by (aid, state) ({own('sessions')}))"},
            COUNT,
            width=6,
        ),
        lines(
            "Sessions without a partner",
            "Share of the sessions that are in only one of the two listings, by account group. The dashed line is the "
            "limit of the alert.",
            {"{{aid}}": q.UNMATCHED},
            UNMATCHED,
            width=6,
        ),
        lines(
            "Commit delay",
            "From a session to its commit. Where p95 comes near `poll.overlap`, sessions are missed: raise it.",
            {"p50": q.quantile(0.5, delay), "p95": q.quantile(0.95, delay)},
            SECONDS,
            width=6,
        ),
        lines(
            "Records not taken in",
            "Records of the API that were rejected or filtered out, by reason.",
            {"{{reason}}": grown(own("records_rejected_total"), "reason")},
            COUNT,
            width=6,
            bars=True,
        ),
    ]


def _size() -> list[object]:
    series = lines(
        "Series and their limit",
        "Series of the per-session metrics, the limit (dashed), and what was folded for it.",
        {
            "series": f"max({own('series', PROCESS)})",
            "limit": f"max({own('series_limit', PROCESS)})",
            "folded": f"max({own('series_dropped', PROCESS)})",
        },
        COUNT,
        width=8,
    )
    return [
        series.override_by_name("limit", [DASHED, UNFILLED]),
        lines(
            "Size of an answer",
            "Size of the text that a scrape gets, before compression.",
            {"{{instance}}": own("snapshot_size_bytes", PROCESS)},
            BYTES,
            width=8,
        ),
        lines(
            "Duration of scrapes",
            "How long Prometheus took to fetch and read it.",
            {"{{instance}}": f"scrape_duration_seconds{{{PROCESS}}}"},
            SECONDS,
            width=8,
        ),
    ]


def _process() -> list[object]:
    return [
        lines(
            "Memory",
            "Resident memory of the exporter.",
            {"{{instance}}": f"process_resident_memory_bytes{{{PROCESS}}}"},
            BYTES,
            width=8,
        ),
        lines(
            "CPU",
            "Share of one processor that the exporter uses.",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{PROCESS}}}[$__rate_interval])"},
            RATIO,
            width=8,
        ),
        lines(
            "Open files",
            "Open files and connections of the exporter, as a share of what the system allows.",
            {"{{instance}}": f"process_open_fds{{{PROCESS}}} / process_max_fds{{{PROCESS}}}"},
            RATIO,
            width=8,
        ),
    ]


def _alerts() -> object:
    return rows(
        "Alerts that fire",
        "Alerts of this project about the exporter itself. Empty is good.",
        [
            Column("Alert", label="alertname"),
            Column("Severity", label="severity"),
            Column("Account group", label="aid"),
            Column("Count", expr=f"count by (alertname, severity, aid) ({q.firing(OWN)})"),
        ],
        height=6,
    )
