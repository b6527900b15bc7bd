"""A sequence between the engine's steps and the client's events."""

import asyncio

import pytest

from inferno_runtime.engine.request import Finished, FinishReason, Started
from inferno_runtime.worker.errors import EngineLost, GenerationFailed, GenerationTimeout, TokenTimeout
from inferno_runtime.worker.generation import MOST_UNREAD, Delta, Generation

PIECES = [bytes([value]) for value in range(256)]


class Rig:
    def __init__(
        self, stop: tuple[str, ...] = (), seconds: float | None = None, token_timeout: float | None = None
    ) -> None:
        self.cancelled: list[int] = []
        self.pauses: list[bool] = []
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self.generation = Generation(
            7,
            3,
            PIECES,
            stop,
            self.cancelled.append,
            deadline,
            pause=lambda number, paused: self.pauses.append(paused),
            token_timeout=token_timeout,
        )

    def say(self, text: str) -> None:
        for value in text.encode():
            self.generation.on_tokens((value,))

    def end(self, reason: FinishReason = FinishReason.STOP, error: str | None = None) -> None:
        self.generation.on_finished(Finished(7, reason, error))


async def test_the_first_token_leaves_at_once_and_the_next_ones_in_batches() -> None:
    rig = Rig()
    reading = asyncio.create_task(rig.generation.read(3, wait=60))
    await asyncio.sleep(0)
    rig.say("a")
    assert await reading == Delta("a", 1, None)
    reading = asyncio.create_task(rig.generation.read(3, wait=60))
    await asyncio.sleep(0)
    rig.say("b")
    await asyncio.sleep(0)
    rig.say("c")
    await asyncio.sleep(0)
    assert not reading.done()
    rig.say("d")
    assert await reading == Delta("bcd", 3, None)


async def test_fewer_tokens_leave_when_the_time_is_up() -> None:
    rig = Rig()
    rig.say("a")
    await rig.generation.read(3, wait=60)
    rig.say("b")  # before anybody reads: the time runs from the reading
    assert await rig.generation.read(3, wait=0.001) == Delta("b", 1, None)


async def test_the_end_leaves_at_once_with_what_was_held_back() -> None:
    rig = Rig(stop=("xyz",))
    rig.say("axy")
    rig.end(FinishReason.LENGTH)
    assert await rig.generation.read_all() == Delta("axy", 3, FinishReason.LENGTH)
    assert rig.generation.usage.completion_tokens == 3


async def test_a_stop_string_ends_the_sequence_in_the_engine_too() -> None:
    rig = Rig(stop=("stop",))
    rig.say("go stop and on")
    assert await rig.generation.read_all() == Delta("go ", 7, FinishReason.STOP)
    assert rig.cancelled == [7]


async def test_an_error_comes_after_the_text_before_it() -> None:
    rig = Rig()
    rig.say("so far")
    rig.generation.fail(EngineLost("gone"))
    assert (await rig.generation.read()).text == "so far"
    with pytest.raises(EngineLost):
        await rig.generation.read()


async def test_an_error_of_the_engine_is_raised() -> None:
    rig = Rig()
    rig.end(FinishReason.ERROR, "no token could be chosen")
    with pytest.raises(GenerationFailed, match="no token"):
        await rig.generation.read_all()


async def test_the_time_limit_cancels_and_is_an_error() -> None:
    rig = Rig(seconds=0.0)
    with pytest.raises(GenerationTimeout):
        await rig.generation.read_all()
    assert rig.cancelled == [7]


async def test_cancel_tells_the_engine_once() -> None:
    rig = Rig()
    rig.say("a")
    rig.generation.cancel()
    rig.generation.cancel()
    rig.say("b")
    rig.end()
    assert rig.cancelled == [7]
    assert (await rig.generation.read()).finish_reason is FinishReason.CANCELLED


async def test_usage_has_the_engines_times() -> None:
    rig = Rig()
    rig.generation.on_started(Started(7, cached_tokens=2, queued=0.5, prefill=0.25))
    rig.say("ab")
    rig.end()
    usage = rig.generation.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (3, 2, 2)
    assert (usage.queued, usage.prefill) == (0.5, 0.25)


async def test_what_nobody_reads_pauses_the_engine_and_is_kept() -> None:
    rig = Rig()
    rig.say("x" * (MOST_UNREAD - 1))
    assert rig.pauses == []
    rig.say("yz")  # the second was on its way already
    assert rig.pauses == [True]
    delta = await rig.generation.read()
    assert (delta.tokens, delta.text[-2:]) == (MOST_UNREAD + 1, "yz")
    assert rig.pauses == [True, False]


async def test_a_reader_that_waits_for_everything_is_not_slow() -> None:
    rig = Rig()
    reading = asyncio.create_task(rig.generation.read_all())
    await asyncio.sleep(0)
    for _ in range(3):
        rig.say("x" * MOST_UNREAD)
        await asyncio.sleep(0)
    rig.end()
    assert (await reading).tokens == 3 * MOST_UNREAD
    assert rig.pauses == []


async def test_a_pause_is_told_once_and_lasts_for_both_reasons() -> None:
    rig = Rig()
    rig.generation.pause()
    rig.generation.pause()
    rig.say("x" * MOST_UNREAD)
    await rig.generation.read()
    assert rig.pauses == [True]
    rig.generation.resume()
    rig.generation.resume()
    assert rig.pauses == [True, False]
    rig.end()
    rig.generation.pause()
    assert rig.pauses == [True, False]


async def test_a_token_that_does_not_come_is_an_error() -> None:
    rig = Rig(token_timeout=0.01)
    rig.say("a")
    assert (await rig.generation.read()).text == "a"
    with pytest.raises(TokenTimeout):
        await rig.generation.read()
    assert rig.cancelled == [7]


async def test_neither_the_queue_nor_a_pause_counts_as_silence() -> None:
    rig = Rig(token_timeout=0.01)
    await asyncio.sleep(0.05)  # in the queue
    rig.say("a")
    rig.generation.pause()
    await asyncio.sleep(0.05)
    assert not rig.generation.ended
    rig.generation.resume()
    await rig.generation.read()
    with pytest.raises(TokenTimeout):
        await rig.generation.read()


async def test_usage_has_the_times_of_its_own() -> None:
    rig = Rig()
    assert (rig.generation.usage.first_token, rig.generation.usage.decode) == (0.0, 0.0)
    rig.say("a" * 200)
    rig.end()
    await rig.generation.read_all()
    usage, generation = rig.generation.usage, rig.generation
    assert generation.first_token_at is not None
    assert generation.last_token_at is not None
    assert usage.first_token == generation.first_token_at - generation.submitted
    assert usage.decode == generation.last_token_at - generation.first_token_at
    assert 0 < usage.detokenize <= asyncio.get_running_loop().time() - generation.submitted


async def test_the_first_token_is_what_the_engine_did_not_take() -> None:
    rig = Rig()
    rig.generation.on_started(Started(7, cached_tokens=0, queued=1000.0, prefill=1000.0))  # another process's clock
    rig.say("a")
    assert rig.generation.usage.first_token == 0.0


@pytest.mark.parametrize("stop", [(), ("never",)])
async def test_many_tokens_between_two_reads(stop: tuple[str, ...]) -> None:
    rig = Rig(stop=stop)
    text = "Où ça, 👩‍👩‍👧? " * 50
    rig.say(text)
    rig.end()
    assert await rig.generation.read_all() == Delta(text, len(text.encode()), FinishReason.STOP)


async def test_what_was_said_before_a_cancel_can_still_be_read() -> None:
    rig = Rig()
    rig.say("so far")
    rig.generation.cancel()
    assert await rig.generation.read() == Delta("so far", 6, FinishReason.CANCELLED)
