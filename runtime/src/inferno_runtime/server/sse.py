"""`/v1/stream/sse` and `/stream/sse`: one sequence as server-sent events, for a browser's EventSource and for programs."""

from functools import partial

from inferno_runtime.engine.request import FinishReason
from inferno_runtime.openai import errors, events, sole
from inferno_runtime.server.base import require_json
from inferno_runtime.server.generate import Run
from inferno_runtime.server.handlers import RunHandler, StreamedAnswer
from inferno_runtime.server.hearing import Piece
from inferno_runtime.server.origin import check_origin
from inferno_runtime.server.stream import EventStream, error_event


class SseHandler(RunHandler):
    """Takes a request from the query or from a JSON body."""

    allow = "GET, HEAD, POST"
    endpoint = "stream_sse"

    async def answer(self, run: Run) -> None:
        if origin := check_origin(self.request, self.context.config.server.allowed_origins):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.add_header("Vary", "Origin")
        last = self.request.headers.get("Last-Event-ID")
        if last:
            await self._answer_reconnection(last)
            return
        if self.request.method == "POST":
            require_json(self.request)
            body = self.body
            await run.take(lambda: sole.from_body(body), len(body))
        else:
            query = self.request.query_arguments
            await run.take(lambda: sole.from_query(query), len(self.request.query))
        if self.request.method == "HEAD":
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            await self.finish()
            return
        stream = EventStream(self, failure=partial(error_event, name=b"error"))
        await self.stream(run, stream, _Events(self.request_id, run))

    async def _answer_reconnection(self, last_event_id: str) -> None:
        """Say that nothing more will come of a stream.

        An EventSource that is not closed connects again after every end. Without an answer of its own the same request
        would be generated over and over; any answer but 200 stops it, and 204 says that all was well.
        """
        if not events.has_ended(last_event_id):
            raise errors.not_resumable()
        self.set_status(204)
        await self.finish()


class _Events(StreamedAnswer):
    def __init__(self, request_id: str, run: Run) -> None:
        self._run = run
        self._events = events.StreamEvents(request_id)
        self._finish: str = FinishReason.STOP

    def piece(self, index: int, piece: Piece) -> bytes:
        if piece.finish is not None:
            self._finish = piece.finish
        scores = piece.delta.scores
        logprobs = self._run.logprobs.of_text(index, scores) if scores else None
        return self._events.said(piece.events, piece.delta.tokens, logprobs)

    def end(self, run: Run) -> bytes:
        return self._events.complete(self._finish, run.usage)
