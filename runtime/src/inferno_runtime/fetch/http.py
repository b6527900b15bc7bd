"""HTTP as a fetch needs it: one answer at a time, read piece by piece, with errors that say what to do about them.

Redirects are followed here and not by the library: credentials belong to the host that they were given for, and a
redirect may lead neither out of HTTP nor out of TLS.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.auth import AuthBase, HTTPBasicAuth

from inferno_runtime import __version__
from inferno_runtime.fetch.errors import (
    FetchError,
    Forbidden,
    NotFound,
    RateLimited,
    Rejected,
    ServerError,
    Stalled,
    Unauthorized,
    Unreachable,
    UnsafeRedirect,
)
from inferno_runtime.fetch.policy import retry_after

CHUNK: Final = 256 * 1024
_REDIRECTS: Final = 10
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({408, 425, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})

Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]


class Bearer(AuthBase):
    """``Authorization: Bearer TOKEN``."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leaves the request as it is; without any `auth` the library would look into ~/.netrc."""
    return request


def web_credentials(environment: Mapping[str, str] = os.environ) -> Auth:
    """What HTTP_BEARER_TOKEN, or HTTP_USERNAME and HTTP_PASSWORD, say."""
    if token := environment.get("HTTP_BEARER_TOKEN"):
        return Bearer(token)
    if name := environment.get("HTTP_USERNAME"):
        return HTTPBasicAuth(name.encode(), environment.get("HTTP_PASSWORD", "").encode())
    return no_credentials


class Answer:
    """An answer whose body is still to be read."""

    def __init__(self, response: requests.Response, read_seconds: float) -> None:
        self._response = response
        self._read_seconds = read_seconds
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    @property
    def length(self) -> int | None:
        """Bytes of the body, if the server says."""
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isdecimal() else None

    @property
    def delimited(self) -> bool:
        """Whether an end that came too early would be noticed."""
        return self.length is not None or "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes, at least one and at most ``size``; none at the end. Raises `FetchError`."""
        with _translated(urlsplit(self._response.url).netloc, self._read_seconds):
            data: bytes | None = self._response.raw.read1(size, decode_content=False)
            return data or b""

    def chunks(self) -> Iterator[bytes]:
        """The body, piece by piece."""
        while data := self.read():
            yield data

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()


class Client:
    """Sends requests. Proxies and CAs are those that the environment names."""

    def __init__(self, *, connect_seconds: float = 15.0, read_seconds: float = 30.0) -> None:
        self._timeout = (connect_seconds, read_seconds)
        self._read_seconds = read_seconds
        self._session = requests.Session()
        self._session.headers.clear()
        self._session.headers["User-Agent"] = f"inferno/{__version__}"
        # What is stored must be the file, and not a compressed form of it.
        self._session.headers["Accept-Encoding"] = "identity"

    def get(
        self, url: str, auth: Auth, headers: Mapping[str, str] | None = None, allowed: tuple[int, ...] = ()
    ) -> Answer:
        """The answer to a GET, after any redirects: 200, 206 or one of ``allowed``. Raises `FetchError`."""
        return self._follow("GET", url, auth, headers or {}, allowed)

    def head(self, url: str, auth: Auth, allowed: tuple[int, ...] = (), *, follow: bool = True) -> Answer:
        """The same for HEAD; with ``follow`` off redirects to other hosts are answers."""
        return self._follow("HEAD", url, auth, {}, allowed, elsewhere=follow)

    def _follow(
        self,
        method: str,
        url: str,
        auth: Auth,
        headers: Mapping[str, str],
        allowed: tuple[int, ...],
        elsewhere: bool = True,
    ) -> Answer:
        first = url
        for _ in range(_REDIRECTS + 1):
            response = self._send(method, url, auth, headers)
            target = response.headers.get("Location") if response.status_code in _REDIRECTED else None
            if target is None:
                return self._checked(response, first, allowed)
            following = urljoin(url, target)
            _check_redirect(url, following)
            if _origin(following) != _origin(url):
                if not elsewhere:
                    return Answer(response, self._read_seconds)
                auth = no_credentials
            response.close()
            url = following
        raise Rejected(f"{public(first)} redirects more than {_REDIRECTS} times")

    def _send(self, method: str, url: str, auth: Auth, headers: Mapping[str, str]) -> requests.Response:
        with _translated(urlsplit(url).netloc, self._read_seconds):
            return self._session.request(
                method, url, headers=dict(headers), auth=auth, stream=True, allow_redirects=False, timeout=self._timeout
            )

    def _checked(self, response: requests.Response, url: str, allowed: tuple[int, ...]) -> Answer:
        status = response.status_code
        if status in (200, 206) or status in allowed:
            return Answer(response, self._read_seconds)
        error = refusal(status, url, retry_after(response.headers.get("Retry-After"), time.time()))
        response.close()
        raise error


def refusal(status: int, url: str, seconds: float | None = None) -> FetchError:
    """What a status that is not success means; ``seconds`` is what Retry-After says."""
    where = public(url)
    if status == 401:
        return Unauthorized(
            f"{where}: 401, the server wants credentials, or does not take those of spec.model.credentials"
        )
    if status == 403:
        return Forbidden(f"{where}: 403, the credentials do not permit this")
    if status in (404, 410):
        return NotFound(f"{where}: {status}, there is no such file")
    if status == 429:
        return RateLimited(f"{where}: 429, too many requests", seconds)
    if status in _PASSING:
        return ServerError(f"{where}: {status}, the server cannot answer now", seconds)
    return Rejected(f"{where}: the server answered {status}")


def public(url: str) -> str:
    """The URL without what may be a secret in it: its query, and a user's name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _check_redirect(url: str, target: str) -> None:
    before, after = urlsplit(url), urlsplit(target)
    if after.scheme not in ("http", "https"):
        raise UnsafeRedirect(f"{public(url)} redirects to {after.scheme}:, which is not followed")
    if before.scheme == "https" and after.scheme == "http":
        raise UnsafeRedirect(f"{public(url)} redirects from https to http at {after.hostname}, which is not followed")


@contextmanager
def _translated(host: str, read_seconds: float) -> Iterator[None]:
    """The libraries' exceptions as ours. Their messages hold whole URLs, so only the innermost cause is told."""
    try:
        yield
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
        raise Stalled(f"{host}: nothing came for {read_seconds:.0f} s") from None
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        raise Unreachable(f"{host}: no secure connection: {_innermost(error)}") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
        raise Rejected(f"{host}: not a URL that can be fetched") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreachable(f"{host}: {_innermost(error)}") from None


def _innermost(error: BaseException) -> str:
    seen: list[BaseException] = []
    cause: Any = error
    while isinstance(cause, BaseException) and cause not in seen:
        seen.append(cause)
        inner = getattr(cause, "reason", None)
        cause = (
            inner
            if isinstance(inner, BaseException)
            else next((a for a in cause.args if isinstance(a, BaseException)), None)
        )
    last = seen[-1]
    if isinstance(last, OSError) and last.strerror:
        return last.strerror
    if isinstance(last, urllib3.exceptions.NameResolutionError):
        return "the host's name is not known"
    if isinstance(last, urllib3.exceptions.NewConnectionError) and isinstance(last.__cause__, OSError):
        return last.__cause__.strerror or "no connection"
    if isinstance(last, urllib3.exceptions.ConnectTimeoutError):
        return "no connection within the time limit"
    return f"the connection failed ({type(last).__name__})"
