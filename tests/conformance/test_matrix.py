"""The compatibility matrix, row by row, as a client sees it who has OpenAI's library and nothing else."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.random_models import WIDTH

STORY: Any = [{"role": "user", "content": "Tell me a story."}]
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which refuses answers that are not as it knows them."""
    with openai.OpenAI(
        base_url=server.url, api_key="none", max_retries=0, timeout=60, _strict_response_validation=True
    ) as strict:
        yield strict


@pytest.fixture(scope="module")
def lenient(client: openai.OpenAI) -> openai.OpenAI:
    """The same, where its types know less than OpenAI's own server sends: null for what is not there yet, base64."""
    return client.with_options(_extra_kwargs={"_strict_response_validation": False})


def chat(client: openai.OpenAI, messages: Any = QUESTION, **fields: Any) -> str:
    answer = client.chat.completions.create(model=MODEL, messages=messages, **fields)
    return answer.choices[0].message.content or ""


# Chat completions


@covers("matrix.chat.basic")
def test_chat_basic_completion(client: openai.OpenAI) -> None:
    assert "Paris" in chat(client, temperature=0)


@covers("matrix.chat.streaming")
def test_chat_streaming(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == chat(client, temperature=0)


@covers("matrix.chat.temperature")
def test_chat_temperature(client: openai.OpenAI) -> None:
    assert len({chat(client, STORY, temperature=0.0, max_tokens=20, seed=seed) for seed in range(3)}) == 1
    assert len({chat(client, STORY, temperature=2.0, max_tokens=20, seed=seed) for seed in range(3)}) == 3
    with pytest.raises(openai.BadRequestError, match="temperature"):
        chat(client, temperature=2.1)


@covers("matrix.chat.top-p")
def test_chat_top_p(client: openai.OpenAI) -> None:
    assert chat(client, STORY, top_p=0.0, max_tokens=20) == chat(client, STORY, temperature=0, max_tokens=20)
    chat(client, top_p=1.0, max_tokens=1)
    with pytest.raises(openai.BadRequestError, match="top_p"):
        chat(client, top_p=1.1)


@covers("matrix.chat.top-k")
def test_chat_top_k(client: openai.OpenAI) -> None:
    greedy = chat(client, STORY, temperature=0, max_tokens=20)
    assert chat(client, STORY, max_tokens=20, extra_body={"top_k": 1}) == greedy


@covers("matrix.chat.max-tokens")
def test_chat_max_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=STORY, max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1
    assert chat(client, temperature=0, max_tokens=2_000_000)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        chat(client, max_tokens=2_000_001)


@covers("matrix.chat.stop-sequences")
def test_chat_stop_sequences(client: openai.OpenAI) -> None:
    text = chat(client, temperature=0)
    assert chat(client, temperature=0, stop=["never said", text[4:8]]) == text[: text.index(text[4:8])]


@covers("matrix.chat.penalties")
@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_chat_penalties(client: openai.OpenAI, name: str) -> None:
    told = {chat(client, STORY, temperature=0, max_tokens=100, **{name: value}) for value in (-2.0, 0.0, 2.0)}
    assert len(told) == 3


@covers("matrix.chat.system-prompts")
def test_chat_system_prompts(client: openai.OpenAI) -> None:
    system: Any = [{"role": "system", "content": "You are a helpful assistant."}]
    answer = client.chat.completions.create(model=MODEL, messages=system + QUESTION, max_tokens=5)
    without = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=5)
    assert answer.usage is not None
    assert without.usage is not None
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens


# Completions


@covers("matrix.completions.text")
def test_text_completion(client: openai.OpenAI) -> None:
    assert "Paris" in client.completions.create(model=MODEL, prompt=PROMPT, temperature=0).choices[0].text


@covers("matrix.completions.streaming")
def test_text_streaming(client: openai.OpenAI, lenient: openai.OpenAI) -> None:
    stream = lenient.completions.create(model=MODEL, prompt=PROMPT, temperature=0, stream=True)
    whole = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


@covers("matrix.completions.echo")
def test_text_echo(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, echo=True)
    whole = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0)
    assert answer.choices[0].text == PROMPT + whole.choices[0].text


# Embeddings


@pytest.fixture(scope="module")
def embeddings(embedder: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=embedder.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@covers("matrix.embeddings.single")
def test_embeddings_of_a_single_input(embeddings: openai.OpenAI) -> None:
    answer = embeddings.embeddings.create(model=MODEL, input="a cat")
    assert [len(item.embedding) for item in answer.data] == [WIDTH]


@covers("matrix.embeddings.batch")
def test_embeddings_of_a_batch(embeddings: openai.OpenAI) -> None:
    answer = embeddings.embeddings.create(model=MODEL, input=["a cat"] * 100)
    assert [item.index for item in answer.data] == list(range(100))
    with pytest.raises(openai.BadRequestError, match="100"):
        embeddings.embeddings.create(model=MODEL, input=["a cat"] * 101)


@covers("matrix.embeddings.dimensions")
def test_embeddings_dimensions(embeddings: openai.OpenAI) -> None:
    assert len(embeddings.embeddings.create(model=MODEL, input="a cat", dimensions=16).data[0].embedding) == 16


@covers("matrix.embeddings.encoding-format")
def test_embeddings_encoding_format(embeddings: openai.OpenAI) -> None:
    # Without one the client asks for base64, and decodes it itself.
    coded = embeddings.embeddings.create(model=MODEL, input="a cat")
    plain = embeddings.embeddings.create(model=MODEL, input="a cat", encoding_format="float")
    assert coded.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


# Models


@covers("matrix.models.list")
def test_list_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


@covers("matrix.models.get")
def test_get_model_info(client: openai.OpenAI) -> None:
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "inferno")


@covers("matrix.models.create")
def test_create_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.post("/models", cast_to=object, body={"id": "new"})
    assert refused.value.status_code == 405


@covers("matrix.models.delete")
def test_delete_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.models.delete(MODEL)
    assert refused.value.status_code == 405


# Errors, as the client names them


@covers("errors.format", "overview.drop-in")
def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-unknown", messages=QUESTION)
    assert (missing.value.type, missing.value.param) == ("invalid_request_error", "model")
    assert missing.value.code == "model_not_found"
