"""The application: which handler answers which path, and the limits of the server around it."""

from tornado.httpserver import HTTPServer
from tornado.web import Application

from inferno_runtime.server.base import NotFoundHandler, log_request
from inferno_runtime.server.completions import ChatHandler, CompletionHandler
from inferno_runtime.server.context import Context
from inferno_runtime.server.embeddings import EmbeddingsHandler
from inferno_runtime.server.health import HealthHandler, LiveHandler, MetricsHandler, ReadyHandler
from inferno_runtime.server.messages import CountTokensHandler, MessagesHandler
from inferno_runtime.server.models import ModelHandler, ModelsHandler
from inferno_runtime.server.monitoring import ProfileStatsHandler, QueueStatusHandler, RecentProfilesHandler
from inferno_runtime.server.openapi import OpenApiHandler
from inferno_runtime.server.rerank import RerankHandler
from inferno_runtime.server.responses import (
    InputItemsHandler,
    InputTokensHandler,
    ResponseHandler,
    ResponsesHandler,
)
from inferno_runtime.server.sse import SseHandler
from inferno_runtime.server.tokens import ApplyTemplateHandler, DetokenizeHandler, TokenizeHandler
from inferno_runtime.server.transport import MAX_CONNECTIONS, MAX_HEAD, Server
from inferno_runtime.server.websocket import SocketHandler

_IDLE_SECONDS = 300.0  # a connection without a request; longer than load balancers keep theirs
_NO_LIMIT = 1 << 62


def application(context: Context) -> Application:
    """The application over `context`."""
    shared = {"context": context}
    return Application(
        [
            (r"/v1/chat/completions", ChatHandler, shared),
            (r"/v1/completions", CompletionHandler, shared),
            (r"/v1/responses", ResponsesHandler, shared),
            (r"/v1/responses/input_tokens", InputTokensHandler, shared),
            (r"/v1/responses/([^/]+)", ResponseHandler, shared),
            (r"/v1/responses/([^/]+)/input_items", InputItemsHandler, shared),
            (r"/v1/messages", MessagesHandler, shared),
            (r"/v1/messages/count_tokens", CountTokensHandler, shared),
            (r"/v1/embeddings", EmbeddingsHandler, shared),
            (r"(?:/v1)?/rerank", RerankHandler, shared),
            (r"/v2/rerank", RerankHandler, shared),
            (r"(?:/v1)?/stream/sse", SseHandler, shared),
            (r"(?:/v1)?/ws/stream", SocketHandler, shared),
            (r"(?:/v1)?/tokenize", TokenizeHandler, shared),
            (r"(?:/v1)?/detokenize", DetokenizeHandler, shared),
            (r"(?:/v1)?/apply-template", ApplyTemplateHandler, shared),
            (r"/v1/models", ModelsHandler, shared),
            (r"/v1/models/(.+)", ModelHandler, shared),
            (r"/health", HealthHandler, shared),
            (r"/health/live", LiveHandler, shared),
            (r"/health/ready", ReadyHandler, shared),
            (r"/metrics", MetricsHandler, shared),
            (r"/metrics/profiles/recent", RecentProfilesHandler, shared),
            (r"/metrics/profiles/stats", ProfileStatsHandler, shared),
            (r"/metrics/queue/status", QueueStatusHandler, shared),
            (r"/openapi\.json", OpenApiHandler, shared),
        ],
        default_handler_class=NotFoundHandler,
        default_handler_args=shared,
        log_function=log_request,
    )


def http_server(app: Application, max_connections: int = MAX_CONNECTIONS) -> HTTPServer:
    """A server that leaves the bodies' limits to the handlers, which can answer."""
    return Server(
        app,
        max_connections=max_connections,
        max_header_size=MAX_HEAD,
        max_body_size=_NO_LIMIT,
        idle_connection_timeout=_IDLE_SECONDS,
    )
