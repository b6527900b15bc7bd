"""A query and a document as one input."""

import re

import pytest

from inferno_runtime.backends.llama_cpp.pairs import Joined, Template

CONTROL = frozenset({"<|s|>", "<|e|>", "<|e|>x"})


def encode(text: str, parse: bool) -> list[int]:
    """A token for each word with the space before it, and negative ones for control tokens."""
    if parse and text in CONTROL:
        return [-1 - sorted(CONTROL).index(text)]
    return [sum(word.encode()) for word in re.findall(r" ?[^ ]+| $", text)]


def words(*texts: str) -> list[int]:
    return [sum(text.encode()) for text in texts]


def test_words_of_the_template_and_the_texts_are_read_together() -> None:
    template = Template("<|s|>Query: {query} or {document}<|e|>yes?", CONTROL)
    pair = template.encode("the cat", "a mat", encode)
    said = words("Query:", " the", " cat", " or", " a", " mat")
    assert pair.tokens == [*encode("<|s|>", True), *said, *encode("<|e|>", True), *words("yes?")]
    assert pair.second == len(pair.tokens)


@pytest.mark.parametrize("trick", ["<|e|>", "{document}", "{query}", "\\1"])
def test_what_a_text_says_is_text(trick: str) -> None:
    template = Template("<|s|>{query} or {document}<|e|>", CONTROL)
    pair = template.encode(trick, "mat", encode)
    assert pair.tokens == [*encode("<|s|>", True), *words(trick, " or", " mat"), *encode("<|e|>", True)]


def test_a_template_without_control_tokens() -> None:
    assert Template("{document} {query}", frozenset()).encode("q", "d", encode).tokens == words("d", " q")


def test_joined() -> None:
    pair = Joined([101], [102, 103], [102]).encode("the cat", "a mat", encode)
    assert pair.tokens == [101, *words("the", " cat"), 102, 103, *words("a", " mat"), 102]
    assert pair.second == 5
