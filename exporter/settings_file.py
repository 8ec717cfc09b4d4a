"""The settings file: YAML read as texts with their places, and strict about everything that could surprise.

Which settings there are is left to `exporter.settings`, what their texts may be to `exporter.values`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One `name: value` with its place, `line:column` from 1. `value` is a text, or a list or mapping of such.

    Nothing (`name:`, `~`, `null`) is the empty text.
    """

    name: str
    value: object
    place: str


def read(content: bytes) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Read the two levels `group:` and `name: value`.

    Gives the entries, named `group.name`, and the problems, each with its place; an entry whose group is a plain value
    has the group's name alone. Nothing of the file but names of keys is in a problem.
    """
    entries: list[Entry] = []
    problems: list[tuple[str, str]] = []
    decoded = ""
    try:
        decoded = content.decode("utf-8-sig")
        document = _Document(decoded, problems)
        entries.extend(document.entries())
    except UnicodeDecodeError as error:
        problems.append((_place(content[: error.start].decode("utf-8", "replace")), "not UTF-8"))
    except yaml.reader.ReaderError as error:
        problems.append((_place(decoded[: error.position]), "a control character is not accepted"))
    except yaml.MarkedYAMLError as error:
        # PyYAML quotes single characters, and tags, which a secret may look like.
        problem = re.sub("'!.*", "…", error.problem or "")
        problems.append((_place(decoded[: error.problem_mark.index] if error.problem_mark else ""), problem))
    return entries, problems


def _place(before: str) -> str:
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


class _Document(yaml.SafeLoader):
    """PyYAML's scanner, parser and composer; its constructors are never reached."""

    def __init__(self, text: str, problems: list[tuple[str, str]]) -> None:
        super().__init__(text)
        self._problems = problems
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        refused = None
        if event.anchor is not None:
            refused = "anchors and aliases are not accepted"
        elif getattr(event, "tag", None) is not None:
            refused = "tags are not accepted"
        elif self._depth == MAX_DEPTH:
            refused = "nested too deeply"
        if refused:
            raise yaml.MarkedYAMLError(problem=refused, problem_mark=event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def entries(self) -> Iterator[Entry]:
        root = self.get_single_node()
        if root is None or _is_nothing(root):
            return
        if not isinstance(root, yaml.MappingNode):
            self._report(root, "settings are expected by group, such as poll: and in it interval: 1m")
            return
        for group, group_node, members in self._pairs(root):
            if isinstance(members, yaml.MappingNode):
                for name, node, value in self._pairs(members):
                    yield Entry(f"{group}.{name}", self._plain(value), _line_column(node))
            elif not _is_nothing(members):
                yield Entry(group, self._plain(members), _line_column(group_node))

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Give each key's text, its node, and the value's."""
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._report(key, "a name is expected")
            elif key.value in seen:
                self._report(key, "this name stands twice in its group")
            else:
                seen.add(key.value)
                yield key.value, key, value

    def _plain(self, node: yaml.Node) -> object:
        if isinstance(node, yaml.MappingNode):
            return {key: self._plain(value) for key, _, value in self._pairs(node)}
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item) for item in node.value]
        return "" if _is_nothing(node) else node.value

    def _report(self, node: yaml.Node, problem: str) -> None:
        self._problems.append((_line_column(node), problem))


def _line_column(node: yaml.Node) -> str:
    return f"{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _is_nothing(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"
