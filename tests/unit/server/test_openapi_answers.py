"""The API's description held against live answers: every operation, with everything that can become of a request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferno_runtime.config import Task
from inferno_runtime.openai.operations import OPERATIONS, Operation
from inferno_runtime.server.base import BaseHandler
from inferno_runtime.worker.errors import EngineLost, GenerationTimeout, OutOfMemory
from tests.unit.server.conftest import Running, Start
from tests.unit.server.described import describe
from tests.unit.server.fakes import CHATML, FakeEngine
from tests.unit.server.stored import stored_response
from tests.unit.server.test_websocket import LONG, Client, Connect, connect, eventually

__all__ = ["connect"]  # a fixture

pytestmark = pytest.mark.asyncio

TASKS: dict[str, Task] = {"embeddings": "embed", "reranking": "rerank"}  # by the tag of what asks for it
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
THINKING = CHATML + "{# </think> #}"  # whose answers have reasoning in them
NARROW = "- {name: narrow, key: sk-narrow, models: [other]}\n"


async def broken(self: BaseHandler) -> None:
    raise RuntimeError("a fault of the server's own")


def drain(server: Running) -> None:
    server.context.registry.draining = True


def die(server: Running) -> None:
    server.engine.alive = False


def lose(server: Running) -> None:
    server.engine.fails = EngineLost("Lost.")


def take_too_long(server: Running) -> None:
    server.engine.says, server.engine.fails = "", GenerationTimeout("Late.")


def run_out(server: Running) -> None:
    server.engine.says, server.engine.fails = "", OutOfMemory("Full.")


@dataclass(frozen=True)
class Case:
    """Something that may become of a request, whatever the operation; it makes no difference to some.

    fields are sent as the operation takes them, beside those that are right; headers that are None are left out.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str | None] = field(default_factory=dict)
    content: bytes | None = None
    method: str | None = None
    trouble: Callable[[Running], None] = lambda server: None
    load: bool = True
    keys: str | None = None
    times: int = 1


CASES = {
    "all is well": Case(),
    "a stream": Case(fields={"stream": True}),
    "a stream of an engine that dies": Case(fields={"stream": True}, trouble=lose),
    "wrong values": Case(
        fields={
            "temperature": 9,
            "priority": 9,
            "dimensions": 0,
            "top_n": 0,
            "window": "2m",
            "limit": 0,
            "tokens": [-1],
            "messages": 5,
        }
    ),
    "no such model": Case(fields={"model": "none"}),
    "no key": Case(keys=NARROW),
    "a key for another model": Case(keys=NARROW, headers={"X-API-Key": "sk-narrow"}),
    "a page from elsewhere": Case(headers={"Origin": "https://other.example"}),
    "a page that is allowed": Case(
        settings={"allowed_origins": ("https://friend.example",)}, headers={"Origin": "https://friend.example"}
    ),
    "a large body": Case(settings={"max_body_bytes": 1024}, content=b" " * 2000),
    "a body of another type": Case(content=b"model=fake", headers={"Content-Type": "text/plain"}),
    "no handshake": Case(headers={"Upgrade": None}),
    "a handshake of another version": Case(headers={"Sec-WebSocket-Version": "8"}),
    "half a handshake": Case(headers={"Sec-WebSocket-Key": None}),
    "a stream that had ended": Case(headers={"Last-Event-ID": "x:complete"}),
    "a stream that was cut off": Case(headers={"Last-Event-ID": "x"}),
    "too many requests": Case(settings={"requests_per_minute": 1}, times=2),
    "an engine that dies": Case(trouble=lose),
    "a server that drains": Case(trouble=drain),
    "a server that is dead": Case(trouble=die),
    "a server that loads": Case(load=False),
    "no time": Case(trouble=take_too_long),
    "no memory": Case(trouble=run_out),
    "another method": Case(method="PATCH"),
}


async def ask(server: Running, operation: Operation, case: Case) -> httpx.Response:
    """The answer to a request that is right but for what the case says."""
    given = {"model": "fake", **case.fields}
    for account in ("address/127.0.0.1", "key/narrow"):
        server.context.responses.put(account, "fake", stored_response("fake"))
    path = operation.path.replace("{id}", given["model"])
    fields = given if any(parameter.name == "model" for parameter in operation.parameters) else case.fields
    asks: dict[str, Any] = {"params": {name: str(value) for name, value in fields.items()}}
    if operation.query:
        asks = {"params": {"prompt": "Hi", **given}}
    elif case.content is not None and operation.body:
        asks = {"content": case.content}
    elif operation.body:
        asks = {"json": {**_said(path), **given}}
    headers = {name: value for name, value in (UPGRADE | case.headers).items() if value is not None}
    if not operation.socket:
        headers = {name: value for name, value in headers.items() if name not in UPGRADE}
    request = server.client.build_request(case.method or operation.method, path, headers=headers, **asks)
    response = await server.client.send(request, stream=True)
    if response.status_code != 101:
        await response.aread()
    await response.aclose()
    return response


def _said(path: str) -> dict[str, Any]:
    """What a request to a path is about."""
    if path.startswith(("/v1/chat", "/v1/messages")) or "template" in path:
        return {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 99}
    return (
        {"input": "Hi"}
        if path.startswith("/v1/responses")
        else {"prompt": "Hi", "input": "Hi", "tokens": [72], "query": "Hi", "documents": ["Ho", {"text": "Ha"}]}
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_answers_are_described_and_what_is_described_is_answered(
    start: Start, operation: Operation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS.get(operation.tag, "generate")
    seen: set[int] = set()
    description = await describe(await start())

    async def try_out(case: Case) -> None:
        keys = {}
        if case.keys is not None:
            (tmp_path / "keys.yaml").write_text(case.keys)
            keys = {"keys_file": str(tmp_path / "keys.yaml")}
        server = await start(FakeEngine(task=task), load=case.load, **case.settings, **keys)
        case.trouble(server)
        for _ in range(case.times):
            response = await ask(server, operation, case)
            description.check_response(operation, response)
            seen.add(response.status_code)

    for case in CASES.values():
        await try_out(case)
    for handler in _subclasses(BaseHandler):
        if "run" in vars(handler):
            monkeypatch.setattr(handler, "run", broken)
    await try_out(Case())
    described = {int(status) for status in description.answers(operation) if status != "default"}
    assert seen - {405} == described - {408, 431}  # which are tried below


def _subclasses(kind: type) -> list[type]:
    below: list[type] = kind.__subclasses__()
    return below + [each for one in below for each in _subclasses(one)]


@pytest.mark.parametrize("names", [("fake",), ("one", "two")])
@pytest.mark.parametrize("load", [False, True])
async def test_answers_with_one_model_and_with_several(start: Start, names: tuple[str, ...], load: bool) -> None:
    server = await start(*(FakeEngine(name) for name in names), load=load)
    if load:
        await server.client.post("/v1/completions", json={"model": names[0], "prompt": "Hi"})
    description = await describe(server)
    for operation in OPERATIONS:
        if operation.method == "get" and operation.tag in ("models", "health", "monitoring"):
            response = await server.client.get(operation.path.replace("{id}", names[0]))
            description.check_response(operation, response)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/completions", {"stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2}),
        ("/v1/completions", {"logprobs": 2, "echo": True, "n": 2}),
        ("/v1/completions", {"logprobs": 2, "echo": True, "stream": True}),
        ("/v1/completions", {"best_of": 3}),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 2}),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 2, "stream": True}),
        ("/v1/stream/sse", {"logprobs": 2}),
        ("/v1/tokenize", {"return_token_strs": True}),
        ("/v1/embeddings", {"encoding_format": "base64"}),
        ("/v1/embeddings", {"input": ["a", "b"], "dimensions": 2}),
        ("/v1/rerank", {"return_documents": True, "top_n": 1}),
    ],
)
async def test_answers_in_other_shapes(start: Start, path: str, fields: dict[str, Any]) -> None:
    operation = [each for each in OPERATIONS if each.path == path][-1]
    server = await start(FakeEngine(task=TASKS.get(operation.tag, "generate")))
    response = await ask(server, operation, Case(fields=fields))
    assert response.status_code == 200
    (await describe(server)).check_response(operation, response)


async def test_messages_of_a_socket_are_described(start: Start, connect: Connect) -> None:
    server = await start(FakeEngine(says="x" * LONG, template=THINKING), token_batch_size=1, stream_buffer_kb=64)
    server.engine.context = 2 * LONG
    client = await connect(server)
    seen = await _conversation(server, client)
    description = await describe(server)
    for message in seen:
        description.check_message("Server", message)
    described = description.document["components"]["schemas"]["ServerMessage"]["discriminator"]["mapping"]
    assert {message["type"] for message in seen} == set(described)


async def _conversation(server: Running, client: Client) -> list[Any]:
    """One that has every kind of message in it."""
    await client.send(type="ping")
    await client.send(type="what")
    seen = [await client.receive() for _ in range(2)]
    await client.ask(id="a", params={"max_tokens": LONG})
    await eventually(lambda: (1, True) in server.engine.pauses)  # nothing is read meanwhile
    seen += await client.until("complete")
    server.engine.resume.clear()
    await client.ask(id="b", params={"accumulated": False}, flow_control={"ack": True})
    await client.until("start")
    await client.send(type="ack", request_id="b", received=9)
    seen += await client.until("error")
    await client.send(type="cancel", request_id="b")
    seen += await client.until("complete")
    server.engine.resume.set()
    server.engine.says = '<think>Hm.</think>{"name": "now", "arguments": {}}'
    tools = [{"type": "function", "function": {"name": "now"}}]
    await client.ask(id="c", prompt=None, messages=[{"role": "user", "content": "Hi"}], params={"tools": tools})
    return seen + await client.until("complete")


async def test_heads_that_are_too_large(server: Running) -> None:
    description = await describe(server)
    for operation in OPERATIONS:
        response = await server.client.request(operation.method, operation.path, headers={"X-Large": "x" * 100_000})
        assert response.status_code == 431
        description.check_response(operation, response)


@pytest.mark.parametrize("rest", ["", "Content-Length: 9\r\n\r\n"], ids=["a head", "a body"])
async def test_requests_that_do_not_end(server: Running, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    monkeypatch.setattr("inferno_runtime.server.transport.HEAD_SECONDS", 0.01)
    monkeypatch.setattr("inferno_runtime.server.base.BODY_SECONDS", 0.01)
    description = await describe(server)
    for operation in OPERATIONS:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"{operation.method.upper()} {operation.path} HTTP/1.1\r\nHost: x\r\n{rest}".encode())
        async with asyncio.timeout(20):
            head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        status, *lines = head.decode().split("\r\n")
        assert status.split()[1] == "408"
        response = httpx.Response(408, headers=dict(line.split(": ", 1) for line in lines), content=content)
        description.check_response(operation, response)
