"""What is told of tokens beside the text that they make."""

from array import array

import pytest

from inferno_runtime.engine.request import Finished, FinishReason, Scores
from inferno_runtime.worker.generation import Delta, Generation

PIECES = [bytes([value]) for value in range(256)] + [b"", b"stop", b"ab"]
CONTROL, STOP, AB = 256, 257, 258


def scores(*logprobs: float, prompt: bool = False) -> Scores:
    return Scores(7, prompt, array("f", logprobs).tobytes(), b"", b"")


class Rig:
    def __init__(self, *stop: str) -> None:
        self.generation = Generation(7, 3, PIECES, stop, lambda number: None, None, scored=True)
        self.said = 0

    def say(self, *tokens: int) -> None:
        """Tokens of the logarithms -1, -2, …"""
        for token in tokens:
            self.said += 1
            self.generation.on_scores(scores(-self.said))
            self.generation.on_tokens((token,))

    def end(self, reason: FinishReason = FinishReason.STOP) -> None:
        self.generation.on_finished(Finished(7, reason))

    async def read(self) -> tuple[str, list[tuple[int, int, float | None]]]:
        delta = await self.generation.read()
        return delta.text, [(score.token, score.offset, score.logprob) for score in delta.scores]


async def test_a_token_is_told_of_with_its_text() -> None:
    rig = Rig()
    rig.say(*b"a")
    assert await rig.read() == ("a", [(97, 0, -1)])
    rig.say(AB, *b"c")
    assert await rig.read() == ("abc", [(AB, 1, -2), (99, 3, -3)])
    rig.end()
    assert await rig.read() == ("", [])
    assert rig.generation.mean_score == -2


async def test_halves_of_a_character_are_told_of_when_it_is_whole() -> None:
    rig = Rig()
    first, second, third = "漢".encode()
    rig.say(*b"a", first)
    assert await rig.read() == ("a", [(97, 0, -1)])
    rig.say(second, third, *b"b")
    assert await rig.read() == ("漢b", [(first, 1, -2), (second, 1, -3), (third, 1, -4), (98, 2, -5)])


async def test_a_character_that_stays_half_is_told_of_at_the_end() -> None:
    rig = Rig()
    rig.say(*b"a", 0xE6)
    rig.end(FinishReason.LENGTH)
    assert await rig.read() == ("a", [(97, 0, -1), (0xE6, 1, -2)])


async def test_what_was_no_character_takes_the_room_of_its_replacement() -> None:
    rig = Rig()
    rig.say(0xE6, *b"a")
    assert await rig.read() == ("\N{REPLACEMENT CHARACTER}a", [(0xE6, 0, -1), (97, 1, -2)])


async def test_control_tokens_take_no_room() -> None:
    rig = Rig()
    rig.say(*b"a", CONTROL, *b"b")
    rig.end()
    assert await rig.read() == ("ab", [(97, 0, -1), (CONTROL, 1, -2), (98, 1, -3)])


@pytest.mark.parametrize(
    ("stop", "tokens", "text", "told"),
    [
        ("stop", [*b"go ", STOP], "go ", [103, 111, 32]),
        ("stop", [*b"go stop"], "go ", [103, 111, 32]),
        ("bc", [97, AB, 99], "aa", [97]),  # the token that the stop string cuts in two is not told of
        ("zz", [*b"go z"], "go z", [103, 111, 32, 122]),  # it did not come
    ],
)
async def test_what_a_stop_string_cuts_off_is_not_told_of(
    stop: str, tokens: list[int], text: str, told: list[int]
) -> None:
    rig = Rig(stop)
    rig.say(*tokens)
    rig.end(FinishReason.LENGTH)
    delta = await rig.generation.read_all()
    assert delta.text == text
    assert [score.token for score in delta.scores] == told


async def test_nothing_is_told_of_what_is_held_back() -> None:
    rig = Rig("stop")
    rig.say(*b"gos")
    assert await rig.read() == ("go", [(103, 0, -1), (111, 1, -2)])
    rig.say(*b"tx")
    assert await rig.read() == ("stx", [(115, 2, -3), (116, 3, -4), (120, 4, -5)])


async def test_of_the_prompt() -> None:
    rig = Rig()
    rig.generation.on_scores(scores(-1, -2, prompt=True))
    rig.generation.on_scores(scores(-3, prompt=True))
    assert [logprob for logprob, _ in rig.generation.prompt_scores] == [-1, -2, -3]


async def test_without_being_asked_nothing_is_told() -> None:
    generation = Generation(7, 3, PIECES, (), lambda number: None, None)
    generation.on_tokens(tuple(b"a"))
    assert await generation.read() == Delta("a", 1, None)
    assert generation.mean_score == float("-inf")
