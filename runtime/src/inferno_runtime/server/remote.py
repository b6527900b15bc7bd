"""Images that a request names by their addresses: fetched only from hosts that may be asked, and from nowhere private.

A client chooses the URL, so the server must not become its way into the network. What counts is the address that is
connected to: names are resolved once, here, and a connection goes to an address that was found to be public. So a name
cannot change its meaning between the check and the connection. A redirect is a new URL, and checked like one.
"""

import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPInputError
from tornado.iostream import UnsatisfiableReadError
from tornado.netutil import DefaultLoopResolver, Resolver
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

from inferno_runtime.config import ServerConfig

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 3
_UNICAST = ipaddress.ip_network("2000::/3")  # what is given out of IPv6 for the internet
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Public by their numbers, and private to a cloud: Oracle's metadata and Azure's platform.
_CLOUDS = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("168.63.129.16"))


class Unfetched(Exception):
    """An image that is not fetched, or cannot be; the message goes on from "The image is refused: "."""


class RemoteImages:
    """Fetches images as the configuration allows."""

    def __init__(self, config: ServerConfig, is_public: Callable[[str], bool] | None = None) -> None:
        """is_public: whether an address may be connected to."""
        self._config = config
        self._is_public = is_public or is_public_address

    async def fetch(self, url: str) -> bytes:
        """The body of the answer from a URL. Raises `Unfetched`."""
        resolver = _CheckedResolver(self._is_public)
        client = SimpleAsyncHTTPClient(
            force_instance=True,
            resolver=resolver,
            max_body_size=self._config.max_image_bytes,
            max_header_size=64 * 1024,
        )
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                answer = await self._ask(client, self._checked(url))
                if answer.code not in _REDIRECTS:
                    return self._body(answer)
                url = urljoin(url, answer.headers.get("Location", ""))
            raise Unfetched(f"it is behind more than {_MOST_REDIRECTS} redirects")
        finally:
            client.close()

    def _checked(self, url: str) -> str:
        """The URL, without what is no server's business. Raises `Unfetched`."""
        if not self._config.image_hosts:
            raise Unfetched("this server fetches none (imageHosts): send it as a data: URL")
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            raise Unfetched("its URL is malformed") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise Unfetched("its URL must begin with data:, https:// or http://")
        if parts.username is not None or parts.password is not None:
            raise Unfetched("its URL must not hold a user's name")
        if not any(_allows(rule, parts.hostname, port, parts.scheme) for rule in self._config.image_hosts):
            raise Unfetched("its host is not among those that images are fetched from (imageHosts)")
        return SplitResult(parts.scheme, parts.netloc, parts.path or "/", parts.query, "").geturl()

    async def _ask(self, client: SimpleAsyncHTTPClient, url: str) -> Any:
        seconds = float(self._config.image_timeout_seconds)
        request = HTTPRequest(
            url,
            headers={"Accept": "image/*"},
            user_agent="inferno",
            follow_redirects=False,
            connect_timeout=seconds,
            request_timeout=seconds,
            decompress_response=False,
        )
        try:
            return await client.fetch(request, raise_error=False)
        except _Private:
            raise Unfetched("its host has no public address") from None
        except HTTPTimeoutError:
            raise Unfetched("it cannot be fetched in time") from None
        except (HTTPClientError, HTTPInputError, UnsatisfiableReadError, OSError, ValueError) as error:
            raise Unfetched(f"it cannot be fetched ({type(error).__name__})") from error

    def _body(self, answer: Any) -> bytes:
        if answer.code != 200:
            raise Unfetched(f"its server answers {answer.code}")
        return bytes(answer.body)


class _Private(OSError):
    """A name that stands for no public address."""


class _CheckedResolver(Resolver):
    """Resolves names to public addresses alone."""

    def initialize(self, is_public: Callable[[str], bool]) -> None:
        self._is_public = is_public
        self._resolver = DefaultLoopResolver()

    async def resolve(self, host: str, port: int, family: Any = 0) -> list[tuple[int, Any]]:
        found = await self._resolver.resolve(host, port, family)
        public = [(kind, address) for kind, address in found if self._is_public(address[0])]
        if not public:
            raise _Private(host)
        return public


def is_public_address(text: str) -> bool:
    """Whether an address is one of the open internet, also where it hides another one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            hidden = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if hidden is not None:
            return is_public_address(str(hidden))
        return address.is_global and address in _UNICAST
    return address.is_global and not address.is_multicast and not any(address in network for network in _CLOUDS)


def _allows(rule: str, host: str, port: int | None, scheme: str) -> bool:
    name, colon, number = rule.rpartition(":")
    if not (colon and number.isdecimal()):
        name, number = rule, ""
    if (number and port != int(number)) or (not number and port != _PORTS[scheme]):
        return False
    name = name.lower().strip("[]")
    if name == "*":
        return True
    return host.endswith(name[1:]) and len(host) > len(name) - 1 if name.startswith("*.") else host == name
