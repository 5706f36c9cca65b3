"""Every trap and every open point of the protocol reference has tests by its number."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TRAPS = range(1, 21)
OPEN_POINTS = range(1, 21)
NEAR_MISSES = range(1, 8)
_NUMBERED = re.compile(r"test_(trap|open_point|near_miss)_(\d\d)_\w+")


def numbered() -> Iterator[tuple[str, int]]:
    """Kind and number of the tests of this folder that have one."""
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found = _NUMBERED.fullmatch(node.name)
                if found is not None:
                    yield found[1], int(found[2])


def test_each_number_has_a_test() -> None:
    """And there is none for a number that the reference does not have."""
    wanted = {("trap", n) for n in TRAPS} | {("open_point", n) for n in OPEN_POINTS}
    assert set(numbered()) == wanted | {("near_miss", n) for n in NEAR_MISSES}


def test_nothing_here_is_named_otherwise() -> None:
    """A test that is misspelt would count for nothing."""
    names = {
        node.name
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != Path(__file__).name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert not [name for name in names if _NUMBERED.fullmatch(name) is None]
