"""What every handler does: the request's id, who asks, the headers, the body and its limits, errors, the access log."""

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, ClassVar, cast

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.operations import is_openais, served_paths
from inferno_runtime.server.access import Caller, metered
from inferno_runtime.server.auth import guarded
from inferno_runtime.server.compression import IDENTITY, LARGE_BODY, body_coding, compress
from inferno_runtime.server.context import Context
from inferno_runtime.server.limits import Meter
from inferno_runtime.server.logging import request_id
from inferno_runtime.server.record import Ended, record

_log = logging.getLogger(__name__)

API_VERSION = "2023-06-01"
BODY_SECONDS = 60.0  # for which nothing of a body may come
_LINGER_SECONDS = 5.0
# A body up to this size is received though its request is refused, so that the connection can go on.
_REFUSED_BODY = 64 * 1024
_MOST_DIGITS = 18  # of a length that is worth reading


@stream_request_body
class BaseHandler(RequestHandler, ABC):
    """The base of every handler.

    Bodies are received in pieces, so that one that is too large is refused as soon as that is known.
    """

    allow: ClassVar[str] = "GET, HEAD"
    endpoint: ClassVar[str] = ""  # its name in the metrics
    takes_body: ClassVar[bool] = False
    log_level: ClassVar[int] = logging.INFO

    context: Context
    request_id: str

    def initialize(self, context: Context) -> None:
        """Called by tornado for every request."""
        self.context = context
        self.began = asyncio.get_running_loop().time()
        self.model_label = ""
        self.log_fields: dict[str, object] = {}
        self._caller: Caller | None = None
        self._meter: Meter | None = None
        self._body = bytearray()
        self._body_limit = context.config.server.max_body_bytes
        self._received = 0
        self._last_received = self.began  # when something of the body came last
        self._body_timer: asyncio.TimerHandle | None = None  # while it comes
        self._refusal: ApiError | None = None  # the answer, once the body is there
        self._refused = False  # whether it was answered already
        self._logged = False

    # Headers

    def set_default_headers(self) -> None:
        # Called before initialize, and again before an error is written.
        if not hasattr(self, "request_id"):
            self.request_id = _sane(self.request.headers.get("X-Request-Id")) or f"req_{secrets.token_hex(12)}"
        self.set_header("Server", "inferno")
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("openai-version", API_VERSION)
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("Content-Type", "application/json")

    def compute_etag(self) -> None:
        """No answer here is worth caching."""

    # Who asks

    @property
    def caller(self) -> Caller:
        """Who asks; only on paths that need a key where keys are set."""
        assert self._caller is not None
        return self._caller

    @property
    def meter(self) -> Meter:
        """What this request is charged to; only on paths that count."""
        assert self._meter is not None
        return self._meter

    async def _admit(self) -> None:
        """Find out who asks, and count the request. Raises `ApiError` (401, 429)."""
        if not guarded(self.request.path):
            return
        self._caller = self.context.access.caller(self.request)
        self.log_fields |= self._caller.log_fields
        if metered(self.request.path):
            self._meter = self._caller.meter()
            await self._meter.begin()

    def flush(self, include_footers: bool = False) -> "asyncio.Future[None]":
        if self.context.registry.draining and not self._headers_written:
            # Also where the request came before that, so that its client asks elsewhere from now on.
            self.set_header("Connection", "close")
        if self._meter is not None and not self._headers_written:
            for name, value in self._meter.headers().items():
                self.set_header(name, value)
        return super().flush(include_footers)

    # The body

    async def prepare(self) -> None:
        request_id.set(self.request_id)
        try:
            await self._admit()
        except ApiError as error:
            self._refusal = error
            self._body_limit = min(self._body_limit, _REFUSED_BODY)
        if self._declares_too_much or (self._refusal is not None and self._asks_first):
            await self._refuse_body()
        elif "Content-Length" in self.request.headers or "Transfer-Encoding" in self.request.headers:
            self._watch_body()

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if self._refused:
            return None
        self._last_received = asyncio.get_running_loop().time()
        self._received += len(chunk)
        if self._received > self._body_limit:
            self._body.clear()
            return self._refuse_body()
        if self.takes_body and self._refusal is None:
            self._body += chunk
        return None

    @property
    def body(self) -> bytes:
        """The whole body, once a method of the handler runs."""
        return bytes(self._body)

    @property
    def _declares_too_much(self) -> bool:
        """Whether the body is going to be too large. What is no length at all is left to tornado."""
        declared = self.request.headers.get("Content-Length", "")
        return declared.isdecimal() and (len(declared) > _MOST_DIGITS or int(declared) > self._body_limit)

    def _watch_body(self) -> None:
        """Refuse a body of which nothing comes any more, or that is not there when the request's time is up."""
        loop, limit = asyncio.get_running_loop(), self.context.config.server.inference_timeout_seconds
        left, why = min(
            (self._last_received + BODY_SECONDS, f"nothing of its body came for {BODY_SECONDS:g} seconds"),
            (self.began + limit, f"its body took longer than {limit} seconds"),
        )
        left -= loop.time()
        if left > 0:
            self._body_timer = loop.call_later(left, self._watch_body)
            return
        self._refused = True
        self._write_api_error(self._refusal or errors.request_timed_out(why))
        self.set_header("Connection", "close")
        self.finish()

    def _end_watch(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()

    def on_connection_close(self) -> None:
        self._end_watch()
        super().on_connection_close()

    @property
    def _asks_first(self) -> bool:
        """Whether the client waits for our consent before it sends the body."""
        return self.request.headers.get("Expect", "").lower() == "100-continue"

    async def _refuse_body(self) -> None:
        """Answer before the body is there, and close the connection.

        A client that is already sending may not look at the answer before it is done, and would never see it if the
        connection were reset under it: what it sends is thrown away for a while.
        """
        self._refused = True
        self._end_watch()
        error = self._refusal or errors.body_too_large(self._body_limit)
        if self._asks_first:
            self._fail(error)
            return
        self._write_api_error(error)
        self._encode_body()
        self.set_header("Connection", "close")
        self.set_header("Content-Length", sum(map(len, self._write_buffer)))
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._end_linger)
        await self.flush()

    def _end_linger(self) -> None:
        if not self._finished:
            connection = self.connection
            self.finish()
            connection.close()

    @property
    def connection(self) -> HTTP1Connection:
        """The connection, which is HTTP/1 since tornado speaks nothing else."""
        return cast(HTTP1Connection, self.request.connection)

    @abstractmethod
    async def run(self) -> None:
        """Answer a request whose body is there. Raises `ApiError`."""

    async def get(self, *_: str) -> None:
        await self._answer("GET")

    async def head(self, *_: str) -> None:
        await self._answer("GET")

    async def post(self, *_: str) -> None:
        await self._answer("POST")

    async def _other(self, *_: str) -> None:
        await self._answer(str(self.request.method))

    put = patch = delete = options = _other

    async def _answer(self, method: str) -> None:
        if self._already_refused():
            return
        if method not in self.allow.split(", "):
            raise errors.method_not_allowed(str(self.request.method), self.request.path, self.allow)
        await self.run()

    def _already_refused(self) -> bool:
        """Whether the answer was written before the body was there, which it now is. Raises the refusal that waits for it."""
        self._end_watch()
        if self._refused:
            self._end_linger()
        elif self._refusal is not None:
            raise self._refusal
        return self._refused

    # The answer

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """End the response; a body that is sent whole is compressed as the client likes it best, if it pays.

        To be awaited where the body may be large: it is compressed in a thread then.
        """
        if chunk is not None:
            self.write(chunk)
        if self._headers_written:
            return super().finish()
        size = sum(map(len, self._write_buffer))
        if size > LARGE_BODY and self._status_code < 400:
            return asyncio.ensure_future(self._finish_large())
        self._encode_body()
        return super().finish()

    async def _finish_large(self) -> None:
        await asyncio.to_thread(self._encode_body)
        await super().finish()

    def _encode_body(self) -> None:
        """Put what was written so far into the coding that the client likes best, as a whole."""
        body = b"".join(self._write_buffer)
        coding = body_coding(self.request.headers.get("Accept-Encoding"), len(body))
        if coding != IDENTITY:
            self._write_buffer = [compress(body, coding)]
            self.set_header("Content-Encoding", coding)

    # Errors

    def _fail(self, error: ApiError) -> None:
        self._write_api_error(error)
        self.finish()

    def error_body(self, error: ApiError) -> bytes:
        """The answer that tells of an error."""
        return error.body()

    def _write_api_error(self, error: ApiError) -> None:
        self.clear()
        self.set_status(error.status)
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.log_fields["error"] = error.code
        self.write(self.error_body(error))

    def write_error(self, status_code: int, **kwargs: object) -> None:
        info = cast(tuple[object, BaseException, object] | None, kwargs.get("exc_info"))
        self._write_api_error(self._as_api_error(info[1] if info else None, status_code))
        if self.request.method not in self.SUPPORTED_METHODS:
            # tornado answers before it has looked for a body, and closes the connection: the client must know.
            self.set_header("Connection", "close")
        self.finish()

    def _as_api_error(self, error: BaseException | None, status: int) -> ApiError:
        if isinstance(error, ApiError):
            return error
        if status == 405:
            return errors.method_not_allowed(str(self.request.method), self.request.path, self.allow)
        if 400 <= status < 500:
            # tornado's own, such as a path that is not UTF-8 once decoded.
            message = error.log_message if isinstance(error, HTTPError) else None
            return ApiError(status, message or "The request could not be understood.", code="invalid_request")
        return errors.internal()

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if value is not None and not isinstance(value, (ApiError, HTTPError, StreamClosedError)):
            _log.error("%s %s failed", self.request.method, self.request.path, exc_info=value)

    # The log

    def log_request(self, status: int) -> None:
        """Record the request, once."""
        if not self._logged:
            self._logged = True
            record(self.context, self.ended(status))

    def ended(self, status: int) -> Ended:
        """The request as it is recorded."""
        return Ended(
            method=str(self.request.method),
            path=self.request.path,
            endpoint=self.endpoint,
            status=status,
            began=self.began,
            request_id=self.request_id,
            model=self.model_label,
            headers=self.request.headers,
            fields=self.log_fields,
            level=self.log_level,
        )


def log_request(handler: RequestHandler) -> None:
    """tornado's log function: called when a response is complete."""
    if isinstance(handler, BaseHandler):
        handler.log_request(handler.get_status())


class NotFoundHandler(BaseHandler):
    """Any path that is not there."""

    async def _answer(self, method: str) -> None:
        if not self._already_refused():
            await self.run()

    async def run(self) -> None:
        raise self._absent()

    def _absent(self) -> ApiError:
        path = self.request.path
        return errors.endpoint_not_served(path, served_paths()) if is_openais(path) else errors.path_not_found(path)

    def _as_api_error(self, error: BaseException | None, status: int) -> ApiError:
        # A method that tornado does not know at all ends here.
        return self._absent() if status == 405 else super()._as_api_error(error, status)


def _sane(value: str | None) -> str | None:
    """A client's id for its request, if it can stand in a header and a log line."""
    if value and len(value) <= 128 and value.isascii() and value.isprintable():
        return value
    return None


def require_json(request: HTTPServerRequest) -> None:
    """Refuse a body that says that it is anything but JSON in UTF-8. Raises `ApiError` (415)."""
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding != "identity":
        raise errors.unsupported_media_type(coding)
    given = request.headers.get("Content-Type", "").strip()
    if given and not _is_json(given):
        raise errors.unsupported_media_type(given)


def _is_json(content_type: str) -> bool:
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        return False
    charsets = [value.strip("\"' ") for name, _, value in (p.partition("=") for p in parameters) if name == "charset"]
    return all(charset in ("utf-8", "utf8") for charset in charsets)
