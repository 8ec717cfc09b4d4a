"""YAML with line numbers and without surprises.

A value is a string, `true` or `false`, null, a list, or a mapping with string keys. Whatever else
YAML 1.1 makes of plain text (`off`, `1:30`, `2026-01-01`, `012`) stays text, as in a flag.
"""

import re
from typing import Any

import yaml

_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}

MAX_DEPTH = 20
KeyPath = tuple[str | int, ...]
"""Keys and list indexes that lead from the top of the document to a value."""


class YamlError(ValueError):
    """Text that is not acceptable YAML; `line` counts from 1. The message quotes no value."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def decode(content: bytes) -> tuple[object, dict[KeyPath, int]]:
    """Read the content of a file as `load` reads a text. Raises YamlError."""
    try:
        return load(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise YamlError("not UTF-8", error.object.count(b"\n", 0, error.start) + 1) from None


def load(text: str) -> tuple[object, dict[KeyPath, int]]:
    """Return the value of a document, and the line of each of its keys and list items.

    Raises:
        YamlError: not YAML, or a duplicate key, anchor, alias, tag, or too many levels.
    """
    lines: dict[KeyPath, int] = {}
    try:
        _check_events(text)
        node = yaml.compose(text, yaml.BaseLoader)
        return (_value(node, (), lines) if node else None), lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError("control characters are not allowed", line) from None
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        message = " ".join(filter(None, (error.context, error.problem)))
        # PyYAML quotes these names, and a secret may look like one.
        message = re.sub("(alias|anchor|handle) '.*", r"\1", message)
        raise YamlError(message, mark.line + 1) from None


def _check_events(text: str) -> None:
    """Refuse what takes too long: a few aliases can mean gigabytes. Raises MarkedYAMLError."""
    depth = 0
    event: Any
    for event in yaml.parse(text, yaml.BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if getattr(event, "anchor", None) or getattr(event, "tag", None) or depth > MAX_DEPTH:
            problem = f"anchors, aliases, tags and more than {MAX_DEPTH} levels are not supported"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _value(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> object:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or (*path, key.value) in lines:
                problem = "duplicate key, or key that is not a string"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[*path, key.value] = key.start_mark.line + 1
        return {key.value: _value(item, (*path, key.value), lines) for key, item in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    is_quoted = isinstance(node, yaml.ScalarNode) and node.style
    return node.value if is_quoted else _CONSTANTS.get(node.value, node.value)
