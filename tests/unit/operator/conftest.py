"""Golden files: ``pytest tests/unit/operator --update-golden`` writes them anew, to be read in the diff."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

DATA = Path(__file__).parents[2] / "data" / "operator"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the operator's golden files anew")


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such, to be read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, list[dict[str, Any]]], None]:
    """Compares documents with a golden file."""
    update = bool(request.config.getoption("--update-golden", default=False))

    def check(name: str, documents: list[dict[str, Any]]) -> None:
        path = DATA / f"{name}.yaml"
        if update:
            path.write_text(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120))
        assert documents == list(yaml.safe_load_all(path.read_text()))

    return check
