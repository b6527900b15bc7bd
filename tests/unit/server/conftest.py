"""A real server on a real socket, over fake engines, in the test's own loop."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import time

import httpx
import pytest_asyncio
from tornado.netutil import bind_sockets

from inferno_runtime.config import RuntimeConfig, ServerConfig
from inferno_runtime.server.access import Access
from inferno_runtime.server.app import application, http_server
from inferno_runtime.server.context import Context
from inferno_runtime.server.metrics import Metrics
from inferno_runtime.server.registry import Registry
from tests.unit.server.fakes import FakeEngine


@dataclass
class Running:
    """A server that runs, and a client of it."""

    context: Context
    port: int
    client: httpx.AsyncClient
    engine: FakeEngine

    async def chat(self, content: str = "Hi", **fields: object) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        return await self.client.post("/v1/chat/completions", json={"model": "fake", "messages": messages, **fields})

    async def complete(self, prompt: object = "Hi", **fields: object) -> httpx.Response:
        return await self.client.post("/v1/completions", json={"model": "fake", "prompt": prompt, **fields})


Start = Callable[..., Awaitable[Running]]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    """Starts servers: `await start(engine, …, load=True, **ServerConfig fields)`."""
    async with AsyncExitStack() as stack:

        async def begin(*engines: FakeEngine, load: bool = True, **fields: object) -> Running:
            served = engines or (FakeEngine(),)
            server = ServerConfig.model_validate(fields)
            config = RuntimeConfig(models=tuple(engine.served for engine in served), server=server)
            registry = Registry(served, server.max_sequences)
            metrics = Metrics(lambda: [(model.name, model.engine.stats) for model in registry])
            context = Context(config, registry, metrics, time(), Access(server))
            if load:
                for model in registry:
                    await model.load()
            http = http_server(application(context))
            sockets = bind_sockets(0, "127.0.0.1")
            http.add_sockets(sockets)
            stack.push_async_callback(http.close_all_connections)
            stack.callback(http.stop)
            port = sockets[0].getsockname()[1]
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
            )
            for engine in served:
                stack.push_async_callback(engine.stop)
            return Running(context, port, client, served[0])

        yield begin


@pytest_asyncio.fixture
async def server(start: Start) -> Running:
    """A server with one model, `fake`."""
    return await start()


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error object of a response, which must have its four fields."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return dict(error)
