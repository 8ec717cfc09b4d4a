"""The exporter's own metrics: which there are, with which labels, and from where they count."""

import errno
import platform
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import PROCESS_COLLECTOR
from prometheus_client.parser import text_string_to_metric_families
from servers import ask, exporting, simulated

from exporter import __version__
from exporter import telemetry as room
from exporter.api.budget import RateLimit
from exporter.errors import REASONS, REJECTIONS
from exporter.exposition import Format
from exporter.simulator import World
from exporter.telemetry import Telemetry

ROUTES = ("/v7/sessions", "/v7/networks")
CODES = {"200", "400", "401", "403", "404", "429", "500", "502", "503", "error"}
# What a user may rely on: name without `thousandeyes_exporter_` → type and labels.
FAMILIES = {
    "build_info": ("gauge", {"version", "python"}),
    "polls_total": ("counter", {"aid"}),
    "poll_failures_total": ("counter", {"aid", "reason"}),
    "polls_skipped_total": ("counter", {"aid"}),
    "last_poll_timestamp_seconds": ("gauge", {"aid"}),
    "last_poll_success_timestamp_seconds": ("gauge", {"aid"}),
    "last_poll_duration_seconds": ("gauge", {"aid"}),
    "poll_interval_seconds": ("gauge", set()),
    "newest_round_timestamp_seconds": ("gauge", {"aid"}),
    "sessions": ("gauge", {"aid", "state"}),
    "session_commit_delay_seconds": ("histogram", {"aid"}),
    "records_rejected_total": ("counter", {"aid", "reason"}),
    "api_requests_total": ("counter", {"route", "code"}),
    "api_request_duration_seconds": ("histogram", {"route"}),
    "api_retries_total": ("counter", {"reason"}),
    "api_rate_limit_requests": ("gauge", set()),
    "api_rate_limit_remaining_requests": ("gauge", set()),
    "api_rate_limit_reset_timestamp_seconds": ("gauge", set()),
    "series": ("gauge", set()),
    "series_limit": ("gauge", set()),
    "series_dropped": ("gauge", set()),
    "snapshot_size_bytes": ("gauge", set()),
    "config_last_reload_successful": ("gauge", set()),
}
REASONS_OF_THE_CONTRACT = {
    "dns", "connect", "tls", "timeout", "reset", "protocol", "auth", "forbidden", "not_found", "rate_limited",
    "server_error", "maintenance", "redirect", "proxy", "content_type", "too_large", "decompress", "json", "schema",
    "pagination_origin", "pagination_loop", "pagination_limit", "deadline", "internal",
}  # fmt: skip
REJECTIONS_OF_THE_CONTRACT = {
    "missing_id", "missing_field", "bad_type", "non_finite", "out_of_range", "bad_time", "bad_label", "filtered",
}  # fmt: skip

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(telemetry: Telemetry) -> Samples:
    """Return every sample by name and labels; the common prefix is left out."""
    return {
        (sample.name.removeprefix("thousandeyes_exporter_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(telemetry.render(Format.TEXT))
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return samples(telemetry).get((name, frozenset(labels.items())))


def labels_of(telemetry: Telemetry, aid: str) -> set[str]:
    """Return the names of all samples of an account group."""
    return {name for name, labels in samples(telemetry) if ("aid", aid) in labels}


@pytest.fixture
def telemetry() -> Telemetry:
    made = Telemetry(process=False)
    made.configured(60.0, 5000, ROUTES)
    made.watch("7")
    return made


def full(telemetry: Telemetry) -> None:
    """Have everything happen once."""
    telemetry.polled("7", 1000.0, 2.5, None)
    telemetry.stored("7", {"joined": 5, "user_only": 2, "network_only": 1}, 960)
    telemetry.rejected("7", Counter({"bad_type": 3}))
    telemetry.committed("7", [1.0, 30.0])
    telemetry.skipped("7")


async def test_every_family_of_an_exporter_is_there_with_its_type_and_labels() -> None:
    async with simulated(World(agents=20, sites=4)) as (_, api), exporting(api) as (_, address):
        text = (await ask(f"{address}/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["thousandeyes_up"].type == "gauge"
    assert [(sample.labels, sample.value) for sample in families["thousandeyes_up"].samples] == [({"aid": "1001"}, 1.0)]
    ours = {name.removeprefix("thousandeyes_exporter_"): it for name, it in families.items() if "_exporter_" in name}
    found = {
        name + "_total" * (family.type == "counter"): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for name, family in ours.items()
    }
    assert found == FAMILIES
    assert {name.partition("_")[0] for name in families} == {"thousandeyes", "process", "python"}
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info"} <= families.keys()
    routes = {sample.labels["route"] for sample in ours["api_requests"].samples}
    assert routes == {
        "/v7/account-groups",
        "/v7/endpoint/agents",
        "/v7/endpoint/test-results/real-user-tests/filter",
        "/v7/endpoint/test-results/real-user-tests/networks/filter",
    }


def test_closed_label_values_start_at_zero(telemetry: Telemetry) -> None:
    found = samples(telemetry)

    def values(name: str, label: str) -> set[str]:
        """The values of a label, all of whose samples are 0."""
        chosen = {dict(labels)[label]: number for (sample, labels), number in found.items() if sample == name}
        assert set(chosen.values()) == {0.0}
        return set(chosen)

    assert values("poll_failures_total", "reason") == REASONS_OF_THE_CONTRACT
    assert values("records_rejected_total", "reason") == REJECTIONS_OF_THE_CONTRACT
    assert values("api_requests_total", "code") == CODES
    assert values("api_requests_total", "route") == set(ROUTES)
    assert values("api_request_duration_seconds_count", "route") == set(ROUTES)
    assert values("api_retries_total", "reason") <= REASONS_OF_THE_CONTRACT
    assert {"server_error", "timeout", "rate_limited"} <= values("api_retries_total", "reason")
    for name in ("polls_total", "polls_skipped_total", "session_commit_delay_seconds_count"):
        assert values(name, "aid") == {"7"}
    assert (set(REASONS), set(REJECTIONS)) == (REASONS_OF_THE_CONTRACT, REJECTIONS_OF_THE_CONTRACT)


def test_what_is_not_known_yet_is_absent(telemetry: Telemetry) -> None:
    assert labels_of(telemetry, "7").isdisjoint(
        {
            "last_poll_timestamp_seconds",
            "last_poll_success_timestamp_seconds",
            "newest_round_timestamp_seconds",
            "sessions",
        }
    )
    assert value(telemetry, "thousandeyes_up", aid="7") == 0.0


def test_the_settings_and_the_versions_are_shown(telemetry: Telemetry) -> None:
    assert value(telemetry, "poll_interval_seconds") == 60.0
    assert value(telemetry, "series_limit") == 5000.0
    assert value(telemetry, "build_info", version=__version__, python=platform.python_version()) == 1.0
    assert value(telemetry, "config_last_reload_successful") == 1.0
    telemetry.reloaded("web", successful=False)
    assert value(telemetry, "config_last_reload_successful") == 0.0


def test_a_complete_poll_and_a_failed_one(telemetry: Telemetry) -> None:
    full(telemetry)
    assert value(telemetry, "thousandeyes_up", aid="7") == 1.0
    assert value(telemetry, "last_poll_success_timestamp_seconds", aid="7") == 1000.0
    telemetry.polled("7", 1060.0, 0.5, "tls")
    assert value(telemetry, "thousandeyes_up", aid="7") == 0.0
    assert value(telemetry, "polls_total", aid="7") == 2.0
    assert value(telemetry, "poll_failures_total", aid="7", reason="tls") == 1.0
    assert value(telemetry, "last_poll_timestamp_seconds", aid="7") == 1060.0
    assert value(telemetry, "last_poll_success_timestamp_seconds", aid="7") == 1000.0
    assert value(telemetry, "last_poll_duration_seconds", aid="7") == 0.5
    assert value(telemetry, "newest_round_timestamp_seconds", aid="7") == 960.0
    assert value(telemetry, "sessions", aid="7", state="user_only") == 2.0
    assert value(telemetry, "records_rejected_total", aid="7", reason="bad_type") == 3.0
    assert value(telemetry, "session_commit_delay_seconds_sum", aid="7") == 31.0
    assert value(telemetry, "polls_skipped_total", aid="7") == 1.0


def test_the_newest_round_stays_when_no_session_is_left(telemetry: Telemetry) -> None:
    full(telemetry)
    telemetry.stored("7", {"joined": 0, "user_only": 0, "network_only": 0}, None)
    assert value(telemetry, "newest_round_timestamp_seconds", aid="7") == 960.0
    assert value(telemetry, "sessions", aid="7", state="joined") == 0.0


def test_an_account_group_that_is_no_longer_polled_leaves_nothing(telemetry: Telemetry) -> None:
    telemetry.watch("8")
    before = labels_of(telemetry, "8")
    full(telemetry)
    telemetry.unwatch("7")
    assert labels_of(telemetry, "7") == set()
    assert labels_of(telemetry, "8") == before
    telemetry.unwatch("7")
    telemetry.unwatch("never seen")
    telemetry.watch("7")
    assert value(telemetry, "polls_total", aid="7") == 0.0


def test_requests_retries_and_the_size_of_the_snapshot_are_counted(telemetry: Telemetry) -> None:
    telemetry.request(ROUTES[0], "200", 0.2)
    telemetry.request(ROUTES[0], "418", 0.2)
    telemetry.retry("timeout")
    telemetry.published(10, 2, 3000)
    assert value(telemetry, "api_requests_total", route=ROUTES[0], code="200") == 1.0
    assert value(telemetry, "api_requests_total", route=ROUTES[0], code="418") == 1.0
    assert value(telemetry, "api_request_duration_seconds_count", route=ROUTES[0]) == 2.0
    assert value(telemetry, "api_request_duration_seconds_bucket", route=ROUTES[0], le="0.25") == 2.0
    assert value(telemetry, "api_retries_total", reason="timeout") == 1.0
    shown = [value(telemetry, name) for name in ("series", "series_dropped", "snapshot_size_bytes")]
    assert shown == [10.0, 2.0, 3000.0]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (RateLimit(), {}),
        (RateLimit(limit=240.0), {"requests": 240.0}),
        (RateLimit(240.0, 0.0, 1e9), {"requests": 240.0, "remaining_requests": 0.0, "reset_timestamp_seconds": 1e9}),
    ],
    ids=["nothing", "only-the-limit", "everything"],
)
def test_of_the_rate_limit_only_what_the_api_told_is_shown(told: RateLimit, shown: dict[str, float]) -> None:
    telemetry = Telemetry(lambda: told, process=False)
    prefix = "api_rate_limit_"
    found = {name.removeprefix(prefix): it for (name, _), it in samples(telemetry).items() if name.startswith(prefix)}
    assert found == shown


def test_metrics_of_the_process_are_left_to_others_where_wished() -> None:
    alone, shared = (Telemetry(process=process).render(Format.TEXT) for process in (True, False))
    for prefix in ("process_", "python_"):
        assert f"\n{prefix}" in alone
        assert prefix not in shared.replace("python=", "")


def test_the_process_is_told_of_as_every_exporter_does() -> None:
    room._PROCESS.look()
    ours, theirs = (
        {family.name: family for family in collector.collect()} for collector in (room._PROCESS, PROCESS_COLLECTOR)
    )
    assert ours.keys() == theirs.keys()
    near = {"process_virtual_memory_bytes": 0.01, "process_resident_memory_bytes": 0.01, "process_cpu_seconds": 0.05}
    for name, family in theirs.items():
        (sample,), (expected,) = ours[name].samples, family.samples
        assert (ours[name].type, ours[name].documentation) == (family.type, family.documentation)
        assert (sample.name, sample.labels) == (expected.name, expected.labels)
        if name == "process_open_fds":
            assert abs(sample.value - expected.value) <= 2  # to look into the folder takes one
        else:
            assert sample.value == pytest.approx(expected.value, rel=near.get(name, 0.0))


def test_descriptors_are_counted_one_by_one_on_older_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Older(type(tmp_path)):  # type: ignore[misc]
        def stat(self, **_: Any) -> Any:
            return SimpleNamespace(st_size=0)

    for number in range(7):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(room, "_DESCRIPTORS", Older(tmp_path))
    assert "\nprocess_open_fds 7.0\n" in Telemetry().render(Format.TEXT)


def test_where_no_file_can_be_opened_all_other_metrics_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(type(Path())):  # type: ignore[misc]
        def stat(self, **_: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(room, "_DESCRIPTORS", Refused("/proc/self/fd"))
    text = Telemetry().render(Format.TEXT)
    assert "process_" not in text
    assert "thousandeyes_exporter_build_info" in text


def test_systems_that_can_not_be_asked_have_no_metrics_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROCESS_COLLECTOR, "_btime", 0)
    monkeypatch.setattr(room, "_PROCESS", room._Process())
    text = Telemetry().render(Format.TEXT)
    assert "process_" not in text
    assert "python_info" in text


@pytest.mark.parametrize("format_", Format)
def test_nothing_is_dated_or_created_and_openmetrics_ends(telemetry: Telemetry, format_: Any) -> None:
    full(telemetry)
    text = telemetry.render(format_)
    assert "_created" not in text
    assert text.endswith("# EOF\n") == (format_ is Format.OPENMETRICS)
    assert all(
        len(line.rpartition("}")[2].split()) == 1 for line in text.splitlines() if "}" in line and line[0] != "#"
    )
