"""A server that was told of its end, which does not come."""

import asyncio
from pathlib import Path

import pytest

from inferno_runtime.config import ListenConfig, ModelConfig, RuntimeConfig, ServedModel, ServerConfig
from inferno_runtime.server import lifecycle

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("draining", [False, True], ids=["nothing came", "the end came"])
async def test_who_is_not_ended_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draining: bool) -> None:
    monkeypatch.setattr(lifecycle, "_LEAVING_SECONDS", 0.01)
    model = ServedModel(name="m", model=ModelConfig(source=(tmp_path / "m.gguf").as_uri()))
    server = lifecycle.Server(RuntimeConfig(models=(model,), server=ServerConfig(), listen=ListenConfig()))
    registry = server._context.registry
    server._leave()
    server._leave()
    assert registry.leaving
    assert server._http.conn_params.no_keep_alive
    registry.draining = draining
    async with asyncio.timeout(30):
        while registry.leaving:
            await asyncio.sleep(0.01)
    assert server._http.conn_params.no_keep_alive is draining
