"""What evaluates an ONNX graph."""

import onnxruntime
import pytest

from inferno_runtime.backends.onnx.session import chosen_providers
from inferno_runtime.config import EngineConfig

CPU, CUDA, OTHER = "CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"


@pytest.mark.parametrize(
    ("usable", "gpu_layers", "chosen"),
    [
        pytest.param([OTHER, CPU], -1, [CPU], id="no GPU"),
        pytest.param([CUDA, CPU], -1, [CUDA, CPU], id="a GPU"),
        pytest.param([CUDA, CPU], 12, [CUDA, CPU], id="a model is placed whole"),
        pytest.param([CUDA, CPU], 0, [CPU], id="a GPU that is not wanted"),
    ],
)
def test_providers(usable: list[str], gpu_layers: int, chosen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: usable)
    assert chosen_providers(EngineConfig(gpu_layers=gpu_layers)) == chosen
