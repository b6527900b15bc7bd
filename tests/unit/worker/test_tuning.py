"""What an engine is evaluated with when it starts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inferno_runtime.backends.base import Measure, Setting
from inferno_runtime.config import EngineConfig
from inferno_runtime.cpu import cpu_quota
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


@contextmanager
def fast(first: Setting) -> Iterator[Measure]:
    yield lambda setting, seconds: (100.0, 200.0, 300.0)


@pytest.mark.parametrize(
    ("missing", "remembered"), [(0.1, True), (1.0, False)], ids=["on a machine of its own", "beside a neighbour"]
)
def test_what_was_measured_beside_a_neighbour_is_not_remembered(
    tmp_path: Path, missing: float, remembered: bool
) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    tuner = StartTuner(model, EngineConfig(), available=lambda: cpu_quota() - missing)
    tuner(fast, {})
    assert tuner.tuning is not None
    assert tuner.tuning.rates is not None
    file = tmp_path / "m.gguf.tuning.json"
    assert file.exists() == remembered
    assert not remembered or json.loads(file.read_text())["tunings"]
