"""What is promised and not there yet: how it is refused, and what it is to be."""

import pytest

from tests.conformance.covering import covers, later
from tests.conformance.wire import QUESTION, STORY, error_of
from tests.runtime.process import MODEL, ServerProcess

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@covers("later.refused")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages"),
    ],
    ids=str,
)
def test_of_a_chat_what_is_not_there_is_refused_by_name(
    server: ServerProcess, fields: dict[str, object], param: str
) -> None:
    refused(server, "chat/completions", {"messages": QUESTION, **fields}, param)


@covers("later.refused")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 2}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "the end"}, "suffix"),
    ],
    ids=str,
)
def test_of_a_completion_what_is_not_there_is_refused_by_name(
    server: ServerProcess, fields: dict[str, object], param: str
) -> None:
    refused(server, "completions", {"prompt": STORY, **fields}, param)


def refused(server: ServerProcess, endpoint: str, fields: dict[str, object], param: str) -> None:
    response = server.client.post(f"/v1/{endpoint}", json={"model": MODEL, **fields})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "unsupported_parameter")


@covers("sampling.best-of", "matrix.completions.best-of")
@later("best_of")
def test_best_of_charges_every_candidate(server: ServerProcess) -> None:
    response = server.complete(STORY, best_of=3, max_tokens=10, ignore_eos=True)
    assert response.status_code == 200
    assert len(response.json()["choices"]) == 1
    assert response.json()["usage"]["completion_tokens"] == 30


@covers("sampling.logprobs")
@later("logprobs")
def test_logprobs_of_a_chat(server: ServerProcess) -> None:
    response = server.chat(temperature=0, logprobs=True, top_logprobs=2)
    assert response.status_code == 200
    (choice,) = response.json()["choices"]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)


@covers("sampling.logprobs", "matrix.completions.logprobs")
@later("logprobs")
def test_logprobs_of_a_completion(server: ServerProcess) -> None:
    response = server.complete("The capital of France is", temperature=0, logprobs=2)
    assert response.status_code == 200
    (choice,) = response.json()["choices"]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert all(value <= 0 for value in choice["logprobs"]["token_logprobs"])


@covers("sampling.suffix")
def test_a_model_without_fill_in_tokens_has_no_suffix(server: ServerProcess) -> None:
    response = server.complete(STORY, suffix="the end")
    assert response.status_code == 400
    assert error_of(response)["param"] == "suffix"
