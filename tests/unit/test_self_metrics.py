"""The exporter's own metrics."""

import platform

from factories import parse

from exporter import __version__
from exporter.errors import REASONS, REJECTION_REASONS
from exporter.metrics.exposition import Format
from exporter.metrics.self_metrics import OrganizationLimits, SelfMetrics

ROUTES = ("/v7/sessions", "/v7/agents")
CODES = ("200", "400", "401", "403", "404", "429", "500", "502", "503", "error")


def filled(*aids: str) -> SelfMetrics:
    """Return metrics with at least one series of each family."""
    metrics = SelfMetrics(process=False)
    metrics.initialize_api(ROUTES, ["timeout", "dns"])
    metrics.poll_interval.labels("sessions").set(1)
    metrics.rate_limit = OrganizationLimits(limit=240.0, remaining=0.0, reset=1e9)
    for aid in aids:
        metrics.initialize(aid, "sessions")
        metrics.session_commit_delay.labels(aid).observe(1)
        metrics.sessions.labels(aid, "joined").set(1)
        for name in ("last_poll_timestamp", "last_poll_duration", "newest_round"):
            getattr(metrics, name).labels(aid, "sessions").set(1)
    return metrics


def samples(metrics, format_=Format.TEXT):
    return parse(metrics.render(format_), format_, "thousandeyes_exporter_")


def test_both_formats_have_the_same_samples_and_no_creation_times():
    found = samples(filled("7"))
    assert samples(filled("7"), Format.OPENMETRICS) == found
    versions = frozenset({("version", __version__), ("python", platform.python_version())})
    assert found["build_info", versions] == 1.0
    assert not [name for name, _ in found if name.endswith("_created") or "python_" in name]
    assert "python_info" in SelfMetrics().render(Format.TEXT)


def test_closed_label_values_start_at_zero():
    closed = {
        "polls_total": ("source", ["sessions"]),
        "poll_failures_total": ("reason", REASONS),
        "records_rejected_total": ("reason", REJECTION_REASONS),
        "api_requests_total": ("code", CODES),
        "api_request_duration_seconds_count": ("route", ROUTES),
        "api_retries_total": ("reason", ["timeout", "dns"]),
    }
    found = samples(filled("7"))
    for name, (label, expected) in closed.items():
        series = {dict(labels)[label]: value for (n, labels), value in found.items() if n == name}
        assert series == dict.fromkeys(expected, 0.0)


def test_a_removed_account_group_leaves_no_series():
    metrics = filled("7", "8")
    metrics.remove("7")
    assert samples(metrics) == samples(filled("8"))


def test_absent_rate_limit_values_have_no_sample():
    metrics = filled()
    for limits in (OrganizationLimits(remaining=0.0), OrganizationLimits()):
        metrics.rate_limit = limits
        found = {n: value for (n, _), value in samples(metrics).items() if "api_rate_limit" in n}
        remaining = {"api_rate_limit_remaining_requests": limits.remaining}
        assert found == (remaining if limits.remaining is not None else {})
