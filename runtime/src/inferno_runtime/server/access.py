"""What a request may do: whose it is, which models and which priority are open to it, and what is left of its limits."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tornado.httputil import HTTPServerRequest

from inferno_runtime.config import ServerConfig
from inferno_runtime.engine.request import Priority
from inferno_runtime.openai import errors
from inferno_runtime.server.auth import Key, KeyRing, guarded, presented
from inferno_runtime.server.limits import Account, Accounts, Limits, Meter, Store

PRIORITY_HEADER = "X-Inferno-Priority"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a key or, where no keys are set, a client's address."""

    key: Key | None
    account: Account

    @property
    def log_fields(self) -> dict[str, object]:
        """What the access log says of it."""
        return {} if self.key is None else {"key": self.key.name}

    def meter(self) -> Meter:
        """What one request of this caller is charged to."""
        return Meter(self.account)

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether a model, of which these are all the names, is open to the caller."""
        return self.key is None or self.key.models is None or not self.key.models.isdisjoint(names)

    def check_model(self, name: str, names: Iterable[str]) -> None:
        """name: the one that was asked for; names: all that the model has. Raises `ApiError` (403)."""
        if not self.may_use(names):
            raise errors.forbidden(f"This API key may not use the model '{name[:128]}'.", "model", "model_not_allowed")

    def priority(self, asked: Priority | None, headers: Mapping[str, str]) -> Priority:
        """What a request is served at: what its body or else its header asks for, or what its key has.

        Raises `ApiError`: 400 where there is no such priority, 403 where the key may not have it.
        """
        param = "priority"
        if asked is None and (given := headers.get(PRIORITY_HEADER, "").strip()):
            asked, param = _priority(given), PRIORITY_HEADER
        highest = self.key.priority if self.key is not None else None
        if asked is None:
            return highest or Priority.NORMAL
        if highest is not None and asked.weight > highest.weight:
            raise errors.forbidden(
                f"This API key may ask for the priority '{highest}' at most, not for '{asked}'.",
                param,
                "priority_not_allowed",
            )
        return asked


def _priority(given: str) -> Priority:
    try:
        return Priority(given.lower())
    except ValueError:
        raise errors.bad_request(
            f"'{PRIORITY_HEADER}' must be one of {', '.join(Priority)}, not '{given[:64]}'.", PRIORITY_HEADER
        ) from None


class Access:
    """The keys and the limits of one server."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises `AccessError` where the keys' file or the limits' store cannot be used."""
        self._keys = KeyRing(Path(config.keys_file)) if config.keys_file else None
        self._limits = Limits(config.requests_per_minute, config.tokens_per_minute, config.max_connections)
        self._accounts = Accounts(Store(config.limits_store))

    def limit(self, config: ServerConfig) -> None:
        """From the next request on these are the limits."""
        self._limits = Limits(config.requests_per_minute, config.tokens_per_minute, config.max_connections)

    async def watch(self) -> None:
        """Look after the keys' file, for ever."""
        if self._keys is not None:
            await self._keys.watch()

    def caller(self, request: HTTPServerRequest) -> Caller:
        """Who makes a request. Raises `ApiError` (401)."""
        if self._keys is None:
            return Caller(None, self._accounts.of(f"address/{_network(request.remote_ip)}", self._limits))
        shown = presented(request.headers, request.query_arguments, request.path)
        if shown is None:
            raise errors.unauthorized(
                "This server asks for an API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
                "missing_api_key",
            )
        key = self._keys.find(shown)
        if key is None:
            raise errors.unauthorized("This server does not know the API key.", "invalid_api_key")
        return Caller(key, self._accounts.of(f"key/{key.name}", _own_limits(key, self._limits)))


def _own_limits(key: Key, limits: Limits) -> Limits:
    return Limits(
        limits.requests if key.requests_per_minute is None else key.requests_per_minute,
        limits.tokens if key.tokens_per_minute is None else key.tokens_per_minute,
        limits.connections if key.max_connections is None else key.max_connections,
    )


def _network(address: str | None) -> str:
    """Whom an address stands for: an IPv6 client has a whole /64 to itself, and would else have as many limits."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False).network_address)


def metered(path: str) -> bool:
    """Whether requests for a path count: those that monitoring makes do not."""
    return guarded(path) and not path.startswith("/metrics/")
