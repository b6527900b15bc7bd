"""What the operator makes of what pods answer, whatever that is: it is their owners' word, and not its own."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from inferno_operator import autoscaler
from inferno_operator.autoscaler import parse
from inferno_operator.scaling import Load

GOOD = (
    'inferno_num_requests_running{model_name="a"} 2\ninferno_num_requests_waiting 1\ninferno_kv_cache_usage_ratio 0.5\n'
)
ENDLESS = "x" * 65_536 + "\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def test_a_page_of_metrics() -> None:
    assert parse(GOOD.splitlines()) == Load(2, 1, 0.5)
    assert parse(["# HELP", "other 1"]) is None


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "-1", "1e999", "many", ""])
def test_a_number_that_is_none(number: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse([f"inferno_num_requests_running {number}"])


async def good(_: web.Request) -> web.Response:
    return web.Response(text=GOOD)


async def elsewhere(_: web.Request) -> web.Response:
    raise web.HTTPFound("/good")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(GOOD.encode())
    while True:
        await response.write(ENDLESS.encode())


async def bomb(_: web.Request) -> web.Response:
    body = gzip.compress(GOOD.encode() + bytes(1 << 27))
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


async def infinite(_: web.Request) -> web.Response:
    return web.Response(text="inferno_num_requests_running inf\n")


async def broken(_: web.Request) -> web.Response:
    return web.Response(status=500)


# name: what a pod answers, and whether it says what it has to do
ANSWERS: dict[str, tuple[Handler, bool]] = {
    "a page": (good, True),
    "somewhere else": (elsewhere, False),
    "more than anybody can read": (endless, False),
    "much more than it seems": (bomb, False),
    "no number": (infinite, False),
    "an error": (broken, False),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_pods_answer(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handler, says = ANSWERS[case]

    async def answered() -> Load | None:
        application = web.Application()
        application.router.add_get("/metrics", handler)
        application.router.add_get("/good", good)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setattr("inferno_operator.api.names.PORT", runner.addresses[0][1])
        try:
            async with autoscaler.client() as session:
                return await autoscaler.ask(session, "127.0.0.1")
        finally:
            await runner.cleanup()

    assert asyncio.run(answered()) == (Load(2, 1, 0.5) if says else None)
