"""Stop strings: found wherever they lie, and never shown, not even a part of one."""

from typing import Any

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import Socket, chunks_of, events_of, said, text_of, tokens_of
from tests.runtime.process import MODEL, ServerProcess

PROMPT = "Once upon a time"
TRANSPORTS = ["whole", "stream", "sse", "websocket"]


def answer(server: ServerProcess, transport: str, **fields: object) -> tuple[str, str]:
    """The text, and why it ended."""
    body: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 40, **fields}
    match transport:
        case "whole":
            choice = server.client.post("/v1/completions", json=body).json()["choices"][0]
            return choice["text"], choice["finish_reason"]
        case "stream":
            *chunks, last, _ = chunks_of(server.client.post("/v1/completions", json=body | {"stream": True}).text)
            return said([*chunks, last]), last["choices"][0]["finish_reason"]
        case "sse":
            events = events_of(server.client.get("/v1/stream/sse", params=body).text)
            return tokens_of(events), events[-1][1]["finish_reason"]
        case _:
            with Socket(server) as client:
                client.ask(prompt=PROMPT, params={"temperature": 0, "max_tokens": 40, **fields})
                messages = client.until("complete")
            return text_of(messages), messages[-1]["finish_reason"]


@pytest.fixture(scope="module")
def text(server: ServerProcess) -> str:
    """What is said without a stop string."""
    return answer(server, "whole")[0]


@covers("parameters.stop", "stop.hidden", "stop.straddling", "matrix.chat.stop-sequences")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_stop_string_anywhere(server: ServerProcess, text: str, transport: str, length: int) -> None:
    # Tokens are words or shorter, so strings of 9 characters straddle tokens and batches of them.
    for begin in range(0, len(text) - length, 7):
        stop = text[begin : begin + length]
        assert answer(server, transport, stop=stop) == (text[: text.index(stop)], "stop")


@covers("stop.hidden")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_only_looks_like_one_is_not_lost(server: ServerProcess, text: str, transport: str) -> None:
    whole = answer(server, transport)
    for begin in range(0, len(text) - 4, 11):
        assert answer(server, transport, stop=text[begin : begin + 4] + "\u2603") == whole


@covers("parameters.stop", "requests.sixteen-stops", "matrix.chat.stop-sequences")
@pytest.mark.parametrize("transport", ["whole", "stream", "websocket"])
def test_the_first_of_sixteen_that_comes_counts(server: ServerProcess, text: str, transport: str) -> None:
    stops = [f"never {number}" for number in range(14)]
    said_ = answer(server, transport, stop=[*stops, text[30:34], text[20:24]])
    first = min(text.index(text[30:34]), text.index(text[20:24]))
    assert said_ == (text[:first], "stop")
