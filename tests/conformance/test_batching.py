"""Token batching, whole code points, and clients that go: on every transport."""

import http.client
import json
from collections.abc import Generator, Iterator
from contextlib import closing

import httpx
import pytest

from inferno_runtime.backends import load_tokenizer
from inferno_runtime.config import ServerConfig
from inferno_runtime.engine.request import Finished, FinishReason, Started
from inferno_runtime.worker.generation import Generation
from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.models import Model
from tests.conformance.trouble import ENDLESS
from tests.conformance.wire import STORY, Socket, chunks_of, events_of, said, text_of, tokens_of
from tests.runtime.process import MODEL, ServerProcess, eventually
from tests.unit.server.conftest import Start
from tests.unit.server.fakes import FakeEngine
from tests.unit.server.test_websocket import Connect

TRANSPORTS = ["stream", "sse", "websocket"]
NEVER = 10_000  # milliseconds


def pieces(server: ServerProcess, transport: str, **fields: object) -> list[str]:
    """The texts of a stream's events, those without text left out."""
    body = {"model": MODEL, "prompt": STORY, **fields}
    match transport:
        case "stream":
            chunks = chunks_of(server.client.post("/v1/completions", json=body | {"stream": True}).text)
            texts = [said([chunk]) for chunk in chunks]
        case "sse":
            events = events_of(server.client.post("/v1/stream/sse", json=body).text)
            texts = [data["token"] for name, data in events if name == "token"]
        case _:
            with Socket(server) as client:
                client.ask(params=fields)
                texts = [text_of([message]) for message in client.until("complete")]
    return [text for text in texts if text]


GREEDY = {"temperature": 0, "max_tokens": 90}


@pytest.fixture(scope="module")
def by_threes(serve: Serve) -> Iterator[ServerProcess]:
    """Waits for a batch for as long as it takes, and guesses nothing: a step brings one token."""
    with serve("--token-batch-ms", str(NEVER), "--speculation", "off") as server:
        yield server


@covers("batching.size", "batching.wait")
def test_the_defaults() -> None:
    assert (ServerConfig().token_batch_size, ServerConfig().token_batch_ms) == (3, 50)


@covers("batching.size", "batching.frames")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_three_tokens_to_a_message_are_a_third_of_the_messages(by_threes: ServerProcess, transport: str) -> None:
    texts = pieces(by_threes, transport, **GREEDY)
    assert "".join(texts) == by_threes.complete(STORY, **GREEDY).json()["choices"][0]["text"]
    # A first one alone, and a rest: where the loop is late a batch is larger, and never smaller.
    assert len(texts) <= 2 + 89 // 3


@covers("batching.size", "batching.first", "batching.off", "batching.wait")
@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"token_batch_ms": NEVER}, [1, 3, 3, 3, 2]),
        ({"token_batch_ms": NEVER, "token_batch_size": 256}, [1, 11]),
        ({"token_batch_ms": NEVER, "token_batch_size": 1}, [1] * 12),
    ],
    ids=["default", "large", "off"],
)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.asyncio
async def test_the_sizes_of_batches(
    start: Start, connect: Connect, transport: str, settings: dict[str, int], sizes: list[int]
) -> None:
    # In one process, where tokens are characters and come one by one, whatever else the machine does.
    server = await start(FakeEngine(says="Hello, world"), **settings)
    match transport:
        case "stream":
            texts = [said([chunk]) for chunk in chunks_of((await server.complete(stream=True)).text)]
        case "sse":
            query = {"model": "fake", "prompt": "Hi"}
            texts = [
                tokens_of([event]) for event in events_of((await server.client.get("/stream/sse", params=query)).text)
            ]
        case _:
            client = await connect(server)
            await client.ask()
            texts = [text_of([message]) for message in await client.until("complete")]
    assert [len(text) for text in texts if text] == sizes


class Hesitant(FakeEngine):
    """Says all that it has to say, and does not end before `resume` is set."""

    async def _say(self, generation: Generation, max_tokens: int) -> None:
        generation.on_started(Started(generation.id, 0, 0.0, 0.0))
        for token in str(self.says).encode():
            generation.on_tokens((token,))
        await self.resume.wait()
        generation.on_finished(Finished(generation.id, FinishReason.STOP))


@covers("batching.wait")
@pytest.mark.asyncio
async def test_fewer_are_sent_when_the_wait_is_over(start: Start) -> None:
    engine = Hesitant()
    engine.resume.clear()
    server = await start(engine, token_batch_size=256, token_batch_ms=20)
    query = {"model": "fake", "prompt": "Hi"}
    async with server.client.stream("GET", "/stream/sse", params=query) as response:
        text, pieces = "", response.aiter_text()
        while tokens_of(events_of(text)) != "Hello, world":
            text += await anext(pieces)
        engine.resume.set()


@covers("streaming.code-points")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_text_is_cut_at_whole_code_points(serve: Serve, model: Model, transport: str) -> None:
    # Each byte of the emoji is a token, and no other is drawn: characters come in pieces, and many bytes make none.
    vocabulary = list(load_tokenizer(str(model.path)).pieces)
    bias = {str(vocabulary.index(bytes([byte]))): 100 for byte in "😀".encode()}
    hot = {"temperature": 2, "top_p": 1, "top_k": 0, "max_tokens": 300, "ignore_eos": True, "logit_bias": bias}
    with serve("--token-batch-size", "1") as server:
        for seed in range(3):
            whole = server.complete(STORY, **hot, seed=seed).json()["choices"][0]["text"]
            assert sum(len(character.encode()) == 4 for character in whole) > 3
            assert "".join(pieces(server, transport, **hot, seed=seed)) == whole


@covers("streaming.client-gone")
@pytest.mark.parametrize("transport", ["whole", *TRANSPORTS])
def test_a_client_that_goes_leaves_nothing_behind(roomy: ServerProcess, transport: str) -> None:
    with closing(begun(roomy, transport)) as going:
        next(going)
        eventually(lambda: roomy.active() == 1, "the request is active")
    eventually(lambda: roomy.active() == 0, "its slot is free")
    eventually(lambda: roomy.client.get("/health").json()["engine"]["kv_usage"] == 0, "its cells are free")


def begun(server: ServerProcess, transport: str) -> Generator[None]:
    """A request whose client goes when this is closed."""
    body = {"model": MODEL, "prompt": STORY, **ENDLESS}
    match transport:
        case "whole":
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            with closing(connection):
                connection.request("POST", "/v1/completions", json.dumps(body))
                yield
        case "websocket":
            with Socket(server) as socket:
                socket.ask(params=ENDLESS)
                socket.until("token")
                yield
        case _:
            path = "/completions" if transport == "stream" else "/stream/sse"
            url = server.url + path
            with httpx.stream("POST", url, json=body | {"stream": True}, timeout=60, trust_env=False) as response:
                lines = response.iter_lines()
                next(lines)
                yield
