"""Settings: sources and precedence, accepted and refused values, and that no secret is shown."""

import json
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.errors import SettingsError
from exporter.settings import (
    format_duration,
    load,
    read_agent_names_key,
    read_otlp_headers,
    read_token,
    reference,
)
from exporter.settings.model import parse_duration
from exporter.sources.session_filter import compile_pattern

EXAMPLE = Path(__file__).parents[2] / "deploy/settings.example.yml"
CANARY = "canary-7Yh3kQ"
TOKEN = {"THOUSANDEYES_TOKEN": CANARY}
DOCS = {doc.name: doc for doc in reference()}
WriteFile = Callable[..., str]


def value(name: str, *argv: str, environ: Mapping[str, str] = TOKEN) -> object:
    return attrgetter(name)(load(argv, environ).settings)


def shown(*argv: str) -> dict[str, str]:
    return {name: text for name, text, _ in load(argv, TOKEN).shown()}


def problems(*argv: str, environ: Mapping[str, str] = TOKEN) -> list[str]:
    """Return the problems, none of which contains the canary."""
    with pytest.raises(SettingsError) as caught:
        load(argv, environ)
    assert CANARY not in repr(caught.value)
    assert all(problem.isprintable() for problem in caught.value.problems)
    return list(caught.value.problems)


@pytest.fixture
def file(tmp_path: Path) -> WriteFile:
    """Write a file and return its name."""

    def write(content: str, name: str = "settings.yml", mode: int = 0o600) -> str:
        path = tmp_path / name
        path.write_text(content, newline="")
        path.chmod(mode)
        return str(path)

    return write


def test_the_example_file_has_each_setting_with_its_default(file: WriteFile) -> None:
    text = EXAMPLE.read_text()
    settings = yaml.safe_load(re.sub(r"(?m)^  # ([a-z_]+: )", r"  \1", text))
    assert [f"{group}.{key}" for group, keys in settings.items() for key in keys] == list(DOCS)
    defaults = {doc.name: doc.default for doc in DOCS.values() if doc.default}
    for content in (text, "", "# comment", "api:", "api: {}"):
        assert shown("--config.file", file(content)).items() >= defaults.items()


def test_precedence_and_origins(file: WriteFile) -> None:
    path = file("poll:\n  interval: 11s\n  overlap: 12s\n  lookback: 13m\napi: {version: v6}\n")
    environ = TOKEN | {"THOUSANDEYES_POLL_INTERVAL": "21s", "THOUSANDEYES_POLL_OVERLAP": "22s"}
    environ["THOUSANDEYES_CONFIG_FILE"] = path
    result = load(["--poll.interval=31s"], environ)
    poll = result.settings.poll
    assert (poll.interval, poll.overlap, poll.lookback) == (31, 22, 780)
    assert result.origins.keys() == DOCS.keys()
    assert {name: origin for name, origin in result.origins.items() if origin != "default"} == {
        "api.version": f"{path}:5",
        "api.token": "THOUSANDEYES_TOKEN",
        "poll.interval": "--poll.interval",
        "poll.overlap": "THOUSANDEYES_POLL_OVERLAP",
        "poll.lookback": f"{path}:4",
    }
    other = file("poll: {lookback: 14m}", "other.yml")
    assert value("poll.lookback", "--config.file", other, environ=environ) == 840


VALUES = (
    ("api.requests_per_minute", 60),
    ("api.allow_insecure", True),
    ("api.account_groups", [59, "60"]),
    ("api.account_groups", "all"),
    ("filter.include_sites", ["a{1,3}", "b,c", "[d]", 'e"', "\\.é"]),
    ("filter.search", {"domain": ["a,b", "c"], "agentId": ["d"]}),
    ("metrics.site_groups", [{"pattern": "(a|b).*", "name": "A, B"}]),
    ("web.listen_address", "[::1]:9350"),
)


@pytest.mark.parametrize(("name", "content"), VALUES)
def test_a_value_is_the_same_from_all_sources(name: str, content: object, file: WriteFile) -> None:
    group, field = name.split(".")
    path = file(yaml.safe_dump({group: {field: content}}, allow_unicode=True))
    text = content if isinstance(content, str) else json.dumps(content)
    expected = value(name, "--config.file", path)
    assert value(name, f"{DOCS[name].flag}={text}") == expected
    assert value(name, environ=TOKEN | {DOCS[name].variable: text}) == expected
    assert value(name, DOCS[name].flag, shown("--config.file", path)[name]) == expected


@pytest.mark.parametrize(
    ("command", "options"),
    {
        "": {},
        "demo": {},
        "simulate": {},
        "once --output x": {"output": Path("x")},
        "check --all": {"output": None, "all": True},
    }.items(),
)
def test_settings_before_or_after_the_command(command: str, options: Any) -> None:
    setting, words = ["--poll.interval", "2m"], command.split()
    for argv in ([*setting, *words], [*words, *setting]):
        result = load(argv, {} if command in ("demo", "simulate") else TOKEN)
        assert (result.command, result.options) == ([*words, "serve"][0], options)
        assert result.settings.poll.interval == 120


WRONG = {
    "--poll.intervall 1m check": ["--poll.intervall", "--poll.interval?"],
    f"check --api.tokn={CANARY}": ["--api.tokn", "--api.token?"],
    "--log.level": ["--log.level"],
    "chek": ["check?", "serve, demo, simulate, once, check"],
    f"demo {CANARY}": ["argument"],
    f"demo --all={CANARY}": ["--all", "--help"],
    "--config.file=": ["config.file is empty"],
    "--config.file=/nowhere": ["/nowhere: cannot be read"],
}


@pytest.mark.parametrize("argv", WRONG)
def test_a_wrong_command_line_is_the_only_problem(argv: str) -> None:
    (problem,) = problems(*argv.split(), environ={"THOUSANDEYES_LOG_LEVEL": "loud"})
    assert [text for text in WRONG[argv] if text not in problem] == []


def test_an_empty_value_is_an_error(file: WriteFile) -> None:
    for found in (
        problems("demo", environ={doc.variable: "" for doc in DOCS.values()}),
        problems("demo", *(f"{doc.flag}=" for doc in DOCS.values())),
    ):
        assert {each.split()[0] for each in found} == DOCS.keys()
    assert len(problems(f"--config.file={file('api: {url: , email: , proxy: null}')}")) == 3


@pytest.mark.parametrize(
    ("content", "line", "name", "end"),
    [
        ("api:\n  tokn: x\n", 2, "api.tokn", "api.token?"),
        ("- api\n", 1, "", ""),
        ("log:\ninterval: 1s\n", 2, "", ""),
        (f"log: {{}}\napi: {{token:{CANARY}}}", 2, "api ", ""),
        (f"log: {{}}\n{CANARY} x: {{}}", 2, "", ""),
        ("filter:\n  include_sites:\n    - a\n    - '['\n", 2, "filter.include_sites.1", ""),
        ("filter:\n  search: {platfrm: [x]}\n", 2, "filter.search.platfrm", ""),
        ("metrics: {site_groups: [{pattern: a}]}", 1, "metrics.site_groups.0.name", ""),
    ],
)
def test_refused_files(content: str, line: int, name: str, end: str, file: WriteFile) -> None:
    path = file(content)
    (problem,) = problems("--config.file", path)
    assert name in problem
    assert f"{path}:{line}" in problem
    assert problem.endswith(end)


@given(st.integers(0, 10**12))
@example(0)
def test_a_formatted_duration_parses_to_the_same(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


def test_accepted_values() -> None:
    assert value("api.url", "--api.url=https://x.example:8443/") == "https://x.example:8443"
    assert value("api.url", "--api.url=http://x.y", "--api.allow-insecure=true") == "http://x.y"
    assert value("poll.interval", "--poll.overlap=0", "--poll.interval=1500ms") == 1.5
    patterns = tuple(map(compile_pattern, ("a{1,3}", "[a-z]+", "b")))
    flag = "--filter.include-sites="
    for argv in ([f"{flag}a{{1,3}}, [a-z]+,b"], [f"{flag}a{{1,3}}", "once", f"{flag}[a-z]+,b"]):
        assert value("filter.include_sites", *argv) == patterns


REFUSED = {
    "api.url": f"x|ftp://x|https://x/v7|https://x?a|https://me:{CANARY}@x|https://x#{CANARY}",
    "api.token": f'{CANARY} x|{CANARY}\nx|\ufeff{CANARY}|{CANARY}é|"{CANARY}"',
    "metrics.agent_names_key": f"{CANARY}|{CANARY} {CANARY}",
    "api.account_groups": "[true]|059|x",
    "api.proxy": f"x|ftp://{CANARY}@x|http://a:{CANARY}@",
    "api.ca_file": f"/nowhere|{__file__}",
    "poll.interval": "0|5|2h|-1s|1.5m|1 m|1s1m|٣s",
    "filter.include_sites": 'a,[b|["a"|(a)\\1|(a\x1b',
    "filter.search": 'domain|{"domain": true}|{"agentid": "x"}|[]',
    "metrics.site_groups": '[{"pattern": "(", "name": "a"}]|a',
    "metrics.families": "latency|[]x",
    "web.listen_address": "9350|localhost|:65536|::1:9350|a b:1|:",
    "web.telemetry_path": "x|/|/-/healthy|/a/|//a|/a/../b|/a?b|/{a}",
    "otlp.endpoint": f"x|ftp://x|https://me:{CANARY}@x|https://x#{CANARY}",
    "otlp.headers": f'{CANARY}|[]|{{"{CANARY} a": "b"}}|{{"a": "{CANARY}\\u00e9"}}',
    "otlp.headers_file": f"/nowhere|{__file__}",
    "log.level": "loud|warning|\x1b[31m",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_values(name: str) -> None:
    for text in REFUSED[name].split("|"):
        (problem,) = problems(f"{DOCS[name].flag}={text}")
        assert re.match(rf"{name}[\w.]* \({DOCS[name].flag}\): ", problem)


EXPLAINED = {
    "--filter.exclude-agents=(?=a)b": "(--filter.exclude-agents)|'(?=a)b'|RE2|wiki/Syntax",
    "--api.token-file=FILE": "api.token_file (--api.token-file)|(THOUSANDEYES_TOKEN)",
    "--poll.lookback=5m": "(--poll.lookback)|poll.overlap (default)",
    "--api.url=http://192.0.2.1": "api.url (--api.url)|api.allow_insecure (default)",
    "--metrics.agent-names=hashed": "metrics.agent_names (--metrics.agent-names)",
    "--metrics.agent-names-key-file=FILE": "metrics.agent_names (default)",
    '--otlp.headers={"a":"b"} --otlp.headers-file=FILE': "(--otlp.headers-file)",
}


@pytest.mark.parametrize("argv", EXPLAINED)
def test_what_would_be_right_is_explained(argv: str, file: WriteFile) -> None:
    path = file(f"{CANARY}:{CANARY}", "secret")
    (problem,) = problems(*argv.replace("FILE", path).split())
    assert [text for text in EXPLAINED[argv].split("|") if text not in problem] == []


def test_all_problems_are_listed_at_once(file: WriteFile) -> None:
    path = file("poll: {interval: 1h, lookback: 1s}\nlgo: {}\nagents: {interval: 5}\nLOG: {}\n")
    variables = {
        "API_EMAIL": "a@b",
        "API_URI": CANARY,
        "EXPORTER_PORT": "tcp://10.0.0.1:9350",  # Kubernetes sets this variable and those below
        "EXPORTER_PORT_9350_TCP_ADDR": "10.0.0.1",
        "EXPORTER_SERVICE_HOST": "10.0.0.1",
        "EXPORTER_SERVICE_PORT_METRICS": "9350",
        "LOG_LEVEL": "x",
        "WEB_PORT": CANARY,
    }
    environ = {f"THOUSANDEYES_{name}": text for name, text in variables.items()}
    found = problems("--config.file", path, "--web.max-requests=0", environ=environ)
    starts = [
        "unknown variable THOUSANDEYES_API_URI; did you mean THOUSANDEYES_API_URL?",
        "unknown variable THOUSANDEYES_WEB_PORT",
        "api.email (THOUSANDEYES_API_EMAIL) requires v6 in api.version (default)",
        f"poll.lookback ({path}:1) must not be shorter than poll.interval ({path}:1)",
        f"poll.lookback ({path}:1) must be longer than poll.overlap (default)",
        f"agents.interval ({path}:3): must be a duration such as 30s",
        "web.max_requests (--web.max-requests): must be at least 1",
        "log.level (THOUSANDEYES_LOG_LEVEL): ",
        f"lgo ({path}:2): unknown setting; did you mean log?",
        f"LOG ({path}:4): ",
        "no API token",
    ]
    assert len(found) == len(starts), found
    assert [start for start in starts if not any(each.startswith(start) for each in found)] == []


def test_secrets_are_masked() -> None:
    argv = [f"--api.proxy=http://u:{CANARY}@proxy:1", "--metrics.agent-names=hashed"]
    argv.append(f'--otlp.headers={{"Authorization": "Bearer {CANARY}"}}')
    result = load([*argv, f"--metrics.agent-names-key={CANARY * 2}"], TOKEN)
    masked = [name for name, text, _ in result.shown() if text.strip("*") == "" != text]
    assert masked == ["api.token", "api.proxy", "metrics.agent_names_key"]
    assert CANARY not in repr(result) + repr(result.shown()) + str(result.settings)


def test_secrets_are_read_again_from_their_files(file: WriteFile) -> None:
    token, key = file("one\r\n", "token"), file("k" * 16, "key")
    headers = file("Authorization: Bearer a=, b: c \nX-Scope-OrgID:7\r\n", "headers")
    flags = [f"--api.token-file={token}", f"--metrics.agent-names-key-file={key}"]
    flags += ["--metrics.agent-names=hashed", f"--otlp.headers-file={headers}"]
    settings = load(flags, {}).settings
    assert (read_token(settings), read_agent_names_key(settings)) == ("one", "k" * 16)
    expected = [("Authorization", "Bearer a=, b: c"), ("X-Scope-OrgID", "7")]
    assert [*read_otlp_headers(settings).items()] == expected
    file("two", "token")
    assert read_token(settings) == "two"
    for text in ("", "\n", CANARY + " x", f"a b: {CANARY}", "a: ", f"a: {CANARY}\n\nb: c", "a: é"):
        for read, name in ((read_token, "token"), (read_otlp_headers, "headers")):
            file(text, name)
            with pytest.raises(SettingsError) as caught:
                read(settings)
            assert CANARY not in str(caught.value)
    starts = ("api.token_file (--api.token-file): ", "otlp.headers_file (--otlp.headers-file): ")
    for problem, start in zip(problems(*flags, environ={}), starts, strict=True):
        assert problem.startswith(start)
    Path(token).unlink()
    with pytest.raises(SettingsError, match=f"{token}: No such file"):
        read_token(settings)


def test_warns_of_secrets_that_other_users_can_read(file: WriteFile) -> None:
    private, public = file("k" * 16, "private", 0o640), file("k" * 16, "public", 0o644)
    hashed = ("--metrics.agent-names=hashed", f"--metrics.agent-names-key-file={public}")
    assert load([f"--api.token-file={private}"], {}).warnings == ()
    assert len(load([f"--api.token-file={public}"], {}).warnings) == 1
    assert len(load(["--api.token=x", "--api.proxy=http://u:x@y", *hashed], {}).warnings) == 3
    push, headers = "--otlp.endpoint=http://x/v1/metrics", file("a: b", "headers", 0o644)
    assert load([push], TOKEN).warnings == ()
    assert len(load([push, f"--otlp.headers-file={headers}"], TOKEN).warnings) == 2
