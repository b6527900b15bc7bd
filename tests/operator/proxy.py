"""Stands between an operator and the API server, counts what passes, and gets in the way when told to."""

import asyncio
import base64
import json
import random
import ssl
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.cluster.process import free_port

_HOP_BY_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"})


@dataclass(frozen=True)
class Fault:
    """What happens to a request. ``share`` of them are hit; ``status`` 0 passes them on after ``delay`` seconds."""

    status: int = 0
    retry_after: int | None = None
    delay: float = 0.0
    cut: bool = False
    share: float = 1.0


class FaultyProxy:
    """A proxy for the length of a ``with``; ``kubeconfig`` is the way through it, made from the direct one."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._upstream = str(cluster["server"])
        self._tls = ssl.create_default_context(cadata=_pem(cluster["certificate-authority-data"]))
        self._port = free_port()
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        self.kubeconfig = kubeconfig.with_name(f"proxy-{self._port}.kubeconfig")
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(config))
        self.fault: Fault | None = None
        self.hit = 0
        """Requests that the fault has hit."""
        self.seen: Counter[str] = Counter()
        """Requests so far, by method; a watch counts as WATCH."""
        self.gone = 0
        """So many watches to come are told that their place in history is too old."""
        self._streams: dict[asyncio.Event, web.Request] = {}  # the watches that are open, by what lets them flow
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self.kubeconfig.unlink()

    def cut_streams(self) -> None:
        """Ends the watches that are open."""
        self._loop.call_soon_threadsafe(self._cut)

    def freeze_streams(self) -> None:
        """The watches that are open stay open, and nothing comes of them any more."""
        self._loop.call_soon_threadsafe(self._freeze)

    def _cut(self) -> None:
        for request in self._streams.values():
            if request.transport is not None:
                request.transport.abort()

    def _freeze(self) -> None:
        for flow in self._streams:
            flow.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") == "true"
        self.seen["WATCH" if watch else request.method] += 1
        fault = self.fault
        if fault is not None and random.random() < fault.share:
            self.hit += 1
            await asyncio.sleep(fault.delay)
            if fault.cut and request.transport is not None:
                request.transport.abort()
            if fault.cut or fault.status:
                return _refusal(fault)
        if watch and self.gone > 0 and "resourceVersion" in request.query:
            self.gone -= 1
            return web.json_response({"type": "ERROR", "object": _status(410)})
        return await self._pass_on(request, watch)

    async def _pass_on(self, request: web.Request, watch: bool) -> web.StreamResponse:
        flow = asyncio.Event()
        flow.set()
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=_end_to_end(request.headers), data=await request.read() or None
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
            try:
                await response.prepare(request)
                if watch:
                    self._streams[flow] = request
                async for chunk in answer.content.iter_any():
                    await flow.wait()
                    await response.write(chunk)
                await response.write_eof()
            except ConnectionResetError:
                pass  # the operator has gone
            finally:
                self._streams.pop(flow, None)
            return response


def _refusal(fault: Fault) -> web.Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(_status(fault.status), status=fault.status or 500, headers=headers)


def _status(code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "a fault of the test's", "code": code}


def _end_to_end(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _pem(data: str) -> str:
    return base64.b64decode(data).decode()
