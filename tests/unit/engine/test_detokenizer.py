"""Tokens to text: every way to cut the tokens gives the same text, and never more of it than is certain."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.engine.detokenizer import Detokenizer

BYTES = [bytes([value]) for value in range(256)]  # a vocabulary of single bytes


def feed(text: str | bytes, stops: list[str], cuts: list[int] | None = None) -> tuple[str, list[str], bool]:
    data = text.encode() if isinstance(text, str) else text
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)}) if cuts is not None else None
    pieces = [data[a:b] for a, b in pairwise(edges)] if edges else [bytes([value]) for value in data]
    detokenizer = Detokenizer(BYTES, stops)
    parts = [detokenizer.feed(piece) for piece in pieces]
    parts.append(detokenizer.finish())
    return "".join(parts), parts, detokenizer.stopped


@given(text=st.text(max_size=40), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_without_stops_the_text_comes_out_whole(text: str, cuts: list[int]) -> None:
    whole, parts, stopped = feed(text, [], cuts)
    assert whole == text
    assert not any("\ufffd" in part for part in parts if "\ufffd" not in text)
    assert not stopped


@given(
    text=st.text("abÄ🦙", max_size=30),
    stops=st.lists(st.text("abÄ🦙", min_size=1, max_size=4), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_the_text_ends_before_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    whole, parts, stopped = feed(text, stops)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert stopped == bool(found)
    if not found:
        assert whole == text
    else:
        # byte by byte the stop that is complete first ends the text
        end = min(text.find(stop) + len(stop) for stop in stops if stop in text)
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        assert whole in {text[: end - len(stop)] for stop in ending}
    shown = ""
    for part in parts:
        shown += part
        assert text.startswith(shown)
    assert not any(stop in whole for stop in stops)
    # tokens of several characters never show a stop either
    assert not any(stop in feed(text, stops, cuts)[0] for stop in stops)


@pytest.mark.parametrize(
    ("text", "stops", "parts"),
    [
        ("ab\n\nHuman:", ["\n\nHuman:"], ["a", "b", "", "", "", "", "", "", "", "", ""]),
        ("a\nb", ["\n\n"], ["a", "", "\nb", ""]),
        ("aab", ["ab"], ["", "a", "", ""]),
        ("no", ["nothing"], ["", "", "no"]),
    ],
)
def test_what_may_begin_a_stop_is_held_back(text: str, stops: list[str], parts: list[str]) -> None:
    detokenizer = Detokenizer(BYTES, stops)
    shown = [detokenizer.feed(character.encode()) for character in text]
    assert [*shown, detokenizer.finish()][: len(parts)] == parts[: len(shown) + 1]


def test_half_a_code_point_at_the_end_is_dropped() -> None:
    assert feed("🦙".encode()[:3], [])[0] == ""


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert feed(b"a\xffb", [])[0] == "a\ufffdb"
