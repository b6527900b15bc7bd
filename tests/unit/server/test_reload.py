"""Settings that change while the server serves."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferno_runtime.config import LIVE, ServerConfig
from inferno_runtime.resource import load
from inferno_runtime.server.reload import Origin, Reloader
from tests.unit.server.conftest import Running, Start


class File:
    """The resource that a server was started with."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **server: Any) -> None:
        """Puts another one in its place, as a kubelet does."""
        spec = {"model": {"source": "file:///fake.gguf"}, "server": server}
        head = {"apiVersion": "inferno.ai/v1alpha1", "kind": "InfernoModel", "metadata": {"name": "fake"}}
        fresh = self.path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(head | {"spec": spec}))
        fresh.replace(self.path)

    def reloader(self, running: Running) -> Reloader:
        return Reloader(Origin([self.path], lambda: load([self.path]), load([self.path]).models), running.context)


@pytest.fixture
def file(tmp_path: Path) -> File:
    made = File(tmp_path / "model.yaml")
    made.write()
    return made


async def limit(running: Running) -> str:
    return (await running.chat()).headers["X-RateLimit-Limit-Requests"]


async def test_the_next_request_has_the_new_settings(start: Start, file: File) -> None:
    running = await start()
    reloader = file.reloader(running)
    assert await limit(running) == "100"
    file.write(requestsPerMinute=7, tokenBatchSize=1, maxBodyBytes=2048)
    reloader.refresh()
    assert await limit(running) == "7"
    assert running.context.config.server.token_batch_size == 1
    assert (await running.chat("x" * 4096)).status_code == 413
    file.write()
    reloader.refresh()
    assert await limit(running) == "100", "what is left out is as it was by default"


async def test_what_needs_a_restart_is_named_and_left(
    start: Start, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    running = await start()
    reloader = file.reloader(running)
    file.write(drainSeconds=1, requestsPerMinute=7)
    with caplog.at_level(logging.WARNING):
        reloader.refresh()
    assert "these settings need a restart: drain_seconds" in caplog.text
    assert running.context.config.server.drain_seconds == 300
    assert await limit(running) == "7"


@pytest.mark.parametrize("text", ["not: [yaml", "[]", "apiVersion: v1"])
async def test_a_file_that_is_wrong_changes_nothing(
    start: Start, file: File, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    running = await start()
    reloader = file.reloader(running)
    file.path.write_text(text)
    reloader.refresh()
    assert "the settings stay as they were" in caplog.text
    assert await limit(running) == "100"


async def test_the_file_is_watched(start: Start, file: File) -> None:
    running = await start()
    watching = asyncio.create_task(file.reloader(running).watch())
    try:
        await asyncio.sleep(0)
        file.write(maxBodyBytes=4096)
        async with asyncio.timeout(30):
            while running.context.config.server.max_body_bytes != 4096:
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()


async def test_the_log_level(start: Start, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str] = []
    monkeypatch.setattr("inferno_runtime.server.reload.configure", lambda config: levels.append(config.log_level))
    running = await start()
    reloader = file.reloader(running)
    file.write(tokenBatchSize=2)
    reloader.refresh()
    file.write(logLevel="debug")
    reloader.refresh()
    assert levels == ["debug"]


def test_the_live_settings_are_settings() -> None:
    assert set(ServerConfig.model_fields) >= LIVE
