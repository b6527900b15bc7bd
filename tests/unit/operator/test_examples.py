from pathlib import Path

import pytest
import yaml

from inferno_operator.api.resource import parse_spec

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_understood(path: Path) -> None:
    models = [each for each in yaml.safe_load_all(path.read_text()) if each["kind"] == "InfernoModel"]
    assert models
    for model in models:
        assert parse_spec(model)
