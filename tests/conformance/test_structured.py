"""Answers in the form that a request asks for."""

import json

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import error_of
from tests.runtime.process import ServerProcess

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}


@covers("sampling.response-format")
def test_a_json_object(server: ServerProcess) -> None:
    response = server.chat("Give me a person as JSON.", response_format={"type": "json_object"}, temperature=0)
    assert response.status_code == 200
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert isinstance(json.loads(choice["message"]["content"]), dict)


@covers("sampling.response-format")
@pytest.mark.parametrize("strict", [None, False, True])
def test_json_by_a_schema(server: ServerProcess, strict: bool | None) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": strict}}
    response = server.chat(response_format=form, temperature=1.5)
    assert response.status_code == 200
    (choice,) = response.json()["choices"]
    answer = json.loads(choice["message"]["content"])
    assert choice["finish_reason"] == "stop"
    assert list(answer) == ["city", "big"]
    assert len(answer["city"]) <= 20
    assert answer["big"] in (True, False)


@covers("sampling.response-format")
def test_a_schema_that_is_none_is_refused_in_the_compilers_words(server: ServerProcess) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string", "format": "roman"}}}
    for stream in (False, True):
        response = server.chat(response_format=form, stream=stream)
        assert response.status_code == 400
        error = error_of(response)
        assert (error["param"], error["code"]) == ("response_format", "invalid_grammar")
