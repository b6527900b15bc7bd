"""With the tiny model's own vocabulary and template, no text of a user's becomes a control token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.backends import load_tokenizer
from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.chat.template import ChatTemplate
from inferno_runtime.models.source import DEFAULT_MODEL

_PARTS = st.one_of(
    st.sampled_from(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "end|>", "<tool_call>", "\n", " "]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
_TEXT = st.lists(_PARTS, max_size=8).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(DEFAULT_MODEL))


@pytest.fixture(scope="module")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    assert tokenizer.chat_template
    return ChatTemplate(
        tokenizer.chat_template, bos=tokenizer.bos, eos=tokenizer.eos, control_spellings=tokenizer.control_spellings
    )


def control(tokenizer: Tokenizer, spelling: str) -> int:
    (token,) = tokenizer.encode(spelling, add_special=False, parse_special=True)
    return token


@given(texts=st.lists(_TEXT, min_size=1, max_size=4))
def test_one_pair_for_each_message(tokenizer: Tokenizer, template: ChatTemplate, texts: list[str]) -> None:
    roles = ["user", "assistant"] * 2
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    tokens = template.encode(messages, tokenizer)
    assert tokens.count(control(tokenizer, "<|im_start|>")) == len(texts) + 1
    assert tokens.count(control(tokenizer, "<|im_end|>")) == len(texts)
    assert tokens.count(control(tokenizer, "<|endoftext|>")) == 0
    said = b"".join(tokenizer.pieces[token] for token in tokens).decode()
    expected = "".join(f"{role}\n{text}\n" for role, text in zip(roles, texts, strict=False))
    assert said == expected + "assistant\n"


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: "<" not in text))
def test_ordinary_text_is_tokenized_as_it_stands(tokenizer: Tokenizer, template: ChatTemplate, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    plain = tokenizer.encode(template.render(messages), add_special=True, parse_special=True)
    assert template.encode(messages, tokenizer) == plain
