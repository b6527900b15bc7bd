"""A request whose inputs a model encodes, for vectors or scores, on its way through an engine."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from inferno_runtime.engine.request import Embedded, Usage
from inferno_runtime.server.context import Context
from inferno_runtime.server.tracing import Attribute
from inferno_runtime.server.work import Arrival, Work
from inferno_runtime.worker.encoding import Encoding


class EncodingJob(Protocol):
    """What is encoded."""

    @property
    def inputs(self) -> Sequence[Sequence[int]]: ...
    @property
    def tokens(self) -> int: ...


class Encode(Work):
    """What those for vectors and for scores have in common."""

    operation: ClassVar[str]  # its name in a trace

    def __init__(self, context: Context, arrival: Arrival) -> None:
        super().__init__(context, arrival)
        self._encoding: Encoding | None = None
        self._job: EncodingJob | None = None
        self._answer: Embedded | None = None

    async def _encode(self, dimensions: int, seconds: Sequence[int] = ()) -> bytes:
        """What the model says of the inputs. They are encoded together with those of others. Raises `ApiError`."""
        assert self._job is not None
        job, engine = self._job, self._served.engine
        async with self._limited():
            async with self._prompt(job.tokens):
                self._encoding = await engine.embed(
                    job.inputs,
                    dimensions=dimensions,
                    priority=self.priority,
                    deadline=self._deadline,
                    seconds=seconds,
                )
            self._answer = answer = await self._encoding.read()
        sizes = [len(tokens) for tokens in job.inputs]
        self._context.metrics.embeddings(self.model, sizes, answer.queued, answer.encoding, self._elapsed())
        return answer.vectors

    @property
    def log_fields(self) -> dict[str, object]:
        job = self._job
        return {} if job is None else {"inputs": len(job.inputs), "prompt_tokens": job.tokens}

    @property
    def span_name(self) -> str:
        return f"{self.operation} {self.model}".rstrip()

    @property
    def span_attributes(self) -> dict[str, Attribute]:
        told: dict[str, Attribute] = {"gen_ai.operation.name": self.operation, "gen_ai.provider.name": "inferno"}
        if self.model:
            told["gen_ai.response.model"] = self.model
        if self._job is not None:
            told["gen_ai.usage.input_tokens"] = self._job.tokens
        return told

    def _stop(self) -> None:
        if self._encoding is not None:
            self._encoding.cancel()

    @property
    def _taken(self) -> bool:
        return self._encoding is not None

    @property
    def _usages(self) -> Sequence[Usage]:
        assert self._job is not None
        assert self._answer is not None
        return [Usage(self._job.tokens, 0, 0, self._answer.queued, self._answer.encoding, 0.0)]
