"""What is under way when an engine dies: what another may have, and what is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from inferno_runtime.config import ModelConfig, ServedModel
from inferno_runtime.engine.request import EmbeddingRequest, Request, Sampling
from inferno_runtime.worker import client
from inferno_runtime.worker.client import EngineClient, EngineState
from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.errors import EngineLost, EngineUnavailable
from inferno_runtime.worker.files import ModelFiles
from inferno_runtime.worker.flight import Flight
from inferno_runtime.worker.frames import Embed, Pause, Submit
from inferno_runtime.worker.generation import Generation
from inferno_runtime.worker.process import EngineProcess
from tests.unit.server.fakes import ByteTokenizer
from tests.unit.worker.fake_engine import DEADLY, NEVER

PIECES = [bytes([value]) for value in range(256)]


def asked(flight: Flight, number: int) -> Generation:
    generation = Generation(number, 1, PIECES, (), lambda _: None, None)
    flight.begin(generation, Submit(Request(number, [1], 8, Sampling())))
    return generation


async def test_only_what_has_no_token_is_given_to_another_engine_and_only_once() -> None:
    flight = Flight()
    new, begun, paused = (asked(flight, number) for number in (1, 2, 3))
    begun.on_tokens([65])
    flight.pause(3, True)
    assert flight.strand() == [begun]
    assert [frame if isinstance(frame, Pause) else frame.request.id for frame in flight.frames()] == [1, 3, Pause(3)]
    later = asked(flight, 4)
    assert flight.strand() == [new, paused]
    assert (list(flight.frames()), len(flight)) == ([Submit(Request(4, [1], 8, Sampling()))], 1)
    assert flight.strand() == [later]
    assert not flight.working


async def test_vectors_are_asked_for_again() -> None:
    flight = Flight()
    encoding = Encoding(1, lambda _: None, None)
    flight.begin(encoding, Embed(EmbeddingRequest(1, [b""], 4)))
    assert flight.strand() == []
    assert flight.strand() == [encoding]


async def test_what_was_cancelled_is_not() -> None:
    flight = Flight()
    asked(flight, 1)
    flight.cancel(1)
    assert flight.working  # until the engine has answered
    assert (flight.strand(), list(flight.frames()), flight.working) == ([], [], False)


async def test_the_work_that_is_left() -> None:
    flight = Flight()
    one, two = (asked(flight, number) for number in (1, 2))
    flight.pause(1, True)
    assert (flight.working, flight.paused) == (True, 1)
    assert flight.answered(2) is two
    assert not flight.working  # its client takes no more
    flight.pause(1, False)
    assert flight.working
    assert flight.find(1) is one
    assert flight.answered(1) is one
    assert (flight.find(1), flight.answered(1), flight.working) == (None, None, False)


# The same with processes


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineProcess, "module", "tests.unit.worker.fake_engine")
    files = ModelFiles("model", "generate", ByteTokenizer(), (), None, None, ("a model",))
    monkeypatch.setattr(client, "look_at", lambda served: files)


@asynccontextmanager
async def started() -> AsyncIterator[EngineClient]:
    engine = EngineClient(ServedModel(name="fake", model=ModelConfig(source="file:///model")))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def submit(engine: EngineClient, *prompt: int) -> Generation:
    return await engine.submit(list(prompt), max_tokens=8, sampling=Sampling())


@pytest.mark.usefixtures("engines")
async def test_a_sequence_that_an_engine_dies_of_takes_two_of_them_at_most() -> None:
    async with started() as engine:
        deadly = await submit(engine, DEADLY)
        with pytest.raises(EngineLost):
            await deadly.read_all()
        assert engine.stats.resubmitted == 1
        assert (await (await submit(engine, 72, 105)).read_all()).text == "Hi"
        assert engine.stats.restarts == 2


@pytest.mark.usefixtures("engines")
async def test_who_waits_for_an_engine_hears_of_the_servers_end() -> None:
    async with started() as engine:
        engine._files = replace(engine._files, path=NEVER)
        deadly = await submit(engine, DEADLY)
        while engine.state is not EngineState.RESTARTING:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(submit(engine, 72))
        await asyncio.sleep(0)
        await engine.stop()
        for answer in (waiting, deadly.read_all()):
            with pytest.raises(EngineUnavailable, match="shutting down"):
                await answer
