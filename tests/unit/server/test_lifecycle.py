"""From start to end, in the test's own process: real signals, fake engines."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import httpx
import pytest

from inferno_runtime.backends.base import ModelError
from inferno_runtime.config import ListenConfig, ModelConfig, RuntimeConfig, ServedModel
from inferno_runtime.server import lifecycle
from tests.unit.server.fakes import FakeEngine

pytestmark = pytest.mark.asyncio

Launch = Callable[..., Awaitable["tuple[lifecycle.Server, asyncio.Task[int]]"]]


class SlowEngine(FakeEngine):
    """Loads when it is told to."""

    def __init__(self, served: ServedModel) -> None:
        super().__init__(served.name)
        self.may_load = asyncio.Event()
        self.stopped = False
        engines[served.name] = self

    async def start(self) -> None:
        await self.may_load.wait()
        await super().start()

    async def stop(self) -> None:
        self.stopped = True
        await super().stop()


engines: dict[str, SlowEngine] = {}


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Starts a server with engines of these names, and waits until it listens."""
    monkeypatch.setattr(lifecycle, "EngineClient", SlowEngine)

    async def begin(*names: str, port: int = 0) -> tuple[lifecycle.Server, asyncio.Task[int]]:
        models = tuple(ServedModel(name=name, model=ModelConfig(source="file:///x")) for name in names)
        server = lifecycle.Server(RuntimeConfig(models=models, listen=ListenConfig(port=port)))
        task = asyncio.create_task(server.run())
        while not server.url and not task.done():
            await asyncio.sleep(0)
        return server, task

    return begin


async def get(server: lifecycle.Server, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(server.url.removesuffix("/v1") + path)


async def test_probes_are_answered_while_the_model_loads(launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    server, task = await launch("one", "two")
    assert (await get(server, "/health/live")).status_code == 200
    assert (await get(server, "/health/ready")).json()["status"] == "loading"
    engines["one"].may_load.set()
    await asyncio.sleep(0.01)
    assert (await get(server, "/health/ready")).status_code == 503
    assert capsys.readouterr().out == ""
    engines["two"].may_load.set()
    while not (out := capsys.readouterr().out):
        await asyncio.sleep(0.001)
    serving, invitation = out.splitlines()
    assert serving == f"Serving one, two at {server.url}"
    assert invitation.startswith(f"Try: curl {server.url}/chat/completions ")
    assert (await get(server, "/health/ready")).status_code == 200
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0
    assert engines["one"].stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_model_loads(launch: Launch, number: int) -> None:
    _, task = await launch("one")
    os.kill(os.getpid(), number)
    assert await task == 0
    assert engines["one"].stopped


async def test_a_model_that_cannot_be_loaded(launch: Launch) -> None:
    server, task = await launch("one", "two")
    engines["two"].fails_to_load = ModelError("two.gguf: no such file")
    engines["two"].may_load.set()
    with pytest.raises(ModelError, match="no such file"):
        await task
    assert engines["one"].stopped
    with pytest.raises(httpx.ConnectError):
        await get(server, "/health")


async def test_two_models_of_one_name(launch: Launch) -> None:
    with pytest.raises(ModelError, match="two models go by the name 'one'"):
        await launch("one", "one")


async def test_an_address_that_is_taken(launch: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _, task = await launch("one", port=taken.getsockname()[1])
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1"):
            await task
