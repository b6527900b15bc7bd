"""No promise without a test, and no test without a promise."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parent
TESTS = sorted(path for path in FOLDER.glob("test_*.py") if path != Path(__file__))


def promised() -> list[str]:
    """The name of every promise."""
    documents = yaml.safe_load((FOLDER / "promises.yaml").read_text())
    return [name for sections in documents.values() for promises in sections.values() for name in promises]


def covers(node: ast.AST) -> Iterator[str]:
    """The promises that a decorator or a row of a table names."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "covers":
            for argument in call.args:
                assert isinstance(argument, ast.Constant)
                yield str(argument.value)


def test_every_promise_is_covered_and_nothing_else() -> None:
    names = promised()
    assert len(set(names)) == len(names)
    covered = {name for path in TESTS for name in covers(ast.parse(path.read_text()))}
    assert set(names) - covered == set(), "no test covers these"
    assert covered - set(names) == set(), "nobody has promised these"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_every_test_names_what_it_covers(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert any(list(covers(decorator)) for decorator in node.decorator_list), node.name
