"""The documents' own examples as they stand, but for the host, the names of models and the key."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.shape import assert_like
from tests.conformance.wire import Socket, chunks_of, events_of, said
from tests.runtime.process import MODEL, ServerProcess

EXAMPLES = Path(__file__).parent / "examples"
KEY = "sk-example"
KEYS = f"- {{name: example, key: {KEY}}}\n"


def example(name: str, server: ServerProcess) -> str:
    """An example for this server."""
    text = (EXAMPLES / name).read_text().replace("localhost:8000", f"127.0.0.1:{server.port}")
    for documented in ("llama-7b", "text-embedding-ada-002"):
        text = text.replace(documented, MODEL)
    return text.replace("YOUR_API_KEY", KEY)


def documented(name: str, server: ServerProcess) -> Any:
    """An example that is JSON, decoded."""
    return json.loads(example(name, server))


def printed(*command: str) -> str:
    """What a command prints."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(name: str, server: ServerProcess, change: Callable[[str], str] = str) -> str:
    """What an example for the shell prints."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return printed("bash", "-c", change(example(name, server)))


# The numbered examples


@covers("examples.1", "chat.response")
def test_1_simple_chat_completion(server: ServerProcess) -> None:
    answer = json.loads(curl("1-simple-chat-completion.sh", server))
    assert_like(answer, documented("chat-response.json", server))
    assert answer["choices"][0]["message"]["content"]


@covers("examples.2", "chat.stream")
def test_2_streaming_chat_completion(server: ServerProcess) -> None:
    # `jq -R 'fromjson?'` passes over every line that is not JSON, and a line of a stream begins with `data:`: as it
    # stands the example prints nothing, whatever server it asks.
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    assert curl("2-streaming-chat-completion.sh", server, lambda text: f"set -o pipefail; {text}") == ""
    stream = curl("2-streaming-chat-completion.sh", server, lambda text: text.rpartition("|")[0])
    *chunks, done = chunks_of(stream)
    assert done == "[DONE]"
    assert said(chunks)
    named = curl(
        "2-streaming-chat-completion.sh", server, lambda text: text.replace("| jq", "| sed 's/^data: //' | jq")
    )
    assert '"chat.completion.chunk"' in named


@covers("examples.3", "embeddings.response", "embeddings.strings")
def test_3_embeddings_with_multiple_inputs(embedder: ServerProcess) -> None:
    answer = json.loads(curl("3-embeddings-with-multiple-inputs.sh", embedder))
    assert_like(answer, embeddings_response(embedder))
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]


@covers("examples.4", "models.list")
def test_4_list_models(server: ServerProcess) -> None:
    answer = json.loads(curl("4-list-models.sh", server))
    assert_like(answer, documented("models-response.json", server))
    assert [model["id"] for model in answer["data"]] == [MODEL]


@covers("examples.5")
def test_5_python_client(server: ServerProcess) -> None:
    text = printed(sys.executable, "-c", example("5-python-client.py.txt", server))
    answer, _, stream = text.partition("data: ")
    assert answer.strip()
    lines = ("data: " + stream).splitlines()
    assert all(line.startswith("data: ") for line in lines)
    *chunks, done = (line.removeprefix("data: ") for line in lines)
    assert done == "[DONE]"
    assert said([json.loads(chunk) for chunk in chunks])


@covers("examples.6")
def test_6_node(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "example.mjs"
    path.write_text(example("6-node.mjs", server))
    assert printed("node", str(path)).strip()


# Those of the sections


@pytest.fixture(scope="module")
def guarded(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    path: Path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    path.write_text(KEYS)
    with serve("--keys-file", str(path), "--requests-per-minute", "100", "--tokens-per-minute", "10000") as server:
        yield server


@covers("authentication.bearer")
def test_authentication(guarded: ServerProcess, server: ServerProcess) -> None:
    # It is a GET, and so it is told to POST by who knows the key, and by who asks for none.
    for asked in (guarded, server):
        assert json.loads(curl("authentication.sh", asked))["error"]["code"] == "method_not_allowed"
    stranger = curl("authentication.sh", guarded, lambda text: text.replace(KEY, "sk-unknown"))
    assert json.loads(stranger)["error"]["type"] == "authentication_error"


@covers("chat.request", "chat.response")
def test_the_body_of_a_chat(server: ServerProcess) -> None:
    response = server.client.post("/v1/chat/completions", json=documented("chat-request.json", server))
    assert response.status_code == 200
    assert_like(response.json(), documented("chat-response.json", server))


@covers("chat.stream")
def test_the_events_of_a_chat(server: ServerProcess) -> None:
    body = documented("chat-request.json", server) | {"stream": True, "stop": None}
    *chunks, done = chunks_of(server.client.post("/v1/chat/completions", json=body).text)
    shown = (EXAMPLES / "chat-stream.txt").read_text()
    opening, *texts, end = chunks_of(shown.strip())
    assert done == end
    assert_like(chunks[0], opening)
    assert_like(chunks[1], texts[0])


@covers("completions.request", "completions.response")
def test_the_body_of_a_completion(server: ServerProcess) -> None:
    response = server.client.post("/v1/completions", json=documented("completion-request.json", server))
    assert response.status_code == 200
    assert_like(response.json(), documented("completion-response.json", server))


@covers("completions.prompt-string", "completions.prompt-strings")
@pytest.mark.parametrize(("name", "choices"), [("completion-prompt.json", 1), ("completion-prompts.json", 3)])
def test_the_forms_of_a_prompt(server: ServerProcess, name: str, choices: int) -> None:
    body = {"model": MODEL, "max_tokens": 5} | documented(name, server)
    assert len(server.client.post("/v1/completions", json=body).json()["choices"]) == choices


def embeddings_response(server: ServerProcess) -> Any:
    """The documented response, in which numbers are left out."""
    return json.loads(example("embeddings-response.txt", server).replace(", ... 1536 values total", ""))


@covers("embeddings.request", "embeddings.string", "embeddings.strings", "embeddings.response")
@pytest.mark.parametrize(
    ("name", "inputs"), [("embeddings-request.json", 1), ("embeddings-string.json", 1), ("embeddings-strings.json", 3)]
)
def test_the_forms_of_an_input(embedder: ServerProcess, name: str, inputs: int) -> None:
    response = embedder.client.post("/v1/embeddings", json={"model": MODEL} | documented(name, embedder))
    assert_like(response.json(), embeddings_response(embedder))
    assert len(response.json()["data"]) == inputs


@covers("websocket.request", "websocket.start", "websocket.token", "websocket.complete")
def test_the_messages_of_a_websocket(server: ServerProcess) -> None:
    said_something = False
    with Socket(server) as client:
        for _ in range(20):  # by chance the model says nothing to this prompt now and then
            client.send(**documented("websocket-inference.json", server))
            start, *tokens, complete = client.until("complete")
            said_something |= bool(tokens)
            assert_like(start, documented("websocket-start.json", server))
            for token in tokens:
                assert_like(token, documented("websocket-token.json", server))
            assert_like(complete, documented("websocket-complete.json", server))
    assert said_something


@covers("sse.request", "sse.format")
def test_the_events_of_a_stream(server: ServerProcess) -> None:
    method, path = example("sse-request.txt", server).split()
    shown = events_of((EXAMPLES / "sse-stream.txt").read_text())
    events = events_of(server.client.request(method, path).text)
    token, complete = shown[0], shown[-1]
    for name, data in events[:-1]:
        assert name == token[0]
        assert_like(data, token[1])
    assert events[-1][0] == complete[0]
    assert_like(events[-1][1], complete[1])


@covers("compression.accept-encoding")
def test_the_accept_encoding_header(server: ServerProcess) -> None:
    name, _, value = example("accept-encoding.txt", server).strip().partition(": ")
    response = server.client.get("/metrics", headers={name: value})
    assert response.headers["content-encoding"] in value.split(", ")


@covers("errors.format", "paths.unknown-model")
def test_the_error(server: ServerProcess) -> None:
    response = server.client.post("/v1/completions", json={"model": "gpt-unknown", "prompt": "Hi"})
    assert_like(response.json(), documented("error.json", server))


@covers("limits.headers")
def test_the_rate_limits_headers(guarded: ServerProcess) -> None:
    response = guarded.client.get("/v1/models", headers={"X-API-Key": KEY})
    lines = (EXAMPLES / "rate-limit-headers.txt").read_text().splitlines()
    for name, _, value in (line.partition(": ") for line in lines):
        assert response.headers[name].isdecimal()
        if "-Limit-" in name.removeprefix("X-RateLimit"):
            assert response.headers[name] == value


@covers("limits.exceeded")
def test_the_error_beyond_a_limit(serve: Serve) -> None:
    with serve("--requests-per-minute", "1") as server:
        server.client.get("/v1/models")
        response = server.client.get("/v1/models")
    assert response.status_code == 429
    assert_like(response.json(), documented("rate-limit-error.json", server))
    shown = documented("rate-limit-error.json", server)["error"]["message"]
    assert response.json()["error"]["message"].startswith(shown)
