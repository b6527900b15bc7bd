"""The models that this server serves, alone and with their adapters, by name and by alias."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inferno_runtime.backends.base import ModelError, ModelInfo, Tokenizer
from inferno_runtime.chat.model import ChatModel
from inferno_runtime.chat.template import ChatTemplate, TemplateError
from inferno_runtime.config import ServedModel, Task
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.images import Chunk
from inferno_runtime.engine.request import Priority, Sampling
from inferno_runtime.models.facts import Capability, capabilities
from inferno_runtime.openai import embeddings, errors
from inferno_runtime.openai.embeddings import EmbeddingTarget
from inferno_runtime.openai.rerank import RerankTarget
from inferno_runtime.openai.target import Target
from inferno_runtime.server.access import Caller
from inferno_runtime.worker.client import EngineState
from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.generation import Generation
from inferno_runtime.worker.images import Shown
from inferno_runtime.worker.stats import EngineStats

_log = logging.getLogger(__name__)
_NO_TEMPLATE = "This model has no chat template: use /v1/completions, or serve it with one (chatTemplate)."


class Engine(Protocol):
    """What the server asks of an engine; see `worker.client.EngineClient`."""

    name: str
    served: ServedModel
    tokenizer: Tokenizer
    info: ModelInfo
    context: int

    @property
    def state(self) -> EngineState: ...
    @property
    def state_reason(self) -> str: ...
    @property
    def stats(self) -> EngineStats: ...
    @property
    def alive(self) -> bool: ...
    @property
    def tuning(self) -> dict[str, Any]: ...
    @property
    def draft(self) -> str | None: ...
    @property
    def fingerprint(self) -> str: ...

    async def start(self) -> None: ...
    async def check(self, constraint: Constraint) -> None: ...
    async def submit(
        self,
        prompt: list[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        min_tokens: int = 0,
        priority: Priority = Priority.NORMAL,
        constraint: Constraint | None = None,
        pieces: Sequence[bytes] | None = None,
        deadline: float | None = None,
        token_timeout: float | None = None,
        top_scores: int | None = None,
        score_prompt: bool = False,
        adapter: int = 0,
        images: Sequence[Chunk] = (),
    ) -> Generation: ...
    async def look(self, data: bytes, most_pixels: int) -> Shown: ...
    def overlook(self, shown: Shown) -> None: ...
    async def embed(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        dimensions: int,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        seconds: Sequence[int] = (),
    ) -> Encoding: ...
    async def stop(self) -> None: ...


class Served:
    """One model: its engine, and what the server knows of it besides."""

    def __init__(self, engine: Engine, max_sequences: int) -> None:
        self.engine = engine
        self.loaded = False
        self._max_sequences = max_sequences
        self._longest_piece = 1
        self._closing: list[int] = []
        self._chat: ChatModel | None = None
        self._template_error = _NO_TEMPLATE

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def offers(self) -> "list[Offer]":
        """What clients may ask for: the model itself, and with each of its adapters."""
        config = self.engine.served.model
        own = (self.name, *config.aliases)
        offers = [Offer(self, own)]
        for number, adapter in enumerate(config.adapters, 1):
            names = [f"{name}:{adapter.name}" for name in own]
            offers.append(Offer(self, (*names, *adapter.aliases), number))
        return offers

    @property
    def ready(self) -> bool:
        """Whether requests are evaluated right away."""
        return self.loaded and self.engine.state is EngineState.READY

    async def load(self) -> None:
        """Start the engine and compile the template. Raises `ModelError`."""
        await self.engine.start()
        configured = self.engine.served.model.chat_template
        source = configured if configured is not None else self.engine.tokenizer.chat_template
        if source is not None:
            try:
                self._chat = await asyncio.to_thread(self._compile, source)
            except TemplateError as error:
                if configured is not None:
                    raise ModelError(f"{self.name}: {error}") from error
                # The model serves completions all the same.
                _log.warning("%s: %s", self.name, error)
                self._template_error = str(error)
        # At least the longest control token, which has no text but stands for its spelling.
        spellings = self.engine.tokenizer.control_spellings
        self._longest_piece = max(map(len, (*self.engine.tokenizer.pieces, *spellings)))
        self._closing = embeddings.closing_tokens(self.engine.tokenizer)
        self.loaded = True

    def _compile(self, source: str) -> ChatModel:
        tokenizer = self.engine.tokenizer
        template = ChatTemplate(
            source, bos=tokenizer.bos, eos=tokenizer.eos, control_spellings=tokenizer.control_spellings
        )
        return ChatModel(template, tokenizer)

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What it can do, once it is loaded."""
        info, tokenizer = self.engine.info, self.engine.tokenizer
        template = self._chat.source if self._chat is not None else None
        return capabilities(template, task=info.task, vision=info.vision, fills_in=tokenizer.infill is not None)

    @property
    def target(self) -> Target:
        """What the conversion of requests for text needs. Raises `ApiError`: 503 while it is being loaded, 400 if it embeds."""
        self._require("generate")
        return self.vocabulary

    @property
    def vocabulary(self) -> Target:
        """The same of a model that embeds, too: its tokens and its template. Raises `ApiError`: 503 while it is being loaded."""
        self._require(None)
        return Target(
            tokenizer=self.engine.tokenizer,
            chat=self._chat,
            template_error=self._template_error,
            context=self.engine.context,
            longest_piece=self._longest_piece,
            max_sequences=self._max_sequences,
        )

    def embedding_target(self, truncate: bool) -> EmbeddingTarget:
        """The same for embeddings. truncate: inputs that are too long, if a request does not say. Raises `ApiError`."""
        self._require("embed")
        return EmbeddingTarget(
            tokenizer=self.engine.tokenizer,
            window=self.engine.context,
            dimensions=self.engine.info.dimensions,
            closing=self._closing,
            truncate=truncate,
        )

    def rerank_target(self, truncate: bool) -> RerankTarget:
        """The same for scores. truncate: documents that are too long, if a request does not say. Raises `ApiError`."""
        self._require("rerank")
        return RerankTarget(tokenizer=self.engine.tokenizer, window=self.engine.context, truncate=truncate)

    def _require(self, task: Task | None) -> None:
        if not self.loaded:
            raise errors.unavailable(f"The model '{self.name}' is being loaded.")
        if task is not None and self.engine.info.task != task:
            raise errors.unsupported_task(self.name, self.engine.info.task, task)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as clients may ask for it."""

    served: Served
    names: tuple[str, ...]  # all of them, its own first
    adapter: int = 0  # its place among the model's, from 1 on; 0 is the model itself

    @property
    def name(self) -> str:
        """The one that stands in answers and metrics."""
        return self.names[0]

    @property
    def parent(self) -> str | None:
        """The name of the model that it adapts."""
        return self.served.name if self.adapter else None


class Registry:
    """All models. `leaving` is set when requests should go elsewhere, `draining` when none is taken any more."""

    def __init__(self, engines: Sequence[Engine], max_sequences: int) -> None:
        """Raises `ModelError` where two models go by one name."""
        self.leaving = False
        self.draining = False
        self._served = [Served(engine, max_sequences) for engine in engines]
        self._by_name: dict[str, Offer] = {}
        for offer in self.offers():
            for name in offer.names:
                if self._by_name.setdefault(name, offer) is not offer:
                    raise ModelError(f"two models go by the name '{name}'")

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served)

    def offers(self) -> Iterator[Offer]:
        """Everything that clients may ask for."""
        for served in self._served:
            yield from served.offers

    def names(self) -> list[tuple[str, Offer]]:
        """Every name and alias, with what it stands for."""
        return list(self._by_name.items())

    def find(self, name: str, caller: Caller) -> Offer:
        """What this name or alias stands for. Raises `ApiError`: 404, or 403 where it is not open to the caller."""
        offer = self._by_name.get(name)
        if offer is None:
            raise errors.model_not_found(name, self._adapters_beside(name, caller))
        caller.check_model(name, offer.names)
        return offer

    def _adapters_beside(self, name: str, caller: Caller) -> list[str]:
        """The names of the adapters of the model that an unknown name, MODEL:ADAPTER, begins with."""
        base = self._by_name.get(name.rpartition(":")[0])
        if base is None:
            return []
        offers = base.served.offers[1:]
        return [offer.name for offer in offers if caller.may_use(offer.names)]
