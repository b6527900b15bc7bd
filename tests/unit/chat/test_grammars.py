"""What a forced call is held to: whatever the grammar allows is read as calls that follow their schemas."""

import json
import random

import jsonschema  # type: ignore[import-untyped]
import pytest
from llguidance import LLMatcher, LLTokenizer

from inferno_runtime.chat.dialects import choose
from inferno_runtime.chat.events import Said
from inferno_runtime.chat.grammar import MOST_CALLS, Grammar, literal
from inferno_runtime.chat.parser import Parser
from inferno_runtime.chat.tools import Mode, Tool, Toolbox

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
    grammar.rule("start", choose(template, knows_tools=True).calls(grammar, toolbox, literal))
    return str(grammar)


def walk(lark: str, seed: int) -> str:
    """A random text that a grammar allows."""
    matcher = LLMatcher(BYTES, lark)
    assert not matcher.is_error(), matcher.get_error()
    choose_from = random.Random(seed)
    said = bytearray()
    while not matcher.is_stopped() and len(said) < 20_000:
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(BYTES.vocab_size) if mask[token // 8] >> token % 8 & 1]
        # Characters beyond ASCII would rarely be whole, and reasoning of random bytes would not end.
        allowed = [token for token in allowed if token < 128 or token >= 256] or allowed
        token = ord("c") if allowed == [ord("a"), ord("c")] else choose_from.choice(allowed)
        if token >= 256:
            break
        said.append(token)
        assert matcher.consume_token(token)
    return said.decode()


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("parallel", [True, False], ids=["several", "one"])
@pytest.mark.parametrize("seed", range(8))
def test_what_a_grammar_allows_is_read_as_calls(template: str, parallel: bool, seed: int) -> None:
    toolbox = Toolbox((PLACE, NOW), (PLACE, NOW), Mode.REQUIRED, parallel)
    text = walk(grammar_of(template, toolbox), seed)
    parser = Parser(choose(template, knows_tools=True), toolbox)
    said = Said.of([*parser.feed(text), *parser.finish(cut=False)])
    assert said.text == ""
    assert 1 <= len(said.calls) <= (MOST_CALLS if parallel else 1)
    for call in said.calls:
        tool = toolbox.find(call.name)
        assert tool is not None
        jsonschema.validate(json.loads(call.arguments), tool.schema)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_only_what_may_be_called_is(template: str) -> None:
    toolbox = Toolbox((PLACE, NOW), (NOW,), Mode.REQUIRED, parallel=False)
    lark = grammar_of(template, toolbox)
    parser = Parser(choose(template, knows_tools=True), toolbox)
    text = walk(lark, 1)
    (call,) = Said.of([*parser.feed(text), *parser.finish(cut=False)]).calls
    assert (call.name, call.arguments) == ("now", "{}")
