"""What an engine is evaluated with when it starts."""

from pathlib import Path
from typing import Any

import pytest

from inferno_runtime.config import EngineConfig
from inferno_runtime.engine.tuning import Rates, Tuning
from inferno_runtime.worker.tuning import StartTuner

CONFIG = EngineConfig(threads=3, micro_batch=64)
BEFORE = Tuning(False, 3, 64, Rates(1.0, 2.0, 3.0), 4, 2.1)
NOT_MEASURED = Tuning(True, 3, 64)


class Measured(Exception):
    """The hardware was asked."""


def measurer(*_: Any) -> Any:
    raise Measured


@pytest.mark.parametrize("before", [BEFORE, NOT_MEASURED], ids=["measured", "not measured"])
def test_an_engine_that_takes_anothers_place_has_its_settings(tmp_path: Path, before: Tuning) -> None:
    tuner = StartTuner(tmp_path / "m.gguf", CONFIG, before.wire() | {"kernels": "x"})
    assert tuner(measurer, {}) == before
    assert tuner.tuning == before


@pytest.mark.parametrize("before", [{}, BEFORE.wire() | {"threads": 5}], ids=["the first", "of other options"])
def test_otherwise_it_is_measured(tmp_path: Path, before: dict[str, Any]) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    with pytest.raises(Measured):
        StartTuner(model, CONFIG, before)(measurer, {})
