"""A request for vectors between the engine's answer and the client."""

import asyncio

import pytest

from inferno_runtime.engine.request import Embedded, FinishReason
from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.errors import EncodingFailed, EngineLost, GenerationTimeout, OutOfMemory

ANSWER = Embedded(7, FinishReason.STOP, None, b"\0\0\0\0", 0.5, 0.25)


class Rig:
    def __init__(self, seconds: float | None = None) -> None:
        self.cancelled: list[int] = []
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self.encoding = Encoding(7, self.cancelled.append, deadline)


@pytest.mark.parametrize("early", [True, False])
async def test_the_answer_is_read(early: bool) -> None:
    rig = Rig(seconds=60)
    if early:
        rig.encoding.on_answer(ANSWER)
    reading = asyncio.create_task(rig.encoding.read())
    await asyncio.sleep(0)
    rig.encoding.on_answer(ANSWER)
    assert await reading == ANSWER
    rig.encoding.cancel()  # as a handler does in any case
    assert rig.cancelled == []


@pytest.mark.parametrize(
    ("reason", "kind"), [(FinishReason.ERROR, EncodingFailed), (FinishReason.NO_MEMORY, OutOfMemory)]
)
async def test_an_error_of_the_engine_is_raised(reason: FinishReason, kind: type[Exception]) -> None:
    rig = Rig()
    rig.encoding.on_answer(Embedded(7, reason, "too much", b"", 0, 0))
    with pytest.raises(kind, match="too much"):
        await rig.encoding.read()


async def test_the_engines_death_is_raised() -> None:
    rig = Rig()
    reading = asyncio.create_task(rig.encoding.read())
    await asyncio.sleep(0)
    rig.encoding.fail(EngineLost("gone"))
    rig.encoding.fail(EngineLost("gone again"))
    with pytest.raises(EngineLost, match=r"^gone$"):
        await reading


async def test_the_time_limit_cancels_and_is_an_error() -> None:
    rig = Rig(seconds=0.0)
    with pytest.raises(GenerationTimeout):
        await rig.encoding.read()
    assert rig.cancelled == [7]


async def test_cancel_tells_the_engine_once_also_when_its_reader_is_gone() -> None:
    rig = Rig()
    reading = asyncio.create_task(rig.encoding.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    rig.encoding.cancel()
    rig.encoding.cancel()
    rig.encoding.on_answer(ANSWER)
    assert rig.cancelled == [7]
