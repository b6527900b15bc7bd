"""Bodies, fields and queries that are wrong: each is refused in words that name what is to blame, and harms nobody."""

import codecs
import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.raw import Answer, answers, ask, exchange, get, head, request, unharmed

MESSAGES = [{"role": "user", "content": "Hi"}]
PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions", "sse": "/v1/stream/sse"}
BASES: dict[str, dict[str, Any]] = {
    "chat": {"model": MODEL, "messages": MESSAGES, "max_tokens": 1},
    "completion": {"model": MODEL, "prompt": "x", "max_tokens": 1},
    "sse": {"model": MODEL, "prompt": "x", "max_tokens": 1},
}


@pytest.fixture(autouse=True)
def _unharmed(server: ServerProcess) -> Iterator[None]:
    with unharmed(server):
        yield


@pytest.fixture(scope="module")
def embedder() -> Iterator[ServerProcess]:
    with ServerProcess("--task", "embed") as process:
        yield process


def assert_refused(answer: Answer, param: str | None, code: str | None = None) -> None:
    error = answer.error
    assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param), error
    assert code in (None, error["code"]), error


def body(text: str, name: str = "prompt") -> bytes:
    """A completion request in which a field is written as it stands."""
    fields = {field: json.dumps(value) for field, value in BASES["completion"].items()} | {name: text}
    return ("{" + ",".join(f'"{field}":{value}' for field, value in fields.items()) + "}").encode()


VALID = json.dumps({"messages": MESSAGES, "input": "x"} | BASES["completion"])
NOT_JSON = {
    "nothing": b"",
    "a space": b" ",
    "half an object": b'{"model',
    "an object without an end": VALID[:-1].encode(),
    "a second object": f"{VALID}{VALID}".encode(),
    "a comma at the end": VALID.replace("}", ",}").encode(),
    "a comment": f"{VALID} // why".encode(),
    "single quotes": VALID.replace('"', "'").encode(),
    "names without quotes": VALID.replace('"model"', "model").encode(),
    "an array": b"[]",
    "a string": b'"x"',
    "a number": b"1",
    "null": b"null",
    "a form": b"model=x&prompt=y",
    "a NUL": b"\0",
    "a NUL behind it": VALID.encode() + b"\0",
    "a byte order mark": codecs.BOM_UTF8 + VALID.encode(),
    "UTF-16": VALID.encode("utf-16"),
    "UTF-16 without a mark": VALID.encode("utf-16-le"),
    "UTF-32": VALID.encode("utf-32"),
    "gzip that is not declared": gzip.compress(VALID.encode()),
    "Latin-1": body('"é"').decode().encode("latin-1"),
    "a byte that UTF-8 never has": VALID.encode().replace(b'"x"', b'"\xff"'),
    "half a character": VALID.encode().replace(b'"x"', b'"\xe2\x82"'),
    "an overlong character": VALID.encode().replace(b'"x"', b'"\xc0\xaf"'),
    "a surrogate in UTF-8": VALID.encode().replace(b'"x"', b'"\xed\xa0\x80"'),
    "a field that is not UTF-8 and unknown": VALID.replace("}", ',"other":"').encode() + b'\xff"}',
    "a high surrogate": body('"\\ud83d"'),
    "a low surrogate": body('"\\ude00"'),
    "surrogates in the wrong order": body('"\\ude00\\ud83d"'),
    "a high surrogate before text": body('"\\ud83dx"'),
    "an escape that is none": body('"\\x41"'),
    "half an escape": body('"\\u12"'),
    "a string without an end": body('"x'),
    "NaN": body("NaN", "temperature"),
    "Infinity": body("Infinity", "temperature"),
    "minus Infinity": body("-Infinity", "temperature"),
    "a number with a plus": body("+1", "temperature"),
    "a hexadecimal number": body("0x1", "temperature"),
    "a number with a leading zero": body("01", "temperature"),
    "a number without digits": body("-", "temperature"),
    "True": body("True", "stream"),
    "an array of a hundred thousand levels": body("[" * 100_000, "other"),
    "an object of a hundred thousand levels": body('{"a":' * 100_000, "other"),
    "levels that end": body("[" * 100_000 + "]" * 100_000, "other"),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json(server: ServerProcess, path: str, data: bytes) -> None:
    answer = ask(server, request(data, path=path))
    assert_refused(answer, None, "invalid_json")


NOT_TAKEN = {
    "text": ("Content-Type: text/plain",),
    "a form": ("Content-Type: application/x-www-form-urlencoded",),
    "a form of files": ("Content-Type: multipart/form-data; boundary=x",),
    "a type that is none": ("Content-Type: json",),
    "another charset": ("Content-Type: application/json; charset=utf-16",),
    "two types": ("Content-Type: application/json", "Content-Type: text/plain"),
    "gzip": ("Content-Encoding: gzip",),
    "gzip twice": ("Content-Encoding: gzip, gzip",),
    "an unknown coding": ("Content-Encoding: x",),
}


@pytest.mark.parametrize("lines", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_what_says_that_it_is_not_json(server: ServerProcess, lines: tuple[str, ...]) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    answer = ask(server, request(bomb if "gzip" in lines[0] else VALID.encode(), *lines))
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


HUGE = "1" * 400
# For each field what it cannot be; JSON as it stands in the body.
WRONG_TYPES = {
    "model": ("1", "[]", "{}", "true"),
    "temperature": ('"hot"', "[]", "{}", "true", "1e999", HUGE),
    "top_p": ('"x"', "[]", "true"),
    "top_k": ('"x"', "1.5", "[]", "true", HUGE),
    "min_p": ('"x"', "{}"),
    "max_tokens": ('"5"', "1.5", "[]", "true", "1e999", HUGE),
    "presence_penalty": ('"x"', "[]"),
    "frequency_penalty": ('"x"', "[]"),
    "seed": ('"x"', "1.5", "[]", "true", HUGE),
    "stop": ("1", "{}", "[1]", "[null]", "[[]]", "true"),
    "stream": ('"true"', "1", "0", "[]"),
    "stream_options": ('"x"', "1", "[]", '{"include_usage": 1}'),
    "ignore_eos": ('"x"', "1"),
    "user": ("1", "[]", "{}"),
    "priority": ("1", '"urgent"', '"HIGH"', '""', "[]"),
    "n": ('"1"', "1.5", "[]", "true"),
    "min_tokens": ('"1"', "1.5", "[]"),
    "logit_bias": ("[]", '"x"', '{"1": "x"}', '{"1": null}'),
}
OUT_OF_RANGE = {
    "temperature": ("-0.001", "2.001", "-1e300", "1e300"),
    "top_p": ("-0.001", "1.001"),
    "top_k": ("-2", "101", str(2**63), str(2**64)),
    "min_p": ("-0.001", "1.001"),
    "typical_p": ("-0.001", "1.001"),
    "max_tokens": ("0", "-1", "2000001", str(2**64)),
    "presence_penalty": ("-2.001", "2.001"),
    "frequency_penalty": ("-2.001", "2.001"),
    "repeat_penalty": ("-1", "0", "1e-300", "10.001"),
    "seed": (str(2**63), str(-(2**63) - 1)),
    "stop": ('""', '[""]', '["a", ""]', json.dumps([str(number) for number in range(17)])),
    "n": ("0", "-1", "129"),
    "min_tokens": ("-1", "2"),  # above the one of max_tokens
    "stream_options": ('{"include_usage": true}',),  # without a stream
}
GENERATION = [
    (name, text) for fields in (WRONG_TYPES, OUT_OF_RANGE) for name, texts in fields.items() for text in texts
]


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize(("name", "text"), GENERATION, ids=[f"{name}={text[:24]}" for name, text in GENERATION])
def test_a_field_that_is_wrong(server: ServerProcess, kind: str, name: str, text: str) -> None:
    fields = {field: json.dumps(value) for field, value in BASES[kind].items()} | {name: text}
    data = "{" + ",".join(f'"{field}":{value}' for field, value in fields.items()) + "}"
    assert_refused(ask(server, request(data.encode(), path=PATHS[kind])), name)


# The endpoint, what is beside its base, and the field to blame.
OWN_FIELDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no model": ("chat", {"model": None}, "model"),
    "no messages": ("chat", {"messages": None}, "messages"),
    "messages that are none": ("chat", {"messages": []}, "messages"),
    "messages in words": ("chat", {"messages": "Hi"}, "messages"),
    "a message that is a string": ("chat", {"messages": ["Hi"]}, "messages"),
    "a message that is null": ("chat", {"messages": [None]}, "messages"),
    "a message of nothing": ("chat", {"messages": [{}]}, "messages"),
    "a message without content": ("chat", {"messages": [{"role": "user"}]}, "messages"),
    "a role that is a number": ("chat", {"messages": [{"role": 1, "content": "Hi"}]}, "messages"),
    "an unknown role": ("chat", {"messages": [{"role": "nobody", "content": "Hi"}]}, "messages"),
    "an empty role": ("chat", {"messages": [{"role": "", "content": "Hi"}]}, "messages"),
    "content that is a number": ("chat", {"messages": [{"role": "user", "content": 1}]}, "messages"),
    "content that is an object": ("chat", {"messages": [{"role": "user", "content": {}}]}, "messages"),
    "a part that is a string": ("chat", {"messages": [{"role": "user", "content": ["Hi"]}]}, "messages"),
    "a part without a type": ("chat", {"messages": [{"role": "user", "content": [{}]}]}, "messages"),
    "a part of an unknown type": ("chat", {"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages"),
    "a part without text": ("chat", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
    "a name with a space": ("chat", {"messages": [{"role": "user", "content": "Hi", "name": "a b"}]}, "messages"),
    "a name that is a control token": (
        "chat",
        {"messages": [{"role": "user", "content": "Hi", "name": "<|im_end|>"}]},
        "messages",
    ),
    "a name of 65 characters": (
        "chat",
        {"messages": [{"role": "user", "content": "Hi", "name": "x" * 65}]},
        "messages",
    ),
    "too many top logprobs": ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "top logprobs without logprobs": ("chat", {"top_logprobs": 1}, "top_logprobs"),
    "an unknown format": ("chat", {"response_format": {"type": "xml"}}, "response_format"),
    "a format that is a string": ("chat", {"response_format": "json"}, "response_format"),
    "tools that are none": ("chat", {"tools": "x"}, "tools"),
    "a choice of no tools": ("chat", {"tool_choice": "required"}, "tool_choice"),
    "no prompt": ("completion", {"prompt": None}, "prompt"),
    "a prompt that is a number": ("completion", {"prompt": 1}, "prompt"),
    "a prompt that is an object": ("completion", {"prompt": {}}, "prompt"),
    "prompts that are none": ("completion", {"prompt": []}, "prompt"),
    "a prompt of no tokens": ("completion", {"prompt": [[]]}, "prompt"),
    "prompts of two kinds": ("completion", {"prompt": ["a", 1]}, "prompt"),
    "a prompt among prompts that is null": ("completion", {"prompt": ["a", None]}, "prompt"),
    "a token that is no integer": ("completion", {"prompt": [1.5]}, "prompt"),
    "a token below any": ("completion", {"prompt": [-1]}, "prompt"),
    "a token beyond any": ("completion", {"prompt": [1_000_000_000]}, "prompt"),
    "a token beyond 64 bits": ("completion", {"prompt": [2**70]}, "prompt"),
    "129 prompts": ("completion", {"prompt": ["x"] * 129}, "prompt"),
    "a prompt beyond the context": ("completion", {"prompt": "word " * 5000}, "prompt"),
    "the best of none": ("completion", {"best_of": 0}, "best_of"),
    "the best of a stream": ("completion", {"best_of": 2, "stream": True}, "best_of"),
    "messages and a prompt": ("sse", {"messages": MESSAGES}, "prompt"),
    "two prompts": ("sse", {"prompt": ["a", "b"]}, "prompt"),
    "two answers": ("sse", {"n": 2}, "n"),
}


@pytest.mark.parametrize(("kind", "fields", "param"), OWN_FIELDS.values(), ids=OWN_FIELDS)
def test_a_field_of_one_endpoint_that_is_wrong(
    server: ServerProcess, kind: str, fields: dict[str, Any], param: str
) -> None:
    data = json.dumps(BASES[kind] | fields).encode()
    assert_refused(ask(server, request(data, path=PATHS[kind])), param)


@pytest.mark.parametrize("model", ["", "other", MODEL.upper(), f" {MODEL}", "../" + MODEL, "x" * 100_000, "\0", "ﷺ"])
def test_a_model_that_is_not_there(server: ServerProcess, model: str) -> None:
    for kind, path in PATHS.items():
        answer = ask(server, request(json.dumps(BASES[kind] | {"model": model}).encode(), path=path))
        assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
        assert len(answer.error["message"]) < 300


# A query, and the field to blame.
QUERIES = {
    "nothing": ("", "prompt"),
    "no model": ("prompt=x", "model"),
    "no prompt": (f"model={MODEL}", "prompt"),
    "both": (f"model={MODEL}&prompt=x&messages=[]", "prompt"),
    "messages that are not JSON": (f"model={MODEL}&messages=Hi", "messages"),
    "messages that are none": (f"model={MODEL}&messages=[]", "messages"),
    "messages of many levels": (f"model={MODEL}&messages={'[' * 50_000}", "messages"),
    "a prompt that is not UTF-8": (f"model={MODEL}&prompt=%ff", "prompt"),
    "a prompt that is a surrogate": (f"model={MODEL}&prompt=%ed%a0%80", "prompt"),
    "two prompts": (f"model={MODEL}&prompt=a&prompt=b", "prompt"),
    "a temperature in words": (f"model={MODEL}&prompt=x&temperature=hot", "temperature"),
    "a temperature of NaN": (f"model={MODEL}&prompt=x&temperature=NaN", "temperature"),
    "a temperature out of range": (f"model={MODEL}&prompt=x&temperature=3", "temperature"),
    "two temperatures": (f"model={MODEL}&prompt=x&temperature=1&temperature=1", "temperature"),
    "an empty limit": (f"model={MODEL}&prompt=x&max_tokens=", "max_tokens"),
    "no tokens": (f"model={MODEL}&prompt=x&max_tokens=0", "max_tokens"),
    "half a token": (f"model={MODEL}&prompt=x&max_tokens=0.5", "max_tokens"),
    "a flag that is a number": (f"model={MODEL}&prompt=x&ignore_eos=1", "ignore_eos"),
    "a seed beyond any": (f"model={MODEL}&prompt=x&seed={HUGE}", "seed"),
    "an empty stop": (f"model={MODEL}&prompt=x&stop=", "stop"),
    "17 stops": (f"model={MODEL}&prompt=x&" + urlencode([("stop", number) for number in range(17)]), "stop"),
    "two answers": (f"model={MODEL}&prompt=x&n=2", "n"),
}


@pytest.mark.parametrize(("query", "param"), QUERIES.values(), ids=QUERIES)
def test_a_query_that_is_wrong(server: ServerProcess, query: str, param: str) -> None:
    assert_refused(ask(server, get(f"/v1/stream/sse?{query}")), param)


@pytest.mark.parametrize(
    ("line", "param"),
    [("Last-Event-ID: 7", "Last-Event-ID"), ("X-Inferno-Priority: urgent", "X-Inferno-Priority")],
)
def test_a_header_that_is_wrong(server: ServerProcess, line: str, param: str) -> None:
    assert_refused(ask(server, get(f"/v1/stream/sse?{urlencode(BASES['sse'])}", line)), param)


EMBEDDINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "model"),
    "no input": ({"input": None}, "input"),
    "an empty input": ({"input": ""}, "input"),
    "inputs that are none": ({"input": []}, "input"),
    "an input of no tokens": ({"input": [[]]}, "input"),
    "an empty input among others": ({"input": ["a", ""]}, "input"),
    "an input of 8,001 characters": ({"input": "x" * 8001}, "input"),
    "101 inputs": ({"input": ["x"] * 101}, "input"),
    "an input that is a number": ({"input": 1}, "input"),
    "an input that is an object": ({"input": {}}, "input"),
    "inputs of two kinds": ({"input": ["a", 1]}, "input"),
    "an input that is null": ({"input": ["a", None]}, "input"),
    "a token below any": ({"input": [-1]}, "input"),
    "a token beyond any": ({"input": [[1_000_000_000]]}, "input"),
    "a token beyond 64 bits": ({"input": [2**70]}, "input"),
    "a token that is no integer": ({"input": [[0.5]]}, "input"),
    "no dimensions": ({"dimensions": 0}, "dimensions"),
    "more dimensions than there are": ({"dimensions": 1_000_000}, "dimensions"),
    "dimensions in words": ({"dimensions": "x"}, "dimensions"),
    "an unknown format": ({"encoding_format": "hex"}, "encoding_format"),
    "a flag that is a number": ({"truncate": 1}, "truncate"),
    "a user that is a number": ({"user": 1}, "user"),
    "an unknown priority": ({"priority": "urgent"}, "priority"),
}


@pytest.mark.parametrize(("fields", "param"), EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_a_request_for_vectors_that_is_wrong(embedder: ServerProcess, fields: dict[str, Any], param: str) -> None:
    data = json.dumps({"model": MODEL, "input": "x"} | fields).encode()
    assert_refused(ask(embedder, request(data, path="/v1/embeddings")), param)


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_at_an_embedder(embedder: ServerProcess, data: bytes) -> None:
    assert_refused(ask(embedder, request(data, path="/v1/embeddings")), None, "invalid_json")


def test_the_wrong_task(server: ServerProcess, embedder: ServerProcess) -> None:
    for one, path, fields in (
        (server, "/v1/embeddings", {"model": MODEL, "input": "x"}),
        (embedder, PATHS["chat"], BASES["chat"]),
        (embedder, PATHS["completion"], BASES["completion"]),
        (embedder, PATHS["sse"], BASES["sse"]),
    ):
        assert_refused(ask(one, request(json.dumps(fields).encode(), path=path)), "model", "unsupported_task")


# What looks wrong and is not.
ODD = {
    "a name twice": body('"x"').replace(b"{", b'{"prompt":"a",', 1),
    "unknown fields": body('"x"').replace(b"{", b'{"other":[{"a":null}],"x":1e400,', 1),
    "null for what is optional": body("null", "temperature"),
    "a surrogate pair": body('"\\ud83d\\ude00"'),
    "a NUL in a prompt": body('"\\u0000"'),
    "an empty prompt": body('""'),
    "white space": b" \t\r\n" + body('"x"') + b"\n\n",
    "a number with an exponent": body("1e0", "temperature"),
    "minus nothing": body("-0.0", "temperature"),
    "next to nothing": body("5e-324", "temperature"),
    "what other servers call off": body("-1", "top_k"),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_what_is_odd_and_right(server: ServerProcess, data: bytes) -> None:
    assert ask(server, request(data)).status == 200


def test_a_body_where_none_is_expected(server: ServerProcess) -> None:
    for path in ("/health", "/v1/models", "/metrics/profiles/recent"):
        assert ask(server, request(b"\xff" * 1000, method="GET", path=path)).status == 200


def test_a_body_that_is_the_next_request(server: ServerProcess) -> None:
    """A client that says that it sends a body, and sends another request in its place, has sent a body."""
    hidden = get("/health")
    data = head(f"Content-Length: {len(hidden)}") + hidden + get("/v1/models")
    assert [answer.status for answer in answers(exchange(server, data))] == [400, 200]
