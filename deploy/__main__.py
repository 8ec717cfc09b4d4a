"""Writes the generated parts of the deployment files; run by `make docs`.

Helm cannot read files outside a chart, so the chart has copies of rules and dashboards.
"""

import json
import re
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel

from exporter import NAME, __version__
from exporter.settings import Settings, reference

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/kubernetes/thousandeyes-exporter"
COMPOSE = ROOT / "deploy/compose"
RULES = ROOT / "deploy/prometheus/thousandeyes.rules.yml"
IMAGE = "ghcr.io/thousandeyes-exporter/thousandeyes-exporter"
VERSION = r"[0-9]+\.[0-9]+\.[0-9]+\S*?"

CHART_VALUES = {
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
"""Settings that cannot be set under `settings`, with the chart value to use instead, if any."""

STRING = {"type": "string"}
STRINGS = {"type": "array", "items": STRING}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "api.account_groups": {
        "anyOf": [{"const": "all"}, {"type": "array", "items": {"type": ["string", "integer"]}}]
    },
    # Without user name and password, which would be readable in the release.
    "api.proxy": {"type": "string", "pattern": "^https?://[^@]+$"},
    "filter.search": {"type": "object", "additionalProperties": STRINGS},
    "metrics.families": {"anyOf": [{"enum": ["all", "standard", "none"]}, STRINGS]},
    "metrics.site_groups": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"pattern": STRING, "name": STRING},
            "required": ["pattern", "name"],
            "additionalProperties": False,
        },
    },
}
"""JSON schemas of settings whose type does not follow from their default."""


def generated_files() -> dict[Path, str]:
    """Return the content of every file that is generated in whole or in part, by path."""
    dashboards = sorted((ROOT / "grafana/dashboards").glob("*.json"))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {
        CHART / "files" / RULES.name: RULES.read_text(),
        **{CHART / "files/dashboards" / each.name: minified(each) for each in dashboards},
        CHART / "Chart.yaml": with_version(CHART / "Chart.yaml", "^(?:appV|v)ersion: "),
        CHART / "values.schema.json": values_schema(),
        ROOT / "Dockerfile": with_version(ROOT / "Dockerfile", r'image\.version="'),
        COMPOSE / "compose.yaml": with_version(COMPOSE / "compose.yaml", f"{IMAGE}:"),
        COMPOSE / "prometheus.yml": compose_prometheus(),
        **{page: with_version(page, f"{IMAGE}:|^{NAME} ") for page in pages},
    }


def minified(path: Path) -> str:
    """Return JSON without whitespace: the copy is not for reading."""
    content = json.loads(path.read_text())
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n"


def with_version(path: Path, prefix: str) -> str:
    """Return a file with the current version after each match of a prefix."""
    pattern = rf"({prefix}){VERSION}(?=[\s\"`]|$)"
    return re.sub(pattern, rf"\g<1>{__version__}", path.read_text(), flags=re.MULTILINE)


def compose_prometheus() -> str:
    """Return the Prometheus configuration with the host names of the containers."""
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    text = text.replace("localhost:9350", "exporter:9350")
    text = text.replace("localhost:9093", "alertmanager:9093")
    return (
        "# Generated from deploy/prometheus/prometheus.yml by `make docs`; do not edit.\n\n" + text
    )


def values_schema() -> str:
    """Return the schema of the chart values, with the settings of the exporter."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    groups: dict[str, Any] = {}
    for doc in reference():
        if doc.name in CHART_VALUES:
            continue
        group, _, field = doc.name.partition(".")
        empty = {"type": "object", "properties": {}, "additionalProperties": False}
        properties = groups.setdefault(group, empty)["properties"]
        properties[field] = {"description": doc.description, **setting_schema(doc.name)}
    schema["properties"]["settings"].update(properties=groups, additionalProperties=False)
    return f"{json.dumps(schema, indent=2)}\n"


def setting_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of a setting."""
    if name in SCHEMAS:
        return SCHEMAS[name]
    group, _, field = name.partition(".")
    info = cast("type[BaseModel]", Settings.model_fields[group].annotation).model_fields[field]
    choices = get_args(info.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return {"enum": list(choices)}
    by_default: dict[type, dict[str, Any]] = {
        bool: {"type": "boolean"},
        int: {"type": "integer", "minimum": 0},
        float: DURATION,
        tuple: STRINGS,
    }
    return by_default.get(type(info.default), STRING)


if __name__ == "__main__":
    for path, text in generated_files().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
