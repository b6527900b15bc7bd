"""Chat and completions over HTTP: whole answers, streams, and what can go wrong in each."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from inferno_runtime.worker.errors import (
    EngineError,
    EngineLost,
    EngineUnavailable,
    GenerationFailed,
    GenerationTimeout,
    OutOfMemory,
    Overloaded,
    TokenTimeout,
)
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import FakeEngine

pytestmark = pytest.mark.asyncio


def events_of(text: str) -> list[Any]:
    """The events of a stream, decoded; `[DONE]` stays a string."""
    blocks = [block for block in text.split("\n\n") if block]
    data = [block.removeprefix("data: ") for block in blocks if not block.startswith(":")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def said(events: list[Any], index: int = 0) -> str:
    """The text of one choice of a stream."""
    choices = [c for event in events if event != "[DONE]" for c in event.get("choices", []) if c["index"] == index]
    return "".join(c["text"] if "text" in c else c["delta"].get("content") or "" for c in choices)


async def eventually(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_whole_chat(server: Running) -> None:
    response = await server.chat("Hi", temperature=0, seed=1, max_tokens=50)
    assert response.status_code == 200
    body = response.json()
    assert body["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello, world", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    prompt = len(server.engine.submitted[0]["prompt"])  # type: ignore[arg-type]
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 12,
        "total_tokens": prompt + 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_several_prompts(server: Running) -> None:
    body = (await server.complete(["a", "bc"], max_tokens=5)).json()
    assert [(c["index"], c["text"], c["finish_reason"]) for c in body["choices"]] == [
        (0, "Hello", "length"),
        (1, "Hello", "length"),
    ]
    assert body["usage"]["prompt_tokens"] == 3
    assert body["usage"]["completion_tokens"] == 10


async def test_several_answers_to_each_prompt(server: Running) -> None:
    body = (await server.complete(["a", "bc"], max_tokens=5, n=2, echo=True, seed=3)).json()
    assert [(c["index"], c["text"]) for c in body["choices"]] == list(
        enumerate(("aHello", "aHello", "bcHello", "bcHello"))
    )
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 20)
    seeds = [request["sampling"].seed for request in server.engine.submitted]  # type: ignore[attr-defined]
    assert seeds == [3, 4, 3, 4]
    left = (await server.client.get("/v1/models")).headers["x-ratelimit-remaining-tokens"]
    assert int(left) == 10_000 - 23


async def test_a_stream_begins_with_what_is_repeated(server: Running) -> None:
    response = await server.complete(["Say ", ""], stream=True, echo=True)
    events = events_of(response.text)
    assert (said(events, 0), said(events, 1)) == ("Say Hello, world", "Hello, world")


async def test_max_tokens_is_cut_to_the_context(server: Running) -> None:
    await server.complete([65] * 500, max_tokens=1000)
    assert server.engine.submitted[0]["max_tokens"] == 12


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_stream_says_what_the_whole_says(start: Start, size: int) -> None:
    server = await start(token_batch_size=size)
    response = await server.chat(stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    events = events_of(response.text)
    assert events[-1] == "[DONE]"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert events[1]["choices"][0]["delta"] == {"content": "H"}  # the first token does not wait for a batch
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert said(events) == "Hello, world"
    assert len({event["id"] for event in events[:-1]}) == 1
    assert "usage" not in events[0]


async def test_usage_in_a_stream(server: Running) -> None:
    events = events_of((await server.complete(stream=True, stream_options={"include_usage": True})).text)
    assert all(event["usage"] is None for event in events[:-2])
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == 12


async def test_a_stream_of_several_prompts(server: Running) -> None:
    events = events_of((await server.complete(["a", "b", "c"], stream=True)).text)
    assert [said(events, index) for index in range(3)] == ["Hello, world"] * 3
    assert events[-1] == "[DONE]"


async def test_events_hold_whole_code_points(start: Start) -> None:
    engine = FakeEngine(says="a👩‍👩‍👧é漢")
    server = await start(engine, token_batch_size=1)
    events = events_of((await server.chat(stream=True)).text)
    assert said(events) == "a👩‍👩‍👧é漢"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_does_not_show(server: Running, stream: bool) -> None:
    response = await server.complete(stop=["lo, w", "zzz"], stream=stream)
    if stream:
        assert said(events_of(response.text)) == "Hel"
    else:
        assert response.json()["choices"][0]["text"] == "Hel"
        assert response.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (Overloaded("Full."), 503, "server_error", "overloaded"),
        (OutOfMemory("Too long."), 507, "server_error", "out_of_memory"),
        (EngineUnavailable("Gone."), 503, "server_error", "engine_unavailable"),
        (EngineLost("Lost."), 500, "server_error", "engine_restarted"),
        (GenerationFailed("Failed."), 500, "server_error", "generation_failed"),
        (GenerationTimeout("Slow."), 504, "timeout_error", "timeout"),
        (TokenTimeout("Silent."), 504, "timeout_error", "token_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_refuses(
    server: Running, error: EngineError, status: int, kind: str, code: str, stream: bool
) -> None:
    server.engine.refuses = error
    response = await server.chat(stream=stream)
    assert response.status_code == status
    assert (error_of(response)["type"], error_of(response)["code"]) == (kind, code)
    assert ("retry-after" in response.headers) is (status == 503)


@pytest.mark.parametrize("prompts", ["a", ["a", "b"]])
async def test_an_engine_that_dies_in_mid_stream(server: Running, prompts: object) -> None:
    server.engine.fails = EngineLost("Lost.")
    response = await server.complete(prompts, stream=True)
    assert response.status_code == 200
    *_, last = events_of(response.text)
    assert last == {"error": {"message": "Lost.", "type": "server_error", "param": None, "code": "engine_restarted"}}


async def test_an_engine_that_dies_under_a_whole_answer(server: Running) -> None:
    server.engine.fails = EngineLost("Lost.")
    response = await server.complete(["a", "b"])
    assert (response.status_code, error_of(response)["code"]) == (500, "engine_restarted")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_time_limit_before_the_first_byte(start: Start, stream: bool) -> None:
    server = await start(inference_timeout_seconds=1)
    server.engine.resume.clear()
    response = await server.chat(stream=stream)
    assert (response.status_code, error_of(response)["type"]) == (504, "timeout_error")
    await eventually(lambda: server.engine.cancelled == [1])


async def test_the_time_limit_in_mid_stream(start: Start) -> None:
    server = await start(inference_timeout_seconds=1, token_batch_size=1)
    body = {"model": "fake", "prompt": "a", "stream": True}
    async with server.client.stream("POST", "/v1/completions", json=body) as response:
        text = ""
        async for piece in response.aiter_text():
            server.engine.resume.clear()
            text += piece
    assert events_of(text)[-1]["error"]["code"] == "timeout"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompts", ["a", ["a", "b"]])
async def test_a_client_that_goes_away(server: Running, stream: bool, prompts: object) -> None:
    server.engine.resume.clear()
    request = asyncio.create_task(server.complete(prompts, stream=stream))
    await eventually(lambda: len(server.engine.submitted) == len(prompts))  # type: ignore[arg-type]
    request.cancel()
    await eventually(lambda: len(server.engine.cancelled) == len(prompts))  # type: ignore[arg-type]
    await eventually(lambda: not server.context.in_flight)
    server.engine.resume.set()
    assert (await server.chat()).status_code == 200
    assert b'status="499"' in server.context.metrics.text()


async def test_silence_is_filled_with_comments(start: Start) -> None:
    server = await start(keep_alive_seconds=1)
    server.engine.resume.clear()
    body = {"model": "fake", "prompt": "a", "stream": True}
    text = ""
    async with server.client.stream("POST", "/v1/completions", json=body) as response:
        async for piece in response.aiter_text():
            text += piece
            if ": waiting\n\n" in text:
                server.engine.resume.set()
    assert text.startswith(": waiting\n\n")
    assert said(events_of(text)) == "Hello, world"


async def test_a_large_body_is_worked_on_in_a_thread(server: Running) -> None:
    response = await server.chat("x" * 100_000)
    assert (response.status_code, error_of(response)["code"]) == (400, "context_length_exceeded")


async def test_models_by_name_and_alias(start: Start) -> None:
    server = await start(FakeEngine("one", says="1", aliases=("uno",)), FakeEngine("two", says="2"))
    for name, answer, model in [("one", "1", "one"), ("uno", "1", "one"), ("two", "2", "two")]:
        body = (await server.client.post("/v1/completions", json={"model": name, "prompt": "x"})).json()
        assert (body["choices"][0]["text"], body["model"]) == (answer, model)
    response = await server.client.post("/v1/completions", json={"model": "three", "prompt": "x"})
    assert response.status_code == 404
    assert error_of(response) == {
        "message": "The model 'three' does not exist.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


async def test_a_model_without_a_template(start: Start) -> None:
    engine = FakeEngine()
    engine.vocabulary.chat_template = None
    server = await start(engine)
    response = await server.chat()
    assert (response.status_code, error_of(response)["code"]) == (400, "no_chat_template")
    assert (await server.complete()).status_code == 200


async def test_a_template_that_refuses(start: Start) -> None:
    server = await start(FakeEngine(template="{{ raise_exception('Roles must alternate.') }}"))
    response = await server.chat()
    assert response.status_code == 400
    assert error_of(response)["message"] == "Roles must alternate."
    assert error_of(response)["param"] == "messages"


async def test_a_model_that_is_being_loaded(start: Start) -> None:
    server = await start(load=False)
    response = await server.chat()
    assert (response.status_code, error_of(response)["code"]) == (503, "engine_unavailable")
    assert int(response.headers["retry-after"]) > 0


async def test_a_server_that_drains(server: Running) -> None:
    server.engine.resume.clear()
    running = asyncio.create_task(server.chat())
    await eventually(lambda: server.engine.submitted)
    server.context.registry.draining = True
    async with httpx.AsyncClient(base_url=server.client.base_url, trust_env=False) as other:
        refused = await other.post("/v1/completions", json={"model": "fake", "prompt": "x"})
        assert (refused.status_code, error_of(refused)["code"]) == (503, "engine_unavailable")
        assert (await other.get("/health/ready")).status_code == 503
        assert (await other.get("/health/live")).status_code == 200
    server.engine.resume.set()
    assert (await running).status_code == 200
    assert server.context.idle.is_set()


async def test_a_fault_of_the_servers_own(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    server.engine.refuses = RuntimeError("secret")  # type: ignore[assignment]
    response = await server.chat()
    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert any(record.exc_info for record in caplog.records)
