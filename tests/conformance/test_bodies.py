"""Bodies: what is JSON and what is not, and how large and how deep they may be."""

import http.client
import json
import re

import pytest

from inferno_runtime.config import ServerConfig
from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, checked, error_of
from tests.runtime.process import MODEL, ServerProcess

BODY = json.dumps({"model": MODEL, "prompt": "Hi", "max_tokens": 1}).encode()
POSTS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
LIMIT = 32 * 1024 * 1024


@covers("requests.not-json", "errors.400")
@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"{", b'{"model": }', b"[]", b'"text"', b"5", b"null", b"\xff\xfe", b'{"model": "\xff"}'],
    ids=repr,
)
def test_a_body_that_is_not_a_json_object(server: ServerProcess, path: str, body: bytes) -> None:
    response = server.client.post(path, content=body)
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert "Traceback" not in response.text


@covers("requests.depth")
@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("brackets", [b"[]", b"{}"])
def test_a_body_that_nests_too_deep(server: ServerProcess, path: str, brackets: bytes) -> None:
    depth = 100_000
    opening = brackets[:1] if brackets == b"[]" else b'{"a":'
    nested = opening * depth + b"1" + brackets[1:] * depth
    response = server.client.post(path, content=b'{"model": "x", "messages": ' + nested + b"}")
    assert response.status_code == 400
    error_of(response)
    assert "Traceback" not in server.log


@covers("requests.surrogate")
@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("surrogate", ["\\ud800", "\\udc00", "\\ud800a", "\\udc00\\ud800"])
def test_a_lone_surrogate(server: ServerProcess, path: str, surrogate: str) -> None:
    field = {
        "/v1/chat/completions": '"messages": [{"role": "user", "content": "%s"}]',
        "/v1/embeddings": '"input": "%s"',
    }
    body = f'{{"model": "{MODEL}", ' + field.get(path, '"prompt": "%s"') % surrogate + "}"
    response = server.client.post(path, content=body.encode())
    assert response.status_code == 400
    error_of(response)


@covers("requests.surrogate")
def test_a_pair_of_surrogates_is_a_character(server: ServerProcess) -> None:
    body = f'{{"model": "{MODEL}", "prompt": "\\ud83d\\ude00", "max_tokens": 1, "echo": true}}'
    text = server.client.post("/v1/completions", content=body.encode()).json()["choices"][0]["text"]
    assert text.startswith("😀")


# Media types


@covers("paths.media-type")
@pytest.mark.parametrize(
    "kind",
    [
        None,
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/vnd.api+json",
        "application/problem+json; charset=utf-8",
    ],
)
def test_what_is_taken_for_json(server: ServerProcess, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert server.client.post("/v1/completions", content=BODY, headers=headers).status_code == 200


@covers("paths.media-type", "errors.415")
@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
    ],
)
def test_what_is_not(server: ServerProcess, path: str, kind: str) -> None:
    response = server.client.post(path, content=BODY, headers={"Content-Type": kind})
    error = error_of(response)
    assert response.status_code == 415
    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_media_type")


# Sizes


@covers("requests.body-limit", "errors.413")
def test_32_mib_and_no_more(server: ServerProcess) -> None:
    assert ServerConfig().max_body_bytes == LIMIT
    assert server.client.post("/v1/completions", content=BODY.ljust(LIMIT)).status_code == 200
    response = server.client.post("/v1/completions", content=BODY.ljust(LIMIT + 1))
    assert response.status_code == 413
    assert error_of(response)["type"] == "invalid_request_error"


@covers("requests.declared-length", "errors.413")
@pytest.mark.parametrize("path", POSTS)
def test_a_length_above_the_limit_is_refused_before_the_body_is_sent(server: ServerProcess, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(LIMIT + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    checked(json.loads(response.read())["error"])
    connection.close()


# Prompts


@covers("requests.context-length")
@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/completions", {"prompt": [5] * 1024}, "prompt"),
        ("/v1/completions", {"prompt": ["Hi", "word " * 1500]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 1500}]}, "messages"),
        ("/v1/stream/sse", {"prompt": [5] * 1024}, "prompt"),
        ("/v1/stream/sse", {"messages": [{"role": "user", "content": "word " * 1500}]}, "messages"),
    ],
    ids=["ids", "strings", "chat", "sse", "sse-chat"],
)
def test_a_prompt_that_leaves_no_room(server: ServerProcess, path: str, fields: dict[str, object], param: str) -> None:
    context = server.client.get("/v1/models").json()["data"][0]["max_model_len"]
    response = server.client.post(path, json={"model": MODEL, **fields})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["param"], error["code"]) == (param, "context_length_exceeded")
    held, sent = (int(number) for number in re.findall(r"[0-9]+", error["message"]))
    assert held == context <= sent


@covers("requests.context-filled")
def test_a_generation_that_fills_the_context(server: ServerProcess) -> None:
    body = server.complete([5] * 1000, max_tokens=2_000_000, ignore_eos=True).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == 1024


@covers("requests.context-length")
def test_a_question_fits(server: ServerProcess) -> None:
    assert server.client.post(POSTS[0], json={"model": MODEL, "messages": QUESTION}).status_code == 200
