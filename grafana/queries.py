"""The PromQL of the dashboards: means that are weighted, quantiles from histograms, and names joined to numbers.

What is shown where stands in the file of each dashboard.

A mean over agents weighs each value by the sessions behind it, and leaves out the sessions that have no value. Both
sides of such an operation come from one scrape, so they match on all labels. Two exporters that publish the same do not
disturb a mean, and what counts things takes one of them, by `max` or `count` over the labels of the thing.
"""

ENDPOINT = "thousandeyes_endpoint_"
EXPORTER = "thousandeyes_exporter_"

LATENCY_LIMIT, LOSS_LIMIT, JITTER_LIMIT = 0.3, 0.05, 0.05
"""Above these people suffer: seconds, ratio, seconds. The alerts of this project have the same limits."""
CPU_LIMIT, MEMORY_LIMIT = 0.9, 0.95
UNMATCHED_LIMIT = 0.2
STALE = 150
"""Seconds: two and a half polls in the default interval."""
STALE_FOR_LONG = 600

FLEET = 'aid=~"$aid", site=~"$site", protocol=~"$protocol"'
"""What the variables select, for everything with a site."""
PEOPLE = f'{FLEET}, agent!="__other__"'
"""The same without what has no series of its own, and so is nobody."""
AGENT = f'{FLEET}, agent="$agent"'
OTHERS = f'{FLEET}, agent!="$agent"'
GROUPS = 'instance=~"$instance", aid=~"$aid"'
"""What the variables of the dashboard of the exporter select."""
PROCESS = 'instance=~"$instance"'

ONE_INFO = f'topk by (aid, agent) (1, {ENDPOINT}agent_info{{aid=~"$aid"}})'
"""One info series an agent, also where two exporters publish it, or it has just changed."""


def endpoint(family: str, scope: str = FLEET) -> str:
    """Return the selector of a family of sessions, by its short name."""
    return f"{ENDPOINT}{family}{{{scope}}}"


def own(family: str, scope: str = GROUPS) -> str:
    """Return the selector of a metric of the exporter itself, by its short name."""
    return f"{EXPORTER}{family}{{{scope}}}"


def _known(family: str, scope: str = FLEET) -> str:
    """Return the selector of a family without values that mean nothing: the API sends 0 for a score that it lacks."""
    selector = endpoint(family, scope)
    return f"({selector} > 0)" if family == "experience_score" else selector


def mean(family: str, by: str = "", scope: str = FLEET, *, weight: str = "sessions", only: str = "") -> str:
    """Return the mean of a family over agents and sites, weighted; `only` narrows down both sides, as `and …` does."""
    value, sessions = _known(family, scope), endpoint(weight, scope)
    over = f"sum by ({by})" if by else "sum"
    if only:
        return f"{over} ({value} * {sessions} {only}) / {over} ({sessions} and {value} {only})"
    return f"{over} ({value} * {sessions}) / {over} ({sessions} and {value})"


def mean_by_info(family: str, label: str) -> str:
    """Return the weighted mean of a family by a label that the agent's info has."""
    value, sessions = endpoint(family), endpoint("sessions")
    join = f"on (aid, agent) group_left ({label}) {ONE_INFO}"
    return f"sum by ({label}) ({value} * {sessions} * {join}) / sum by ({label}) (({sessions} and {value}) * {join})"


def named(expression: str) -> str:
    """Join the name, platform and location to series by agent; where nothing is known of it, the id has to do."""
    info = "on (aid, agent) group_left (agent_name, platform, location)"
    return f"{expression} * {info} {ONE_INFO} or on (aid, agent) {expression}"


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return a quantile of a histogram, given as a selector of its buckets."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}[$__rate_interval])))"


def site_quantile(share: float, histogram: str) -> str:
    """Return a quantile over all sessions at the selected sites."""
    return quantile(share, endpoint(f"{histogram}_bucket"))


def a_minute(counter: str, by: str, kept: str = "") -> str:
    """Return how much a counter of the exporter grows in a minute, by a label."""
    return f"60 * sum by ({by}) (rate({counter}[$__rate_interval])){kept}"


def grown(counter: str, by: str) -> str:
    """Return by how much a counter grew, where it did."""
    return f"sum by ({by}) (increase({counter}[$__rate_interval])) > 0"


AGENTS = f"count(count by (aid, agent) ({endpoint('sessions', PEOPLE)}))"
AGENTS_BY_SITE = f"count by (site) (count by (aid, site, agent) ({endpoint('sessions', PEOPLE)}))"
SUFFERING = {
    "latency": f"{mean('latency_seconds', 'aid, agent', PEOPLE)} > {LATENCY_LIMIT}",
    "loss": f"{mean('loss_ratio', 'aid, agent', PEOPLE)} > {LOSS_LIMIT}",
    "jitter": f"{mean('jitter_seconds', 'aid, agent', PEOPLE)} > {JITTER_LIMIT}",
}
"""The agents that are above a limit, by which."""
AFFECTED = f"(count({' or '.join(SUFFERING.values())}) or vector(0))"


def sessions(function: str, window: str, by: str = "", at: str = "") -> str:
    """Return how many sessions there were, each counted once: their `rate` or `increase` in a window of time.

    `at` is a modifier of the time at which the window ends.
    """
    counted = f"max by (aid, site, protocol) ({function}({endpoint('site_sessions_total')}[{window}]{at}))"
    return f"sum by ({by}) ({counted})" if by else f"sum({counted})"


_UNMATCHED = own("sessions", f'{GROUPS}, state=~"user_only|network_only"')
UNMATCHED = f"sum by (aid) ({_UNMATCHED}) / sum by (aid) ({own('sessions')})"
"""Share of the sessions that are only in one of the two listings."""

FIRING = 'ALERTS{alertname=~"ThousandEyes.*", alertstate="firing"'


def firing(scope: str) -> str:
    """Return the alerts that fire, by further matchers."""
    return f"{FIRING}{', ' + scope if scope else ''}}}"
