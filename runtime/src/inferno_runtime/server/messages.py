"""`/v1/messages`: a chat in Anthropic's words."""

import msgspec

from inferno_runtime.openai import errors, requests
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.messages_api.answer import PING, Message, MessageEvents, error_body, error_event
from inferno_runtime.openai.messages_api.convert import WORDS, chat_of
from inferno_runtime.openai.messages_api.requests import CountTokensRequest, MessagesRequest
from inferno_runtime.server.base import require_json
from inferno_runtime.server.generate import Run
from inferno_runtime.server.handlers import RunHandler, StreamedAnswer
from inferno_runtime.server.hearing import Piece
from inferno_runtime.server.stream import EventStream
from inferno_runtime.server.work import aside


class _Events(StreamedAnswer):
    """The stream of a message."""

    def __init__(self, message: Message, run: Run) -> None:
        self._events = MessageEvents(message)
        self._run = run
        self._opened = False
        self._finish = ""

    def piece(self, index: int, piece: Piece) -> bytes:
        opening = b"" if self._opened else self._events.opening(self._run.usage)
        self._opened = True
        self._finish = piece.finish or self._finish
        return opening + self._events.said(piece.events)

    def end(self, run: Run) -> bytes:
        return self._events.closing(self._finish, run.stop, run.usage)


class _Handler(RunHandler):
    """Answers errors in Anthropic's shape."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Request-Id", self.request_id)  # as Anthropic's clients look for it

    def error_body(self, error: ApiError) -> bytes:
        return error_body(error, self.request_id)


class MessagesHandler(_Handler):
    """`/v1/messages`."""

    endpoint = "messages"

    async def answer(self, run: Run) -> None:
        require_json(self.request)
        body = self.body
        request = await aside(lambda: requests.decode(body, MessagesRequest), len(body))
        with errors.in_words(WORDS):
            await run.take(lambda: chat_of(request), len(body))
        thinks = request.thinking is None or (
            request.thinking.type != "disabled" and request.thinking.display != "omitted"
        )
        message = Message(run.model, thinks=thinks)
        if request.stream:
            stream = EventStream(self, failure=lambda error: error_event(error, self.request_id), silence=PING)
            await self.stream(run, stream, _Events(message, run))
            return
        await run.submit()
        (result,) = await run.whole()
        with run.writing():
            await self.finish(message.whole(result.said, result.finish, run.stop, run.usage))
        run.done()


class CountTokensHandler(_Handler):
    """`/v1/messages/count_tokens`."""

    endpoint = "count_tokens"

    async def answer(self, run: Run) -> None:
        require_json(self.request)
        body = self.body
        request = await aside(lambda: requests.decode(body, CountTokensRequest), len(body))
        with errors.in_words(WORDS):
            await run.take(lambda: chat_of(request), len(body))
        await self.finish(msgspec.json.encode({"input_tokens": run.prompt_tokens}))
