"""Compares the fields that the exporter decodes with the vendor's description of API v7.

`drift.py describe` writes the fields of each listing according to the vendor's SDK that can be
imported, and with `--openapi FILE` according to an OpenAPI file: JSON types and values of
enumerations, by path. `drift.py compare OLD NEW` reports what has changed between two such
descriptions, in Markdown. It exits with 3 if a field that the exporter decodes was removed, has
another type, or can have a new value. Other new fields are listed for information.
"""

import argparse
import importlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import inspect

sys.path.insert(0, str(Path(__file__).parent.parent))

from exporter.app import configured_sources
from exporter.settings import Settings
from exporter.thousandeyes import v7

Fields = dict[str, dict[str, list[str]]]
"""`types` and `enum` by path, such as `results[].icmpPing.loss`."""
Description = dict[str, Any]
"""`version` of the API, and `listings`: fields by path of the URL."""

SDK_MODELS = {
    "/v7/account-groups": "administrative.AccountGroups",
    "/v7/endpoint/agents": "endpoint_agents.ListEndpointAgentsResponse",
    "/v7/endpoint/test-results/local-networks/topologies/filter": (
        "endpoint_test_results.LocalNetworkTopologyResults"
    ),
    "/v7/endpoint/test-results/real-user-tests/filter": (
        "endpoint_test_results.RealUserEndpointTestResults"
    ),
    "/v7/endpoint/test-results/real-user-tests/networks/filter": (
        "endpoint_test_results.RealUserEndpointTestNetworkResults"
    ),
}
"""Package and model of the vendor's Python SDK for the responses of each listing."""

JSON_TYPES: dict[type[inspect.Type], str] = {
    inspect.BoolType: "boolean",
    inspect.FloatType: "number",
    inspect.IntType: "integer",
    inspect.ListType: "array",
    inspect.StrType: "string",
    inspect.StructType: "object",
}


def decoded() -> dict[str, dict[str, set[str]]]:
    """Return the JSON types of each field that is decoded, by listing and path.

    The type is empty if the field is not validated.
    """
    sources = configured_sources(Settings())
    listings = [listing for source, _ in sources for listing in source.listings["v7"]]
    found: dict[str, dict[str, set[str]]] = {}
    for listing in (v7.ACCOUNT_GROUPS, *listings):
        fields = found.setdefault(listing.path, {})
        for path, type_ in _decoded(inspect.type_info(listing.decode_page.__self__.type), ""):
            fields.setdefault(path, set()).add(type_)
    return found


def _decoded(node: inspect.Type, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, inspect.UnionType):
        for each in node.types:
            yield from _decoded(each, path)
    elif isinstance(node, inspect.Metadata):
        yield from _decoded(node.type, path)
    elif not isinstance(node, inspect.NoneType | inspect.LiteralType):
        yield path, JSON_TYPES.get(type(node), "")
    if isinstance(node, inspect.ListType):
        yield from _decoded(node.item_type, f"{path}[]")
    elif isinstance(node, inspect.StructType):
        for field in node.fields:
            yield from _decoded(field.type, f"{path}.{field.encode_name}".lstrip("."))


def describe_sdk() -> Description:
    """Return the fields of all listings according to the vendor's SDK."""
    package = importlib.metadata.distribution("thousandeyes-sdk-endpoint-agents")
    version = re.search(r"API version: ([\d.]+)", package.read_text("METADATA") or "")
    listings = {}
    for path, model in SDK_MODELS.items():
        name, _, class_ = model.partition(".")
        module = importlib.import_module(f"thousandeyes_sdk.{name}.models")
        schema = getattr(module, class_).model_json_schema()
        listings[path] = fields(schema, schema)
    return {"version": version[1] if version else "", "listings": listings}


def describe_openapi(file: Path) -> Description:
    """Return the fields of all listings according to an OpenAPI file."""
    document = yaml.load(file.read_bytes(), yaml.CSafeLoader)
    listings = {}
    for path in SDK_MODELS:
        operations = document["paths"][path.removeprefix("/v7")]
        operation = operations["post" if path.endswith("/filter") else "get"]
        (content,) = operation["responses"]["200"]["content"].values()
        listings[path] = fields(content["schema"], document)
    return {"version": document["info"]["version"], "listings": listings}


def fields(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Fields:
    """Return all fields of a JSON schema, whose references point into a document."""
    found: dict[str, dict[str, set[str]]] = {}

    def visit(node: Mapping[str, Any], path: str, parents: tuple[str, ...]) -> None:
        entry = found.setdefault(path, {"types": set(), "enum": set()})
        reference = node.get("$ref")
        if reference and reference not in parents:
            target: Any = document
            for key in reference.removeprefix("#/").split("/"):
                target = target[key]
            visit(target, path, (*parents, reference))
        for combination in ("allOf", "anyOf", "oneOf"):
            for each in node.get(combination, ()):
                visit(each, path, parents)
        type_ = node.get("type", "object" if "properties" in node else "null")
        entry["types"] |= {type_} - {"null"}
        entry["enum"] |= {str(value) for value in node.get("enum", ())}
        for name, each in node.get("properties", {}).items():
            visit(each, f"{path}.{name}".lstrip("."), parents)
        if "items" in node:
            visit(node["items"], f"{path}[]", parents)

    visit(schema, "", ())
    return {
        path: {key: sorted(values) for key, values in entry.items()}
        for path, entry in found.items()
    }


def compare(old: Description, new: Description) -> tuple[list[str], list[str]]:
    """Return what has changed in the fields that are decoded, and other new fields.

    Args:
        old: The description with which the exporter is tested.
        new: Another one; if it is of an earlier version of the API, nothing is compared.
    """
    drift: list[str] = []
    information: list[str] = []
    if numbers(new) < numbers(old):
        return drift, [f"nothing, because version {new['version']} is before {old['version']}"]
    for listing, ours in decoded().items():
        known, sent = old["listings"][listing], new["listings"][listing]
        for path, types in sorted(ours.items()):
            name = f"`{listing}`: `{path}`"
            if path not in sent:
                # Some fields, such as links, are sent and have never been described.
                drift += [f"{name} was removed"] if path in known else []
                continue
            accepted = types | {"integer"} if "number" in types else types
            if "" not in types and not accepted.issuperset(sent[path]["types"]):
                change = f"{' or '.join(sent[path]['types'])} instead of {' or '.join(types)}"
                drift.append(f"{name} is {change}")
            values = set(sent[path]["enum"]) - set(known[path]["enum"] if path in known else ())
            drift += [f"{name} has the new value `{value}`" for value in sorted(values)]
        added = sent.keys() - known.keys()
        information += [
            f"`{listing}`: `{path}`"
            for path in sorted(added)
            if not path.endswith("[]") and path.rpartition(".")[0] not in added
        ]
    return drift, information


def numbers(description: Description) -> list[int]:
    """Return the version of the API as numbers."""
    return [int(number) for number in re.findall(r"\d+", description["version"])]


def report(old: Description, new: Description) -> tuple[str, bool]:
    """Return the result of a comparison in Markdown, and whether there is drift."""
    drift, information = compare(old, new)
    parts = (("Drift", drift), ("New fields that the exporter does not decode", information))
    text = f"Version {new['version']} of the API, compared with {old['version']}.\n"
    for title, found in parts:
        text += f"\n### {title}\n\n" + "".join(f"- {each}\n" for each in found or ["none"])
    return text, bool(drift)


def main() -> int:
    """Run a command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("describe").add_argument("--openapi", type=Path)
    comparison = commands.add_parser("compare")
    comparison.add_argument("old", type=Path)
    comparison.add_argument("new", type=Path)
    options = parser.parse_args()
    if options.command == "describe":
        openapi = options.openapi
        json.dump(describe_openapi(openapi) if openapi else describe_sdk(), sys.stdout, indent=1)
        return 0
    text, drift = report(*(json.loads(file.read_bytes()) for file in (options.old, options.new)))
    sys.stdout.write(text)
    return 3 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
