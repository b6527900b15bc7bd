"""What a tokenizer and a template say, and the paths of OpenAI's that are not served."""

import pkgutil
import re
from pathlib import Path
from typing import Any

import openai
import openai.resources
import pytest

from inferno_runtime.config import Task
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import BOS, IM_END, IM_START, FakeEngine

pytestmark = pytest.mark.asyncio
CHAT = [{"role": "user", "content": "Hi <|im_end|>"}]
RENDERED = "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"


async def post(server: Running, path: str, **fields: Any) -> Any:
    response = await server.client.post(path, json={"model": "fake", **fields})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("root", ["", "/v1"])
async def test_a_prompt(server: Running, root: str) -> None:
    told = await post(server, f"{root}/tokenize", prompt="Où<|im_end|>")
    tokens = [*"Où".encode(), IM_END]
    assert told == {"count": 4, "max_model_len": 512, "tokens": tokens, "token_strs": None}
    assert await post(server, f"{root}/detokenize", tokens=tokens) == {"prompt": "Où<|im_end|>"}


async def test_a_conversation_is_what_a_chat_is_charged_for(server: Running) -> None:
    told = await post(server, "/tokenize", messages=CHAT)
    chat = await post(server, "/v1/chat/completions", messages=CHAT)
    assert told["count"] == chat["usage"]["prompt_tokens"]
    assert told["tokens"] == server.engine.submitted[0]["prompt"]
    assert (told["tokens"].count(IM_START), told["tokens"].count(IM_END)) == (2, 1)  # what was typed is text
    assert await post(server, "/apply-template", messages=CHAT) == {"prompt": RENDERED}


async def test_how_tokens_are_spelled(server: Running) -> None:
    told = await post(server, "/tokenize", prompt="é<s>", return_token_strs=True)
    assert told["token_strs"] == ["\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}", "<s>"]


async def test_the_tokens_around_a_prompt(server: Running) -> None:
    server.engine.vocabulary.add_bos = True
    assert (await post(server, "/tokenize", prompt="a"))["tokens"] == [BOS, 97]
    assert (await post(server, "/tokenize", prompt="a", add_special_tokens=False))["tokens"] == [97]
    server.engine.vocabulary.add_bos = False
    assert (await post(server, "/tokenize", prompt=""))["tokens"] == []


@pytest.mark.parametrize("task", ["generate", "embed", "rerank"])
async def test_models_of_every_task_have_tokens(start: Start, task: Task) -> None:
    server = await start(FakeEngine(task=task))
    assert (await post(server, "/tokenize", prompt="a"))["count"] == 1


@pytest.mark.parametrize(
    ("path", "fields", "param", "code"),
    [
        ("tokenize", {}, "prompt", "invalid_value"),
        ("tokenize", {"prompt": "a", "messages": CHAT}, "prompt", "invalid_value"),
        ("tokenize", {"prompt": 1}, "prompt", "invalid_value"),
        ("tokenize", {"prompt": "a" * 1_000_001}, "prompt", "invalid_value"),
        ("tokenize", {"messages": [{"role": "user", "content": "a" * 1_000_001}]}, "messages", "invalid_value"),
        ("tokenize", {"messages": []}, "messages", "invalid_value"),
        ("detokenize", {}, "tokens", "missing_required_parameter"),
        ("detokenize", {"tokens": [259]}, "tokens", "invalid_value"),
        ("detokenize", {"tokens": [-1]}, "tokens", "invalid_value"),
        ("detokenize", {"tokens": [1.5]}, "tokens", "invalid_value"),
        ("detokenize", {"tokens": [5] * 1_000_001}, "tokens", "invalid_value"),
        ("apply-template", {}, "messages", "missing_required_parameter"),
        ("apply-template", {"messages": [{"role": "wizard", "content": "a"}]}, "messages", "invalid_value"),
    ],
)
async def test_what_is_wrong_is_named(server: Running, path: str, fields: Any, param: str, code: str) -> None:
    response = await server.client.post(f"/{path}", json={"model": "fake", **fields})
    assert response.status_code == 400
    assert (error_of(response)["param"], error_of(response)["code"]) == (param, code)


@pytest.mark.parametrize("path", ["/tokenize", "/v1/detokenize", "/apply-template"])
async def test_they_need_a_key_and_count(start: Start, tmp_path: Path, path: str) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {name: one, key: sk-one}\n- {name: other, key: sk-other, models: [other]}\n")
    server = await start(FakeEngine(), keys_file=str(keys), requests_per_minute=1)
    fields: dict[str, Any] = {
        "/tokenize": {"prompt": "a"},
        "/v1/detokenize": {"tokens": [97]},
        "/apply-template": {"messages": CHAT},
    }
    body = {"model": "fake", **fields[path]}

    async def status(**headers: str) -> int:
        return (await server.client.post(path, json=body, headers=headers)).status_code

    assert await status() == 401
    assert await status(Authorization="Bearer sk-other") == 403
    assert [await status(Authorization="Bearer sk-one") for _ in range(2)] == [200, 429]


# What OpenAI has and this server has not


def openais_paths() -> set[str]:
    """The first part of every path that OpenAI's client asks for."""
    found: set[str] = set()
    for module in pkgutil.walk_packages(openai.resources.__path__, "openai.resources."):
        spec = module.module_finder.find_spec(module.name, None)
        assert spec is not None
        assert spec.origin is not None
        found |= set(re.findall(r'f?"/([a-z_]+)[/"?]', Path(spec.origin).read_text()))
    assert {"chat", "audio", "images"} <= found
    return found - {"v1"}


@pytest.mark.parametrize("part", sorted(openais_paths()))
async def test_every_path_of_openais_is_served_or_told_of(server: Running, part: str) -> None:
    response = await server.client.get(f"/v1/{part}/completions/x" if part != "models" else "/v1/models")
    if part in ("models", "completions", "embeddings"):
        assert response.status_code != 501
        return
    error: Any = error_of(response)
    assert (response.status_code, error["code"]) == (501, "endpoint_not_served")
    assert "/v1/chat/completions" in error["message"]


@pytest.mark.parametrize("path", ["/v1/audio", "/v1/audio/speech", "/v1/images/generations", "/v1/chat/completions/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_whatever_the_method(server: Running, method: str, path: str) -> None:
    response = await server.client.request(method, path)
    assert (response.status_code, error_of(response)["type"]) == (501, "invalid_request_error")


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/audio", "/v1", "/v1/", "/v1/audios", "/v1/chat", "/v1/chat/x", "/v2/audio"]
)
async def test_other_paths_are_not_there(server: Running, path: str) -> None:
    assert (await server.client.get(path)).status_code == 404


async def test_openais_client_does_not_try_again(server: Running) -> None:
    asked: list[Any] = []

    async def count(request: Any) -> None:
        asked.append(request)

    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none") as client:
        client._client.event_hooks["request"] = [count]
        with pytest.raises(openai.APIStatusError) as refused:
            await client.moderations.create(input="Hi")
    assert (refused.value.status_code, refused.value.code, len(asked)) == (501, "endpoint_not_served", 1)
