"""Ten minutes of everything at once: `make soak`, or `python -m benchmarks.soak [--minutes 10]`.

Users come and go at random: streams that are read to their end and streams that are left, long prompts, conversations,
answers in one piece, and requests that are wrong. Every answer must be whole, whatever the others do, and in the end
nothing may run or wait and the memory must be what it was after the first minutes.
"""

import argparse
import asyncio
import http.client
import json
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.loads import Load
from benchmarks.peers import UNLIMITED, Server, Start
from benchmarks.processes import Running, overhead, running
from benchmarks.wire import AnswerParser, request

_USERS = 16
_SLOTS = 6
_CONTEXT = 1024  # tokens
_SAMPLE_SECONDS = 5.0
_GROWTH = 1.05  # of the memory, with
_SLACK_MB = 5.0  # on top: allocators keep what they may need again
_WORDS = ["the", "of", "model", "river", "stone", "seven", "night", "paper", "token", "green", "under", "slowly"]


@dataclass(slots=True)
class Soak:
    """What happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # MB, every few seconds

    @property
    def growth(self) -> tuple[float, float]:
        """The memory early on, when everything has been used once, and at the end; MB."""
        fifth = max(1, len(self.memory) // 5)
        return statistics.median(self.memory[fifth : 2 * fifth]), statistics.median(self.memory[-fifth:])


async def user(port: int, rng: random.Random, until: float, soak: Soak) -> None:
    """One request after the other, each of a random kind."""
    kinds = [whole, left, wrong, completion, long_prompt, conversation]
    while time.monotonic() < until:
        kind = rng.choices(kinds, weights=[4, 3, 1, 3, 1, 3])[0]
        try:
            async with asyncio.timeout(120):
                problem = await kind(port, rng)
        except (OSError, TimeoutError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        soak.outcomes[kind.__name__] += 1
        if problem:
            soak.failures.append(f"{kind.__name__}: {problem}")
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0, 0.5))


async def whole(port: int, rng: random.Random) -> str:
    """A stream that is read to its end."""
    return _complete(await _ask(port, _chat(rng, _text(rng, 5, 60), rng.randint(1, 60), stream=True)))


async def left(port: int, rng: random.Random) -> str:
    """A stream whose reader goes away."""
    await _ask(port, _chat(rng, _text(rng, 5, 200), 200, stream=True), leave_after=rng.randint(1, 20))
    return ""


async def wrong(port: int, rng: random.Random) -> str:
    """A request that must be refused."""
    body = rng.choice(
        [b"{", b'{"messages": 7}', b'{"model": "inferno-tiny", "messages": [], "temperature": 99}', b"\xff"]
    )
    parser = await _ask(port, body)
    return "" if parser.status == 400 else f"HTTP {parser.status} for {body!r}"


async def completion(port: int, rng: random.Random) -> str:
    """An answer in one piece."""
    parser = await _ask(port, _chat(rng, _text(rng, 1, 40), rng.randint(1, 40), stream=False))
    if parser.status != 200:
        return f"HTTP {parser.status}: {bytes(parser.body)[:200]!r}"
    finish = json.loads(bytes(parser.body))["choices"][0]["finish_reason"]
    return "" if finish in ("stop", "length") else f"finish_reason {finish}"


async def long_prompt(port: int, rng: random.Random) -> str:
    """A prompt that fills most of a slot."""
    return _complete(await _ask(port, _chat(rng, _text(rng, 300, 500), 8, stream=True)))


async def conversation(port: int, rng: random.Random) -> str:
    """One of a few long beginnings that many share."""
    shared = _text(random.Random(rng.randrange(4)), 120, 120)
    return _complete(await _ask(port, _chat(rng, f"{shared} {_text(rng, 1, 10)}", 12, stream=True)))


def _text(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(least, most)))


def _chat(rng: random.Random, text: str, tokens: int, *, stream: bool) -> bytes:
    body: dict[str, object] = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "stream": stream}
    samplings: list[dict[str, float]] = [
        {"temperature": 0},
        {},
        {"top_k": 5, "seed": 3},
        {"presence_penalty": 1, "top_p": 0.9},
    ]
    return json.dumps({"model": "inferno-tiny", **body, **rng.choice(samplings)}).encode()


async def _ask(port: int, body: bytes, leave_after: int | None = None) -> AnswerParser:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request("127.0.0.1", port, "/v1/chat/completions", body))
        parser = AnswerParser()
        while not parser.complete and (leave_after is None or len(parser.events) < leave_after):
            data = await reader.read(1 << 16)
            if not data:
                parser.end()
                break
            parser.feed(data, time.monotonic())
        return parser
    finally:
        writer.close()


def _complete(parser: AnswerParser) -> str:
    if parser.status != 200:
        return f"HTTP {parser.status}: {bytes(parser.body)[:200]!r}"
    if not parser.events or parser.events[-1][1] != b"[DONE]":
        return "the stream ended without [DONE]"
    events = [json.loads(data) for _, data in parser.events[:-1]]
    if problem := next((event["error"] for event in events if "error" in event), None):
        return str(problem)
    return "" if any(c.get("finish_reason") for e in events for c in e.get("choices", ())) else "no finish_reason"


async def watch(server: Running, model: Path, until: float, soak: Soak) -> None:
    """Weigh the server, and say how things stand."""
    began = time.monotonic()
    while time.monotonic() < until:
        await asyncio.sleep(min(_SAMPLE_SECONDS, max(until - time.monotonic(), 0)))
        soak.memory.append(await asyncio.to_thread(overhead, server.pid, 0, model))
        if len(soak.memory) % 12 == 0:
            done, failed = soak.outcomes.total(), len(soak.failures)
            print(f"{time.monotonic() - began:4.0f} s: {done} requests, {failed} failed, {soak.memory[-1]:.0f} MB")


async def play(server: Running, model: Path, seconds: float, seed: int) -> Soak:
    """All users for so many seconds."""
    soak, until = Soak(), time.monotonic() + seconds
    users = [user(server.port, random.Random(f"{seed}/{number}"), until, soak) for number in range(_USERS)]
    await asyncio.gather(watch(server, model, until, soak), *users)
    return soak


def at_rest(port: int) -> str:
    """What still runs or waits, by the server's own metrics; empty if nothing does."""
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        names = ("inferno_num_requests_running", "inferno_num_requests_waiting")
        busy = [line for line in lines if line.startswith(names) and float(line.rsplit(" ", 1)[1]) > 0]
        if not busy or time.monotonic() > deadline:
            return ", ".join(busy)
        time.sleep(0.2)


def main() -> int:
    """Soak, and say whether all is well."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    from inferno_runtime.models.source import DEFAULT_MODEL

    words = ["--slots", str(_SLOTS), "--context-length", str(_CONTEXT), "--prefix-cache-mb", "16"]
    inferno = str(Path(sys.executable).parent / "inferno")
    server = Server(
        "inferno",
        "Inferno",
        "/health/ready",
        lambda load, port, folder: Start([inferno, "serve", "--port", str(port), *UNLIMITED, *words]),
        lambda load: " ".join(words),
    )
    load = Load("soak", "soak", "", _SLOTS, _CONTEXT, lambda writer, share: ())
    with running(server, load) as process:
        soak = asyncio.run(play(process, DEFAULT_MODEL, options.minutes * 60, options.seed))
        unfinished = at_rest(process.port)
    early, late = soak.growth
    print(f"{soak.outcomes.total()} requests ({', '.join(f'{n} {kind}' for kind, n in soak.outcomes.most_common())})")
    print(f"memory beside the model {early:.0f} MB early, {late:.0f} MB at the end, {max(soak.memory):.0f} MB at most")
    problems = Counter(soak.failures).most_common(10)
    for problem, times in problems:
        print(f"FAILED {times} times: {problem}")
    if unfinished:
        print(f"FAILED: still there at the end: {unfinished}")
    grown = late > early * _GROWTH + _SLACK_MB
    if grown:
        print("FAILED: the memory grew")
    return 1 if problems or unfinished or grown else 0


if __name__ == "__main__":
    sys.exit(main())
