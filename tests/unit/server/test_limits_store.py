"""Limits that several servers count together, over real sockets: shared, refused, silent, and back again."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator

import pytest
from fakeredis import TcpFakeServer

from inferno_runtime.server import limits as limits_module
from inferno_runtime.server.auth import AccessError
from inferno_runtime.server.limits import Account, Limits, Meter, Store

pytestmark = pytest.mark.asyncio

LIMITS = Limits(requests=100, tokens=1000, connections=0)


class Redis:
    """A Redis on a port of this machine, once it is started."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.url = f"redis://:planted@127.0.0.1:{self.port}/0"
        self._server: TcpFakeServer | None = None

    def start(self) -> None:
        self._server = TcpFakeServer(("127.0.0.1", self.port), server_type="redis")
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


@pytest.fixture
def redis() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests is no store that hangs."""
    monkeypatch.setattr(limits_module, "_STORE_SECONDS", 30.0)


async def remaining(account: Account) -> int:
    """Requests that are left after one more."""
    meter = Meter(account)
    await meter.begin()
    return int(meter.headers()["X-RateLimit-Remaining-Requests"])


def servers(url: str, count: int = 2) -> list[Account]:
    """The account of one caller as several servers keep it."""
    return [Account("key/a", LIMITS, Store(url)) for _ in range(count)]


async def test_servers_count_together(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    redis.start()
    accounts = servers(redis.url)
    left = await asyncio.gather(*(remaining(account) for account in accounts for _ in range(25)))
    assert sorted(left) == list(range(50, 100))
    outcomes = await asyncio.gather(*(account.take(100) for account in accounts for _ in range(15)))
    granted = sum(taken for taken, _ in outcomes)
    assert 0 < granted <= 10
    for account in accounts:
        window = await account.tokens()
        assert window is not None
        assert window.used == granted * 100
    assert not caplog.records


async def test_a_store_that_refuses_is_done_without_until_it_answers(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "inferno_runtime")
    monkeypatch.setattr(limits_module, "_RETRY_SECONDS", 0.0)
    first, second = servers(redis.url)
    assert [await remaining(first) for _ in range(3)] == [99, 98, 97]
    assert [await remaining(second) for _ in range(2)] == [99, 98]
    redis.start()
    assert [await remaining(first), await remaining(second), await remaining(first)] == [99, 98, 97]
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("inferno_runtime")]
    assert len(messages) == 4
    assert all("counting alone" in message for message in messages[:2])
    assert all("answers again" in message for message in messages[2:])
    assert "planted" not in caplog.text


async def test_a_store_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # which listens and never says a word
        (account,) = servers(f"redis://127.0.0.1:{silent.getsockname()[1]}", 1)
        monkeypatch.setattr(limits_module, "_STORE_SECONDS", 0.01)
        assert await remaining(account) == 99
        monkeypatch.setattr(limits_module, "_STORE_SECONDS", 3600.0)  # which the next one must not wait
        async with asyncio.timeout(60):
            assert await remaining(account) == 98


@pytest.mark.parametrize("url", ["redis://host:port/0", "redis://[::1/0"])
async def test_a_store_that_is_none(url: str) -> None:
    with pytest.raises(AccessError, match="limitsStore") as caught:
        Store(url)
    assert "\n" not in str(caught.value)
