"""What calls are held to: whatever a grammar allows is read as calls that follow their schemas."""

import json
import random
from dataclasses import replace

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer

from inferno_runtime.chat.dialects import choose
from inferno_runtime.chat.dialects.base import Thinking
from inferno_runtime.chat.events import Said
from inferno_runtime.chat.grammar import MOST_CALLS, Grammar
from inferno_runtime.chat.parser import Parser
from inferno_runtime.chat.tools import Mode, Tool, Toolbox
from inferno_runtime.engine.constraint import json_term

BYTES = LLTokenizer("byte")
PLACE = Tool(
    "place",
    parameters={
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 4},
            "kind": {"enum": ["city", "<tool_call>", "</function>", '"}}']},
            "at": {"$ref": "#/$defs/point"},
        },
        "required": ["kind"],
        "additionalProperties": False,
        "$defs": {
            "point": {
                "type": "object",
                "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}},
                "required": ["x"],
                "additionalProperties": False,
            }
        },
    },
)
NOW = Tool("now")
TEMPLATES = {
    "hermes": '<tool_call> "name"',
    "llama": "<|python_tag|>",
    "mistral's array": "[TOOL_CALLS]",
    "mistral's names": "[TOOL_CALLS] [ARGS]",
    "mistral's ids": "[TOOL_CALLS] [CALL_ID] [ARGS]",
    "functionary": "<function=",
    "qwen3-coder": "<function= <parameter=",
    "deepseek": "<｜tool▁calls▁begin｜>",
    "deepseek's fences": "<｜tool▁calls▁begin｜> ```json",
    "harmony": "<|channel|> <|message|>",
    "generic": "",
}


def grammar_of(template: str, toolbox: Toolbox) -> str:
    grammar = Grammar()
    grammar.rule("start", choose(template, knows_tools=True).calls(grammar, toolbox))
    return str(grammar)


def walk(lark: str, seed: int, begun: str = "", *, shortly: bool = False) -> str:
    """A random text that a grammar allows. begun: its beginning; shortly: whether it ends as soon as it may."""
    matcher = LLMatcher(BYTES, lark)
    assert not matcher.is_error(), matcher.get_error()
    said = bytearray(begun.encode())
    assert matcher.consume_tokens(list(said)), (begun, matcher.get_error())
    choose_from = random.Random(seed)
    while not matcher.is_stopped() and len(said) < 20_000:
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(BYTES.vocab_size) if mask[token // 8] >> token % 8 & 1]
        ends = any(token >= 256 for token in allowed)
        if shortly and ends:
            break
        # Characters beyond ASCII would rarely be whole, and reasoning of random bytes would not end.
        allowed = [token for token in allowed if token < 128 or token >= 256] or allowed
        if ord("a") in allowed and 1 < len(allowed) < 4:  # harmony's channels
            allowed.remove(ord("a"))
        token = choose_from.choice(allowed)
        if token >= 256:
            break
        said.append(token)
        assert matcher.consume_token(token)
    return said.decode()


def allows(lark: str, text: str) -> bool:
    """Whether a text may begin so."""
    matcher = LLMatcher(BYTES, lark)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.validate_tokens(data) == len(data)


def read(template: str, toolbox: Toolbox, text: str, thinking: Thinking | None = None) -> Said:
    parser = Parser(choose(template, knows_tools=True), toolbox, thinking)
    return Said.of([*parser.feed(text), *parser.finish(cut=False)])


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("parallel", [True, False], ids=["several", "one"])
@pytest.mark.parametrize("seed", range(8))
def test_what_a_grammar_allows_is_read_as_calls(template: str, parallel: bool, seed: int) -> None:
    toolbox = Toolbox((PLACE, NOW), (PLACE, NOW), Mode.REQUIRED, parallel)
    text = walk(grammar_of(template, toolbox), seed)
    said = read(template, toolbox, text)
    assert said.text == ""
    assert 1 <= len(said.calls) <= (MOST_CALLS if parallel else 1)
    for call in said.calls:
        tool = toolbox.find(call.name)
        assert tool is not None
        jsonschema.validate(json.loads(call.arguments), tool.schema)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_only_what_may_be_called_is(template: str) -> None:
    toolbox = Toolbox((PLACE, NOW), (NOW,), Mode.REQUIRED, parallel=False)
    (call,) = read(template, toolbox, walk(grammar_of(template, toolbox), 1)).calls
    assert (call.name, call.arguments) == ("now", "{}")


# Strict tools, which the model may call and need not

STRICT = replace(PLACE, strict=True)
ANY = Tool("any", parameters={"type": "object", "properties": {"n": {"type": "integer"}}})
FREE = Toolbox((STRICT, NOW, ANY), (STRICT, NOW, ANY), Mode.AUTO)
OPENED = {
    "hermes": ("<tool_call>",),
    "llama": ("<|python_tag|>", '{"name": "place"'),
    "mistral's array": ("[TOOL_CALLS]",),
    "mistral's names": ("[TOOL_CALLS]",),
    "mistral's ids": ("[TOOL_CALLS]",),
    "functionary": ("<function=",),
    "qwen3-coder": ("<tool_call>", "<function="),
    "deepseek": ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
    "deepseek's fences": ("<｜tool▁calls▁begin｜>",),
    "generic": ('{"name": "place"', '```json\n{\n  "name": "now"'),
}
CHANNEL = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to="


def freely_of(template: str, toolbox: Toolbox) -> str:
    grammar = Grammar()
    grammar.rule("start", choose(template, knows_tools=True).freely(grammar, toolbox))
    return str(grammar)


@pytest.mark.parametrize(("name", "mark"), [(name, mark) for name, marks in OPENED.items() for mark in marks])
@pytest.mark.parametrize("parallel", [True, False], ids=["several", "one"])
@pytest.mark.parametrize("seed", range(4))
def test_a_call_among_words_follows_its_schema(name: str, mark: str, parallel: bool, seed: int) -> None:
    toolbox = replace(FREE, parallel=parallel)
    text = walk(freely_of(TEMPLATES[name], toolbox), seed, f"I will look. {mark}", shortly=True)
    said = read(TEMPLATES[name], toolbox, text)
    assert said.text.split("```")[0].strip() == "I will look."
    assert said.calls
    for call in said.calls:
        tool = toolbox.find(call.name)
        assert tool is not None
        jsonschema.validate(json.loads(call.arguments), toolbox.schema(tool))


@pytest.mark.parametrize(
    "begun", ['{"type": "function", "name":"place"', '[{ "name" : "any"', '```json\n{"name": "now"']
)
def test_a_bare_object_in_any_style_follows_its_schema(begun: str) -> None:
    (call,) = read("", FREE, walk(freely_of("", FREE), 1, begun, shortly=True)).calls
    tool = FREE.find(call.name)
    assert tool is not None
    jsonschema.validate(json.loads(call.arguments), FREE.schema(tool))


@pytest.mark.parametrize("seed", range(8))
def test_a_call_on_a_channel_follows_its_schema(seed: int) -> None:
    template = TEMPLATES["harmony"]
    said = read(template, FREE, walk(freely_of(template, FREE), seed, CHANNEL, shortly=True))
    assert said.text == "I look."
    (call,) = said.calls
    jsonschema.validate(
        json.loads(call.arguments), FREE.schema(next(tool for tool in FREE.callable if tool.name == call.name))
    )


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize(
    "words", ["", "Paris.", '{"capital": "Paris"}', "a < b", "```json\n[1, 2]\n```", "[TOOL", "<tool_"]
)
def test_words_are_free(name: str, words: str) -> None:
    lark = freely_of(TEMPLATES[name], FREE)
    assert walk(lark, 0, words, shortly=True) == words
    assert read(TEMPLATES[name], FREE, words).text == words


@pytest.mark.parametrize("name", OPENED)
def test_one_call_is_the_last_thing_said_where_there_may_be_no_more(name: str) -> None:
    mark = OPENED[name][0]
    one = walk(freely_of(TEMPLATES[name], replace(FREE, parallel=False)), 1, mark, shortly=True)
    assert not allows(freely_of(TEMPLATES[name], replace(FREE, parallel=False)), f"{one} {mark}")


@pytest.mark.parametrize(
    "text",
    ['{"arguments": {"a": 1}, "name": "place"}', '{"function": "place", "arguments": {"a": 1}}', '{"name": "place"}'],
    ids=["arguments first", "another key", "none"],
)
def test_what_no_grammar_has_held_to_a_schema_is_no_call(text: str) -> None:
    """A bare object has no mark but its name."""
    assert read("", FREE, text) == Said(text)
    assert read("", replace(FREE, callable=(ANY, PLACE), formed=True), text) == Said(text)
    assert read("", Toolbox((PLACE,), (PLACE,), Mode.AUTO), text).calls


# A form, or a call

CITY = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}}, "required": ["name"]}
FORMED = replace(FREE, formed=True)
FORM = {**CITY, "additionalProperties": False}


def calls_or_form(template: str) -> str:
    grammar = Grammar()
    dialect = choose(template, knows_tools=True)
    grammar.rule("start", dialect.calls_or(json_term(FORM), grammar, FORMED))
    return str(grammar)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("seed", range(8))
def test_an_answer_is_a_call_or_of_its_form(template: str, seed: int) -> None:
    said = read(template, FORMED, walk(calls_or_form(template), seed))
    assert bool(said.calls) != bool(said.text)
    if said.text:
        jsonschema.validate(json.loads(said.text), FORM)
    for call in said.calls:
        tool = FREE.find(call.name)
        assert tool is not None
        jsonschema.validate(json.loads(call.arguments), FREE.schema(tool))


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_neither_keeps_the_other_from_beginning(template: str) -> None:
    lark = calls_or_form(template)
    final = "<|channel|>final<|message|>" if "<|channel|>" in template else ""
    for name in ("place", "Paris", "now"):
        text = final + f'{{"name": "{name}"}}'
        assert walk(lark, 0, text) == text
        assert json.loads(read(template, FORMED, text).text) == {"name": name}
    dialect = choose(template, knows_tools=True)
    grammar = Grammar()
    grammar.rule("start", dialect.calls(grammar, replace(FORMED, callable=(NOW,), parallel=False)))
    call = walk(str(grammar), 2)
    assert walk(lark, 0, call, shortly=True) == call
