"""YAML files: values, line numbers, and what is refused."""

import pytest

from exporter.yaml_file import YamlError, decode, load

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("x", "x"), ("true", True), ("false", False), ("", None), ("~", None), ("null", None)),
        *(("'true'", "true"), ('""', ""), ("[]", []), ("[a, {b: [c]}]", ["a", {"b": ["c"]}])),
        *((text, text) for text in ("off", "yes", "True", "7", "012", "0x1f", "1:30", "1e5", "=")),
    ],
)
def test_values(text: str, value: object) -> None:
    assert load(f"a: {text}")[0] == {"a": value}


def test_keys_are_strings() -> None:
    assert load("1: a\ntrue: b\n<<: c\n~: d")[0] == {"1": "a", "true": "b", "<<": "c", "~": "d"}


@pytest.mark.parametrize("text", ["", "\n", "# comment", "---", "~"])
def test_an_empty_document_is_none(text: str) -> None:
    assert load(text)[0] is None


def test_lines_of_keys_and_items() -> None:
    _, lines = load("# comment\na:\n  b:\n    - x\n    - y: z\n\nc: {d: e}\n")
    expected = {"a": 2, "a.b": 3, "a.b.0": 4, "a.b.1": 5, "a.b.1.y": 5, "c": 7, "c.d": 7}
    assert expected.items() <= {".".join(map(str, key)): n for key, n in lines.items()}.items()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3", 3),
        ("a:\n  b: 1\n  'b': 2", 3),
        ("a: 1\n? [b]\n: c", 2),
        ("a:\n\tb: 1", 2),
        ("a: b: c", 1),
        ("a: [b", 1),
        ("a: 1\n---\nb: 2", 2),
        ("a: 1\nb: \x00", 2),
        ("a: " + "[" * 3000, 1),
        (f"a: 1\nb: *{SECRET}", 2),
        (f"a: 1\nb: &{SECRET} 2", 2),
        (f"a: !{SECRET}!x y", 1),
        ("a: &a [x]\nb: [*a, *a]", 1),
        ("a: 1\nb: !!python/object:os.system {}", 2),
        (f'a: "{SECRET}', 1),
        (f"a: 1\n{SECRET}", 2),
    ],
)
def test_refuses_with_the_line_and_without_values(text: str, line: int) -> None:
    with pytest.raises(YamlError) as caught:
        load(text)
    assert caught.value.line == line
    assert SECRET not in str(caught.value)


def test_decodes_utf_8_only() -> None:
    assert decode("\ufeffa: é".encode())[0] == {"a": "é"}
    with pytest.raises(YamlError) as caught:
        decode(b"a: 1\nb: \xff")
    assert caught.value.line == 2
