"""The stream between the two processes."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.backends.base import ModelInfo
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.request import (
    Embedded,
    EmbeddingRequest,
    Finished,
    FinishReason,
    Priority,
    Request,
    Sampling,
    Started,
)
from inferno_runtime.worker.frames import (
    MAX_FRAME,
    Cancel,
    Counters,
    Embed,
    Encoded,
    Failed,
    FromEngine,
    Load,
    Log,
    Pause,
    Reader,
    Ready,
    Resume,
    Step,
    Submit,
    ToEngine,
    encode,
    from_engine,
    to_engine,
)

COMMANDS: list[ToEngine] = [
    Load("/m.gguf", {"slots": 4}, [0, 2]),
    Submit(Request(1, [1, 2, 3], 5, Sampling(temperature=0.5, seed=2**64 - 1))),
    Submit(Request(2, [1], 5, Sampling(), priority=Priority.VIP)),
    Submit(Request(3, [1], 5, Sampling(), constraint=Constraint('start: "é"'))),
    Load("/t.gguf", {}, [1], tokens=[b"a", b"\xff<|end|>"]),
    Cancel(1),
    Load("/e.gguf", {}, [], "embed"),
    Embed(EmbeddingRequest(2, [bytes(range(8)), b"\xff" * 4], 384)),
    Pause(2),
    Resume(2),
]
REPORTS: list[FromEngine] = [
    Ready(ModelInfo("gguf", "llama", "Q8_0", 1, 2, 3, 4), 1024, 8, "libllama", {"threads": 2}),
    Failed("no such file"),
    Log(30, "careful"),
    Step([1, 2], [7, 8], [Started(1, 0, 0.1, 0.2)], [Finished(2, FinishReason.ERROR, "why")], 2, 1, 40, (0, 1, 0, 0)),
    Step([], [], [], [], 0, 0, 0, (), Counters(1, 20, 15, 1 << 33)),
    Encoded([Embedded(2, FinishReason.STOP, None, b"\x00\x00\x80\x3f" * 5, 0.5, 0.25)], 1, 0),
]


@given(cuts=st.lists(st.integers(0, 400), max_size=10))
def test_frames_survive_any_cut_of_the_stream(cuts: list[int]) -> None:
    for frames, decoder in ((COMMANDS, to_engine), (REPORTS, from_engine)):
        data = b"".join(encode(frame) for frame in frames)
        edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
        reader: Reader[object] = Reader(decoder)
        received = [frame for a, b in itertools.pairwise(edges) for frame in reader.feed(data[a:b])]
        assert received == frames


def test_a_garbled_length_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(ValueError, match="bytes"):
        list(Reader(to_engine).feed((MAX_FRAME + 1).to_bytes(4, "little")))


def test_a_frame_of_the_other_direction_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        list(Reader(to_engine).feed(encode(REPORTS[3])))
