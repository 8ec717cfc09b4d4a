"""YAML files: values, line numbers, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import SettingsError
from exporter.yaml_file import read

SECRET = "s3cr3t"
PLAIN = ("x", "off", "yes", "True", "7", "012", "0x1f", "1:30", "1e5", "=", "é")
CONSTANTS = {"true": True, "false": False, "": None, "~": None, "null": None}
OTHERS = {"'true'": "true", '""': "", "[]": [], "[a, {b: [c]}]": ["a", {"b": ["c"]}]}


def load(folder: Path, text: str) -> Any:
    """Read a text as a file; a lone surrogate is a byte that is not UTF-8."""
    (folder / "x.yml").write_bytes(text.encode(errors="surrogateescape"))
    return read(folder / "x.yml", minimum=0)


def test_values(tmp_path: Path) -> None:
    for text, value in ({each: each for each in PLAIN} | CONSTANTS | OTHERS).items():
        assert load(tmp_path, f"\ufeffa: {text}")[0] == {"a": value}
    assert load(tmp_path, "1: a\ntrue: b\n<<: c")[0] == {"1": "a", "true": "b", "<<": "c"}
    assert [load(tmp_path, text)[0] for text in ("", "# comment", "---", "~")] == [None] * 4


def test_lines_of_keys_and_items(tmp_path: Path) -> None:
    _, lines = load(tmp_path, "# comment\na:\n  b:\n    - x\n    - y: z\n\nc: {d: e}\n")
    expected = {"a": 2, "a.b": 3, "a.b.0": 4, "a.b.1": 5, "a.b.1.y": 5, "c": 7, "c.d": 7}
    assert expected.items() <= {".".join(map(str, key)): n for key, n in lines.items()}.items()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3", 3),
        ("a: 1\n? [b]\n: c", 2),
        ("a: 1\nb: \x00", 2),
        ("a: 1\nb: \udcff", 2),
        ("a: " + "[" * 30 + "]" * 30, 1),
        (f"a: 1\nb: &{SECRET} 2", 2),
        (f"a: !{SECRET}!x y", 1),
        ("a: 1\nb: !!python/object:os.system {}", 2),
        (f'a: "{SECRET}', 1),
        (f"a: 1\n{SECRET}", 2),
    ],
)
def test_refuses_with_the_line_and_without_values(text: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"x\.yml:{line}: ") as caught:
        load(tmp_path, text)
    assert SECRET not in str(caught.value)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path / "pipe", tmp_path):
        with pytest.raises(SettingsError, match=f"{path}: cannot be read: "):
            read(path)
