"""The documentation agrees with the code: names, examples, links, generated tables."""

import ast
import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pki
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.app import poll_once
from exporter.errors import REASONS, REJECTION_REASONS
from exporter.settings import load, reference
from exporter.simulator import Simulator, World
from exporter.web import config as web_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
PRIVACY = TEXTS["docs/security-and-privacy.md"]
SETTINGS = reference()
LEVELS = {
    "debug": "debug", "info": "info", "warning": "warn", "error": "error", "exception": "error",
}  # fmt: skip
"""Level of a line by method of the logger."""


def blocks(language: str) -> list[Any]:
    """Return the code blocks of a language in all pages, as test parameters."""
    parameters = []
    pattern = re.compile(rf"^( *)```{language}\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    for name, text in TEXTS.items():
        for block in pattern.finditer(text):
            line = text[: block.start()].count("\n") + 1
            code = re.sub(rf"^{block[1]}", "", block[2], flags=re.MULTILINE)
            parameters.append(pytest.param(code, id=f"{name}:{line}"))
    return parameters


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub derives them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_tables_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / "docs/__main__.py"))["pages"]()
    assert {page: page.read_text() for page in pages} == pages


def test_links_resolve_and_every_page_is_linked() -> None:
    linked, broken = {ROOT / "README.md"}, []
    for page in PAGES:
        text = page.read_text()
        for path, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
            target = (page.parent / path).resolve() if path else page
            linked |= {target} - {page}
            if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
                broken.append(f"{page.name}: {path}#{anchor}")
    assert broken == []
    assert set(PAGES) - linked == set()


GROUPS = "|".join({doc.name.partition(".")[0] for doc in SETTINGS})
METRICS = re.findall(r"`(thousandeyes_\w+)`", TEXTS["docs/metrics.md"])
EVENTS = TEXTS["docs/logging.md"].partition("## Events")[2]
EXISTING: dict[str, tuple[str, set[str]]] = {
    "settings": (
        rf"`((?:{GROUPS})\.(?!py`)[a-z_]+)[`:]", {"config.file"} | {doc.name for doc in SETTINGS},
    ),
    "flags": (
        r"--[a-z]+\.[a-z-]+",
        {"--config.file", "--group.field-name", "--group.name"}
        | {"--storage.tsdb", "--storage.path", "--cluster.listen-address", "--alertmanager.url"}
        | {doc.flag for doc in SETTINGS},
    ),
    "variables": (
        r"\bTHOUSANDEYES_[A-Z_]+[A-Z]",
        {"THOUSANDEYES_TOKEN", "THOUSANDEYES_CONFIG_FILE", "THOUSANDEYES_GROUP_FIELD_NAME"}
        | {doc.variable for doc in SETTINGS},
    ),
    "metrics": (
        r"\bthousandeyes_(?:endpoint|exporter)_[a-z_]*[a-z]\b|\bthousandeyes_up\b",
        {"thousandeyes_exporter_config_last_reload_successful"}  # of an earlier version
        | {f"{name}{end}" for name in METRICS for end in ("", "_bucket", "_sum", "_count")},
    ),
    "make targets": (
        r"(?:^\$ |`)make ([a-z-]+)",
        set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)),
    ),
    "log events": (r"`event=(\w+)", set(re.findall(r"^\| `(\w+)` \|", EVENTS, re.MULTILINE))),
}  # fmt: skip
"""Pattern of names in pages, and the names that exist or are placeholders."""


@pytest.mark.parametrize("kind", EXISTING)
def test_names_in_pages_exist(kind: str) -> None:
    pattern, names = EXISTING[kind]
    found = {match for text in TEXTS.values() for match in re.findall(pattern, text, re.MULTILINE)}
    assert found
    assert found - names == set()


@pytest.mark.parametrize("query", blocks("promql"))
def test_queries_parse(query: str) -> None:
    assert promql_parser.parse(query)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_examples_load(text: str, tmp_path: Path) -> None:
    document = yaml.safe_load(text)
    file = tmp_path / "example.yml"
    if document.keys() <= {doc.name.partition(".")[0] for doc in SETTINGS}:
        write_settings(file, text)
        token = [] if "token_file" in document.get("api", {}) else ["--api.token=secret"]
        assert load([f"--config.file={file}", *token], {}).settings
    elif document.keys() <= {"tls_server_config", "basic_auth_users"}:
        authority = pki.Authority(tmp_path, "authority")
        server = authority.issue("server", sans="DNS:localhost")
        shutil.copy(server.certificate, tmp_path / "server.crt")
        shutil.copy(server.key, tmp_path / "server.key")
        shutil.copy(authority.certificate, tmp_path / "prometheus-ca.crt")
        file.write_text(text)
        loaded = web_config.load(file)
        assert loaded.tls or loaded.users
    else:
        values = (path.read_text() for path in (ROOT / "deploy/kubernetes").glob("*/ci/*"))
        known = {"scrape_configs", "relabel_configs", "rule_files"}
        assert document.keys() <= known or text in values


def write_settings(file: Path, text: str) -> None:
    """Write settings, with an existing file in place of each file that they name."""
    secret = file.with_name("secret")
    secret.write_text("0123456789abcdef")
    secret.chmod(0o600)
    file.write_text(re.sub(r"(_file: )\S+", rf"\g<1>{secret}", text))


def test_commands_in_examples_are_accepted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("token").write_text("secret")
    Path("token").chmod(0o600)
    shown = "\n".join(block.values[0] for block in blocks("console")).replace("\\\n", " ")
    commands = re.findall(
        r"(?:^\$ (?:\S+bin/)?thousandeyes-exporter|thousandeyes-exporter:[0-9.]+) +([^&\n]+)",
        shown,
        re.M,
    )
    assert {"check", "once", "demo"} <= {word for each in commands for word in each.split()}
    for command in commands:
        arguments = shlex.split(command.replace("/run/secrets/token", "token"))
        if arguments not in (["--version"], ["."]):
            assert load(arguments, {}).warnings == ()


def log_calls() -> dict[str, tuple[set[str], set[str]]]:
    """Return the log events in the code, with their levels and fields."""
    events: dict[str, tuple[set[str], set[str]]] = {}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "exporter").rglob("*.py")]
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = ast.unparse(call.func) if call.args else ""
        if re.fullmatch(rf"(.*log(ger\(\))?\.({'|'.join(LEVELS)})|write)", function):
            levels, fields = events.setdefault(ast.literal_eval(call.args[0]), (set(), set()))
            levels |= {LEVELS[name] for name in {function.rpartition(".")[2]} & LEVELS.keys()}
            fields |= {each.arg for each in call.keywords if each.arg} - {"exc_info"}
    return events


def test_log_events_and_their_fields_are_documented() -> None:
    documented = {
        event: (set(re.findall(r"\w+", levels)), set(re.findall(r"`(\w+)`", fields)))
        for event, levels, fields in re.findall(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|", EVENTS, re.M)
    }
    calls = log_calls()
    assert documented.keys() == calls.keys()
    for event, (levels, fields) in calls.items():
        assert levels <= documented[event][0], event
        assert fields <= documented[event][1], event


def test_every_reason_is_documented() -> None:
    rows = TEXTS["docs/failure-modes.md"].partition("## Connection")[2]
    assert [reason for reason in REASONS if f"`{reason}`" not in rows] == []
    assert [each for each in REJECTION_REASONS if f"`{each}`" not in TEXTS["docs/metrics.md"]] == []
    ids = re.findall(r"^\| ([A-Z]\d\d) \|", rows, re.MULTILINE)
    assert ids
    assert len(ids) == len(set(ids))


STEPS = dict(re.findall(r"^### (\d).*?```yaml\n(.*?)```", PRIVACY, re.M | re.S))
NOON = 1_795_003_200
"""A weekday at noon in London."""


async def published(api: str, step: str, file: Path) -> tuple[str, dict[str, set[str]]]:
    """Return what is published with the settings of a step: as text, and values by label."""
    write_settings(file, STEPS.get(step, "{}"))
    flags = [f"--config.file={file}", f"--api.url={api}", "--api.token=demo"]
    text, failed = await poll_once(load(flags, {}).settings)
    assert not failed
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name.startswith("thousandeyes_endpoint") else ():
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return text, labels


async def test_labels_are_documented_and_each_step_publishes_less(tmp_path: Path) -> None:
    documented = set(re.findall(r"`(\w+)`", PRIVACY.partition("## What is published")[2]))
    simulator = Simulator(World(agents=20, sites=8), clock=lambda: NOON)
    api, file = await simulator.start(), tmp_path / "settings.yml"
    steps = [await published(api, step, file) for step in "01234"]
    await simulator.stop()
    (_, plain), (_, hashed), (_, unnamed), (text, grouped), (without, anonymous) = steps
    assert plain.keys() - {"aid", "protocol", "le"} <= documented
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in hashed["agent_name"])
    assert len(hashed["agent_name"]) == len(plain["agent_name"])
    assert plain.keys() - unnamed.keys() == {"agent_name"}
    assert grouped["site"] == {"office", "other"}
    assert "example.com" not in text
    assert anonymous.keys() == {"aid", "site", "protocol", "le", "account_group"}
    assert not [agent for agent in plain["agent"] if agent in without]
