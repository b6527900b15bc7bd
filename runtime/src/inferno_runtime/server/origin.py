"""Which web pages may use this server from a browser.

A browser lets any page open a WebSocket, and send a GET, to any address that its user can reach: a server on a laptop or
in a company's network must not answer whatever page its user looks at. Programs send no `Origin` and are not concerned.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from inferno_runtime.openai import errors

ANY = "*"


def check_origin(request: HTTPServerRequest, allowed: Sequence[str]) -> str | None:
    """The origin of a page from elsewhere that is allowed; None where there is no such page.

    allowed: origins as in the configuration. Raises `ApiError` (403) for any other page.
    """
    headers = request.headers
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    if site in ("same-origin", "none"):
        return None
    if origin is None and site is None:
        return None  # no browser
    if origin is not None:
        if site is None and _host(origin) == headers.get("Host", "").lower():
            return None
        if ANY in allowed or origin.lower() in (known.lower().rstrip("/") for known in allowed):
            return origin
    raise errors.origin_not_allowed(origin or "another site")


def _host(origin: str) -> str | None:
    """The host and port of an origin; None for one that has none, or makes no sense."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
