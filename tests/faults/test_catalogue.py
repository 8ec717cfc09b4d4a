"""The page that lists what can go wrong, and the tests that provoke it: neither has a row that the other has not."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "faults.md"
ID = re.compile(r"[A-Z]\d\d(?=-|$)")


def listed() -> list[str]:
    """Return the ids in the first column of the page's tables."""
    return re.findall(r"^\| ([A-Z]\d\d) \|", PAGE.read_text(), re.MULTILINE)


def held(source: str) -> Iterator[str]:
    """Yield the ids that `@row`, `@pytest.mark.fault` and `pytest.param(id=…)` put into the ids of tests."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        named = {"row": node.args[:1], "fault": node.args}.get(name, [])
        named += [keyword.value for keyword in node.keywords if (name, keyword.arg) == ("param", "id")]
        texts = [each.value for part in named for each in ast.walk(part) if isinstance(each, ast.Constant)]
        yield from (found[0] for text in texts if (found := ID.match(str(text))))


def test_every_row_of_the_page_has_a_test_and_every_test_has_a_row() -> None:
    tested = {id_ for file in TESTS.rglob("test_*.py") for id_ in held(file.read_text())}
    assert [id_ for id_, times in Counter(listed()).items() if times > 1] == []
    forgotten, invented = sorted(set(listed()) - tested), sorted(tested - set(listed()))
    assert (forgotten, invented) == ([], [])


def test_what_is_no_id_of_a_row_is_not_taken_for_one() -> None:
    source = (
        'row("U01", a=1)\npytest.mark.fault("X26", "X27")\npytest.param(1, id="C01-a")\npytest.param("P99")\nf("S01")'
    )
    assert sorted(held(source)) == ["C01", "U01", "X26", "X27"]
