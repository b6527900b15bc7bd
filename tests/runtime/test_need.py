"""What a pod is said to need, held against what a server takes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferno_runtime.config import EngineConfig
from inferno_runtime.models.inspect import inspect
from inferno_runtime.models.need import MemoryNeed, memory_need
from inferno_runtime.models.source import DEFAULT_MODEL
from inferno_runtime.units import MIB
from tests.runtime import onnx_twins
from tests.runtime.process import MODEL, ServerProcess

CASES = {
    "as it is by default": EngineConfig(),
    "a large cache": EngineConfig(slots=16, kv_cache_type="f32"),
    "one pool": EngineConfig(slots=16, kv_layout="unified"),
}


def taken(pid: int) -> int:
    """Bytes of a process and those that it has started, what they share counted once."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(taken(int(child)) for child in children)


def compared(path: Path, engine: EngineConfig) -> tuple[MemoryNeed, int]:
    """What a pod is said to need, and the bytes that a server takes whose slots are all in use."""
    need = memory_need(inspect(path), engine)
    assert need is not None
    flags = ("--slots", str(engine.slots), "--kv-cache-type", engine.kv_cache_type, "--kv-layout", engine.kv_layout)
    with ServerProcess(str(path), "--name", MODEL, *flags) as server, ThreadPoolExecutor(engine.slots) as clients:
        body = {"model": MODEL, "prompt": "one two three " * 200, "max_tokens": 50}
        answers = clients.map(lambda _: server.client.post("/v1/completions", json=body), range(engine.slots))
        assert {answer.status_code for answer in answers} == {200}
        return need, taken(server.pid)


@pytest.mark.parametrize("engine", CASES.values(), ids=CASES)
def test_a_server_takes_no_more_than_it_is_said_to_need(engine: EngineConfig) -> None:
    need, memory = compared(DEFAULT_MODEL, engine)
    assert memory <= need.total
    assert need.total - need.processes <= memory + 16 * MIB, "what follows from the model is really taken"


@pytest.mark.parametrize("slots", [1, 8])
def test_nor_does_one_of_an_onnx_model(slots: int, tmp_path: Path) -> None:
    need, memory = compared(onnx_twins.decoder(DEFAULT_MODEL, tmp_path), EngineConfig(slots=slots))
    assert memory <= need.total
