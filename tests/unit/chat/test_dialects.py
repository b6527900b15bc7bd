"""Golden transcripts of each dialect: what models write, and what it says, however it is cut into pieces."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.chat.dialects import choose
from inferno_runtime.chat.dialects.base import Thinking
from inferno_runtime.chat.events import (
    CallBegin,
    CallBroken,
    CallDelta,
    CallEnd,
    Event,
    ReasoningDelta,
    Said,
    TextDelta,
)
from inferno_runtime.chat.parser import Parser
from inferno_runtime.chat.tools import Mode, Tool, Toolbox

FOLDER = Path(__file__).parents[2] / "data" / "dialects"
WEATHER = Tool(
    "weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "where": {"type": "object"},
            "exact": {"type": "boolean"},
            "until": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    },
)
TOOLS = (WEATHER, Tool("now"))
TOOLBOX = Toolbox(TOOLS, TOOLS, Mode.AUTO)
THINKING = {"<think>": Thinking("<think>", "</think>"), "[THINK]": Thinking("[THINK]", "[/THINK]")}


@dataclass(frozen=True)
class Golden:
    """One answer of the files, which explain its fields."""

    template: str
    name: str
    text: str
    said: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[str, str]] = ()
    shown: Sequence[tuple[str, str]] | None = None
    cut: bool = False
    thinks: bool = False

    def parser(self) -> Parser:
        """One that reads this answer."""
        ids = itertools.count()
        thinking = next((kind for mark, kind in THINKING.items() if mark in self.template), None)
        dialect = choose(self.template, knows_tools=True)
        return Parser(dialect, TOOLBOX, thinking, thinks=self.thinks, new_id=lambda: f"call_{next(ids)}")

    def parse(self, pieces: Iterable[str]) -> list[Event]:
        """The events of this answer cut into these pieces."""
        parser = self.parser()
        events = [event for piece in pieces for event in parser.feed(piece)]
        return joined([*events, *parser.finish(cut=self.cut)])


def goldens() -> list[Golden]:
    """All answers of all dialects."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        file = yaml.safe_load(path.read_text())
        for answer in file["answers"]:
            name = f"{path.stem}: {answer.pop('name')}"
            for field in answer.keys() & {"calls", "shown"}:
                answer[field] = [tuple(call) for call in answer[field]]
            found.append(Golden(file["template"], name, **answer))
    return found


GOLDENS = goldens()
each_golden = pytest.mark.parametrize("golden", GOLDENS, ids=[golden.name for golden in GOLDENS])


def joined(events: Iterable[Event]) -> list[Event]:
    """The same with deltas of a kind as one, so that it does not show where they were cut."""
    result: list[Event] = []
    for event in events:
        match event, result[-1] if result else None:
            case TextDelta(more), TextDelta(text):
                result[-1] = TextDelta(text + more)
            case ReasoningDelta(more), ReasoningDelta(text):
                result[-1] = ReasoningDelta(text + more)
            case CallDelta(index, more), CallDelta(_, text):
                result[-1] = CallDelta(index, text + more)
            case _:
                result.append(event)
    return result


@each_golden
def test_a_whole_answer_says_what_it_says(golden: Golden) -> None:
    events = golden.parse([golden.text])
    said = Said.of(events)
    assert said.text == golden.said
    assert said.reasoning == golden.reasoning
    assert [(call.name, call.arguments) for call in said.calls] == list(golden.calls)


@each_golden
def test_what_a_stream_shows_of_calls(golden: Golden) -> None:
    events = golden.parse([golden.text])
    begun = {event.index: event.name for event in events if isinstance(event, CallBegin)}
    deltas = {event.index: event.arguments for event in events if isinstance(event, CallDelta)}
    shown = [(name, deltas.get(index, "")) for index, name in begun.items()]
    assert shown == list(golden.calls if golden.shown is None else golden.shown)
    ended = {event.index for event in events if isinstance(event, CallEnd)}
    broken = {event.index for event in events if isinstance(event, CallBroken)}
    assert not ended & broken
    if not golden.cut:
        assert ended | broken == set(begun)
    assert all(isinstance(json.loads(deltas[index]), dict) for index in ended)


@each_golden
def test_every_cut_in_two_gives_the_same(golden: Golden) -> None:
    whole = golden.parse([golden.text])
    for at in range(1, len(golden.text)):
        assert golden.parse([golden.text[:at], golden.text[at:]]) == whole, golden.text[:at]


@each_golden
def test_one_character_at_a_time_gives_the_same(golden: Golden) -> None:
    assert golden.parse(golden.text) == golden.parse([golden.text])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_cuts_give_the_same(data: st.DataObject) -> None:
    golden = data.draw(st.sampled_from(GOLDENS))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(golden.text)))))
    pieces = [golden.text[start:end] for start, end in itertools.pairwise([0, *cuts, len(golden.text)])]
    assert golden.parse(pieces) == golden.parse([golden.text])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_text_is_read_however_it_is_cut(data: st.DataObject) -> None:
    """Also answers that are put together from the marks and other shreds of real ones."""
    golden = data.draw(st.sampled_from(GOLDENS))
    shreds = ["{", "}", '"', "\\", " ", "\n", '{"name": "now", "arguments": ', "{}", "x", *golden.template.split()]
    shreds += [golden.text[: len(golden.text) // 2], golden.text[len(golden.text) // 2 :]]
    pieces = data.draw(st.lists(st.sampled_from(shreds), max_size=12))
    other = Golden(golden.template, "", "".join(pieces), cut=data.draw(st.booleans()))
    events = other.parse([other.text])
    assert other.parse(pieces) == events
    assert other.parse(other.text) == events


def test_text_is_not_held_back_without_need() -> None:
    parser = Parser(choose('<tool_call> "name"', knows_tools=True), TOOLBOX)
    assert parser.feed("Hello") == [TextDelta("Hello")]
    assert parser.feed(" <to") == []
    assert parser.feed("day>") == [TextDelta(" <today>")]


def test_arguments_come_as_they_are_written() -> None:
    parser = Parser(choose('<tool_call> "name"', knows_tools=True), TOOLBOX, new_id=lambda: "call_1")
    assert parser.feed('<tool_call>{"name": "weather", "arguments": ') == []
    assert parser.feed('{"ci') == [CallBegin(0, "call_1", "weather"), CallDelta(0, '{"ci')]
    assert parser.feed('ty": "P') == [CallDelta(0, 'ty": "P')]
    assert parser.feed("aris") == [CallDelta(0, "aris")]
    assert parser.feed('"}}') == [CallDelta(0, '"}'), CallEnd(0)]


def test_ids_of_calls_are_unique() -> None:
    parser = Parser(choose("", knows_tools=False), TOOLBOX)
    events = parser.feed('{"name": "now"}\n' * 50)
    assert len({event.id for event in events if isinstance(event, CallBegin)}) == 50


def test_without_tools_marks_are_text() -> None:
    text = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    parser = Parser(choose('<tool_call> "name"', knows_tools=True), thinking=THINKING["<think>"])
    assert Said.of([*parser.feed(text), *parser.finish(cut=False)]).text == text
