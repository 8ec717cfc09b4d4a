"""PromQL expressions that several panels use.

Histories and the tables of the worst agents are drawn from recording rules, whose number of series
does not grow with the agents; single sites and single agents are from the series of the exporter.

Means over agents are weighted by sessions and ignore sessions without a value. Both operands come
from the same scrape and therefore match on all labels. Replicas that export the same series do not
change a mean; counts use `max` or `count` over the labels of what is counted.
"""

PREFIX = "thousandeyes_endpoint_"
EXPORTER_PREFIX = "thousandeyes_exporter_"

# Thresholds of the alerts, in seconds and ratios.
LATENCY_THRESHOLD, LOSS_THRESHOLD, JITTER_THRESHOLD = 0.3, 0.05, 0.05
CPU_THRESHOLD, MEMORY_THRESHOLD = 0.9, 0.95
UNMATCHED_THRESHOLD = 0.2
GATEWAY_THRESHOLD, VPN_THRESHOLD, DNS_THRESHOLD = 0.05, 0.15, 0.2
WIFI_THRESHOLD = -80  # dBm
STALE_WARNING_SECONDS = 150  # two and a half polls at the default interval
STALE_SECONDS = 600

# Label matchers for the dashboard variables.
GROUPS = 'aid=~"$aid"'
SITES = f'{GROUPS}, site=~"$site"'
SELECTED = f'{SITES}, protocol=~"$protocol"'
SELECTED_AGENTS = f'{SELECTED}, agent!="__other__"'  # without series folded by the series limit
ONE_AGENT = f'{SELECTED}, agent="$agent"'
SELECTED_INSTANCES = 'instance=~"$instance"'
SELECTED_GROUPS = f'{SELECTED_INSTANCES}, aid=~"$aid"'
SESSIONS_SOURCE = f'{SELECTED_GROUPS}, source="sessions"'

ONE_INFO = f"aid_agent:{PREFIX}agent_info:name{{{GROUPS}}}"
"""One series per agent, even if replicas export it or its labels have just changed."""


def endpoint(metric: str, matchers: str = SELECTED) -> str:
    """Select a metric of endpoint agents by its short name."""
    return f"{PREFIX}{metric}{{{matchers}}}"


def exporter(metric: str, matchers: str = SELECTED_GROUPS) -> str:
    """Select a metric of the exporter itself by its short name."""
    return f"{EXPORTER_PREFIX}{metric}{{{matchers}}}"


def recorded(level: str, metric: str, operation: str, matchers: str = GROUPS) -> str:
    """Select a series of the recording rules."""
    return f"{level}:{PREFIX}{metric}:{operation}{{{matchers}}}"


def recorded_mean(metric: str, by: str = "", matchers: str = SITES) -> str:
    """Mean over agents by site or of several sites."""
    value = recorded("aid_site", metric, "avg", matchers)
    count = recorded("aid_site", metric, "count", matchers)
    total = f"sum by ({by})" if by else "sum"
    return f"{total} ({value} * {count}) / {total} ({count})"


def agent_mean(metric: str) -> str:
    """Select the means of all agents over all their sites."""
    return recorded("aid_agent", metric, "avg")


def _valid(metric: str, matchers: str) -> str:
    """Select a metric without invalid values: the API sends a score of 0 if it has none."""
    selector = endpoint(metric, matchers)
    return f"({selector} > 0)" if metric == "experience_score" else selector


def mean(metric: str, by: str = "", matchers: str = SELECTED) -> str:
    """Mean over agents and sites, weighted by sessions."""
    value, weights = _valid(metric, matchers), endpoint("sessions", matchers)
    total = f"sum by ({by})" if by else "sum"
    return f"{total} ({value} * {weights}) / {total} ({weights} and {value})"


def mean_by_info(metric: str, label: str) -> str:
    """Weighted mean by a label of the agent's info series."""
    value, weights = endpoint(metric), endpoint("sessions")
    join = f"on (aid, agent) group_left ({label}) {ONE_INFO}"
    total = f"sum by ({label})"
    return f"{total} ({value} * {weights} * {join}) / {total} (({weights} and {value}) * {join})"


def with_info(expr: str) -> str:
    """Join agent name, platform and location to series by agent, if they are known."""
    join = "on (aid, agent) group_left (agent_name, platform, location)"
    return f"{expr} * {join} {ONE_INFO} or on (aid, agent) {expr}"


def target(metric: str, type_: str, matchers: str = GROUPS) -> str:
    """Select a metric of the probes of one type of target: gateway, vpn, proxy or dns."""
    return endpoint(f"local_network_{metric}", f'{matchers}, target_type="{type_}"')


def connection_count(label: str, matchers: str = GROUPS) -> str:
    """Number of agents by a label of their connection: connection, isp or vpn."""
    count = recorded(f"aid_{label}", "agent_connection_info", "count", matchers)
    return f"sum by ({label}) ({count})"


def connection_mean(metric: str, label: str, matchers: str = GROUPS) -> str:
    """Mean over agents by a label of their connection."""
    value = recorded(f"aid_{label}", metric, "avg", matchers)
    count = recorded(f"aid_{label}", "agent_connection_info", "count", matchers)
    return f"sum by ({label}) ({value} * {count}) / sum by ({label}) ({count} and {value})"


def named(expr: str, label: str) -> str:
    """Show `none` instead of an empty label."""
    return f'label_replace({expr}, "{label}", "none", "{label}", "")'


def worst(series: str, label: str, function: str = "topk") -> str:
    """Select ten recorded series, by the worst mean over the time range."""
    mean_ = f"avg by ({label}) (avg_over_time({series}[$__range] @ end()))"
    return f"avg by ({label}) ({series}) and on ({label}) {function}(10, {mean_})"


def quantile(level: float, buckets: str, by: str = "") -> str:
    """Quantile of a histogram, given the selector of its buckets."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({level}, sum by ({labels}) (rate({buckets}[$__rate_interval])))"


def distribution(metric: str) -> str:
    """Sessions per minute by bucket, each session once."""
    rate = f"rate({endpoint(f'site_{metric}_bucket', GROUPS)}[$__rate_interval])"
    return f"60 * sum by (le) (max by (aid, site, protocol, le) ({rate}))"


def site_quantile(level: float, metric: str) -> str:
    """Quantile over all sessions at the selected sites."""
    return quantile(level, endpoint(f"site_{metric}_bucket"))


def per_minute(counter: str, by: str) -> str:
    """Rate per minute of a counter by a label, without zeros."""
    return f"60 * sum by ({by}) (rate({counter}[$__rate_interval])) > 0"


def increase(counter: str, by: str) -> str:
    """Increase of a counter by a label, without zeros."""
    return f"sum by ({by}) (increase({counter}[$__rate_interval])) > 0"


def sessions(function: str, window: str, matchers: str = SELECTED) -> str:
    """Number of sessions, each counted once: their `rate` or `increase` over a window."""
    counter = f"{endpoint('site_sessions_total', matchers)}[{window}]"
    return f"sum(max by (aid, site, protocol) ({function}({counter})))"


def data_age(matchers: str, by: str = "") -> str:
    """Seconds since the last complete poll, of the account group that is furthest behind."""
    oldest = f"max by ({by}) " if by else "max"
    success = exporter("last_poll_success_timestamp_seconds", matchers)
    return f"clamp_min({oldest}(time() - {success}), 0)"


def firing(matchers: str) -> str:
    """Firing alerts of this project."""
    suffix = f", {matchers}" if matchers else ""
    return f'ALERTS{{alertname=~"ThousandEyes.*", alertstate="firing"{suffix}}}'


AGENTS = f"count(count by (aid, agent) ({endpoint('sessions', SELECTED_AGENTS)}))"
THRESHOLDS = {
    "latency_seconds": LATENCY_THRESHOLD,
    "loss_ratio": LOSS_THRESHOLD,
    "jitter_seconds": JITTER_THRESHOLD,
}
AFFECTED_AGENTS = " or ".join(
    f"{mean(metric, 'aid, agent', SELECTED_AGENTS)} > {threshold}"
    for metric, threshold in THRESHOLDS.items()
)
AFFECTED = f"(count({AFFECTED_AGENTS}) or vector(0))"


def over_threshold(level: str, matchers: str = GROUPS) -> dict[str, str]:
    """Number of agents over a threshold by quantity, from the recording rules."""
    return {
        metric.split("_")[0]: f"sum({recorded(level, metric, 'over', matchers)}) or vector(0)"
        for metric in THRESHOLDS
    }


UNMATCHED_SESSIONS = exporter("sessions", f'{SELECTED_GROUPS}, state!="joined"')
UNMATCHED = f"sum by (aid) ({UNMATCHED_SESSIONS}) / sum by (aid) ({exporter('sessions')})"
"""Share of the sessions that are in only one of the two listings."""
