"""A full queue, and no memory for a request: an answer for it, and nothing for its neighbours to notice."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.trouble import ONE_SLOT, occupied, queued
from tests.conformance.wire import STORY, error_of
from tests.runtime.process import eventually
from tests.unit.server.conftest import Start
from tests.unit.server.in_process import SchedulerEngine


@covers("queue.full", "errors.503", "errors.server_error")
@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue(serve: Serve, stream: bool) -> None:
    with serve("--max-queue", "1", *ONE_SLOT) as server:
        with ThreadPoolExecutor(1) as pool:
            with occupied(server):
                waiting = pool.submit(server.complete, STORY, max_tokens=1)
                eventually(lambda: queued(server) == 1, "one waits")
                refused = server.complete(STORY, stream=stream)
                error = error_of(refused)
                assert refused.status_code == 503
                assert (error["type"], error["code"]) == ("server_error", "overloaded")
                assert int(refused.headers["retry-after"]) > 0
            assert waiting.result().status_code == 200
        assert server.complete(STORY, max_tokens=1).status_code == 200


@covers("memory.neighbours")
def test_sequences_that_need_more_than_there_is_take_turns_unseen(serve: Serve) -> None:
    # What a real process can come to: its pool is too small for both, and large enough for each.
    fields = {"max_tokens": 600, "ignore_eos": True, "temperature": 0}
    pool = ("--kv-layout", "unified", "--context-length", "768", "--slots", "2", "--prefix-cache-mb", "0")
    flags = (*pool, "--speculation", "off")  # which would take several tokens a step, and be done before they meet
    prompts = [STORY, "One day a fox"]
    with serve(*flags) as server:
        alone = [server.complete(prompt, **fields).json()["choices"][0]["text"] for prompt in prompts]
    with serve(*flags) as server:  # another, which knows of no long answers yet, and so lets both in
        # Of one request, so that they meet however slow the machine is.
        together = server.complete(prompts, **fields).json()
        assert server.metric("num_preemptions_total") > 0
    assert together["usage"]["completion_tokens"] == 1200
    assert [choice["text"] for choice in together["choices"]] == alone


@covers("errors.507", "memory.none", "memory.neighbours", "errors.server_error")
@pytest.mark.asyncio
async def test_no_memory_for_a_request(start: Start) -> None:
    # No real process comes to this with a model that fits: a sequence's limit is the whole pool. Here the pool is smaller.
    server = await start(SchedulerEngine(slots=2, cells=64), tokens_per_minute=0)
    too_long, beside = await asyncio.gather(
        server.complete("x" * 40, max_tokens=200, ignore_eos=True, priority="vip"),
        server.complete("y" * 8, max_tokens=20, ignore_eos=True),
    )
    error = error_of(too_long)
    assert too_long.status_code == 507
    assert (error["type"], error["code"]) == ("server_error", "out_of_memory")
    assert beside.status_code == 200
    assert beside.json()["usage"]["completion_tokens"] == 20
