"""`/tokenize`, `/detokenize` and `/apply-template`: what a model's tokenizer and its chat template say, by its name."""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from inferno_runtime.openai import errors, requests, tokens
from inferno_runtime.openai.target import Target
from inferno_runtime.server.base import BaseHandler, require_json
from inferno_runtime.server.work import aside


class TokensHandler(BaseHandler):
    """Answers without the engine, and in a thread where there is much to do."""

    allow = "POST"
    takes_body = True
    request_type: ClassVar[type[Any]]
    made: ClassVar[Callable[[Any, Target], msgspec.Struct]]

    async def run(self) -> None:
        require_json(self.request)
        body, kind = self.body, type(self)
        request = await aside(lambda: requests.decode(body, kind.request_type), len(body))
        if self.context.registry.draining:
            raise errors.unavailable("The server is shutting down.")
        offer = self.context.registry.find(request.model, self.caller)
        self.model_label = offer.name
        target = offer.served.vocabulary
        answer = await aside(lambda: msgspec.json.encode(kind.made(request, target)), len(body))
        await self.finish(answer)


class TokenizeHandler(TokensHandler):
    """`/tokenize`."""

    endpoint = "tokenize"
    request_type = tokens.TokenizeRequest
    made = tokens.tokenize


class DetokenizeHandler(TokensHandler):
    """`/detokenize`."""

    endpoint = "detokenize"
    request_type = tokens.DetokenizeRequest
    made = tokens.detokenize


class ApplyTemplateHandler(TokensHandler):
    """`/apply-template`."""

    endpoint = "apply_template"
    request_type = tokens.ApplyTemplateRequest
    made = tokens.apply_template
