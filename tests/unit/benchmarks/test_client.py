"""The load's client against a server that answers by script."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.client import Job, Record, play, read_answer
from benchmarks.loads import Turn, User
from benchmarks.wire import AnswerParser

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(content: str = "", **fields: Any) -> bytes:
    choice = {"delta": {"content": content}, "finish_reason": fields.pop("finish", None)}
    return b"data: " + json.dumps({"choices": [choice], **fields}).encode() + b"\n\n"


class Script:
    """Answers every request with the same bytes, and remembers what was asked."""

    def __init__(self, answer: bytes, delay: float = 0.0) -> None:
        self.answer, self.delay = answer, delay
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
        self.asked.append(json.loads(await reader.readexactly(length)))
        await asyncio.sleep(self.delay)
        writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[int]:
    server = await asyncio.start_server(script, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_conversation_carries_its_turns() -> None:
    script = Script(HEAD + event("a ") + event("b", finish="length") + b"data: [DONE]\n\n")
    user = User((Turn("one", 2), Turn("two", 2)), system="be brief", remembers=True)
    async with serving(script) as port:
        records = await play(Job("127.0.0.1", port, {"model": "m"}, (user,), 10))
    assert [record.tokens for record in records] == [2, 2]
    assert all(not record.error and len(record.times) == 2 for record in records)
    assert [(message["role"], message["content"]) for message in script.asked[1]["messages"]] == [
        ("system", "be brief"),
        ("user", "one"),
        ("assistant", "a b"),
        ("user", "two"),
    ]
    assert script.asked[0]["model"] == "m"


async def test_a_load_ends_in_time() -> None:
    script = Script(b"", delay=5)
    async with serving(script) as port:
        records = await play(Job("127.0.0.1", port, {}, (User((Turn("one", 2),)),), 0.2))
    assert [record.error for record in records] == ["not answered in time"]


async def test_a_refusal_ends_the_user_but_not_the_others() -> None:
    script = Script(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull")
    users = (User((Turn("one", 2), Turn("two", 2))), User((Turn("three", 2),)))
    async with serving(script) as port:
        records = await play(Job("127.0.0.1", port, {}, users, 10))
    assert [record.error for record in records] == ["HTTP 503: full"] * 2


def test_a_job_survives_its_way() -> None:
    job = Job("127.0.0.1", 1, {"top_k": 40}, (User((Turn("one", 2, 0.5), Turn("two", 3)), kind="long"),), 9.0)
    assert Job.from_json(job.to_json()) == job


async def test_vectors_are_asked_for_and_counted() -> None:
    body = b'{"data":[{"embedding":"AA=="},{"embedding":"AA=="}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    script = Script(head + body)
    async with serving(script) as port:
        job = Job("127.0.0.1", port, {"model": "m", "seed": 1}, (User((Turn("", 0, texts=("a", "b")),)),), 5.0)
        records = await play(Job.from_json(job.to_json()))
    assert script.asked == [{"model": "m", "input": ["a", "b"], "encoding_format": "base64"}]
    assert [(record.vectors, record.error) for record in records] == [(2, "")]


def record_of(*events: bytes) -> Record:
    parser = AnswerParser()
    parser.feed(HEAD + b"".join(events), 1.0)
    parser.end()
    record = Record("user", 0.0, 8)
    read_answer(parser, record)
    return record


def test_tokens_are_those_of_the_usage() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    record = record_of(event("a"), event("b", finish="length", usage=usage))
    assert (record.tokens, record.prompt_tokens) == (7, 5)


def test_without_usage_a_full_answer_has_as_many_tokens_as_were_asked_for() -> None:
    assert record_of(event("a"), event("b", finish="length")).tokens == 8


def test_without_usage_the_events_of_a_shorter_answer_are_counted() -> None:
    assert record_of(event("a"), event("b", finish="stop")).tokens == 2


def test_an_error_in_the_stream_is_kept() -> None:
    assert record_of(event("a"), b'data: {"error": {"message": "gone"}}\n\n').error == "{'message': 'gone'}"


def test_an_event_without_text_is_no_token() -> None:
    record = record_of(event(""), event(""))
    assert record.times == []
    assert record.error == "an answer without text"
