"""Streams answers from a model without a pause, and counts all that goes wrong. Nothing is ever tried again.

``python load.py URL MODEL [STREAMS]``; ``GET /now`` on port 8080 is what has happened so far, ``GET /stop`` ends the
streams, each at its own end, and is the same after that.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

PROMPT = {"role": "user", "content": "Tell me a story."}
# Every other stream is long enough to be there while a pod leaves.
TOKENS = (48, 640)
# Where a pod's network goes before its processes do, nobody tells its clients that nothing more will come.
TIMEOUT = httpx.Timeout(120, connect=20, read=20)


class Load:
    """So many streams at a time, on connections that are kept and used again, as OpenAI's clients do it."""

    def __init__(self, url: str, model: str, streams: int) -> None:
        self._url, self._model, self._streams = url, model, streams
        self.stopping = False
        self.requests: list[dict[str, object]] = []

    async def run(self) -> None:
        """Until `stopping`."""
        limits = httpx.Limits(max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False) as client:
            await asyncio.gather(*(self._stream(client, number) for number in range(self._streams)))

    async def _stream(self, client: httpx.AsyncClient, number: int) -> None:
        while not self.stopping:
            seen: dict[str, object] = {"start": time.time(), "first": None}
            try:
                seen["outcome"] = await self._ask(client, seen, TOKENS[number % len(TOKENS)])
            except (httpx.HTTPError, httpx.StreamError) as error:
                told = "cut" if seen["first"] else "refused"
                seen["outcome"] = f"{told}: {type(error).__name__} {error}".strip()
            seen["end"] = time.time()
            self.requests.append(seen)
            if seen["outcome"] != "complete":
                await asyncio.sleep(0.1)  # what is down is asked ten times a second, not a thousand

    async def _ask(self, client: httpx.AsyncClient, seen: dict[str, object], tokens: int) -> str:
        """One stream of so many tokens to its end: ``complete``, or what was wrong with it."""
        body = {"model": self._model, "stream": True, "max_tokens": tokens, "ignore_eos": True, "messages": [PROMPT]}
        finished = None
        async with client.stream("POST", f"{self._url}/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return f"status {answer.status_code}: {answer.text[:200]}"
            async for line in answer.aiter_lines():
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    return "complete" if finished else "done without a reason"
                if not line.startswith("data: "):
                    continue
                event = json.loads(data)
                if "error" in event:
                    return f"error event: {event['error'].get('code') or event['error'].get('message')}"
                for choice in event["choices"]:
                    seen["first"] = seen["first"] or time.time()
                    finished = finished or choice["finish_reason"]
        return "truncated"

    def so_far(self) -> dict[str, object]:
        """The clock, how many requests ended how, and each one's times."""
        requests = list(self.requests)
        outcomes = Counter(str(each["outcome"]) for each in requests)
        return {"now": time.time(), "outcomes": outcomes, "requests": requests}


def control(load: Load, runner: Thread) -> None:
    """Answers on port 8080, for as long as the process lives."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/stop":
                load.stopping = True
                runner.join()
            body = json.dumps(load.so_far()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Standard output is not for these."""

    ThreadingHTTPServer(("", 8080), Handler).serve_forever()


def main() -> None:
    load = Load(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 8)
    runner = Thread(target=lambda: asyncio.run(load.run()))
    runner.start()
    control(load, runner)


if __name__ == "__main__":
    main()
