"""The load: a process of its own that plays users to a server, and says when each of their tokens came.

It reads a `Job` as JSON from standard input and writes the records of its requests, as JSON, to standard output. It is
bounded in time, and touches nothing but the address in its job.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.loads import Turn, User
from benchmarks.wire import AnswerParser, WireError, request

_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Job:
    """What to do to which server. `fields` go into every request's body; `limit` is in seconds."""

    host: str
    port: int
    fields: dict[str, Any]
    users: tuple[User, ...]
    limit: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        users = tuple(
            User(**{**user, "turns": tuple(_turn(turn) for turn in user["turns"])}) for user in values.pop("users")
        )
        return cls(users=users, **values)


def _turn(values: dict[str, Any]) -> Turn:
    return Turn(**{**values, "texts": tuple(values["texts"])})


@dataclass(slots=True)
class Record:
    """One request, all times in seconds since the load began."""

    kind: str
    sent: float
    asked: int  # tokens
    tokens: int = 0
    prompt_tokens: int = 0
    vectors: int = 0
    times: list[float] = field(default_factory=list)  # of each event that brought text
    ended: float = 0.0
    finish: str = ""
    error: str = ""


async def play(job: Job) -> list[Record]:
    """Play all users of a job at once."""
    began = time.perf_counter()
    records: list[Record] = []

    def clock() -> float:
        return time.perf_counter() - began

    tasks = [asyncio.create_task(_play_user(job, user, clock, records)) for user in job.users]
    _, late = await asyncio.wait(tasks, timeout=job.limit)
    for task in late:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return records


async def _play_user(job: Job, user: User, clock: Any, records: list[Record]) -> None:
    await asyncio.sleep(user.start)
    history: list[dict[str, str]] = [{"role": "system", "content": user.system}] if user.system else []
    for turn in user.turns:
        if turn.pause:
            await asyncio.sleep(turn.pause)
        messages = [*history, {"role": "user", "content": turn.prompt}]
        record = Record(user.kind, clock(), turn.max_tokens)
        records.append(record)
        text = ""
        try:
            if turn.texts:
                read_vectors(await _ask(job, "/v1/embeddings", _embedding_body(job, turn), clock), record)
            else:
                body = _chat_body(job, user, turn, messages)
                text = read_answer(await _ask(job, "/v1/chat/completions", body, clock), record)
        except (OSError, WireError, asyncio.CancelledError) as error:
            record.error = str(error) or type(error).__name__
            record.ended = clock()
            if isinstance(error, asyncio.CancelledError):
                record.error = "not answered in time"
                raise
            return
        record.ended = clock()
        if record.error:
            return
        if user.remembers:
            history = [*messages, {"role": "assistant", "content": text}]


def _chat_body(job: Job, user: User, turn: Turn, messages: list[dict[str, str]]) -> bytes:
    body = {
        **job.fields,
        "messages": messages,
        "max_tokens": turn.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if user.greedy:
        body["temperature"] = 0
    return json.dumps(body).encode()


def _embedding_body(job: Job, turn: Turn) -> bytes:
    """As OpenAI's clients ask, which want vectors as base64."""
    return json.dumps({"model": job.fields["model"], "input": turn.texts, "encoding_format": "base64"}).encode()


async def _ask(job: Job, path: str, body: bytes, clock: Any) -> AnswerParser:
    reader, writer = await asyncio.open_connection(job.host, job.port)
    try:
        writer.write(request(job.host, job.port, path, body))
        parser = AnswerParser()
        while not parser.complete:
            data = await reader.read(_READ_BYTES)
            if not data:
                parser.end()
                break
            parser.feed(data, clock())
        return parser
    finally:
        writer.close()


def read_vectors(parser: AnswerParser, record: Record) -> None:
    """Put what an answer with vectors says into its record. They are counted, and not looked at."""
    if parser.status != 200:
        record.error = f"HTTP {parser.status}: {bytes(parser.body)[:200].decode(errors='replace')}"
    else:
        record.vectors = parser.body.count(b'"embedding":')


def read_answer(parser: AnswerParser, record: Record) -> str:
    """Put what an answer says into its record; returns the text.

    Not every server sends usage with a stream. An answer that ended for its length has as many tokens as were asked for;
    of any other the events are counted.
    """
    if parser.status != 200:
        body = bytes(parser.body) or b"".join(data for _, data in parser.events)
        record.error = f"HTTP {parser.status}: {body[:200].decode(errors='replace')}"
        return ""
    text = []
    for at, data in parser.events:
        if data == b"[DONE]":
            break
        event = json.loads(data)
        if "error" in event:
            record.error = str(event["error"])[:200]
        if usage := event.get("usage"):
            record.tokens = usage["completion_tokens"]
            record.prompt_tokens = usage["prompt_tokens"]
        for choice in event.get("choices", ()):
            record.finish = choice.get("finish_reason") or record.finish
            if content := choice.get("delta", {}).get("content"):
                text.append(content)
                record.times.append(at)
    if not record.tokens:
        record.tokens = record.asked if record.finish == "length" else len(record.times)
    if not record.times and not record.error:
        record.error = "an answer without text"
    return "".join(text)


def main() -> None:
    """Play the job that standard input holds."""
    job = Job.from_json(sys.stdin.read())
    records = asyncio.run(play(job))
    json.dump([asdict(record) for record in records], sys.stdout)


if __name__ == "__main__":
    main()
