"""`/v1/responses`: a chat in other words, whose answers can be kept and gone on from."""

from typing import Any

import msgspec

from inferno_runtime.openai import errors, requests
from inferno_runtime.openai.convert import DEFAULT_MAX_TOKENS
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.responses_api import items
from inferno_runtime.openai.responses_api.answer import Response, ResponseEvents, usage_of
from inferno_runtime.openai.responses_api.convert import WORDS, chat_of
from inferno_runtime.openai.responses_api.items import Kept
from inferno_runtime.openai.responses_api.listing import Page, page_of
from inferno_runtime.openai.responses_api.requests import ResponsesRequest
from inferno_runtime.server.base import BaseHandler, require_json
from inferno_runtime.server.generate import Run
from inferno_runtime.server.handlers import RunHandler, StreamedAnswer
from inferno_runtime.server.hearing import Piece
from inferno_runtime.server.response_store import StoredResponse
from inferno_runtime.server.stream import EventStream
from inferno_runtime.server.work import aside

_ROOM = 128  # tokens that a conversation which is shortened leaves for an answer, at least


class _Exchange:
    """A request for a response, and the conversation that it goes on with."""

    def __init__(self, handler: BaseHandler, request: ResponsesRequest) -> None:
        """Raises `ApiError` where the response before it is not there."""
        self.request = request
        self._store = handler.context.responses
        self._account = handler.caller.account.identity
        self._items: list[Kept] = []
        self.stores = request.store is not False and self._store.keeps
        self._before: StoredResponse | None = None
        if request.previous_response_id is not None:
            self._before = self._store.get(self._account, request.previous_response_id)
            if self._before is None:
                raise errors.response_not_found(request.previous_response_id, "previous_response_id")
        found = ((item_id, self._store.find(self._account, item_id)) for item_id in items.referred(request.input))
        self._referred = {item_id: stored for item_id, stored in found if stored is not None}

    @property
    def size(self) -> int:
        """Of what it goes on with, in bytes."""
        before = (self._before,) if self._before else ()
        return sum(stored.size for stored in (*before, *self._referred.values()))

    def chat(self) -> requests.ChatRequest:
        """The chat that it is. Raises `ApiError`."""
        before: list[Kept] = []
        if self._before is not None:
            before = msgspec.json.decode(self._before.items) + msgspec.json.decode(self._before.response)["output"]
        self._items = before + items.read(self.request.input, self._item)
        return chat_of(self.request, self._items)

    def _item(self, item_id: str) -> Kept | None:
        """An item that the request refers to."""
        stored = self._referred.get(item_id)
        output = [] if stored is None else msgspec.json.decode(stored.response)["output"]
        return next((item for item in output if item["id"] == item_id), None)

    def shortened(self, turns: int) -> requests.ChatRequest:
        """The same without so many of its first turns. Raises `ApiError`."""
        return chat_of(self.request, items.without_turns(self._items, turns))

    @property
    def turns(self) -> int:
        """How many turns it has, once it is known."""
        return items.turns(self._items)

    def keep(self, response: dict[str, Any]) -> None:
        """Store what came of it, if that is wanted."""
        if self.stores:
            encode = msgspec.json.encode
            output = tuple(item["id"] for item in response["output"])
            stored = StoredResponse(encode(response), encode(self._items), output)
            self._store.put(self._account, response["id"], stored)


class _Events(StreamedAnswer):
    """Its stream."""

    def __init__(self, exchange: _Exchange, response: Response, run: Run) -> None:
        self._exchange = exchange
        self._run = run
        self._response = response
        self._events = ResponseEvents(response)
        self._opened = False

    def piece(self, index: int, piece: Piece) -> bytes:
        opening = b"" if self._opened else self._events.opening()
        self._opened = True
        return opening + self._events.said(piece.events, piece.finish, self._run.logprobs.of_spoken(piece.spoken))

    def end(self, run: Run) -> bytes:
        response = _whole(self._response, run)
        # Before the client hears of it, so that it can go on at once.
        self._exchange.keep(response)
        return self._events.closing(response)

    def failure(self, error: ApiError) -> bytes:
        return self._events.failure(error)


class ResponsesHandler(RunHandler):
    """`/v1/responses`."""

    endpoint = "responses"

    async def answer(self, run: Run) -> None:
        require_json(self.request)
        exchange = await self._taken(run)
        response = Response(exchange.request, run.model, store=exchange.stores)
        if exchange.request.stream:
            events = _Events(exchange, response, run)
            await self.stream(run, EventStream(self, failure=events.failure), events)
            return
        await run.submit()
        (result,) = await run.whole()
        with run.writing():
            response.say(result)
            whole = _whole(response, run)
            exchange.keep(whole)
            await self.finish(msgspec.json.encode(whole))
        run.done()

    async def _taken(self, run: Run) -> _Exchange:
        """Have `run` take the request. Raises `ApiError`."""
        body = self.body
        request = await aside(lambda: requests.decode(body, ResponsesRequest), len(body))
        exchange = _Exchange(self, request)
        size = len(body) + exchange.size
        with errors.in_words(WORDS):
            try:
                await run.take(exchange.chat, size)
            except ApiError as error:
                if error.code != errors.TOO_LONG or request.truncation != "auto" or exchange.turns < 2:
                    raise
                await _shorten(run, exchange, size)
        return exchange


class InputTokensHandler(ResponsesHandler):
    """`/v1/responses/input_tokens`: how many tokens a request would have."""

    endpoint = "responses_input_tokens"

    async def answer(self, run: Run) -> None:
        require_json(self.request)
        await self._taken(run)
        await self.finish(msgspec.json.encode({"object": "response.input_tokens", "input_tokens": run.prompt_tokens}))


class StoredHandler(BaseHandler):
    """What is under the id of a response that was stored."""

    def find(self) -> StoredResponse:
        """The response. Raises `ApiError` (404)."""
        response_id = self.path_args[0]
        stored = self.context.responses.get(self.caller.account.identity, response_id)
        if stored is None:
            raise errors.response_not_found(response_id, "response_id")
        return stored


class ResponseHandler(StoredHandler):
    """`/v1/responses/{id}`."""

    allow = "GET, HEAD, DELETE"
    endpoint = "response"

    async def run(self) -> None:
        stored = self.find()
        if self.request.method != "DELETE":
            if self.get_argument("stream", "false").lower() == "true":
                raise errors.unsupported("stream", "A stream cannot be had again; ask for the whole response.")
            await self.finish(stored.response)
            return
        response_id = self.path_args[0]
        self.context.responses.delete(self.caller.account.identity, response_id)
        await self.finish(msgspec.json.encode({"id": response_id, "object": "response", "deleted": True}))


class InputItemsHandler(StoredHandler):
    """`/v1/responses/{id}/input_items`: the conversation that a response answered."""

    endpoint = "response_input_items"

    async def run(self) -> None:
        stored = self.find()
        page = Page.of({name: self.get_query_argument(name, "") for name in Page.__struct_fields__})
        await self.finish(msgspec.json.encode(page_of(msgspec.json.decode(stored.items), page)))


async def _shorten(run: Run, exchange: _Exchange, size: int) -> None:
    """Have `run` take as many of the last turns as leave room for an answer. Raises `ApiError` where not even one does."""

    async def fits(dropped: int) -> bool:
        try:
            await run.take(lambda: exchange.shortened(dropped), size)
        except ApiError as error:
            if error.code != errors.TOO_LONG:
                raise
            return False
        return run.room >= min(exchange.request.max_output_tokens or DEFAULT_MAX_TOKENS, _ROOM)

    least, most = 1, exchange.turns - 1  # of what is dropped; all but one are the most
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if await fits(middle) else (middle + 1, most)
    await run.take(lambda: exchange.shortened(least), size)


def _whole(response: Response, run: Run) -> dict[str, Any]:
    return response.object(usage_of(run.usage, run.count(response.output.reasoning)))
