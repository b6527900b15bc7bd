"""What HTTP costs: `make bench-http`, or `python -m benchmarks.http [--streams 100] [--profile FILE]`.

The whole server, with an engine that says the same token to everybody as fast as it is read. Measured are the tokens per
second through so many streams at once, the processor time that the server needs for them, whether each of many more streams
is whole, and how soon a wrong request has its answer.
"""

import argparse
import asyncio
import cProfile
import json
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


async def play(server: Running, streams: int) -> str:
    """Everything, one thing after the other; what to print."""
    await stream(server.port, 10)
    used, began = processor_seconds(server.pid), time.perf_counter()
    results = await asyncio.gather(*(stream(server.port, _TOKENS) for _ in range(streams)))
    wall, used = time.perf_counter() - began, processor_seconds(server.pid) - used
    tokens, events = (sum(column) for column in zip(*results, strict=True))
    began = time.perf_counter()
    await asyncio.gather(*(stream(server.port, _CROWD_TOKENS) for _ in range(_CROWD)))
    crowd = time.perf_counter() - began
    first_bytes = sorted([await wrong(server.port) for _ in range(_WRONG)])
    return "\n".join(
        (
            f"{streams} streams: {tokens / wall:.0f} tokens/s in {events / wall:.0f} events/s of {tokens / events:.1f}",
            f"the server's own time: {used / tokens * 1e6:.1f} µs a token, {used / events * 1e6:.0f} µs an event",
            f"{_CROWD} streams of {_CROWD_TOKENS} tokens: all whole, in {crowd:.1f} s",
            f"first byte of an error: {statistics.median(first_bytes) * 1000:.2f} ms, at most {first_bytes[-1] * 1000:.2f} ms",
        )
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
    command = [
        sys.executable,
        "-m",
        "benchmarks.http",
        _SERVE,
        str(Path(options.profile).resolve()) if options.profile else "",
    ]

    def start(load: Load, port: int, folder: Path) -> Start:
        return Start([*command, "--port", str(port), "--max-queue", "2000", *UNLIMITED], {"PYTHONPATH": here})

    server = Server("http", "Inferno without a model", "/health/ready", start, lambda load: "")
    with running(server, Load("http", "http", "", 1, 4096, lambda writer, share: ())) as process:
        print(asyncio.run(play(process, options.streams)))


if __name__ == "__main__":
    if sys.argv[1:2] == [_SERVE]:
        serve(sys.argv[3:], sys.argv[2])
    else:
        main()
