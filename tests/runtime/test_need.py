"""What a pod is said to need, held against what a server takes."""

from pathlib import Path

import pytest

from inferno_runtime.config import EngineConfig
from inferno_runtime.models.inspect import inspect
from inferno_runtime.models.need import memory_need
from inferno_runtime.models.source import DEFAULT_MODEL
from inferno_runtime.units import MIB
from tests.runtime.process import ServerProcess

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


@pytest.mark.parametrize("engine", CASES.values(), ids=CASES)
def test_a_server_takes_no_more_than_it_is_said_to_need(engine: EngineConfig) -> None:
    need = memory_need(inspect(DEFAULT_MODEL), engine)
    assert need is not None
    flags = ("--slots", str(engine.slots), "--kv-cache-type", engine.kv_cache_type, "--kv-layout", engine.kv_layout)
    with ServerProcess(*flags) as server:
        body = {"model": "inferno-tiny", "prompt": "one two three " * 200, "max_tokens": 50}
        assert server.client.post("/v1/completions", json=body).status_code == 200
        memory = taken(server.pid)
    assert memory <= need.total
    assert need.total - need.processes <= memory + 16 * MIB, "what follows from the model is really taken"
