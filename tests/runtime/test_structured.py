"""Answers that follow a grammar, of both formats of the model, however hot they are sampled."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import openai
import pydantic
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conformance.wire import Socket, chunks_of, error_of, events_of, said, text_of, tokens_of
from tests.runtime.process import MODEL, ServerProcess
from tests.unit.worker.test_grammars import EXPLOSIVE

Schemas = st.SearchStrategy[dict[str, Any]]
HOT = {"temperature": 1.5, "max_tokens": 900}

# Schemas whose documents are short, so that each comes to its end: no number of any type but integers, for a hot model
# finds no end of digits behind a point.
NAMES = st.text('abcdefghijk_ é"\\/', min_size=1, max_size=6)
LEAVES: Schemas = st.one_of(
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 3),
        st.integers(0, 4),
    ),
    st.builds(
        lambda least, more: {"type": "integer", "minimum": least, "maximum": least + more},
        st.integers(-1000, 1000),
        st.integers(0, 5000),
    ),
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["null", "boolean"]},
            {"type": "string", "pattern": "^[A-Z][a-z]{1,5}$"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "uuid"},
            {"type": "string", "format": "ipv4"},
        ]
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.none() | st.booleans() | st.integers(-99, 99) | NAMES, min_size=1, max_size=4),
    ),
    st.builds(
        lambda value: {"const": value},
        st.recursive(st.integers(-9, 9) | NAMES, lambda inner: st.lists(inner, max_size=2), max_leaves=2),
    ),
)


def _object(properties: dict[str, Any], required: set[str]) -> dict[str, Any]:
    names = [name for name in properties if name in required]
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _compound(inner: Schemas) -> Schemas:
    objects = st.dictionaries(NAMES, inner, max_size=3).flatmap(
        lambda properties: st.builds(
            _object, st.just(properties), st.sets(st.sampled_from(sorted(properties))) if properties else st.just(set())
        )
    )
    arrays = st.builds(
        lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
        inner,
        st.integers(0, 1),
        st.integers(0, 1),
    )
    tuples = st.builds(
        lambda items: {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)},
        st.lists(inner, min_size=1, max_size=2),
    )
    choices = st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3))
    references = st.builds(lambda schema: {"$defs": {"it": schema}, "$ref": "#/$defs/it"}, LEAVES)
    return objects | arrays | tuples | choices | references


SCHEMAS = st.recursive(LEAVES, _compound, max_leaves=4).filter(lambda schema: "$defs" not in json.dumps(schema)[10:])


def by_schema(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


def answer_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "stop"
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def drawn(count: int) -> list[dict[str, Any]]:
    """So many random schemas, the same each time."""
    schemas: list[dict[str, Any]] = []

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEMAS)
    def draw(schema: dict[str, Any]) -> None:
        schemas.append(schema)

    draw()
    return schemas


def test_an_answer_is_what_its_schema_allows(server: ServerProcess) -> None:
    """Of two hundred schemas, eight at a time; every other answer is drawn from all of the vocabulary."""
    schemas = drawn(200)
    assert len(schemas) == 200

    def ask(number: int) -> str:
        whole = {"top_k": 0, "top_p": 1.0} if number % 2 else {}
        form = by_schema(schemas[number])
        return answer_of(server.chat("Tell me.", response_format=form, seed=number, **HOT, **whole))

    with ThreadPoolExecutor(8) as pool:
        for schema, text in zip(schemas, pool.map(ask, range(len(schemas))), strict=True):
            jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "an object": ({"response_format": {"type": "json_object"}}, r"\{.*\}"),
    "a grammar": ({"response_format": {"type": "grammar", "grammar": 'start: "yes" | "no"'}}, "yes|no"),
    "a regex": ({"response_format": {"type": "regex", "regex": r"[a-z]{3}/\d\n"}}, "[a-z]{3}/[0-9]\n"),
    "vLLM's schema": ({"structured_outputs": {"json": {"enum": [1, 2]}}}, "[12]"),
    "vLLM's schema as text": ({"structured_outputs": {"json": '{"enum": [1, 2]}'}}, "[12]"),
    "vLLM's object": ({"structured_outputs": {"json_object": True}}, r"\{.*\}"),
    "vLLM's regex": ({"structured_outputs": {"regex": "a{3}"}}, "aaa"),
    "vLLM's choice": ({"structured_outputs": {"choice": ["red", 'a "b"']}}, 'red|a "b"'),
    "vLLM's grammar": ({"structured_outputs": {"grammar": 'start: "x"+ "y"'}}, "x+y"),
}


@pytest.mark.parametrize(("fields", "pattern"), FORMS.values(), ids=FORMS)
def test_a_form_is_kept_on_every_way_to_ask(server: ServerProcess, fields: dict[str, Any], pattern: str) -> None:
    question = "Give me a person as JSON."  # of which this model makes a short object
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    fields = {**fields, "max_tokens": 400, "temperature": 0}
    texts = [answer_of(server.chat(question, **fields)), answer_of(server.complete(prompt, **fields))]
    texts.append(said(chunks_of(server.complete(prompt, stream=True, **fields).text)))
    texts.append(said(chunks_of(server.chat(question, stream=True, **fields).text)))
    events = server.client.post("/v1/stream/sse", json={"model": MODEL, "prompt": prompt, **fields})
    texts.append(tokens_of(events_of(events.text)))
    query = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in fields.items()}
    events = server.client.get("/v1/stream/sse", params={"model": MODEL, "prompt": prompt, **query})
    texts.append(tokens_of(events_of(events.text)))
    with Socket(server) as socket:
        socket.ask(prompt=prompt, params=fields)
        texts.append(text_of(socket.until("complete")))
    for text in texts:
        assert re.fullmatch(pattern, text, re.DOTALL), texts


def test_each_of_many_choices_follows(server: ServerProcess) -> None:
    form = {"type": "regex", "regex": "[A-Z][a-z]{4,9}"}
    response = server.chat("Hi", response_format=form, n=6, seed=1, top_k=0, top_p=1.0, **HOT)
    texts = [choice["message"]["content"] for choice in response.json()["choices"]]
    assert all(re.fullmatch("[A-Z][a-z]{4,9}", text) for text in texts)
    assert len(set(texts)) > 1


def test_a_seed_says_the_same_alone_and_among_others(server: ServerProcess) -> None:
    form = by_schema({"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 6, "maxItems": 6})
    with ThreadPoolExecutor(6) as pool:
        texts = {answer_of(server.chat("Hi", response_format=form, seed=5, **HOT))}
        others = [pool.submit(server.chat, "Tell me a story.", max_tokens=60, ignore_eos=True) for _ in range(4)]
        texts.add(answer_of(server.chat("Hi", response_format=form, seed=5, **HOT)))
        assert all(other.result().status_code == 200 for other in others)
    assert len(texts) == 1


def test_openais_client_parses_an_answer_of_a_type(client: openai.OpenAI) -> None:
    class City(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=12)
        capital: bool

    answer = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Paris?"}], response_format=City
    )
    assert isinstance(answer.choices[0].message.parsed, City)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a schema of no type": ({"response_format": by_schema({"type": "strin"})}, "Invalid type: strin"),
    "a keyword that is not known": ({"response_format": by_schema({"not": {}})}, 'Unimplemented keys: ["not"]'),
    "a format that is not known": (
        {"response_format": by_schema({"type": "string", "format": "x"})},
        "Unknown format: x",
    ),
    "a schema that allows nothing": ({"response_format": by_schema(False)}, "schema is false"),
    "a schema from elsewhere": ({"response_format": by_schema({"$ref": "http://127.0.0.1/"})}, "not present"),
    "a lookahead": ({"response_format": {"type": "regex", "regex": "(?=a)b"}}, "look-around"),
    "half a regex": ({"structured_outputs": {"regex": "a["}}, "unclosed character class"),
    "half a grammar": ({"structured_outputs": {"grammar": "start: ("}}, "1("),
    "a grammar without a start": ({"response_format": {"type": "grammar", "grammar": 'a: "b"'}}, "no start rule"),
    "a grammar that is too long": ({"response_format": {"type": "grammar", "grammar": "#" * 200_000}}, "131072"),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_in_the_compilers_words(
    server: ServerProcess, fields: dict[str, Any], words: str
) -> None:
    responses = [server.chat(**fields), server.complete("a", **fields), server.chat(stream=True, **fields)]
    for response in responses:
        error = error_of(response)
        assert response.status_code == 400
        assert words in error["message"]
        assert (error["param"], error["code"]) == (next(iter(fields)), "invalid_grammar")
    with Socket(server) as socket:
        socket.ask(params=fields)
        assert socket.until("error")[-1]["error"]["code"] == "invalid_grammar"


def test_a_schema_too_deep_is_refused(server: ServerProcess) -> None:
    schema = '{"items":' * 900 + "{}" + "}" * 900
    body = f'{{"model": "{MODEL}", "prompt": "a", "structured_outputs": {{"json": {schema}}}}}'
    response = server.client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error_of(response)


def test_what_explodes_harms_nobody(server: ServerProcess) -> None:
    """Each is answered or refused, or fails alone, and the engine lives."""
    engine = server.engine_pid()
    for name, lark in EXPLOSIVE.items():
        form = {"type": "grammar", "grammar": lark}
        response = server.complete("a", response_format=form, max_tokens=24, temperature=1.5)
        assert response.status_code in (200, 400, 500), name
        if response.status_code == 500:
            assert "grammar" in error_of(response)["message"], name
    assert server.engine_pid() == engine
    assert server.chat().status_code == 200
