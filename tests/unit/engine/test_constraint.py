"""Constraints are texts of grammars, whatever they were asked for as."""

import json

import pytest

from inferno_runtime.engine.constraint import choice_term, json_term, of_term, regex_term, token_bytes
from inferno_runtime.engine.grammar import Compiler, GrammarError

END = 256
TOKENS = [*(bytes([byte]) for byte in range(256)), b"\xff<end>", b"\xff<|call|>", b'{"', b"ab"]


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(TOKENS, [END])


def follows(compiler: Compiler, lark: str, text: str) -> bool:
    """Whether a text follows a grammar to its end."""
    matcher = compiler.matcher(lark)
    data = list(text.encode())
    return matcher.validate_tokens(data) == len(data) and matcher.consume_tokens(data) and matcher.is_accepting()


REGEXES = {
    "plain": ("[a-c]{2}", "ab", "abc"),
    "a slash": ("a/b", "a/b", "a\\/b"),
    "an escaped slash": (r"a\/b", "a/b", "a"),
    "a slash in a class": ("[/]+", "//", "/a"),
    "a backslash before a slash": (r"\\/", "\\/", "/"),
    "a line's end": ("a\nb", "a\nb", "ab"),
    "an escaped line's end": ("a\\\nb", "a\nb", "ab"),
    "digits of any script": (r"\d", "٣", "x"),
    "nothing": ("", "", "a"),
    "alternatives": ("a|b", "b", "ab"),
}


@pytest.mark.parametrize(("pattern", "good", "bad"), REGEXES.values(), ids=REGEXES)
def test_a_regex_matches_all_of_the_text(compiler: Compiler, pattern: str, good: str, bad: str) -> None:
    lark = of_term(regex_term(pattern)).lark
    assert follows(compiler, lark, good)
    assert not follows(compiler, lark, bad)


@pytest.mark.parametrize("choice", ["a", 'say "hi"', "back\\slash", "two\nlines", "é", "/x/", "{}"])
def test_a_choice_is_the_text_itself(compiler: Compiler, choice: str) -> None:
    lark = of_term(choice_term(["other", choice])).lark
    assert follows(compiler, lark, choice)
    assert not follows(compiler, lark, choice + "!")


JSON = {
    "compact": ('{"a":[1,2]}', True),
    "with spaces": ('{"a": [1, 2]}', True),
    "indented": ('{\n    "a": [\n        1\n    ]\n}', True),
    "with blank lines": ('{\n\n"a": []}', False),
    "with ever more space": ('{"a":' + " " * 40 + "[]}", False),
    "with space before it": (' {"a":[]}', False),
    "of another type": ('{"a":[true]}', False),
    "half": ('{"a":[1', False),
}


@pytest.mark.parametrize(("text", "good"), JSON.values(), ids=JSON)
def test_json_has_no_endless_space(compiler: Compiler, text: str, good: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
    assert follows(compiler, of_term(json_term(schema)).lark, text) is good


def test_a_schema_keeps_the_order_of_its_properties_and_its_own_options() -> None:
    schema = {"properties": {"z": {}, "a": {}}, "x-guidance": {"whitespace_pattern": ""}}
    rule = of_term(json_term(schema)).lark.removeprefix("start: %json ")
    assert list(json.loads(rule)["properties"]) == ["z", "a"]
    assert json.loads(rule)["x-guidance"] == {"whitespace_pattern": ""}


def test_control_tokens_stand_for_nothing_but_themselves(compiler: Compiler) -> None:
    assert token_bytes([b"a", b"", b"<tool>", b""], {1: "<|x|>", 2: "<tool>"}) == [b"a", b"\xff<|x|>", b"<tool>", b""]
    (call,) = [number for number, token in enumerate(TOKENS) if token.endswith(b"<|call|>")]
    assert compiler.matcher('start: <|call|> "a"').validate_tokens([call, ord("a")]) == 2
    assert compiler.matcher("start: /(?s:.)*/").validate_tokens([ord("a"), call]) == 1


def test_forced_text_is_spelled_as_the_model_likes(compiler: Compiler) -> None:
    matcher = compiler.matcher('start: "abab"')
    (joined,) = [number for number, token in enumerate(TOKENS) if token == b"ab"]
    for spelling in ([joined, joined], [ord("a"), ord("b"), joined]):
        assert matcher.validate_tokens(spelling) == len(spelling)


REFUSED = {
    "no start": ('foo: "a"', "no start rule"),
    "an unknown rule": ("start: foo", "foo"),
    "half a regex": ("start: /a[/", "unclosed character class"),
    "a lookahead": ("start: /(?=a)b/", "look-around"),
    "an unknown control token": ("start: <|nope|>", "unknown special token"),
    "an unknown type": ('start: %json {"type": "strin"}', "Invalid type"),
    "an unknown keyword": ('start: %json {"not": {}}', "Unimplemented keys"),
    "a schema that allows nothing": ("start: %json false", "schema is false"),
    "another's schema": ('start: %json {"$ref": "http://127.0.0.1/s.json"}', "http://127.0.0.1/s.json"),
    "a circle of references": (
        'start: %json {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}',
        "no text can follow",
    ),
    "nothing at all": ("", "no start rule"),
}


@pytest.mark.parametrize(("lark", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_compile_is_told_in_one_line(compiler: Compiler, lark: str, words: str) -> None:
    with pytest.raises(GrammarError) as caught:
        compiler.check(lark)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_a_model_that_ends_nothing_follows_no_grammar() -> None:
    with pytest.raises(GrammarError, match="no token that ends a text"):
        Compiler(TOKENS, [])
