"""From the start of the process to its end: load, serve, drain, stop."""

import asyncio
import json
import logging
import signal
import time
from socket import AF_INET6, socket

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from inferno_runtime.backends.base import ModelError
from inferno_runtime.config import RuntimeConfig
from inferno_runtime.memory import give_back
from inferno_runtime.server.access import Access
from inferno_runtime.server.app import application, http_server
from inferno_runtime.server.context import Context
from inferno_runtime.server.logging import configure
from inferno_runtime.server.metrics import Metrics
from inferno_runtime.server.registry import Registry, Served
from inferno_runtime.server.reload import Origin, Reloader
from inferno_runtime.server.tracing import load_tracer
from inferno_runtime.server.transport import affordable_connections
from inferno_runtime.worker.client import EngineClient

_log = logging.getLogger(__name__)
_LEAVING_SECONDS = 60.0  # from the announcement of the end to the end, at most
_LAST_WORDS_SECONDS = 2.0  # for the error events of streams that were cut off


async def serve(config: RuntimeConfig, origin: Origin | None = None) -> int:
    """Serve `config` until a signal ends it. Returns the exit status of the process.

    origin: where it came from, if that may change meanwhile.

    Raises `ModelError`, `AccessError`, `TracingError` or `OSError` where a model cannot be served, its keys or limits cannot
    be used, requests cannot be traced as the configuration asks, or the address cannot be listened on.
    """
    configure(config.server)
    return await Server(config, origin).run()


class Server:
    """One server, its engines and the signals that end it."""

    def __init__(self, config: RuntimeConfig, origin: Origin | None = None) -> None:
        self.url = ""  # the API's base URL, once the server listens
        self._config = config
        engines = [EngineClient(served) for served in config.models]
        registry = Registry(engines, config.server.max_sequences)
        metrics = Metrics(lambda: [(served.name, served.engine.stats) for served in registry])
        tracer = load_tracer(config.server)
        self._context = Context(config, registry, metrics, time.time(), Access(config.server), tracer=tracer)
        self._reloader = Reloader(origin, self._context) if origin is not None else None
        self._http: HTTPServer = http_server(application(self._context), affordable_connections())
        self._staying: asyncio.TimerHandle | None = None  # until it is clear that the announced end does not come
        self._end = asyncio.Event()  # set by the first signal
        self._at_once = asyncio.Event()  # set by the second

    async def run(self) -> int:
        """Load, serve and drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGUSR1, self._leave)
        watching = [asyncio.create_task(self._context.access.watch())]
        if self._reloader is not None:
            watching.append(asyncio.create_task(self._reloader.watch()))
        try:
            self.url = self._listen()
            return await self._serve()
        finally:
            for task in watching:
                task.cancel()
            self._http.stop()
            await self._stop_engines()
            if self._context.tracer is not None:
                self._context.tracer.close()

    async def _serve(self) -> int:
        loading = asyncio.create_task(self._load())
        ended = asyncio.create_task(self._end.wait())
        await asyncio.wait((loading, ended), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            self._refuse_new()
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return 0
        loading.result()
        names = ", ".join(served.name for served in self._context.registry)
        give_back()
        print(f"Serving {names} at {self.url}", flush=True)
        print(_invitation(self.url, next(iter(self._context.registry))), flush=True)
        await ended
        await self._drain()
        return 0

    def _listen(self) -> str:
        """Listen before the models are there, so that probes are answered while they load. Returns the base URL."""
        listen = self._config.listen
        try:
            sockets = bind_sockets(listen.port, address=listen.host)
        except OSError as error:
            raise OSError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from error
        self._http.add_sockets(sockets)
        return _url(listen.host, sockets[0])

    async def _load(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for served in self._context.registry:
                    group.create_task(served.load())
        except* ModelError as failed:
            raise failed.exceptions[0] from None

    def _on_signal(self, number: int) -> None:
        if self._end.is_set() and number == signal.SIGINT:
            self._at_once.set()
        self._end.set()

    def _refuse_new(self) -> None:
        """From now on new requests are refused, in words, for as long as the process lives."""
        self._context.registry.draining = True
        # And each is its connection's last.
        self._http.conn_params.no_keep_alive = True

    def _leave(self) -> None:
        """Go on answering, but tell everybody to go elsewhere: the process is about to be ended.

        Who sends requests here hears of that by and by: a load balancer asks whether we are ready every few seconds.
        """
        _log.info("leaving: not ready any more, and each answer is its connection's last")
        self._context.registry.leaving = True
        self._http.conn_params.no_keep_alive = True
        if self._staying is not None:
            self._staying.cancel()
        self._staying = asyncio.get_running_loop().call_later(_LEAVING_SECONDS, self._stay)

    def _stay(self) -> None:
        """Whoever announced the end has thought better of it, or was ended himself before he came to it."""
        registry = self._context.registry
        registry.leaving = False
        if not registry.draining:
            _log.warning("still here, and ready again")
            self._http.conn_params.no_keep_alive = False

    async def _drain(self) -> None:
        """Let running requests end."""
        context = self._context
        self._refuse_new()
        for connection in tuple(context.sockets):
            connection.drain()
        seconds = self._config.server.drain_seconds
        _log.info("draining: %d requests and sockets have %d seconds to end", len(context.in_flight), seconds)
        idle = asyncio.create_task(context.idle.wait())
        at_once = asyncio.create_task(self._at_once.wait())
        await asyncio.wait((idle, at_once), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if context.in_flight:
            _log.warning("stopping with %d requests and sockets unfinished", len(context.in_flight))
            await self._stop_engines()
            await asyncio.wait((idle,), timeout=_LAST_WORDS_SECONDS)
        idle.cancel()
        at_once.cancel()

    async def _stop_engines(self) -> None:
        await asyncio.gather(*(served.engine.stop() for served in self._context.registry))


def _invitation(url: str, served: Served) -> str:
    """A command that a person can paste."""
    text = "What is the capital of France?"
    body: dict[str, object] = {"model": served.name}
    if served.engine.info.task == "embed":
        path = "embeddings"
        body |= {"input": text}
    elif served.engine.info.task == "rerank":
        path = "rerank"
        body |= {"query": text, "documents": ["Paris is the capital of France.", "Rome lies on the Tiber."]}
    else:
        path = "chat/completions"
        body |= {"temperature": 0, "messages": [{"role": "user", "content": text}]}
    return f"Try: curl {url}/{path} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"


def _url(host: str, bound: socket) -> str:
    name = f"[{host}]" if bound.family == AF_INET6 and ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}/v1"
