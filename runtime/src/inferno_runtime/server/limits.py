"""How much each caller may ask for: requests and tokens a minute, and connections at once.

A caller's minute begins with the first that it asks for, and everything counts into it until it ends. Counters are this
process's own, or stand in a Redis that several servers share.

A prompt that exceeds what is left is refused and costs nothing. What is generated is counted as it is made, and is not
cut short: it may exceed what was left, and then nothing is admitted for the rest of the minute.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from inferno_runtime.openai import errors
from inferno_runtime.server.auth import AccessError
from inferno_runtime.server.windows import Windows

if TYPE_CHECKING:
    from limits.aio.storage import RedisStorage

_log = logging.getLogger(__name__)

WINDOW_SECONDS = 60
_STORE_SECONDS = 0.25  # that a shared store is waited for
_RETRY_SECONDS = 5.0  # before one that failed is tried again
_STORE_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may have; 0 is no limit."""

    requests: int  # a minute
    tokens: int  # a minute, of prompts and answers together
    connections: int  # streams and WebSockets that are open at once


@dataclass(frozen=True, slots=True)
class Window:
    """A caller's minute: how much of its limit is used, and the Unix time at which it ends."""

    limit: int
    used: int
    reset: float

    @property
    def remaining(self) -> int:
        return max(self.limit - self.used, 0)

    @property
    def retry_after(self) -> int:
        """Seconds until it ends, at least one."""
        return max(math.ceil(self.reset - time.time()), 1)


class Counters(Protocol):
    """Counters that end with their minute."""

    async def add(self, key: str, amount: int) -> tuple[int, float]:
        """Add to a counter, which begins its minute if it had none. Returns its value and the seconds that it has left."""
        ...

    async def read(self, key: str) -> tuple[int, float]:
        """The same of a counter as it stands; no seconds are left where it has no minute."""
        ...


class _Shared:
    """Counters in a Redis."""

    def __init__(self, storage: "RedisStorage") -> None:
        self._storage = storage

    async def add(self, key: str, amount: int) -> tuple[int, float]:
        return await self._storage.incr(key, WINDOW_SECONDS, amount=amount), await self._left(key)

    async def read(self, key: str) -> tuple[int, float]:
        return await self._storage.get(key), await self._left(key)

    async def _left(self, key: str) -> float:
        return max(await self._storage.get_expiry(key) - time.time(), 0.0)


class Store:
    """Counters that are shared while their store can be reached, and this process's own otherwise."""

    def __init__(self, url: str | None = None) -> None:
        """url: of a Redis. Raises `AccessError` where it is none; whether it answers is seen later."""
        self._own = Windows(WINDOW_SECONDS)
        self._shared = None if url is None else _Shared(_redis(url))
        self._lost = False
        self._retry_at = 0.0  # on the loop's clock

    async def add(self, key: str, amount: int) -> tuple[int, float]:
        """Add to a counter, which begins its minute if it had none. Returns its value and when it ends, in Unix time."""
        return await self._do(lambda counters: counters.add(key, amount))

    async def read(self, key: str) -> tuple[int, float]:
        """The same of a counter as it stands; the time is now where it has no minute."""
        return await self._do(lambda counters: counters.read(key))

    async def _do(self, work: Callable[[Counters], Awaitable[tuple[int, float]]]) -> tuple[int, float]:
        now = asyncio.get_running_loop().time()
        if self._shared is not None and now >= self._retry_at:
            try:
                async with asyncio.timeout(_STORE_SECONDS):
                    value, left = await work(self._shared)
            except Exception as error:  # whatever it is: no request fails because it could not be counted together
                self._retry_at = now + _RETRY_SECONDS
                if not self._lost:
                    _log.warning("the limits' store fails (%s): counting alone", str(error) or type(error).__name__)
                self._lost = True
            else:
                if self._lost:
                    _log.info("the limits' store answers again")
                self._lost = False
                return value, time.time() + left
        value, left = await work(self._own)
        return value, time.time() + left


def _redis(url: str) -> "RedisStorage":
    from limits.aio.storage import RedisStorage
    from redis.asyncio import BlockingConnectionPool  # only where it is wanted: it takes memory
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    try:
        pool = BlockingConnectionPool.from_url(url, max_connections=_STORE_CONNECTIONS, retry=Retry(NoBackoff(), 1))
        return RedisStorage(f"async+{url}", implementation="redispy", connection_pool=pool)  # type: ignore[arg-type]
    except ValueError:
        raise AccessError("limitsStore is not a URL of a Redis: redis://HOST:PORT/DATABASE") from None


class Account:
    """What one caller has had; all of its requests share it."""

    def __init__(self, identity: str, limits: Limits, store: Store) -> None:
        """identity: tells callers apart; stands in the shared store."""
        self.identity = identity
        self.limits = limits
        self._store = store
        self._requests = f"inferno/requests/{identity}"
        self._tokens = f"inferno/tokens/{identity}"
        self._turn = asyncio.Lock()  # between looking at the tokens and taking some
        self._owed = 0  # generated tokens that are still to be counted
        self._paying: asyncio.Task[None] | None = None
        self._connections = 0

    async def request(self) -> Window | None:
        """Count a request. Returns where that leaves the caller, which is beyond its limit if the request is refused."""
        if not self.limits.requests:
            return None
        return Window(self.limits.requests, *await self._store.add(self._requests, 1))

    async def tokens(self) -> Window | None:
        """Count what is owed. Returns where that leaves the caller."""
        if not self.limits.tokens:
            return None
        async with self._turn:
            return await self._settle()

    async def take(self, tokens: int) -> tuple[bool, Window | None]:
        """Take so many tokens if they are left. Returns whether they were, and where that leaves the caller."""
        if not self.limits.tokens:
            return True, None
        async with self._turn:
            window = await self._settle()
            if tokens > window.remaining:
                return False, window
            window = await self._add(tokens)
            if window.used > window.limit:  # another server took them meanwhile
                return False, await self._add(-tokens)
            return True, window

    async def give_back(self, tokens: int) -> Window:
        """Take back what was taken in this minute. Returns where that leaves the caller."""
        return await self._add(-tokens)

    def owe(self, tokens: int) -> None:
        """Count tokens as soon as may be: at once or, where others are just being counted, together after them."""
        if not self.limits.tokens or not tokens:
            return
        self._owed += tokens
        if self._paying is None or self._paying.done():
            self._paying = asyncio.create_task(self._pay())

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Hold a connection open. Raises `ApiError` (429) where there are too many."""
        most = self.limits.connections
        if most and self._connections >= most:
            raise errors.rate_limited(f"{most} connections are open, the most at once.", 1, "too_many_connections")
        self._connections += 1
        try:
            yield
        finally:
            self._connections -= 1

    async def _pay(self) -> None:
        while self._owed:
            async with self._turn:
                await self._settle()

    async def _settle(self) -> Window:
        owed, self._owed = self._owed, 0
        if owed:
            return await self._add(owed)
        return Window(self.limits.tokens, *await self._store.read(self._tokens))

    async def _add(self, tokens: int) -> Window:
        return Window(self.limits.tokens, *await self._store.add(self._tokens, tokens))


class Accounts:
    """The account of every caller of whom something is open or just being asked; the store remembers the others'."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: WeakValueDictionary[str, Account] = WeakValueDictionary()

    def of(self, identity: str, limits: Limits) -> Account:
        """The account of a caller, with the limits that it has now."""
        account = self._open.get(identity)
        if account is None:
            account = self._open[identity] = Account(identity, limits, self._store)
        account.limits = limits
        return account


class Meter:
    """One request's charges, and the headers that tell of them."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._requests: Window | None = None
        self._tokens: Window | None = None

    async def begin(self) -> None:
        """Count the request. Raises `ApiError` (429) where there are too many."""
        self._requests = await self._account.request()
        self._tokens = await self._account.tokens()
        window = self._requests
        if window is not None and window.used > window.limit:
            seconds = window.retry_after
            raise errors.rate_limited(f"{window.limit} requests a minute; try again in {seconds} seconds.", seconds)

    async def prompt(self, tokens: int) -> None:
        """Charge a prompt that is to be evaluated. Raises `ApiError` (429), and charges nothing, where it is too long."""
        taken, window = await self._account.take(tokens)
        self._tokens = window
        if window is not None and not taken:
            seconds = window.retry_after
            raise errors.rate_limited(
                f"the prompt has {tokens} tokens, and {window.remaining} of {window.limit} a minute are left"
                f" for the next {seconds} seconds.",
                seconds,
            )

    async def refund(self, tokens: int) -> None:
        """Give back what was charged for a prompt that is not evaluated after all."""
        if self._tokens is not None and time.time() < self._tokens.reset:  # later it counts for nothing anyway
            self._tokens = await self._account.give_back(tokens)

    def output(self, tokens: int) -> None:
        """Charge tokens that were generated."""
        self._account.owe(tokens)

    async def settle(self) -> None:
        """Bring the headers up to date with all that was generated."""
        self._tokens = await self._account.tokens()

    def connection(self) -> AbstractContextManager[None]:
        """Hold a connection open. Raises `ApiError` (429) where there are too many."""
        return self._account.connection()

    def headers(self) -> dict[str, str]:
        """`X-RateLimit-*` for the response; a limit that is off has none."""
        windows = (("Requests", self._requests), ("Tokens", self._tokens))
        return {
            f"X-RateLimit-{name}-{what}": str(value)
            for what, window in windows
            if window is not None
            for name, value in (
                ("Limit", window.limit),
                ("Remaining", window.remaining),
                ("Reset", math.ceil(window.reset)),
            )
        }
