"""What HTTP costs: `make bench-http`, or `python -m benchmarks.http [--streams 100] [--profile FILE]`.

The whole server, with an engine that says the same token to everybody. Measured are the tokens per second through so many
streams at once, as fast as they are read and at 250 a second each, the processor time that the server needs for them, whether
each of many more streams is whole, and how soon a wrong request has its answer.
"""

import argparse
import asyncio
import cProfile
import json
import os
import statistics
import sys
import time
from pathlib import Path

from benchmarks.loads import Load
from benchmarks.peers import UNLIMITED, Server, Start
from benchmarks.processes import Running, running
from benchmarks.wire import AnswerParser, request

_TOKENS = 1000  # of an answer
_CROWD = 500  # streams at once
_CROWD_TOKENS = 200
_WRONG = 200  # requests
_STEPS = 250  # a second
_MODEL = "inferno-tiny"
_SERVE = "--serve"


async def stream(port: int, tokens: int) -> tuple[int, int]:
    """One stream, read to its end. Returns its tokens and its events. Raises `ValueError` where it is not whole."""
    body = {"model": _MODEL, "prompt": "Once", "max_tokens": tokens, "stream": True, "ignore_eos": True}
    body["stream_options"] = {"include_usage": True}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request("127.0.0.1", port, "/v1/completions", json.dumps(body).encode()))
        events = 0
        tail = b""
        while data := await reader.read(1 << 16):
            # Nothing is taken apart here: the client shares the processor with what is measured.
            events += data.count(b"data: ")
            tail = (tail + data)[-2048:]
    finally:
        writer.close()
    if not tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") or f'"completion_tokens":{tokens}'.encode() not in tail:
        raise ValueError(f"a stream ended with {tail[-200:]!r}")
    return tokens, events - 2


async def wrong(port: int) -> float:
    """Seconds until the first byte of the answer to a wrong request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request("127.0.0.1", port, "/v1/completions", b'{"model": 7}'))
        began = time.perf_counter()
        parser = AnswerParser()
        parser.feed(await reader.read(1 << 16), 0.0)
        if parser.status != 400:
            raise ValueError(f"HTTP {parser.status} for a wrong request")
        return time.perf_counter() - began
    finally:
        writer.close()


async def many(server: Running, streams: int) -> str:
    """So many streams at once; what to print."""
    await stream(server.port, 10)
    used, began = processor_seconds(server.pid), time.perf_counter()
    results = await asyncio.gather(*(stream(server.port, _TOKENS) for _ in range(streams)))
    wall, used = time.perf_counter() - began, processor_seconds(server.pid) - used
    tokens, events = (sum(column) for column in zip(*results, strict=True))
    return (
        f"{tokens / wall:.0f} tokens/s in {events / wall:.0f} events/s of {tokens / events:.1f}; the server needs "
        f"{used / wall * 100:.0f} % of a core, {used / tokens * 1e6:.1f} µs a token and {used / events * 1e6:.0f} µs an event"
    )


async def crowd(server: Running) -> str:
    """Many more streams, and wrong requests; what to print."""
    began = time.perf_counter()
    await asyncio.gather(*(stream(server.port, _CROWD_TOKENS) for _ in range(_CROWD)))
    wall = time.perf_counter() - began
    first_bytes = sorted([await wrong(server.port) for _ in range(_WRONG)])
    middle, most = statistics.median(first_bytes) * 1000, first_bytes[-1] * 1000
    return (
        f"{_CROWD} streams of {_CROWD_TOKENS} tokens: all whole, in {wall:.1f} s\n"
        f"first byte of an error: {middle:.2f} ms, at most {most:.2f} ms"
    )


def processor_seconds(pid: int) -> float:
    """What a process has had of the processors; nothing of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100.0


def serve(words: list[str], profile: str) -> None:
    """The server with the engine that costs nothing; profile: a file to write cProfile's statistics to, or nothing."""
    from inferno_runtime.cli import main as command
    from inferno_runtime.worker.process import EngineProcess

    EngineProcess.module = "benchmarks.null_engine"
    if not profile:
        command(["serve", *words])
        return
    profiler = cProfile.Profile()
    try:
        profiler.runcall(command, ["serve", *words])
    finally:
        profiler.dump_stats(profile)


def main() -> None:
    """Print the figures; the exit code says nothing, since machines differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--profile", default="", metavar="FILE", help="write cProfile's statistics of the server")
    options = parser.parse_args()
    here = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    command = [
        sys.executable,
        "-m",
        "benchmarks.http",
        _SERVE,
        str(Path(options.profile).resolve()) if options.profile else "",
    ]

    load = Load("http", "http", "", 1, 4096, lambda writer, share: ())

    def server(steps: int) -> Server:
        environment = {"PYTHONPATH": search, "NULL_ENGINE_STEPS": str(steps)}

        def start(load: Load, port: int, folder: Path) -> Start:
            return Start([*command, "--port", str(port), "--max-queue", "2000", *UNLIMITED], environment)

        return Server("http", "Inferno without a model", "/health/ready", start, lambda load: "")

    with running(server(_STEPS), load) as process:
        print(f"{options.streams} streams, {_STEPS} tokens/s each: {asyncio.run(many(process, options.streams))}")
    with running(server(0), load) as process:
        print(f"{options.streams} streams, as fast as they go: {asyncio.run(many(process, options.streams))}")
        print(asyncio.run(crowd(process)))


if __name__ == "__main__":
    if sys.argv[1:2] == [_SERVE]:
        serve(sys.argv[3:], sys.argv[2])
    else:
        main()
