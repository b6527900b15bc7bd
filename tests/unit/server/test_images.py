"""Images on their way through the server: brought, bounded, charged and given back, on every API that takes them."""

import asyncio
import base64
from typing import Any

import pytest

from inferno_runtime.backends.base import ModelInfo
from inferno_runtime.worker.errors import EngineLost
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import CELLS, FakeEngine

pytestmark = pytest.mark.asyncio

PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


def data(size: str = "4 4", more: str = "") -> str:
    """An image of this size, as the fake engine reads it."""
    return base64.b64encode(f"{size} {more}".encode()).decode()


def chat(*images: str) -> dict[str, Any]:
    """The body of a chat about these images."""
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return {"model": "fake", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, *shown]}]}


def body(path: str, size: str = "4 4") -> dict[str, Any]:
    """The body of a request about an image, in the words of this API."""
    if path == "/v1/chat/completions":
        return chat(f"data:image/png;base64,{data(size)}")
    if path == "/v1/responses":
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{data(size)}"}
        return {"model": "fake", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}, image]}]}
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data(size)}}
    content = [{"type": "text", "text": "Hi"}, block]
    return {"model": "fake", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}


def seeing(**options: Any) -> FakeEngine:
    engine = FakeEngine(**options)
    engine.info = ModelInfo("gguf", "fake", "none", 0, 0, 512, 259, "generate", 0, vision=True)
    return engine


def settled(engine: FakeEngine) -> bool:
    """Whether all images were given back."""
    return engine.shown == engine.overlooked


@pytest.mark.parametrize("path", PATHS)
async def test_an_image_is_part_of_the_prompt_and_counted(start: Start, path: str) -> None:
    server = await start(seeing())
    answer = await server.client.post(path, json=body(path))
    assert answer.status_code == 200
    (submitted,) = server.engine.submitted
    assert len(submitted["images"]) == 1  # type: ignore[arg-type]
    prompt = submitted["prompt"]
    assert isinstance(prompt, list)
    assert sum(token < 0 for token in prompt) == CELLS
    usage = answer.json()["usage"]
    assert usage.get("prompt_tokens", usage.get("input_tokens")) == len(prompt)
    assert settled(server.engine)


@pytest.mark.parametrize(
    ("path", "counted"),
    [("/v1/responses/input_tokens", "/v1/responses"), ("/v1/messages/count_tokens", "/v1/messages")],
)
async def test_tokens_of_images_are_counted_without_an_answer(start: Start, path: str, counted: str) -> None:
    server = await start(seeing())
    tokens = (await server.client.post(path, json=body(counted))).json()["input_tokens"]
    await server.client.post(counted, json=body(counted))
    prompt = server.engine.submitted[0]["prompt"]
    assert isinstance(prompt, list)
    assert tokens == len(prompt)
    assert settled(server.engine)


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_without_a_projector_refuses_images(server: Running, path: str) -> None:
    refused = await server.client.post(path, json=body(path))
    assert refused.status_code == 400
    assert "no projector" in refused.json()["error"]["message"]
    assert not server.engine.shown


@pytest.mark.parametrize("path", PATHS)
async def test_an_image_that_cannot_be_shown_is_a_400_that_says_why(start: Start, path: str) -> None:
    server = await start(seeing(), max_image_pixels=100)
    refused = await server.client.post(path, json=body(path, "20 20"))
    assert refused.status_code == 400
    assert "it has more than 100 pixels" in refused.json()["error"]["message"]
    assert not server.engine.submitted
    assert settled(server.engine)


@pytest.mark.parametrize(
    ("images", "limits", "words"),
    [
        (["data:image/png;base64,???"], {}, "not Base64"),
        (["https://example.com/a.png"], {}, "imageHosts"),
        (["http://169.254.169.254/latest/meta-data"], {"image_hosts": ["*"]}, "no public address"),
        (["http://localhost/a.png"], {"image_hosts": ["*"]}, "no public address"),
        (["file:///etc/passwd"], {"image_hosts": ["*"]}, "must begin with data:"),
        (["a.png"], {}, "imageHosts"),
        ([f"data:image/png;base64,{data(more='x' * 2000)}"], {"max_image_bytes": 1024}, "more than 1,024 bytes"),
        ([f"data:image/png;base64,{data()}"] * 3, {"max_images": 2}, "at most 2 images"),
        ([f"data:image/png;base64,{data()}"], {"max_images": 0}, "at most 0 images"),
    ],
)
async def test_what_is_refused(start: Start, images: list[str], limits: dict[str, Any], words: str) -> None:
    server = await start(seeing(), **limits)
    refused = await server.client.post("/v1/chat/completions", json=chat(*images))
    assert refused.status_code == 400
    error = error_of(refused)
    assert words in str(error["message"])
    assert error["param"] == "messages"
    assert settled(server.engine)


async def test_an_image_that_stands_twice_is_read_once(start: Start) -> None:
    server = await start(seeing())
    same, other = (f"data:image/png;base64,{data(more=more)}" for more in ("a", "b"))
    assert (await server.client.post("/v1/chat/completions", json=chat(same, other, same))).status_code == 200
    assert len(server.engine.shown) == 2
    assert len(server.engine.submitted[0]["images"]) == 3  # type: ignore[arg-type]


async def test_several_answers_see_the_same_image(start: Start) -> None:
    server = await start(seeing())
    asked = body(PATHS[0]) | {"n": 3}
    answer = await server.client.post(PATHS[0], json=asked)
    assert len(answer.json()["choices"]) == 3
    assert len(server.engine.submitted) == 3
    assert settled(server.engine)


async def test_images_are_given_back_where_the_answer_fails(start: Start) -> None:
    server = await start(seeing())
    server.engine.refuses = EngineLost("gone")
    assert (await server.client.post(PATHS[0], json=body(PATHS[0]))).status_code == 500
    assert settled(server.engine)


async def test_images_are_given_back_when_the_client_goes_away(start: Start) -> None:
    server = await start(seeing())
    server.engine.resume.clear()
    asking = asyncio.create_task(server.client.post(PATHS[0], json=body(PATHS[0])))
    while not server.engine.submitted:
        await asyncio.sleep(0)
    asking.cancel()
    while not settled(server.engine):
        await server.client.get("/health/live")
    assert server.engine.shown


async def test_what_a_model_can_is_told(start: Start) -> None:
    server = await start(seeing(), FakeEngine("blind"))
    models = {model["id"]: model for model in (await server.client.get("/v1/models")).json()["data"]}
    assert models["fake"]["capabilities"] == ["generate", "chat", "vision"]
    assert models["blind"]["capabilities"] == ["generate", "chat"]
    health = {model["model"]: model for model in (await server.client.get("/health")).json()["models"]}
    assert (health["fake"]["vision"], health["blind"]["vision"]) == (True, False)
