"""The documentation agrees with the code: names, examples, links, generated tables."""

import ast
import re
import runpy
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from web_server import install

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
GROUPS = {doc.name.partition(".")[0] for doc in SETTINGS}
EVENTS = re.findall(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|", TEXTS["docs/logging.md"], re.M)


YAML = [
    textwrap.dedent(block)
    for text in TEXTS.values()
    for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", text, re.M | re.S)
]


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


def test_names_in_pages_exist() -> None:
    """Names of settings, flags, variables, metrics, make targets and log events."""
    pattern = (
        rf"(?<=`)(?:{'|'.join(GROUPS)})\.(?!py`)[a-z_]+(?=[`:])|--[a-z]+\.[a-z-]+"
        r"|\bTHOUSANDEYES_[A-Z_]+[A-Z]"
        r"|\bthousandeyes_(?:endpoint|exporter)_[a-z_]*[a-z]\b|\bthousandeyes_up\b"
        r"|(?<=^\$ make )[a-z-]+|(?<=`make )[a-z-]+|(?<=`event=)\w+"
    )
    used = {name for text in TEXTS.values() for name in re.findall(pattern, text, re.M)}
    metrics = re.findall(r"`(thousandeyes_\w+)`", TEXTS["docs/metrics.md"])
    names = {name for doc in SETTINGS for name in (doc.name, doc.flag, doc.variable)}
    names |= {f"{name}{end}" for name in metrics for end in ("", "_bucket", "_sum", "_count")}
    names |= {*re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)}
    names |= {event for event, _, _ in EVENTS}
    others = {"--config.file", "THOUSANDEYES_CONFIG_FILE", "THOUSANDEYES_TOKEN"}
    others |= {"--storage.tsdb", "--storage.path", "--cluster.listen-address"}
    others |= {"--alertmanager.url", "thousandeyes_exporter_config_last_reload_successful"}
    assert used - names == others
    assert {"api.url", "--api.token-file", "thousandeyes_up", "check", "poll_skipped"} <= used


@pytest.mark.parametrize("text", YAML)
def test_yaml_examples_load(text: str, tmp_path: Path) -> None:
    document = yaml.safe_load(text)
    file = tmp_path / "example.yml"
    if document.keys() <= GROUPS:
        write_settings(file, text)
        token = [] if "token_file" in document.get("api", {}) else ["--api.token=secret"]
        assert load([f"--config.file={file}", *token], {}).settings
    elif document.keys() <= {"tls_server_config", "basic_auth_users"}:
        install(tmp_path)
        file.write_text(text.replace("prometheus-ca.crt", "ca.crt"))
        assert web_config.load(file)
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


def log_calls() -> Iterator[tuple[str, str, set[str]]]:
    """Yield event, method of the logger, and fields of each log call in the code."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "exporter").rglob("*.py")]
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = ast.unparse(call.func) if call.args else ""
        methods = r"(.*log(ger\(\))?\.(debug|info|warning|error|exception)|write)"
        if re.fullmatch(methods, function):
            fields = {each.arg for each in call.keywords if each.arg} - {"exc_info"}
            yield ast.literal_eval(call.args[0]), function.rpartition(".")[2], fields


def test_log_events_and_their_fields_are_documented() -> None:
    documented = {event: (levels, fields) for event, levels, fields in EVENTS}
    calls = list(log_calls())
    assert documented.keys() == {event for event, _, _ in calls}
    for event, method, fields in calls:
        level = {"warning": "warn", "exception": "error", "write": ""}.get(method, method)
        assert level in documented[event][0], event
        assert fields <= set(re.findall(r"`(\w+)`", documented[event][1])), event


def test_every_reason_is_documented() -> None:
    rows = TEXTS["docs/failure-modes.md"].partition("## Connection")[2]
    assert [reason for reason in REASONS if f"`{reason}`" not in rows] == []
    assert [each for each in REJECTION_REASONS if f"`{each}`" not in TEXTS["docs/metrics.md"]] == []
    ids = re.findall(r"^\| ([A-Z]\d\d) \|", rows, re.MULTILINE)
    assert len(ids) == len(set(ids)) > 60


NOON = 1_795_003_200  # of a weekday in London


async def test_labels_are_documented_and_the_last_step_publishes_no_agents(tmp_path: Path) -> None:
    *_, last = re.findall(r"```yaml\n(.*?)```", PRIVACY.partition("## Publish less")[2], re.S)
    simulator = Simulator(World(agents=20, sites=8), clock=lambda: NOON)
    published, file = [], tmp_path / "settings.yml"
    flags = [f"--config.file={file}", f"--api.url={await simulator.start()}", "--api.token=demo"]
    for settings in ("{}", last):
        write_settings(file, settings)
        text, failed = await poll_once(load(flags, {}).settings)
        assert not failed
        lines = "\n".join(re.findall("^thousandeyes_endpoint.*", text, re.M))
        published.append(set(re.findall(r'(\w+)="([^"]*)"', lines)))
    await simulator.stop()
    documented = set(re.findall(r"`(\w+)`", PRIVACY.partition("## What is published")[2]))
    assert {name for name, _ in published[0]} - {"aid", "protocol", "le"} <= documented
    agents = {value for name, value in published[0] if name == "agent"}
    assert {name for name, _ in published[1]} == {"aid", "site", "protocol", "le", "account_group"}
    assert {value for name, value in published[1] if name == "site"} == {"office", "other"}
    assert not [agent for agent in agents if agent in text]
