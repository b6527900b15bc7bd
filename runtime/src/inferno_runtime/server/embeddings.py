"""`/v1/embeddings`: a request for vectors on its way through an engine, and its handler."""

from collections.abc import Callable, Sequence

from inferno_runtime.engine.request import Embedded, Usage
from inferno_runtime.openai import embeddings, requests
from inferno_runtime.openai.embeddings import EmbeddingJob, EmbeddingsRequest
from inferno_runtime.server.base import require_json
from inferno_runtime.server.context import Context
from inferno_runtime.server.handlers import WorkHandler
from inferno_runtime.server.tracing import Attribute
from inferno_runtime.server.work import Arrival, Work, aside
from inferno_runtime.worker.encoding import Encoding


class Embedding(Work):
    """Its way: `take`, and then `vectors`."""

    def __init__(self, context: Context, arrival: Arrival) -> None:
        super().__init__(context, arrival)
        self._encoding: Encoding | None = None
        self._job: EmbeddingJob | None = None
        self._answer: Embedded | None = None

    async def take(self, decode: Callable[[], EmbeddingsRequest], size: int) -> EmbeddingJob:
        """Find out what the engine is to do. decode: reads the request; size: of what it reads, in bytes.

        Raises `ApiError`.
        """
        request = await aside(decode, size)
        served = self._find(request.model, request.priority)
        target = served.embedding_target(self._config.overlong_inputs == "truncate")
        self._job = job = await self._tokenized(lambda: embeddings.embedding_job(request, target), size)
        return job

    async def vectors(self, job: EmbeddingJob) -> bytes:
        """Those of the inputs, one behind the other. They are encoded together with those of others. Raises `ApiError`."""
        engine = self._served.engine
        async with self._limited():
            async with self._prompt(job.tokens):
                self._encoding = await engine.embed(
                    job.inputs, dimensions=job.dimensions, priority=self.priority, deadline=self._deadline
                )
            self._answer = answer = await self._encoding.read()
        sizes = [len(tokens) for tokens in job.inputs]
        self._context.metrics.embeddings(self.model, sizes, answer.queued, answer.encoding, self._elapsed())
        return answer.vectors

    @property
    def log_fields(self) -> dict[str, object]:
        return {} if self._job is None else {"inputs": len(self._job.inputs), "prompt_tokens": self._job.tokens}

    @property
    def span_name(self) -> str:
        return f"embeddings {self.model}".rstrip()

    @property
    def span_attributes(self) -> dict[str, Attribute]:
        told: dict[str, Attribute] = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "inferno"}
        if self.model:
            told["gen_ai.response.model"] = self.model
        if self._job is not None:
            told["gen_ai.usage.input_tokens"] = self._job.tokens
            told["gen_ai.embeddings.dimension.count"] = self._job.dimensions
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


class EmbeddingsHandler(WorkHandler):
    """Takes a request and writes its vectors."""

    endpoint = "embeddings"

    async def run(self) -> None:
        embedding = Embedding(self.context, self.arrival)
        await self.carry_out(embedding, self._answer_with(embedding))

    async def _answer_with(self, embedding: Embedding) -> None:
        require_json(self.request)
        body = self.body
        job = await embedding.take(lambda: requests.decode(body, EmbeddingsRequest), len(body))
        vectors = await embedding.vectors(job)
        with embedding.writing():
            await self.finish(await aside(lambda: embeddings.answer(embedding.model, job, vectors), len(vectors)))
        embedding.done()
