"""Images in contents: where they stand, what is read of their URLs, and what becomes of them in a prompt."""

import base64
import hashlib
from typing import Any

import pytest

from inferno_runtime.backends.base import Image, Layout
from inferno_runtime.chat.model import ChatModel
from inferno_runtime.chat.template import ChatTemplate
from inferno_runtime.engine.images import ids
from inferno_runtime.openai.convert import chat_job
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.images import ImageSource, bytes_of, content_of, sources_of
from inferno_runtime.openai.requests import ChatRequest, Message
from inferno_runtime.openai.target import Target
from tests.unit.server.fakes import CHATML, IM_END, IM_START, ByteTokenizer

DATA = "data:image/png;base64,AA=="
LAYOUT: Layout = [[ord("[")], 3, [ord("]")]]


def target(template: str = CHATML) -> Target:
    tokenizer = ByteTokenizer()
    compiled = ChatTemplate(template, bos="", eos="", control_spellings=tokenizer.control_spellings)
    return Target(tokenizer, ChatModel(compiled, tokenizer), "", context=512, longest_piece=12, max_sequences=4)


def picture(url: str = DATA, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def shown(name: str) -> tuple[Image, Layout]:
    return Image(hashlib.sha256(name.encode()).digest(), 4, 4, ""), LAYOUT


def cells(name: str) -> list[int]:
    return [ord("["), *ids(hashlib.sha256(name.encode()).digest(), 0, 3), ord("]")]


def asked(*messages: Message) -> ChatRequest:
    return ChatRequest(model="m", messages=list(messages))


@pytest.mark.parametrize(
    ("given", "words", "places"),
    [
        ("Hi", "Hi", []),
        ([text("a"), text("b")], "a\nb", []),
        ([picture(), text("a")], "a", [0]),
        ([text("a"), picture()], "a", [1]),
        ([text("a"), picture(), text("b"), text("c")], "ab\nc", [1]),
        ([picture(), picture()], "", [0, 0]),
        ([text("a"), picture(), picture(), text("b")], "ab", [1, 1]),
    ],
)
def test_images_stand_between_texts(given: Any, words: str, places: list[int]) -> None:
    content = content_of(given, "here")
    assert (content.text, [at for _, at in content.images]) == (words, places)


@pytest.mark.parametrize("part", [picture(detail="low"), {"type": "image_url", "image_url": DATA}])
def test_both_ways_to_name_an_image_are_read(part: dict[str, Any]) -> None:
    assert [source.url for source, _ in content_of([part], "here").images] == [DATA]


def test_the_sources_of_a_request_say_where_they_are() -> None:
    request = asked(Message("user", [text("a"), picture("data:one")]), Message("user", [picture("data:two")]))
    assert [(source.url, source.where) for source in sources_of(request)] == [
        ("data:one", "messages[0].content[1]"),
        ("data:two", "messages[1].content[0]"),
    ]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/png,raw", "is not data:image/TYPE;base64,DATA"),
        ("data:image/png;base64", "is not data:image/TYPE;base64,DATA"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,A", "not Base64"),
        ("data:image/png;base64,A A=", "not Base64"),
        ("data:image/png;base64,äöü=", "not Base64"),
        ("data:image/png;base64," + base64.b64encode(bytes(101)).decode(), "more than 100 bytes"),
        ("data:image/png;base64," + "A" * 100_000, "more than 100 bytes"),
    ],
)
def test_what_is_no_data_is_refused(url: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        bytes_of(ImageSource(url, "messages[3].content[1]"), 100)
    assert words in caught.value.message
    assert "messages[3].content[1]" in caught.value.message
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")


def test_data_of_the_largest_size_is_read() -> None:
    for size in (98, 99, 100):
        url = "data:image/png;base64," + base64.b64encode(bytes(size)).decode()
        assert len(bytes_of(ImageSource(url, ""), 100)) == size


def test_an_image_stands_in_the_prompt_where_it_stands_in_the_message() -> None:
    request = asked(Message("user", [text("a"), picture(), text("b"), picture()]))
    job = chat_job(request, target(), [shown("one"), shown("two")])
    said = [*b"user\na", *cells("one"), ord("b"), *cells("two")]
    want = [IM_START, *said, IM_END, ord("\n"), IM_START, *b"assistant\n"]
    assert job.prompts == [want]
    assert [(chunk.start, chunk.cells, chunk.image) for chunk in job.images] == [
        (want.index(cells("one")[1]), 3, shown("one")[0]),
        (want.index(cells("two")[1]), 3, shown("two")[0]),
    ]


@pytest.mark.parametrize("marker", ["<__media__>", "<image>", "\U000f0000", "\U000f0001", "<|im_start|>\U000f0000"])
def test_what_looks_like_an_image_in_a_text_is_none(marker: str) -> None:
    request = asked(Message("user", [text(f"a{marker}b"), picture()]))
    job = chat_job(request, target(), [shown("one")])
    assert len(job.images) == 1
    assert bytes(token for token in job.prompts[0] if 0 <= token < 256).decode().count(f"a{marker}b[]") == 1


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.role }}{% endfor %}.", "does not show each of the images once"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}.", "does not show each of the images once"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "puts nothing behind an image"),
    ],
    ids=["none", "twice", "end"],
)
def test_a_template_that_makes_no_prompt_of_images_is_an_error(template: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat_job(asked(Message("user", [picture()])), target(template), [shown("one")])
    assert words in caught.value.message


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}.",
        "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}.",
    ],
)
def test_a_template_that_wants_parts_is_given_parts(template: str) -> None:
    job = chat_job(asked(Message("user", [text("a"), picture(), text("b")])), target(template), [shown("one")])
    assert job.prompts == [[*b"a", *cells("one"), *b"b."]]
    assert chat_job(asked(Message("user", "Hello")), target(template)).prompts == [[*b"Hello."]]


def test_more_images_than_there_is_room_for_are_too_long() -> None:
    wide: Layout = [600]
    with pytest.raises(ApiError) as caught:
        chat_job(asked(Message("user", [picture()])), target(), [(shown("one")[0], wide)])
    assert caught.value.code == "context_length_exceeded"
