"""Chat templates: what they may use, and what a user's text can never become."""

import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.chat.template import ChatTemplate, TemplateError
from tests.unit.server.fakes import BOS, CHATML, IM_END, IM_START, ByteTokenizer

SPELLINGS = ("<|im_start|>", "<|im_end|>", "<s>")


def template(source: str, spellings: tuple[str, ...] = SPELLINGS) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="<|im_end|>", control_spellings=spellings)


def render(source: str, content: str = "Hi") -> str:
    return template(source).render([{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages[0].content }}{{ messages[0]['role'] }}", "Hiuser"),
        ("{{ bos_token }}|{{ eos_token }}|{{ add_generation_prompt }}", "<s>|<|im_end|>|True"),
        ("{% if tools %}t{% endif %}{% if not documents %}none{% endif %}", "none"),
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "01"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ undefined_thing }}", ""),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
    ],
)
def test_what_templates_may_use(source: str, expected: str) -> None:
    assert render(source) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "^Roles must alternate.$"),
        ("{{ messages[0].missing.deeper }}", "fails on these messages"),
        ("{{ 1 / 0 }}", "fails on these messages"),
        ("{{ messages.__class__.__mro__ }}", "fails on these messages"),
        ("{{ messages.append(1) }}", "fails on these messages"),
        ("{% for n in range(10000000) %}x{% endfor %}", "fails on these messages"),
    ],
)
def test_a_template_that_raises(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        render(source)


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% unknown %}"])
def test_a_template_that_does_not_compile(source: str) -> None:
    with pytest.raises(TemplateError, match="does not compile"):
        template(source)


@pytest.mark.parametrize(("source", "count"), [("x", 1), ("{{ bos_token }}x", 1), ("", 1)])
def test_there_is_one_token_that_begins_the_prompt(source: str, count: int) -> None:
    tokens = template(source).encode([{"role": "user", "content": "<s>"}], ByteTokenizer(add_bos=True))
    assert tokens.count(BOS) == count
    assert tokens[0] == BOS


def test_a_user_cannot_begin_the_prompt() -> None:
    tokens = template("{{ messages[0].content }}").encode(
        [{"role": "user", "content": "<s>x"}], ByteTokenizer(add_bos=True)
    )
    assert tokens == [BOS, *b"<s>x"]


@pytest.mark.parametrize(
    "source",
    [
        CHATML,
        CHATML.replace("message.content", "message.content | trim"),
        CHATML.replace("message.content", "message.content[:20]"),
        CHATML.replace("message.content", "message.content[1:]"),
        CHATML.replace("message.content", "(message.content | tojson)"),
        CHATML.replace("message.content", "(message.content | upper)"),
        CHATML.replace("message.content", "message.content.split('<|im_end|>')[0]"),
        CHATML.replace("message.content", "message.content + message.content"),
    ],
)
@given(
    content=st.lists(
        st.one_of(st.sampled_from([*SPELLINGS, "<|im_", "start|>", "<", "|>", " ", "\U000f0000"]), st.text(max_size=4))
    ).map("".join)
)
def test_no_text_becomes_a_control_token(source: str, content: str) -> None:
    content = content.encode("utf-8", "ignore").decode()
    tokens = template(source).encode([{"role": "user", "content": content}], ByteTokenizer())
    assert (tokens.count(IM_START), tokens.count(IM_END), tokens.count(BOS)) == (2, 1, 0)


@given(content=st.lists(st.sampled_from([*SPELLINGS, "<|im_", "x", "é", "\U000f0000"])).map("".join))
def test_the_text_itself_is_unchanged(content: str) -> None:
    tokenizer = ByteTokenizer()
    tokens = template(CHATML).encode([{"role": "user", "content": content}], tokenizer)
    assert tokenizer.decode(tokens) == f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


def test_overlapping_spellings_are_all_broken() -> None:
    chat = ChatTemplate("{{ messages[0].content }}", bos="", eos="", control_spellings=("abab", "bab"))
    pieces = [piece.text for piece in chat.pieces([{"role": "user", "content": "ababab"}])]
    assert "".join(pieces) == "ababab"
    assert not any(re.search("abab|bab", piece) for piece in pieces)


def test_a_spelling_of_one_character() -> None:
    chat = ChatTemplate("{{ messages[0].content }}!", bos="", eos="", control_spellings=("§",))
    pieces = [piece for piece in chat.pieces([{"role": "user", "content": "a§b"}]) if piece.text]
    assert [(piece.text, piece.parse_special) for piece in pieces] == [("a", False), ("§", False), ("b!", True)]


def test_a_template_that_rebuilds_a_spelling_is_refused() -> None:
    source = "{% for c in messages[0].content if c in '<|im_end>' %}{{ c }}{% endfor %}"
    with pytest.raises(TemplateError, match="spells out"):
        template(source).encode([{"role": "user", "content": "<|im_end|>"}], ByteTokenizer())
    assert template(source).encode([{"role": "user", "content": "a"}], ByteTokenizer()) == []


def test_a_name_stays_text_too() -> None:
    tokens = template("{{ messages[0].name }}").encode(
        [{"role": "user", "content": "", "name": "<|im_end|>"}], ByteTokenizer()
    )
    assert tokens == list(b"<|im_end|>")
