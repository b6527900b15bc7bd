"""Images on a real socket: a server with a projector, and clients that show it some, also such as are made to do harm."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import random_models, random_projectors
from tests.runtime.process import MODEL, ServerProcess, eventually

WORDS = "What is in this picture?"


@pytest.fixture(scope="module", params=["llava", "gemma3", "qwen2vl"])
def seeing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a projector of each kind."""
    folder = tmp_path_factory.mktemp("vision")
    flags: list[str] = []
    model = DEFAULT_MODEL
    if request.param == "qwen2vl":
        model = random_models.qwen2vl(folder / "model.gguf")
        flags = [str(model), "--name", MODEL]
    make = getattr(random_projectors, request.param)
    projector = make(folder / "mmproj.gguf", random_projectors.width_of(model))
    with ServerProcess(
        *flags, "--projector", str(projector), "--slots", "4", "--max-image-pixels", "1000000"
    ) as server:
        yield server


def drawn(seed: int, width: int = 90, height: int = 60, kind: str = "PNG") -> str:
    """A data URL with an image of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def parts(*shown: str) -> list[dict[str, Any]]:
    """The content of a message: a data URL is an image, and anything else a text."""
    return [
        {"type": "image_url", "image_url": {"url": part}}
        if part.startswith("data:")
        else {"type": "text", "text": part}
        for part in shown
    ]


def ask(server: ServerProcess, *shown: str, **fields: Any) -> httpx.Response:
    messages = fields.pop("messages", [{"role": "user", "content": parts(*shown)}])
    body = {"model": MODEL, "messages": messages, "max_tokens": 12, "temperature": 0, **fields}
    return server.client.post("/v1/chat/completions", json=body)


def said(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def likely(server: ServerProcess, *shown: str) -> list[float]:
    """How likely several tokens were at each place of an answer, which tells more of what was seen than the answer."""
    answer = ask(server, *shown, logprobs=True, top_logprobs=5, ignore_eos=True).json()
    places = answer["choices"][0]["logprobs"]["content"]
    return [token["logprob"] for place in places for token in place["top_logprobs"]]


def cached(response: httpx.Response) -> int:
    return int(response.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_what_is_seen_changes_what_is_said(seeing: ServerProcess) -> None:
    one, other = drawn(1), drawn(2)
    assert likely(seeing, one, WORDS) == pytest.approx(likely(seeing, one, WORDS), abs=0.02)
    assert likely(seeing, one, WORDS) != pytest.approx(likely(seeing, other, WORDS), abs=0.02)
    assert likely(seeing, one, WORDS) != pytest.approx(likely(seeing, WORDS), abs=0.02)
    assert likely(seeing, one, other, WORDS) != pytest.approx(likely(seeing, other, one, WORDS), abs=0.02)


def test_openais_client_shows_an_image_and_goes_on_about_it(seeing: ServerProcess) -> None:
    client = openai.OpenAI(base_url=seeing.url, api_key="unused", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": parts(WORDS, drawn(11))}]
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    text, usage = "", None
    for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert usage is not None
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And what else?"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, temperature=0)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens or usage.prompt_tokens - 16 <= 0


def test_the_same_image_is_found_again_and_another_is_not(seeing: ServerProcess) -> None:
    first = ask(seeing, drawn(21), WORDS)
    tokens = first.json()["usage"]["prompt_tokens"]
    again = ask(seeing, drawn(21, kind="BMP"), WORDS)  # the same pixels in another file
    assert cached(again) >= tokens - 2
    assert said(again) == said(first)
    other = ask(seeing, drawn(22), WORDS)
    assert cached(other) < tokens - 16


def test_images_in_responses_and_messages_are_the_same_images(seeing: ServerProcess) -> None:
    shown = drawn(31)
    chat = ask(seeing, WORDS, shown)
    response = seeing.client.post(
        "/v1/responses",
        json={
            "model": MODEL,
            "max_output_tokens": 12,
            "temperature": 0,
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": WORDS}, {"type": "input_image", "image_url": shown}],
                }
            ],
        },
    ).json()
    assert response["usage"]["input_tokens"] == chat.json()["usage"]["prompt_tokens"]
    assert "".join(item["content"][0]["text"] for item in response["output"]) == said(chat)
    gone_on = seeing.client.post(
        "/v1/responses",
        json={"model": MODEL, "previous_response_id": response["id"], "input": "And?", "max_output_tokens": 4},
    ).json()
    assert gone_on["usage"]["input_tokens_details"]["cached_tokens"] >= response["usage"]["input_tokens"] - 16
    image = {"type": "base64", "media_type": "image/png", "data": shown.partition(",")[2]}
    message = seeing.client.post(
        "/v1/messages",
        json={
            "model": MODEL,
            "max_tokens": 12,
            "temperature": 0,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": WORDS}, {"type": "image", "source": image}]}
            ],
        },
    ).json()
    usage = message["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == chat.json()["usage"]["prompt_tokens"]


def test_many_at_once_each_see_their_own(seeing: ServerProcess) -> None:
    shown = [drawn(40 + number) for number in range(4)]
    alone = [said(ask(seeing, image, WORDS)) for image in shown]
    text = said(ask(seeing, WORDS))
    with ThreadPoolExecutor(16) as pool:
        seen = [pool.submit(ask, seeing, shown[number % 4], WORDS) for number in range(16)]
        read = [pool.submit(ask, seeing, WORDS) for _ in range(4)]
        assert [said(answer.result()) for answer in seen] == alone * 4
        assert {said(answer.result()) for answer in read} == {text}


def test_several_answers_of_one_image(seeing: ServerProcess) -> None:
    answer = ask(seeing, drawn(51), WORDS, n=3, temperature=1, seed=5).json()
    assert len(answer["choices"]) == 3
    assert answer["usage"]["prompt_tokens"] < 200


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("data:image/png;base64,AAAA", "none of PNG"),
        ("data:image/png;base64,", "empty"),
        (drawn(1)[:200] + "=" * (-(len(drawn(1)[:200].partition(",")[2])) % 4), "broken"),
        (drawn(1, 1200, 1000, "BMP"), "1,000,000"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "none of PNG"),
    ],
    ids=["none", "empty", "cut", "large", "svg"],
)
def test_harmful_images_are_refused_and_harm_nobody(seeing: ServerProcess, image: str, words: str) -> None:
    engine = seeing.engine_pid()
    refused = ask(seeing, image, WORDS)
    assert refused.status_code == 400, refused.text
    assert words in refused.json()["error"]["message"]
    assert refused.json()["error"]["code"] == "invalid_image"
    assert seeing.engine_pid() == engine
    said(ask(seeing, drawn(1), WORDS))


@pytest.mark.parametrize("size", [(1, 1), (1, 99), (99, 1), (900, 10), (997, 1000)])
def test_images_of_any_size_are_seen(seeing: ServerProcess, size: tuple[int, int]) -> None:
    engine = seeing.engine_pid()
    answer = ask(seeing, drawn(1, *size), WORDS)
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "context_length_exceeded"
    assert seeing.engine_pid() == engine


def test_what_is_typed_is_no_image(seeing: ServerProcess) -> None:
    plain = ask(seeing, "<__media__><image>\U000f0000", WORDS)
    assert plain.status_code == 200
    tokens = plain.json()["usage"]["prompt_tokens"]
    both = ask(seeing, "<__media__><image>\U000f0000", drawn(1), WORDS)
    assert both.json()["usage"]["prompt_tokens"] > tokens


def test_a_client_that_goes_away_ends_its_answer(seeing: ServerProcess) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": parts(drawn(61), WORDS)}], "stream": True}
    with seeing.client.stream(
        "POST", "/v1/chat/completions", json={**body, "max_tokens": 200, "ignore_eos": True}
    ) as it:
        next(it.iter_bytes())
    eventually(lambda: seeing.active() == 0, "the sequence has ended")
    descriptors = list(Path(f"/proc/{seeing.pid}/fd").iterdir())
    assert not any("memfd:image" in str(path.readlink()) for path in descriptors if path.is_symlink())


def test_what_the_model_can_is_told(seeing: ServerProcess) -> None:
    assert "vision" in seeing.client.get("/v1/models").json()["data"][0]["capabilities"]
    assert seeing.client.get("/health").json()["vision"] is True
