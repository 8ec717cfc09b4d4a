"""YAML files with line numbers and without surprises.

A value is a string, `true` or `false`, null, a list, or a mapping with string keys. Whatever else
YAML 1.1 makes of plain text (`off`, `1:30`, `2026-01-01`, `012`) stays text, as in a flag.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from exporter import files
from exporter.errors import SettingsError

_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}

MAX_DEPTH = 20
KeyPath = tuple[str | int, ...]
"""Keys and list indexes that lead from the top of the document to a value."""


def read(path: Path, minimum: int = 1) -> tuple[object, dict[KeyPath, int]]:
    """Return the value of a document, and the line of each of its keys and list items.

    `minimum` is a number of bytes.

    Raises:
        SettingsError: cannot be read, not YAML in UTF-8, or has a duplicate key, anchor, alias,
            tag, or too many levels. The message has the line and quotes no value.
    """
    lines: dict[KeyPath, int] = {}
    try:
        text = files.read(path, minimum).decode()
        _check_events(text)
        node = yaml.compose(text, yaml.BaseLoader)
        return (_value(node, (), lines) if node else None), lines
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        line, problem = error.object.count(b"\n", 0, error.start), "not UTF-8"
    except yaml.reader.ReaderError as error:
        line, problem = text.count("\n", 0, error.position), "control characters are not allowed"
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        line, problem = mark.line, " ".join(filter(None, (error.context, error.problem)))
        # PyYAML quotes these names, and a secret may look like one.
        problem = re.sub("(alias|anchor|handle) '.*", r"\1", problem)
    raise SettingsError([f"{path}:{line + 1}: {problem}"])


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
