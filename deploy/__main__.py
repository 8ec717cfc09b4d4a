"""Writes what the ways to run the exporter take from elsewhere: version, settings, rules and dashboards.

Run it with `make docs`. A test runs it too, and fails where it would change anything.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, cast

from exporter import NAME, __version__
from exporter.settings import Group, Settings, reference

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/kubernetes/thousandeyes-exporter"
IMAGE = "ghcr.io/thousandeyes-exporter/thousandeyes-exporter"
VERSION = r"[0-9]+\.[0-9]+\.[0-9]+\S*?"
ELSEWHERE = {
    "api.token": "token.secretName",
    "api.token_file": "token.secretName",
    "api.ca_file": "authorities.configMapName",
    "metrics.agent_names_key": "agentNamesKey.secretName",
    "metrics.agent_names_key_file": "agentNamesKey.secretName",
    "web.listen_address": "service.port",
    "web.config_file": "webConfig.secretName",
    "simulator.listen_address": "",
    "simulator.token": "",
}
"""Settings that are a matter of the chart, with the value that stands for them."""
PAGES = [ROOT / f"docs/{name}.md" for name in ("compose", "docker", "kubernetes", "pip")]
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"}
TEXT = {"type": "string"}
ITEM = {"type": ["string", "integer"]}
TYPES: dict[str, dict[str, Any]] = {
    "api.account_groups": {"anyOf": [{"const": "all"}, {"type": "array", "items": ITEM}]},
    # A password would be readable by everybody who can read the release.
    "api.proxy": {"type": "string", "pattern": "^https?://[^@]+$"},
    "filter.search": {"type": "object", "additionalProperties": {"type": "array", "items": TEXT}},
    "metrics.families": {"anyOf": [{"enum": ["all", "none"]}, {"type": "array", "items": TEXT}]},
    "metrics.site_groups": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"pattern": TEXT, "name": TEXT},
            "required": ["pattern", "name"],
            "additionalProperties": False,
        },
    },
}


def pages() -> dict[Path, str]:
    """Return the text of every file that takes something from elsewhere, by path."""
    rules = ROOT / "deploy/prometheus/thousandeyes.rules.yml"
    dashboards = sorted((ROOT / "grafana/dashboards").glob("*.json"))
    copies = {CHART / "files" / rules.name: rules.read_text()}
    copies |= {CHART / "files/dashboards" / path.name: path.read_text() for path in dashboards}
    return {
        **copies,
        CHART / "Chart.yaml": versioned(CHART / "Chart.yaml", "^(?:appV|v)ersion: "),
        CHART / "values.schema.json": schema(CHART / "values.schema.json"),
        ROOT / "Dockerfile": versioned(ROOT / "Dockerfile", r'org\.opencontainers\.image\.version="'),
        ROOT / "deploy/compose/compose.yaml": versioned(ROOT / "deploy/compose/compose.yaml", f"{IMAGE}:"),
        ROOT / "deploy/compose/prometheus.yml": scrape_config(),
        **{page: versioned(page, f"{IMAGE}:|^{NAME} ") for page in PAGES},
    }


def versioned(path: Path, before: str) -> str:
    """Return a file's text with the version of the project behind a pattern."""
    return re.sub(rf"({before}){VERSION}(?=[\s\"`]|$)", rf"\g<1>{__version__}", path.read_text(), flags=re.MULTILINE)


def scrape_config() -> str:
    """Return the configuration of Prometheus with the addresses that containers have."""
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    for port, name in {9350: "exporter", 9093: "alertmanager"}.items():
        text = text.replace(f"localhost:{port}", f"{name}:{port}")
    return f"# Made from deploy/prometheus/prometheus.yml by `make docs`; do not edit.\n\n{text}"


def schema(path: Path) -> str:
    """Return the schema of the chart's values with the settings of the exporter in it."""
    found = json.loads(path.read_text())
    groups: dict[str, Any] = {}
    for doc in reference():
        group, _, field = doc.name.partition(".")
        if doc.name not in ELSEWHERE:
            shape = {"type": "object", "properties": {}, "additionalProperties": False}
            properties = groups.setdefault(group, shape)["properties"]
            properties[field] = {"description": doc.description, **kind(doc.name)}
    found["properties"]["settings"].update(properties=groups, additionalProperties=False)
    return f"{json.dumps(found, indent=2)}\n"


def kind(name: str) -> dict[str, Any]:
    """Return the schema of a setting."""
    group, _, field = name.partition(".")
    info = cast("type[Group]", Settings.model_fields[group].annotation).model_fields[field]
    choices = getattr(info.annotation, "__args__", ())
    if name in TYPES:
        return TYPES[name]
    if choices and all(isinstance(choice, str) for choice in choices):
        return {"enum": list(choices)}
    if isinstance(info.default, bool):
        return {"type": "boolean"}
    if isinstance(info.default, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(info.default, float):
        return DURATION
    return {"type": "array", "items": TEXT} if isinstance(info.default, tuple) else TEXT


def main() -> int:
    """Write all of them."""
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
