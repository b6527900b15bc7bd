"""LoRA adapters in a resource."""

from typing import Any

import pytest
from pydantic import ValidationError

from inferno_operator.manifests import configmap
from inferno_runtime.config import AdapterConfig
from tests.unit.operator.models import model

SQL = {"name": "sql", "source": "file:///models/sql.gguf"}


def test_the_pods_are_told_of_adapters_and_not_of_what_is_as_by_default() -> None:
    adapters = [SQL, {"name": "terse", "source": "file:///models/terse.gguf", "scale": 0.5, "aliases": ["short"]}]
    resource = model({"model": {"source": "pvc://models/llama.gguf", "adapters": adapters}})
    assert configmap.document(resource)["spec"]["model"]["adapters"] == adapters


@pytest.mark.parametrize(
    "change",
    [{"name": "a:b"}, {"name": ""}, {"name": "-a"}, {"source": "pvc://models/sql.gguf"}, {"scale": 1000}, {"rank": 8}],
)
def test_an_adapter_that_cannot_be_meant(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AdapterConfig.model_validate(SQL | change)
