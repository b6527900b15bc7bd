"""Five hundred streams at once from a real model."""

import asyncio
from urllib.parse import urlencode, urlsplit

from tests.runtime.process import MODEL, ServerProcess

STREAMS = 500
TOKENS = 8


async def stream(host: str, port: int, number: int) -> str:
    """The body of one answer, with its chunks' lengths."""
    query = urlencode({"model": MODEL, "prompt": f"Story {number}", "max_tokens": TOKENS, "ignore_eos": "true"})
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /v1/stream/sse?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).decode()
    finally:
        writer.close()


async def crowd(host: str, port: int) -> list[str]:
    async with asyncio.timeout(300):
        return await asyncio.gather(*(stream(host, port, number) for number in range(STREAMS)))


def test_every_stream_of_a_crowd_is_whole() -> None:
    with ServerProcess("--slots", "16", "--context-length", "64", "--max-queue", str(STREAMS)) as server:
        address = urlsplit(server.url)
        assert address.hostname
        assert address.port
        answers = asyncio.run(crowd(address.hostname, address.port))
        assert server.active() == 0
        log = server.log
    for answer in answers:
        assert answer.startswith("HTTP/1.1 200 ")
        assert "event: error" not in answer
        assert answer.count("event: complete") == 1
        assert f'"total_tokens":{TOKENS}' in answer
        assert '"finish_reason":"length"' in answer
    assert "Traceback" not in log
