"""Everything that a client can be told went wrong, with its HTTP status.

An error object always has its four fields: `message`, `type`, `param` and `code`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from inferno_runtime.config import Task

INVALID_REQUEST = "invalid_request_error"
NOT_FOUND = "not_found_error"
SERVER = "server_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
RATE_LIMIT = "rate_limit_error"
TIMEOUT = "timeout_error"

TOO_LONG = "context_length_exceeded"  # the code of a prompt that leaves no room for an answer


class ApiError(Exception):
    """An answer that is an error object.

    message: a sentence for the client; kind: the error object's `type`.
    param: the field of the request that is to blame, if one is.
    retry_after: seconds after which to try again, where that may help.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    @property
    def fields(self) -> dict[str, str | None]:
        """The error object."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def in_words(self, names: Mapping[str, str]) -> "ApiError":
        """The same in the words of an API in which fields have other names.

        names: by those that they have here; one that begins with a point is a part of a path.
        """
        message = self.message
        for name, other in names.items():
            # Only where it stands for the field: in quotes, as the beginning of a path, or as something of the client's.
            form = "{}" if name.startswith(".") else r"(?<='){0}(?=')|\b{0}(?=\[|\.\w)|(?<=your ){0}\b"
            message = re.sub(form.format(re.escape(name)), other, message)
        param = None if self.param is None else names.get(self.param, self.param)
        return ApiError(self.status, message, kind=self.type, param=param, code=self.code, headers=self.headers)

    def body(self) -> bytes:
        """An answer that is the error object, as JSON."""
        return msgspec.json.encode({"error": self.fields})


@contextmanager
def in_words(names: Mapping[str, str]) -> Iterator[None]:
    """Has what is raised within speak in an API's own words (see `ApiError.in_words`), also of what nests too deep."""
    try:
        yield
    except ApiError as error:
        raise error.in_words(names) from error
    except RecursionError as error:
        raise invalid_json("The body nests too deep.") from error


def bad_request(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """A field that is wrong in itself."""
    return ApiError(400, message, param=param, code=code)


def invalid_json(message: str) -> ApiError:
    """A body that cannot be read at all."""
    return ApiError(400, message, code="invalid_json")


def malformed_request() -> ApiError:
    """What came is not a request at all, or its body is not framed as its head says."""
    return ApiError(
        400,
        "The request is not valid HTTP/1.1: its first line, a header or the framing of its body is malformed.",
        code="malformed_request",
    )


def head_too_large(limit: int) -> ApiError:
    """The first line and the headers are over the limit, in bytes."""
    return ApiError(
        431, f"The request's first line and headers are larger than {limit} bytes.", code="headers_too_large"
    )


def request_timed_out(why: str) -> ApiError:
    """The client has begun a request and did not send the rest of it."""
    return ApiError(408, f"The request did not come in time: {why}.", kind=TIMEOUT, code="request_timeout")


def missing(param: str) -> ApiError:
    """A field that must be there and is not."""
    return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def unsupported(param: str, message: str | None = None) -> ApiError:
    """A known field that this server does not honour, and whose silent neglect would give a wrong answer."""
    return ApiError(
        400, message or f"'{param}' is not supported by this server.", param=param, code="unsupported_parameter"
    )


def model_not_found(name: str, adapters: Sequence[str] = ()) -> ApiError:
    """No such model here. adapters: of the model that it was asked for with one, where there is that."""
    beside = f" With an adapter there are: {', '.join(adapters)}." if adapters else ""
    return ApiError(404, f"The model '{name[:128]}' does not exist.{beside}", param="model", code="model_not_found")


def response_not_found(response_id: str, param: str) -> ApiError:
    """No such response of this caller's, or not any more."""
    return ApiError(
        404,
        f"There is no response '{response_id[:128]}' here; they are kept for a while, by the server that made them.",
        param=param,
        code="response_not_found",
    )


def item_not_found(item_id: str, where: str) -> ApiError:
    """No response of this caller's has such an item, or not any more."""
    return ApiError(
        404,
        f"{where}: there is no item '{item_id[:128]}' here; send the item itself.",
        param="input",
        code="item_not_found",
    )


def path_not_found(path: str) -> ApiError:
    """No such path here."""
    return ApiError(404, f"There is nothing at {path}.", kind=NOT_FOUND, code="not_found")


def endpoint_not_served(path: str, served: Sequence[str]) -> ApiError:
    """A path of OpenAI's that this server does not have; served: those that it has."""
    # OpenAI's clients try again after a 5xx that does not say that this is no use.
    return ApiError(
        501,
        f"{path} is not served here. This server has {', '.join(served)}.",
        code="endpoint_not_served",
        headers={"x-should-retry": "false"},
    )


def method_not_allowed(method: str, path: str, allow: str) -> ApiError:
    """The path is there, but not for this method."""
    return ApiError(
        405, f"{method} is not allowed on {path}; use {allow}.", code="method_not_allowed", headers={"Allow": allow}
    )


def body_too_large(limit: int) -> ApiError:
    """The body is over the limit, declared or received."""
    return ApiError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


def unsupported_media_type(given: str) -> ApiError:
    """The body is not JSON in UTF-8, or is compressed; `given` is what it says it is."""
    return ApiError(415, f"The body must be application/json in UTF-8, not '{given}'.", code="unsupported_media_type")


def context_length_exceeded(context: int, prompt: int | str, param: str) -> ApiError:
    """The prompt leaves no room for an answer; both in tokens."""
    return ApiError(
        400,
        f"This model's context holds {context} tokens, and your {param} has {prompt}, which leaves no room for an answer.",
        param=param,
        code=TOO_LONG,
    )


def input_too_long(window: int, tokens: int, where: str) -> ApiError:
    """An input for an embedding that the model cannot take whole, which stands at `where` in the request."""
    return ApiError(
        400,
        f"This model takes inputs of up to {window} tokens, and '{where}' has {tokens}; "
        "shorten it, or send 'truncate': true to leave out its end.",
        param="input",
        code=TOO_LONG,
    )


def pair_too_long(window: int, tokens: int, where: str) -> ApiError:
    """A query, alone or with a document, that a reranker cannot take whole; `where` in the request is what is too long."""
    beside = "" if where == "query" else " with the query"
    return ApiError(
        400,
        f"This model takes a query and a document of up to {window} tokens together, and '{where}' has {tokens}{beside}; "
        + ("shorten it." if where == "query" else "shorten it, or set 'truncate' to leave out its end."),
        param=where.partition("[")[0],
        code="context_length_exceeded",
    )


def unsupported_task(name: str, serves: Task, asked: Task) -> ApiError:
    """The model is served for one task, and was asked for another."""
    gives: dict[Task, str] = {
        "generate": "generates text",
        "embed": "gives embeddings only; ask it at /v1/embeddings",
        "rerank": "scores documents only; ask it at /v1/rerank",
    }
    wants: dict[Task, str] = {
        "generate": "",
        "embed": " and gives no embeddings; ask one that is served with task: embed" if serves == "generate" else "",
        # The cosine of two embeddings is no such score: models are trained for one or the other.
        "rerank": ". Scores come from a reranker, one that is served with task: rerank",
    }
    return ApiError(400, f"The model '{name}' {gives[serves]}{wants[asked]}.", param="model", code="unsupported_task")


def invalid_grammar(param: str, why: str) -> ApiError:
    """What an answer is to look like cannot be compiled; why: the compiler's words."""
    return bad_request(f"'{param}' cannot be followed: {why}.", param, "invalid_grammar")


def unauthorized(message: str, code: str) -> ApiError:
    """Nobody knows who asks."""
    return ApiError(401, message, kind=AUTHENTICATION, code=code, headers={"WWW-Authenticate": "Bearer"})


def forbidden(message: str, param: str, code: str) -> ApiError:
    """Who asks is known, and may not have this."""
    return ApiError(403, message, kind=PERMISSION, param=param, code=code)


def rate_limited(message: str, retry_after: int, code: str = "rate_limit_exceeded") -> ApiError:
    """Who asks has had what there is for now."""
    return ApiError(429, f"Rate limit exceeded: {message}", kind=RATE_LIMIT, code=code, retry_after=retry_after)


def unavailable(message: str, retry_after: int = 5, code: str = "engine_unavailable") -> ApiError:
    """The server cannot take requests now."""
    return ApiError(503, message, kind=SERVER, code=code, retry_after=retry_after)


def timed_out(seconds: float) -> ApiError:
    """The request took longer than the server lets one take."""
    return ApiError(504, f"The request took longer than {seconds:g} seconds.", kind=TIMEOUT, code="timeout")


def token_timed_out(seconds: float) -> ApiError:
    """The sequence ran, and no token came."""
    return ApiError(504, f"No token came for {seconds:g} seconds.", kind=TIMEOUT, code="token_timeout")


def client_stalled(seconds: float) -> ApiError:
    """The client has taken nothing of what it was sent."""
    return ApiError(504, f"You have read nothing for {seconds:g} seconds.", kind=TIMEOUT, code="client_stalled")


def ack_timed_out(seconds: float) -> ApiError:
    """The client has acknowledged nothing, and its window is full."""
    message = f"Your flow-control window is full, and you have acknowledged nothing for {seconds:g} seconds."
    return ApiError(504, message, kind=TIMEOUT, code="ack_timeout")


def upgrade_required(headers: dict[str, str]) -> ApiError:
    """The path is a WebSocket's; headers: what is spoken here."""
    return ApiError(
        426, "Connect with a WebSocket client, version 13 (RFC 6455).", code="upgrade_required", headers=headers
    )


def too_many_requests(limit: int) -> ApiError:
    """A connection has as many requests as it may."""
    return ApiError(
        429,
        f"At most {limit} requests may run on one connection; wait until one has ended.",
        kind=RATE_LIMIT,
        code="too_many_requests",
    )


def request_not_found() -> ApiError:
    """A connection has no such request."""
    return ApiError(
        404, "No request of this id is running on this connection.", param="request_id", code="request_not_found"
    )


def not_resumable() -> ApiError:
    """The client wants to go on with a stream that was cut off."""
    return ApiError(
        400,
        "A stream cannot be resumed; to have it generated anew, ask without Last-Event-ID.",
        param="Last-Event-ID",
        code="stream_not_resumable",
    )


def origin_not_allowed(origin: str) -> ApiError:
    """A web page of another origin, which nobody has allowed."""
    return ApiError(
        403,
        f"Pages of the origin {origin[:256]} may not use this server; its setting allowedOrigins names those that may.",
        kind=PERMISSION,
        code="origin_not_allowed",
    )


def internal() -> ApiError:
    """A fault of the server's own; what it was stands in the log."""
    return ApiError(500, "The server failed to answer this request.", kind=SERVER, code="internal_error")
