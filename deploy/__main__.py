"""Writes the generated parts of the deployment files; run by `make docs`.

Helm cannot read files outside a chart, so the chart has copies of rules and dashboards.
"""

import json
import re
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from exporter import NAME, __version__
from exporter.settings import Settings, reference

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/kubernetes/thousandeyes-exporter"
COMPOSE = ROOT / "deploy/compose"
RULES = ROOT / "deploy/prometheus/thousandeyes.rules.yml"
IMAGE = "ghcr.io/thousandeyes-exporter/thousandeyes-exporter"
VERSION = r"[0-9]+\.[0-9]+\.[0-9]+\S*?"

CHART_SETTINGS = {
    "api.token_file",
    "api.ca_file",
    "metrics.agent_names_key_file",
    "web.listen_address",
    "web.config_file",
    "simulator.listen_address",
    "simulator.token",
}
"""Settings that the chart sets, or that are of no use in it."""
STRING: dict[str, Any] = {"type": "string"}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"}
SCHEMAS: dict[str, dict[str, Any]] = {
    # YAML reads ids as numbers.
    "api.account_groups": {
        "anyOf": [{"const": "all"}, {"type": "array", "items": {"type": ["string", "integer"]}}]
    },
    # Without user name and password, which would be readable in the release.
    "api.proxy": {"type": "string", "pattern": "^https?://", "not": {"pattern": "@"}},
}
"""JSON schemas of settings that do not follow from their types."""
KEYWORDS = {"type", "enum", "pattern", "minimum", "maximum", "maxLength", "items", "required"}
KEYWORDS |= {"properties", "patternProperties", "additionalProperties"}
"""Keywords of JSON Schema to copy from the types of settings; formats are those of Python."""
SECRETS = {
    f"{name}.{field}"
    for name, outer in Settings.model_fields.items()
    for field, each in type(outer.default).model_fields.items()
    if "Secret" in str(each.annotation)
}
"""Settings that hold secrets, or may hold one."""


def generated_files() -> dict[Path, str]:
    """Return the content of every file that is generated in whole or in part, by path."""
    dashboards = sorted((ROOT / "grafana/dashboards").glob("*.json"))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {
        CHART / "files" / RULES.name: RULES.read_text(),
        **{CHART / "files/dashboards" / each.name: minified(each) for each in dashboards},
        CHART / "Chart.yaml": chart(),
        CHART / "README.md": with_generated(CHART / "README.md"),
        CHART / "values.schema.json": values_schema(),
        ROOT / "Dockerfile": with_version(ROOT / "Dockerfile", r'image\.version="'),
        COMPOSE / "compose.yaml": with_version(COMPOSE / "compose.yaml", f"{IMAGE}:"),
        COMPOSE / "prometheus.yml": compose_prometheus(),
        **{page: with_generated(page) for page in pages},
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


def chart() -> str:
    """Return Chart.yaml with the current version, and with what Artifact Hub shows about it."""
    text = with_version(CHART / "Chart.yaml", f"^(?:appV|v)ersion: |{IMAGE}:")
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    _, *paragraphs = newest.split("\n\n")
    summary = next(each for each in paragraphs if not each.startswith("#"))
    description = json.dumps(" ".join(summary.split()), ensure_ascii=False)
    security = str("\n### Security" in newest).lower()
    text = re.sub("(SecurityUpdates: ).*", rf'\1"{security}"', text)
    return re.sub('(description: )".*', lambda match: match[1] + description, text)


def with_generated(path: Path) -> str:
    """Return a page with the current version, the values of the chart, and its examples."""

    def generate(match: re.Match[str]) -> str:
        if match[2] != "values":
            return f"{match[1]}```yaml\n{(CHART / 'ci' / match[2]).read_text()}```\n"
        rows = (
            f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {description} |\n"
            for path, default, description, _ in values()
        )
        return f"{match[1]}| value | default | description |\n| --- | --- | --- |\n{''.join(rows)}"

    pattern = r"(<!-- generated: (values|\S+-values\.yaml) -->\n).*?(?=<!-- /generated -->)"
    text = with_version(path, f"{IMAGE}:|^{NAME} ")
    return re.sub(pattern, generate, text, flags=re.DOTALL)


def values() -> Iterator[tuple[list[str], Any, str, dict[str, Any]]]:
    """Yield path, default, description, and further schema of each value of the chart."""
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    path: list[str] = []
    comment = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment += f"{line.lstrip(' #')} "
            continue
        if key := re.match("( *)([a-zA-Z]+):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            schema, documented, description = comment.partition("-- ")
            if documented:
                further = yaml.safe_load(schema.removeprefix("@schema ")) or {}
                yield path, reduce(getitem, path, defaults), description.strip(), further
        comment = ""


def values_schema() -> str:
    """Return the schema of the values of the chart, with the settings of the exporter."""
    properties: dict[str, Any] = {"global": {"type": "object"}}  # which Helm adds
    special = {"settings": settings_schema(), "extraEnv": variables(), "extraArgs": flags()}
    for path, default, description, further in values():
        parent = properties
        for key in path[:-1]:
            parent = parent.setdefault(key, closed({}))["properties"]
        schema = special.get(path[-1]) or value_schema(default) | further
        parent[path[-1]] = {"description": description, **schema}
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    title = f"Values of the chart {NAME}"
    return f"{json.dumps(draft | {'title': title} | closed(properties), indent=2)}\n"


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def value_schema(default: Any) -> dict[str, Any]:
    """Return the schema that follows from the default of a value."""
    if isinstance(default, dict):
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if isinstance(default, list):
        return {"type": "array", "items": {"type": "object"}}
    if not isinstance(default, str):
        return {"type": "boolean" if isinstance(default, bool) else "integer"}
    if re.fullmatch(DURATION["pattern"], default):
        return DURATION
    return {"type": "string"} | ({"minLength": 1} if default else {})


def settings_schema() -> dict[str, Any]:
    """Return the schema of the settings, without secrets and those that the chart sets."""
    omitted = CHART_SETTINGS | SECRETS - SCHEMAS.keys()
    groups = {}
    for name, outer in Settings.model_fields.items():
        group = type(outer.default).model_json_schema()
        properties = {}
        for field, each in group["properties"].items():
            setting = f"{name}.{field}"
            if setting not in omitted:
                schema = SCHEMAS.get(setting) or setting_schema(each, group.get("$defs", {}))
                properties[field] = {"description": each["description"], **schema}
        groups[name] = {"description": group["description"], **closed(properties)}
    return closed(groups)


def setting_schema(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting in YAML from that of its type."""
    schema = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
    schema = schema.get("anyOf", [schema])[0]  # the other one is null, which YAML omits
    if schema.get("type") == "number":
        return DURATION
    own = {keyword: each for keyword, each in schema.items() if keyword in KEYWORDS}
    for keyword in {"properties", "patternProperties"} & own.keys():
        nested = own[keyword].items()
        own[keyword] = {name: setting_schema(each, definitions) for name, each in nested}
        own["additionalProperties"] = False
    if "items" in own:
        own["items"] = setting_schema(own["items"], definitions)
        if own["items"].get("type") == "string":
            return {"anyOf": [own, own["items"]]}
    return own


def variables() -> dict[str, Any]:
    """Return the schema of environment variables, those with secrets only from a Secret."""
    names = ["THOUSANDEYES_TOKEN", *(doc.variable for doc in reference() if doc.name in SECRETS)]
    item = {
        **closed({"name": STRING, "value": STRING, "valueFrom": {"type": "object"}}),
        "required": ["name"],
        "if": {"properties": {"name": {"enum": names}}},
        "then": {"required": ["valueFrom"]},
    }
    return {"type": "array", "items": item}


def flags() -> dict[str, Any]:
    """Return the schema of flags, without those of secrets and those that the chart sets."""
    names = [doc.flag for doc in reference() if doc.name in CHART_SETTINGS | SECRETS]
    refused = "|".join(["--config.file", *names]).replace(".", "[.]")
    item = STRING | {"pattern": "^--[a-z-]+[.][a-z-]+=", "not": {"pattern": f"^({refused})="}}
    return {"type": "array", "items": item}


if __name__ == "__main__":
    for path, text in generated_files().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
