"""What the kubelet and Prometheus ask of the operator: /healthz, /readyz and /metrics."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str | None]
"""Says what is wrong, or None."""


class HealthServer:
    """An HTTP server on the operator's own loop: that it answers at all shows that the loop runs."""

    def __init__(self, port: int, alive: Check, ready: Check) -> None:
        self._port = port
        application = web.Application()
        application.router.add_get("/healthz", _answer(alive))
        application.router.add_get("/readyz", _answer(ready))
        application.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> int:
        """Begins to listen on every interface; returns the port, which is a free one where 0 was asked for."""
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Ends the server."""
        await self._runner.cleanup()


def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        trouble = check()
        return web.Response(text=f"{trouble or 'ok'}\n", status=503 if trouble else 200)

    return handle


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
