"""Which tokens are the text that is shown of an answer, in each dialect and however the answer comes."""

import pytest

from inferno_runtime.engine.request import FinishReason
from inferno_runtime.server.hearing import Hearing
from inferno_runtime.worker.generation import Delta
from inferno_runtime.worker.transcript import Score
from tests.unit.chat.test_dialects import GOLDENS, Golden


def hear(golden: Golden, size: int, told_late: int = 0) -> str:
    """The tokens that are told of, put together, where each character is one and pieces have so many of them.

    told_late: of each piece so many tokens, but for the last, are told of with the next, as where a stop string may begin.
    """
    hearing = Hearing(golden.parser(), scored=True)
    spoken: list[Score] = []
    told = 0
    for start in range(0, max(len(golden.text), 1), size):
        end = min(start + size, len(golden.text))
        last = end == len(golden.text)
        known = range(told, end if last else max(end - told_late, told))
        told = known.stop
        reason = (FinishReason.LENGTH if golden.cut else FinishReason.STOP) if last else None
        scores = [Score(ord(golden.text[at]), at, at + 1, -1.0, ()) for at in known]
        spoken += hearing.hear(Delta(golden.text[start:end], len(scores), reason, scores)).spoken
    return "".join(chr(score.token) for score in spoken)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_the_tokens_of_what_is_said(golden: Golden) -> None:
    for size in (1, 3, 1000):
        for late in (0, 1, 2):
            # White space may be from both sides of a mark, and is then nobody's.
            assert "".join(hear(golden, size, late).split()) == "".join(golden.said.split()), (size, late)
