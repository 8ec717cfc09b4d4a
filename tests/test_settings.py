"""Settings: what is accepted, what is refused and with which words, and that no secret is in any of them."""

import json
import math
import re
import ssl
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from exporter import settings as room
from exporter import values
from exporter.errors import SettingsError
from exporter.settings import Loaded, Settings, load, read_agent_names_key, read_token, reference, split
from exporter.values import ListenAddress, read_duration, written_duration

CANARY = "canary-7Yh3kQ"
TOKEN = ["--api.token", CANARY]
DOCS = {doc.name: doc for doc in reference()}
FAMILIES = ("thousandeyes_endpoint_latency_seconds", "thousandeyes_endpoint_loss_ratio")


def problems(argv=(), environ=(), families=()) -> list[str]:
    """What is wrong, of which no part is the secret."""
    with pytest.raises(SettingsError) as caught:
        load(argv, dict(environ), families)
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)
    return list(caught.value.problems)


def accepted(*argv: str, **environ: str) -> Settings:
    return load([*TOKEN, *argv], environ).settings


@pytest.fixture
def file(tmp_path):
    """Write a file and give its name."""

    def write(content: str | bytes, name: str = "exporter.yml", mode: int = 0o600) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return str(path)

    return write


# The contract


def test_the_defaults_are_those_of_the_contract():
    assert {doc.name: doc.default for doc in reference()} == {
        "api.url": "https://api.thousandeyes.com",
        "api.version": "v7",
        "api.token": "",
        "api.token_file": "",
        "api.email": "",
        "api.account_groups": "",
        "api.timeout": "30s",
        "api.ca_file": "",
        "api.proxy": "",
        "api.requests_per_minute": "120",
        "api.allow_insecure": "false",
        "poll.interval": "1m",
        "poll.lookback": "15m",
        "poll.overlap": "5m",
        "filter.include_sites": "",
        "filter.exclude_sites": "",
        "filter.include_agents": "",
        "filter.exclude_agents": "",
        "filter.include_protocols": "",
        "filter.search": "",
        "metrics.site_groups": "",
        "metrics.families": "all",
        "metrics.max_series": "500000",
        "metrics.agent_names": "plain",
        "metrics.agent_names_key": "",
        "metrics.agent_names_key_file": "",
        "web.listen_address": ":9350",
        "web.telemetry_path": "/metrics",
        "web.config_file": "",
        "web.max_requests": "40",
        "log.level": "info",
        "log.format": "logfmt",
        "simulator.listen_address": "127.0.0.1:9351",
        "simulator.token": "demo",
        "simulator.agents": "200",
        "simulator.sites": "20",
        "simulator.page_size": "1000",
        "simulator.seed": "1",
        "simulator.faults": "",
    }


def test_every_setting_has_a_flag_a_variable_and_a_description():
    for doc in (*reference(), room.CONFIG_FILE):
        assert doc.flag == "--" + doc.name.replace("_", "-")
        assert doc.variable == "THOUSANDEYES_" + doc.name.upper().replace(".", "_")
        assert re.fullmatch(r"[A-Z].+\.", doc.description), doc


def test_settings_can_not_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().poll.interval = 1.0


def test_settings_made_without_load_read_no_environment(monkeypatch):
    monkeypatch.setenv("API", '{"email": "someone@example.com"}')
    monkeypatch.setenv("THOUSANDEYES_API_EMAIL", "someone@example.com")
    assert Settings() == load(["demo"], {}).settings


# Layers


def test_flag_beats_variable_beats_file_beats_default_setting_by_setting(file):
    path = file("poll: {interval: 11s, overlap: 12s, lookback: 13m}\napi: {email: a@example.com, version: v6}\n")
    loaded = load(
        [*TOKEN, "--config.file", path, "--poll.interval=31s"],
        {"THOUSANDEYES_POLL_INTERVAL": "21s", "THOUSANDEYES_POLL_OVERLAP": "22s"},
    )
    assert loaded.settings.poll == room.PollSettings(interval="31s", overlap="22s", lookback="13m")
    assert loaded.settings.api.email == "a@example.com"
    assert {name: origin for name, origin in loaded.origins.items() if origin != "default"} == {
        "api.token": "--api.token",
        "api.email": f"{path}:2:7",
        "api.version": f"{path}:2:29",
        "poll.interval": "--poll.interval",
        "poll.overlap": "THOUSANDEYES_POLL_OVERLAP",
        "poll.lookback": f"{path}:1:37",
    }


def test_the_file_can_be_named_by_a_variable_and_a_flag_beats_it(file):
    one, two = file("poll: {interval: 1s}", "one.yml"), file("poll: {interval: 2s}", "two.yml")
    assert accepted(THOUSANDEYES_CONFIG_FILE=one).poll.interval == 1
    assert accepted("--config.file", two, THOUSANDEYES_CONFIG_FILE=one).poll.interval == 2


def test_the_token_has_a_short_variable_too():
    assert read_token(load([], {"THOUSANDEYES_TOKEN": "one"}).settings) == "one"
    assert read_token(load([], {"THOUSANDEYES_TOKEN": "one", "THOUSANDEYES_API_TOKEN": "one"}).settings) == "one"
    assert problems([], {"THOUSANDEYES_TOKEN": CANARY, "THOUSANDEYES_API_TOKEN": CANARY + "2"}) == [
        "THOUSANDEYES_API_TOKEN, THOUSANDEYES_TOKEN: hold different tokens; set only one of them"
    ]


def test_what_is_shown_has_values_as_written_and_origins_but_no_secrets(file):
    path = file("filter: {include_sites: ['a{1,3}', '[b]'], search: {platform: [mac]}}\npoll: {lookback: 90m}")
    argv = ["--config.file", path, *TOKEN, "--api.proxy", f"http://u:{CANARY}@proxy:1", "--web.listen-address=[::1]:0"]
    loaded = load(
        [*argv, "--metrics.site-groups", '[{"pattern": "x.*", "name": "é"}]'], {"THOUSANDEYES_LOG_LEVEL": "warn"}
    )
    shown = {name: (value, origin) for name, value, origin in loaded.shown()}
    assert list(shown) == list(DOCS)
    assert shown["api.url"] == ("https://api.thousandeyes.com", "default")
    assert shown["api.token"] == ("<secret>", "--api.token")
    assert shown["api.proxy"] == ("<secret>", "--api.proxy")
    assert shown["api.email"] == ("", "default")
    assert shown["api.allow_insecure"] == ("false", "default")
    assert shown["poll.lookback"] == ("1h30m", f"{path}:2:8")
    assert shown["filter.include_sites"] == ('["a{1,3}", "[b]"]', f"{path}:1:10")
    assert shown["filter.search"] == ('{"platform": ["mac"]}', f"{path}:1:44")
    assert shown["metrics.site_groups"] == ('[{"pattern": "x.*", "name": "é"}]', "--metrics.site-groups")
    assert shown["web.listen_address"] == ("[::1]:0", "--web.listen-address")
    assert shown["log.level"] == ("warn", "THOUSANDEYES_LOG_LEVEL")
    assert CANARY not in repr(loaded)
    assert CANARY not in repr(loaded.shown())


NAMES = st.from_regex(r"[a-z][a-z0-9.,\"'\\ é-]{0,9}[a-z]", fullmatch=True)
PATTERNS = st.lists(NAMES.map(re.escape), max_size=3)
SETTINGS = st.one_of(
    st.tuples(st.just("poll.interval"), st.integers(1000, 3_600_000).map(lambda it: written_duration(it / 1000))),
    st.tuples(st.just("api.requests_per_minute"), st.integers(1, 10_000)),
    st.tuples(st.just("api.allow_insecure"), st.booleans()),
    st.tuples(st.just("api.email"), st.sampled_from(["a@example.com", "0123@null.true"])),
    st.tuples(
        st.just("api.account_groups"), st.lists(st.integers(1, 99_999), unique=True, min_size=1) | st.just("all")
    ),
    st.tuples(st.just("filter.include_sites"), PATTERNS),
    st.tuples(st.just("filter.search"), st.dictionaries(st.sampled_from(["domain", "agentId"]), st.lists(NAMES))),
    st.tuples(
        st.just("metrics.site_groups"),
        st.lists(st.fixed_dictionaries({"pattern": PATTERNS.map("|".join), "name": NAMES})),
    ),
    st.tuples(st.just("web.listen_address"), st.sampled_from([":9350", "localhost:0", "[::1]:65535", "0.0.0.0:80"])),
)


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@given(SETTINGS)
@budget(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_value_means_the_same_as_flag_as_variable_and_in_the_file(tmp_path, setting):
    name, value = setting
    group, field = name.split(".")
    base = ["--api.version=v6", "--poll.lookback=24h", *TOKEN]
    path = tmp_path / "exporter.yml"
    path.write_text(yaml.safe_dump({group: {field: value}}, allow_unicode=True))
    by_flag = load([*base, f"{DOCS[name].flag}={as_text(value)}"], {})
    by_variable = load(base, {DOCS[name].variable: as_text(value)})
    by_file = load([*base, "--config.file", str(path)], {})
    assert by_flag.settings == by_variable.settings == by_file.settings
    again = {
        DOCS[each].variable: shown for each, shown, origin in by_file.shown() if origin.startswith(str(path)) and shown
    }
    assert load(base, again).settings == by_file.settings


# The command line


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ([], "serve", [])),
        (["check"], ([], "check", [])),
        (
            ["--poll.interval", "1m", "--log.level=debug"],
            ([("--poll.interval", "1m"), ("--log.level", "debug")], "serve", []),
        ),
        (["--api.token", "-x", "once", "--output", "f"], ([("--api.token", "-x")], "once", ["--output", "f"])),
        (["--api.token=--x=y", "once", "--help"], ([("--api.token", "--x=y")], "once", ["--help"])),
        (["--api.token="], ([("--api.token", "")], "serve", [])),
        (["--api.token", "--log.level=x"], ([("--api.token", None), ("--log.level", "x")], "serve", [])),
        (["--api.token"], ([("--api.token", None)], "serve", [])),
        (["--log.level=x", "--help", "y"], ([("--log.level", "x")], "help", ["y"])),
        (["-h"], ([], "help", [])),
        (["--version"], ([], "version", [])),
    ],
)
def test_a_command_line_is_flags_of_settings_then_a_command_then_the_rest(argv, expected):
    assert split(argv) == expected


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--poll.intervall", "1m"], 'unknown flag "--poll.intervall"; did you mean "--poll.interval"?'),
        (["--api.token_file=x"], 'unknown flag "--api.token_file"; did you mean "--api.token-file"?'),
        ([f"--api.tokn={CANARY}"], 'unknown flag "--api.tokn"; did you mean "--api.token"?'),
        (["-x"], 'unknown flag "-x"'),
        (["--log.level"], "--log.level: needs a value"),
        (["--log.level=info", "--log.level", "warn"], "--log.level: stands twice"),
        (["chek"], 'unknown command "chek"; did you mean "check"? (there are serve, demo, simulate, once, check)'),
        (
            ["once", "--log.level=info"],
            "--log.level: stands after the command once; flags of the settings stand before it",
        ),
        ([CANARY], "unknown command (there are serve, demo, simulate, once, check)"),
    ],
)
def test_a_wrong_command_line_is_told_with_what_would_be_right(argv, problem):
    assert problems([*argv], {"THOUSANDEYES_TOKEN": "x"}) == [problem]


# Variables


@pytest.mark.parametrize(
    "variable",
    [
        "THOUSANDEYES_EXPORTER_SERVICE_HOST=10.0.0.1",
        "THOUSANDEYES_EXPORTER_SERVICE_PORT=9350",
        "THOUSANDEYES_EXPORTER_SERVICE_PORT_METRICS=9350",
        "THOUSANDEYES_EXPORTER_PORT=tcp://10.0.0.1:9350",
        "THOUSANDEYES_EXPORTER_PORT_9350_TCP=tcp://10.0.0.1:9350",
        "THOUSANDEYES_EXPORTER_PORT_9350_TCP_PROTO=tcp",
        "THOUSANDEYES_EXPORTER_PORT_9350_TCP_PORT=9350",
        "THOUSANDEYES_EXPORTER_PORT_9350_TCP_ADDR=10.0.0.1",
        "THOUSANDEYES_SERVICE_HOST=10.0.0.1",
        "THOUSANDEYES_PORT=udp://10.0.0.1:9350",
        "THOUSANDEYESX=1",
        "PATH=/bin",
    ],
)
def test_variables_that_kubernetes_or_others_set_are_not_ours(variable):
    name, _, value = variable.partition("=")
    assert load(TOKEN, {name: value}).settings == load(TOKEN, {}).settings


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("THOUSANDEYES_API_URI", 'unknown variable "THOUSANDEYES_API_URI"; did you mean "THOUSANDEYES_API_URL"?'),
        ("THOUSANDEYES_WEB_PORT", 'unknown variable "THOUSANDEYES_WEB_PORT"'),
        ("THOUSANDEYES_", 'unknown variable "THOUSANDEYES_"'),
    ],
)
def test_a_misspelt_variable_names_itself_and_its_nearest_neighbour(name, problem):
    (found,) = problems(TOKEN, {name: CANARY})
    assert found.startswith(problem)


@pytest.mark.parametrize("name", [*DOCS, "config.file"], ids=str)
@pytest.mark.fault("C17")
def test_an_empty_value_is_an_error_that_names_it(name, file):
    doc = DOCS.get(name, room.CONFIG_FILE)
    for argv, environ, label in (
        ([], {doc.variable: ""}, doc.variable),
        ([f"{doc.flag}="], {}, doc.flag),
    ):
        found = problems(["demo"] if not argv else [*argv, "demo"], environ)
        assert len(found) == 1
        assert found[0].startswith(f"{label}: ")
    if name in DOCS:
        group, field = name.split(".")
        for nothing in ("", " ~", " null", ' ""'):
            path = file(f"{group}:\n  {field}:{nothing}\n")
            assert problems(["--config.file", path, "demo"]) == [
                f"{path}:2:3: {name}: is empty; leave it out for the default"
            ]


# The file


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "---\n", "api:\n", "api: {}\n", "~", "\ufeff"], ids=repr)
def test_a_file_without_settings_sets_nothing(content, file):
    assert accepted("--config.file", file(content)) == accepted()


BOMB = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


# Id, content, and what is said of it.
# fmt: off
REFUSED_FILES = [
    ("key", "api:\n  tokn: x\n", '2:3: unknown setting "api.tokn"; did you mean "api.token"?'),
    ("group", "pol: {interval: 1s}\n", '1:7: unknown setting "pol.interval"; did you mean "poll.interval"?'),
    ("top", "interval: 1s\n", '1:1: unknown setting "interval"; did you mean "poll.interval"?'),
    ("list-for-group", "api: [x]\n", '1:1: unknown setting "api"; did you mean "api.url"?'),
    ("no-space", "api: {token:s3cr3t}", "1:7: this is the name of no setting; is a space missing behind its colon?"),
    ("no-include", "config: {file: x}\n", '1:10: unknown setting "config.file"; did you mean "web.config_file"?'),
    ("complex-key", "? [a]\n: b\n", "1:3: a name is expected"),
    ("duplicate", "api:\n  url: https://a\n  url: https://b\n", "3:3: this name stands twice in its group"),
    ("duplicate-group", "log: {}\nlog: {}\n", "2:1: this name stands twice in its group"),
    ("tab", "api:\n\turl: https://a\n", "2:1: found character '\\t' that cannot start any token"),
    ("list", "- api\n", "1:1: settings are expected by group, such as poll: and in it interval: 1m"),
    ("text", "token\n", "1:1: settings are expected by group, such as poll: and in it interval: 1m"),
    ("documents", "log: {}\n---\nlog: {}\n", "2:1: but found another document"),
    ("alias-bomb", BOMB, "1:4: anchors and aliases are not accepted"),
    ("alias", "api: {url: *x}\n", "1:12: anchors and aliases are not accepted"),
    ("python", "log: !!python/object/apply:os.system ['true']\n", "1:6: tags are not accepted"),
    ("tag", "log: {level: !!str info}\n", "1:14: tags are not accepted"),
    ("deep", "log: " + "[" * 100_000, "1:13: nested too deeply"),
    ("open", "log: {level: info\n", "2:1: expected ',' or '}', but got '<stream end>'"),
    ("utf8", b"log:\n  level: \xff\n", "2:10: not UTF-8"),
    ("control", "log:\n  level: \x00\n", "2:10: a control character is not accepted"),
    ("secret-tag", f"api: {{token: !{CANARY}!x y}}\n", "1:14: found undefined tag handle …"),
    ("secret-alias", f"api: {{token: *{CANARY}}}\n", "1:14: anchors and aliases are not accepted"),
]
# fmt: on


@pytest.mark.parametrize(
    ("content", "found"), [pytest.param(content, found, id=f"C01-{each}") for each, content, found in REFUSED_FILES]
)
@pytest.mark.fault("C01")
def test_a_file_is_refused_with_line_and_column(content, found, file):
    path = file(content)
    began = time.perf_counter()
    assert problems(["--config.file", path, *TOKEN]) == [f"{path}:{found}"]
    assert time.perf_counter() - began < 10, "a hostile file costs no time"


@pytest.mark.fault("C01")
def test_an_alias_bomb_takes_no_memory(file):
    path = file(BOMB)
    tracemalloc.start()
    problems(["--config.file", path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.fault("C01")
def test_c01_a_file_that_can_not_be_read_or_is_too_large_is_refused(file, tmp_path):
    large = file(b"#" * 10_000_000)
    missing = str(tmp_path / "missing.yml")
    assert problems(["--config.file", large, "demo"]) == [f"--config.file: {large} is larger than 1000000 bytes"]
    assert problems(["--config.file", missing, "demo"]) == [
        f"--config.file: {missing} can not be read: No such file or directory"
    ]
    assert problems(["demo"], {"THOUSANDEYES_CONFIG_FILE": str(tmp_path)}) == [
        f"THOUSANDEYES_CONFIG_FILE: {tmp_path} can not be read: Is a directory"
    ]


def test_what_yaml_would_take_for_something_else_stays_as_it_is_written(file):
    path = file("filter: {search: {ssid: [no, 1.0, 2026-11-21, 12:30:45, 0x1f, ~x]}}\n")
    ssids = ("no", "1.0", "2026-11-21", "12:30:45", "0x1f", "~x")
    assert accepted("--config.file", path).filter.search == {"ssid": ssids}


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.text("{}[]:,-?&*!|>'\"%@` \n#apiurl", max_size=80).map(str.encode)
)
@budget(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_as_a_file_are_settings_or_a_settings_error(tmp_path, content):
    path = tmp_path / "exporter.yml"
    path.write_bytes(content)
    try:
        assert isinstance(load(["--config.file", str(path), "demo"], {}), Loaded)
    except SettingsError as error:
        found = error.problems
        assert all(re.match(r".*exporter\.yml:\d+:\d+: .", each) for each in found)


# Values


# fmt: off
DURATIONS = [
    ("1s", 1), ("30s", 30), ("5m", 300), ("1h", 3600), ("1m30s", 90), ("1500ms", 1.5), ("1s500ms", 1.5), ("60m", 3600),
]
NO_DURATIONS = [
    "0", "0s", "-1", "-1s", "1ms", "10y", "5", "NaN", "inf", "1.5m", "1e3s", "61m", "1 m", "m", "1s1m",
    "٣s", "9" * 5000 + "s",
]
# fmt: on


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_written_as_prometheus_writes_it(text, seconds):
    assert accepted("--poll.interval", text, "--poll.lookback", "1d").poll.interval == seconds


@pytest.mark.parametrize("text", NO_DURATIONS, ids=lambda text: text[:9])
@pytest.mark.fault("C03")
def test_an_interval_that_is_no_duration_or_out_of_range_is_refused_with_the_range(text):
    (problem,) = problems([*TOKEN, f"--poll.interval={text}"])
    assert problem.startswith("--poll.interval: must be a duration from 1s to 1h, such as 30s, 5m or 1h30m, got ")
    assert len(problem) < 200


def test_no_overlap_needs_no_unit():
    assert accepted("--poll.overlap=0").poll.overlap == 0


@given(st.integers(0, 10**15))
@example(0)
def test_a_duration_that_is_written_and_read_is_the_same(milliseconds):
    assert read_duration(written_duration(milliseconds / 1000)) == milliseconds / 1000


def test_what_is_no_duration_is_nan():
    assert math.isnan(read_duration(""))


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        ("a{1,3},b{2,},c", ["a{1,3}", "b{2,}", "c"]),
        ("[a-z]+,b", ["[a-z]+", "b"]),
        ("[a-z]", ["[a-z]"]),
        ('["a,b", "\\\\d"]', ["a,b", r"\d"]),
        ("[]", []),
        ("[1, 2]", ["1", "2"]),
    ],
)
def test_a_list_of_patterns_is_json_or_separated_by_commas(text, patterns):
    assert [pattern.pattern for pattern in accepted("--filter.include-sites", text).filter.include_sites] == patterns


# fmt: off
ACCEPTED = [
    ("api.version", "v6", "v6"),
    ("api.account_groups", "all", "all"),
    ("api.account_groups", "59, 60", ("59", "60")),
    ("api.account_groups", "[59, 60]", ("59", "60")),
    ("api.account_groups", '["59"]', ("59",)),
    ("api.url", "https://api.eu.thousandeyes.com/", "https://api.eu.thousandeyes.com"),
    ("api.url", "https://192.0.2.1:8443", "https://192.0.2.1:8443"),
    ("api.url", "http://127.0.0.1:9351", "http://127.0.0.1:9351"),
    ("api.url", "http://localhost:9351/", "http://localhost:9351"),
    ("api.url", "http://[::1]:9351", "http://[::1]:9351"),
    ("api.allow_insecure", "true", True),
    ("metrics.families", "none", "none"),
    ("metrics.families", ",".join(FAMILIES), FAMILIES),
    ("metrics.agent_names", "off", "off"),
    ("web.listen_address", ":0", ListenAddress(None, 0)),
    ("web.listen_address", "exporter.example:80", ListenAddress("exporter.example", 80)),
    ("web.listen_address", "[::]:9350", ListenAddress("::", 9350)),
    ("web.telemetry_path", "/thousandeyes/metrics", "/thousandeyes/metrics"),
    ("simulator.faults", "server_error=0.2,rate_limited@10m+5m", ("server_error=0.2", "rate_limited@10m+5m")),
    ("filter.search", '{"domain": "a.com,b.com", "platform": ["mac"]}',
     {"domain": ("a.com", "b.com"), "platform": ("mac",)}),
]
# fmt: on


@pytest.mark.parametrize(("name", "text", "expected"), ACCEPTED)
def test_a_value_is_accepted(name, text, expected):
    group, field = name.split(".")
    assert getattr(getattr(load([*TOKEN, DOCS[name].flag, text], {}, FAMILIES).settings, group), field) == expected


# Setting, what is said of it, and the texts that it is said of.
# fmt: off
REFUSED = [
    ("api.url", "must be an address such as https://api.thousandeyes.com, with nothing after the host and port",
     "x", "//x", "ftp://x", "https://", "https://x/y", "https://x?", "https://x#", "https://x?a=https://x", "https://x:0",
     "https://x:99999", "https://x y", "https://[::1", "https://x\n", "https://ü", "https://x<y"),
    ("api.url", "must not hold a user or a password", f"https://me:{CANARY}@x", f"https://{CANARY}@x/v7"),
    ("api.url", "must be without a version: that is api.version", "https://x/v7", "https://x/v6/"),
    ("api.version", "must be 'v7' or 'v6', got \"7\"", "7"),
    ("api.allow_insecure", "must be true or false, got \"", "yes", "True", "1"),
    ("api.requests_per_minute", "must be a whole number from 1 to 10000, got \"",
     "0", "10001", "1.0", "-1", "1e3", "٣", " 1"),
    ("api.email", "must be an e-mail address", "me", "a@b@c", "a:b@c", "a b@c"),
    ("api.account_groups", "must be all, or a list of account group ids, all digits, got \"",
     "all,59", "[true]", "059", "x"),
    ("api.account_groups", "names one of them twice, got \"59,59\"", "59,59"),
    ("api.proxy", "must be an address such as http://user:password@proxy:3128",
     "x", *(f"{text}:{CANARY}@" for text in ("http://me", "socks://me")),
     *(f"http://me:{CANARY}@{text}" for text in ("", "x/y", "x@y", "x/v7"))),
    ("filter.include_sites[1]", "is no regular expression: unterminated character set at position 0, got \"[b\"",
     "a,[b"),
    ("filter.include_sites[0]", "is no regular expression: the repetition number is too large", "a{99999999999}"),
    ("filter.include_sites[0]", "is no regular expression: Possible nested set at position 1", "[[a]"),
    ("filter.include_sites[0]", "is no regular expression: nested too deeply", "(" * 5000),
    ("filter.include_sites[2]", "must be a regular expression, got null", '["a", "b", null]'),
    ("filter.include_sites", "has an empty item, got \"", "a,,b", ",", " ", '["", "a"]'),
    ("filter.include_sites", "is not JSON: Expecting ',' delimiter at position 4", '["a"'),
    ("filter.search", "is not JSON: Expecting value at position 0", "domain"),
    ("filter.search", "is not JSON: nested too deeply", '{"domain": ' + "[" * 100_000),
    ("filter.search", "names a key twice", '{"domain": ["a"], "domain": ["b"]}'),
    ("filter.search[domain]", "must be a list: JSON or separated by commas, got true", '{"domain": true}'),
    ("filter.search, api.version", "unknown key \"agentid\"; did you mean \"agentId\"? (there are", '{"agentid": "x"}'),
    ("metrics.site_groups[0][pattern]", "is no regular expression", '[{"pattern": "(", "name": "a"}]'),
    ("metrics.site_groups[0][name]", "is missing", '[{"pattern": "a"}]'),
    ("metrics.site_groups[0][name]", "must be a name of 1 to 256", '[{"pattern": "a", "name": " "}]'),
    ("metrics.site_groups[0][nmae]", "is not known", '[{"pattern": "a", "name": "b", "nmae": "c"}]'),
    ("metrics.families", f"unknown name \"{FAMILIES[0][:-1]}\"; did you mean \"{FAMILIES[0]}\"?", FAMILIES[0][:-1]),
    ("metrics.families", f"unknown name \"x\" (there are {', '.join(FAMILIES)})", "x"),
    ("metrics.max_series", "must be a whole number from 1 to 10000000", "10000001", "0"),
    ("web.max_requests", "must be a whole number from 1 to 1000", "-1", "1001"),
    ("web.listen_address", "must be host:port, :port or [IPv6]:port, the port from 0 to 65535",
     "9350", "localhost", ":65536", "::1:9350", "[x]:1", "[:::]:1", "a b:1", "http://x:1", ":"),
    ("web.telemetry_path", "must be a path such as /metrics, other than /, /-/healthy and /-/ready",
     "metrics", "/", "/-/healthy", "/-/ready", "/metrics/", "//metrics", "/a/../b", "/a/.", "/a?b", "/a b", "/{a}"),
    ("log.level", "must be 'debug', 'info', 'warn' or 'error', got \"", "loud", "\x1b[31m" * 99, "\u202e"),
]
# fmt: on


@pytest.mark.parametrize(
    ("where", "problem", "text"),
    [(where, problem, text) for where, problem, *texts in REFUSED for text in texts],
    ids=lambda text: text[:30],
)
def test_a_value_is_refused_with_what_would_be_right(where, problem, text):
    name = re.match(r"[a-z_.]+", where)[0]
    flag = DOCS[name].flag
    (found,) = problems([*TOKEN, f"{flag}={text}"], families=FAMILIES)
    assert found.startswith(f"{where.replace(name, flag, 1)}: {problem}")
    assert len(found) < 400
    assert found.isprintable()


def test_the_keys_of_a_search_depend_on_the_version():
    assert accepted("--filter.search", '{"nicModel": ["x"]}').filter.search == {"nicModel": ("x",)}
    (problem,) = problems([*TOKEN, "--api.version=v6", "--filter.search", '{"nicModel": ["x"]}'])
    assert problem.startswith('--filter.search, --api.version: unknown key "nicModel"')


# What can not go together


# fmt: off
CONFLICTS = [
    ("C06-none", [],
     "api.token, api.token_file: no API token: set one of the two, or try the command demo, which needs none"),
    ("C06-both", [*TOKEN, "--api.token-file={secret}"],
     "--api.token, --api.token-file: only one of the two can be set"),
    ("C06-email", [*TOKEN, "--api.email=a@example.com"],
     "--api.email, api.version: an e-mail address goes with v6 only; v7 takes the token alone"),
    ("C05-http", [*TOKEN, "--api.url=http://192.0.2.1"],
     "--api.url, api.allow_insecure: http:// shows the token on the way: use https://, or allow it"),
    ("C16-interval", [*TOKEN, "--poll.lookback=30s", "--poll.overlap=0s"],
     "--poll.lookback, poll.interval: the look-back must not be shorter than the interval"),
    ("C16-overlap", [*TOKEN, "--poll.lookback=5m"],
     "--poll.lookback, poll.overlap: the look-back must be longer than the overlap"),
    ("hashed-without-key", [*TOKEN, "--metrics.agent-names=hashed"],
     "--metrics.agent-names, metrics.agent_names_key, metrics.agent_names_key_file: "
     "hashed names need a key, and a key needs hashed names"),
    ("key-without-hashed", [*TOKEN, "--metrics.agent-names-key-file={secret}"],
     "metrics.agent_names, metrics.agent_names_key, --metrics.agent-names-key-file: "
     "hashed names need a key, and a key needs hashed names"),
    ("two-keys", [*TOKEN, "--metrics.agent-names=hashed", "--metrics.agent-names-key-file={secret}",
                  f"--metrics.agent-names-key={CANARY * 2}"],
     "--metrics.agent-names-key, --metrics.agent-names-key-file: only one of the two can be set"),
]
# fmt: on


@pytest.mark.parametrize(
    ("argv", "problem"), [pytest.param(argv, problem, id=each) for each, argv, problem in CONFLICTS]
)
@pytest.mark.fault("C05", "C06", "C16")
def test_what_can_not_go_together_is_refused_by_name(argv, problem, file):
    secret = file(f"{CANARY}{CANARY}\n", "secret")
    assert problems([each.format(secret=secret) for each in argv]) == [problem]


def test_http_to_elsewhere_can_be_allowed():
    assert accepted("--api.url=http://192.0.2.1", "--api.allow-insecure=true").api.url == "http://192.0.2.1"


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_the_simulator_needs_no_token(command):
    assert load([command], {}).settings.api.token is None


def test_all_problems_are_told_at_once_and_one_only_once(file):
    path = file("poll: {interval: 5, lookback: 1s}\nlgo: {level: info}\n")
    assert problems(
        ["--config.file", path, "--web.max-requests=0"], {"THOUSANDEYES_LOG_LEVEL": "x", "THOUSANDEYES_Q": ""}
    ) == [
        'unknown variable "THOUSANDEYES_Q"; did you mean "THOUSANDEYES_TOKEN"?',
        f'{path}:2:7: unknown setting "lgo.level"; did you mean "log.level"?',
        f'{path}:1:8: poll.interval: must be a duration from 1s to 1h, such as 30s, 5m or 1h30m, got "5"',
        '--web.max-requests: must be a whole number from 1 to 1000, got "0"',
        "THOUSANDEYES_LOG_LEVEL: must be 'debug', 'info', 'warn' or 'error', got \"x\"",
        "api.token, api.token_file: no API token: set one of the two, or try the command demo, which needs none",
        f"{path}:1:21: poll.lookback, poll.overlap: the look-back must be longer than the overlap",
    ]


# Secrets and files

SECRET = "must be the bare secret: one line of ASCII, without spaces, quotes and byte order mark"


NOT_BARE = [
    *(f" {CANARY}", f"{CANARY} ", f"{CANARY} x", f"{CANARY}\nx", f"\n{CANARY}", f'"{CANARY}"', f"'{CANARY}'"),
    *(f"\ufeff{CANARY}", f"{CANARY}é", f"{CANARY}\x00", f"{CANARY}\t", "\n", CANARY * 1000),
]


@pytest.mark.parametrize("secret", NOT_BARE, ids=lambda secret: repr(secret[:20]))
@pytest.mark.fault("C06")
def test_a_token_that_is_not_bare_is_refused_and_never_repeated(secret, file):
    path = file(secret, "token")
    assert problems([f"--api.token={secret}"]) == [f"--api.token: {SECRET}"]
    assert problems([], {"THOUSANDEYES_TOKEN": secret}) == [f"THOUSANDEYES_TOKEN: {SECRET}"]
    assert problems([f"--api.token-file={path}"]) == [f"--api.token-file: {SECRET}"]


@pytest.mark.fault("C06")
def test_c06_an_empty_token_file_is_refused(file):
    assert problems([f"--api.token-file={file('', 'token')}"]) == [f"--api.token-file: {SECRET}"]


def test_the_line_end_of_a_token_is_none_of_it(file):
    assert read_token(accepted()) == CANARY
    assert read_token(load([f"--api.token={CANARY}\n"], {}).settings) == CANARY
    assert read_token(load(["--api.token-file", file(f"{CANARY}\r\n", "token")], {}).settings) == CANARY


def test_the_token_file_is_read_anew_and_a_bad_one_is_told_without_its_content(file, tmp_path):
    path = file("one\n", "token")
    settings = load(["--api.token-file", path], {}).settings
    assert read_token(settings) == "one"
    file("two\n", "token")
    assert read_token(settings) == "two"
    file(f"{CANARY} x", "token")
    with pytest.raises(SettingsError, match=r"^api.token_file: must be the bare secret") as caught:
        read_token(settings)
    assert CANARY not in str(caught.value)
    Path(path).unlink()
    with pytest.raises(SettingsError, match=r"^api.token_file: can not be read: No such file or directory$"):
        read_token(settings)


def test_reading_a_secret_that_is_not_set_is_an_error():
    with pytest.raises(SettingsError, match=r"^api.token, api.token_file: one of the two must be set$"):
        read_token(Settings())


@pytest.mark.fault("C07")
def test_c07_a_token_file_that_is_missing_or_a_directory_is_refused_without_its_name(tmp_path):
    assert problems([f"--api.token-file={CANARY}"]) == ["--api.token-file: can not be read: No such file or directory"]
    assert problems([f"--api.token-file={tmp_path}"]) == ["--api.token-file: can not be read: Is a directory"]


@pytest.mark.fault("C07")
def test_c07_a_secret_that_others_can_see_is_warned_of(file):
    token, key = file("x", "token", mode=0o644), file("x" * 16, "key", mode=0o640)
    argv = ["--metrics.agent-names=hashed", "--metrics.agent-names-key-file", key]
    readable = "everyone on this machine can read the file; chmod o-r takes that away"
    visible = "everyone on this machine can see a command line; a file or a variable keeps the secret"
    assert load(argv, {"THOUSANDEYES_API_TOKEN_FILE": token}).warnings == (f"THOUSANDEYES_API_TOKEN_FILE: {readable}",)
    assert load([*argv, *TOKEN], {}).warnings == (f"--api.token: {visible}",)
    assert load(argv, {"THOUSANDEYES_TOKEN": "x"}).warnings == ()


def test_the_key_of_hashed_names_comes_from_a_setting_or_a_file_and_is_not_short(file):
    hashed = "--metrics.agent-names=hashed"
    assert read_agent_names_key(accepted(hashed, "--metrics.agent-names-key", "k" * 16)) == "k" * 16
    assert read_agent_names_key(accepted(hashed, "--metrics.agent-names-key-file", file("k" * 16, "key"))) == "k" * 16
    assert problems([*TOKEN, hashed, f"--metrics.agent-names-key={CANARY}"]) == [
        "--metrics.agent-names-key: must have at least 16 characters"
    ]
    assert problems([*TOKEN, hashed, "--metrics.agent-names-key-file", file(CANARY, "key")]) == [
        "--metrics.agent-names-key-file: must have at least 16 characters"
    ]


def test_a_proxy_may_hold_credentials_and_is_a_secret():
    proxy = accepted("--api.proxy", f"http://me:{CANARY}@proxy.example:3128").api.proxy
    assert proxy.get_secret_value() == f"http://me:{CANARY}@proxy.example:3128"
    assert CANARY not in repr(proxy)


def test_a_file_of_certificates_must_hold_one(file, tmp_path):
    system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    first = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", Path(system).read_text(), re.DOTALL)
    good = file(f"# Főtanúsítvány\n{first[0]}", "ca.pem")
    assert accepted("--api.ca-file", good).api.ca_file == Path(good)
    for content in ("", "x", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"):
        bad = file(content, "ca.pem")
        assert problems([*TOKEN, "--api.ca-file", bad])[0].startswith(
            "--api.ca-file: holds no certificate in PEM format"
        )
    assert problems([*TOKEN, f"--api.ca-file={tmp_path}/x"])[0].startswith(
        "--api.ca-file: can not be read: No such file"
    )


def test_the_web_configuration_must_be_there(file, tmp_path):
    path = file("{}", "web.yml")
    assert accepted("--web.config-file", path).web.config_file == Path(path)
    (problem,) = problems([*TOKEN, f"--web.config-file={tmp_path}"])
    assert problem.startswith("--web.config-file: can not be read: Is a directory")
    large = file(b" " * (values.MAX_FILE_BYTES + 1), "web.yml")
    assert problems([*TOKEN, f"--web.config-file={large}"])[0].startswith(
        "--web.config-file: is larger than 1000000 bytes"
    )


@given(st.dictionaries(st.sampled_from(sorted(DOCS)), st.text(max_size=40)), st.lists(st.text(max_size=20), max_size=3))
@budget(deadline=None)
def test_any_texts_are_settings_or_a_settings_error_in_little_time(texts, argv):
    assume(not {"-h", "--help", "--version"} & set(argv))
    environ = {DOCS[name].variable: value for name, value in texts.items()}
    try:
        assert isinstance(load(argv, environ), Loaded)
    except SettingsError as error:
        found = error.problems
        assert found


@pytest.mark.parametrize("text", [f"{CANARY} ", f"x\n{CANARY}", f"/{CANARY}/\x1f", f"@{CANARY}@"])
def test_a_secret_in_a_setting_where_one_is_likely_is_not_repeated(text):
    likely = ["api.token", "api.token_file", "api.proxy", "api.url", "api.email", "metrics.agent_names_key"]
    for name in (*likely, "metrics.agent_names_key_file", "simulator.token"):
        if (name, text[0]) not in {("api.token", "@"), ("metrics.agent_names_key", "@"), ("simulator.token", "@")}:
            problems([f"{DOCS[name].flag}={text}", "demo"])
