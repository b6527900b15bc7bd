"""`/v1/embeddings`: a request for vectors on its way through an engine, and its handler."""

from collections.abc import Callable

from inferno_runtime.openai import embeddings, requests
from inferno_runtime.openai.embeddings import EmbeddingJob, EmbeddingsRequest
from inferno_runtime.server.base import require_json
from inferno_runtime.server.context import Context
from inferno_runtime.server.encode import Encode
from inferno_runtime.server.handlers import WorkHandler
from inferno_runtime.server.tracing import Attribute
from inferno_runtime.server.work import Arrival, aside


class Embedding(Encode):
    """Its way: `take`, and then `vectors`."""

    operation = "embeddings"

    def __init__(self, context: Context, arrival: Arrival) -> None:
        super().__init__(context, arrival)
        self._dimensions: int | None = None  # of a vector

    async def take(self, decode: Callable[[], EmbeddingsRequest], size: int) -> EmbeddingJob:
        """Find out what the engine is to do. decode: reads the request; size: of what it reads, in bytes.

        Raises `ApiError`.
        """
        request = await aside(decode, size)
        served = self._find(request.model, request.priority)
        target = served.embedding_target(self._config.overlong_inputs == "truncate")
        self._job = job = await self._tokenized(lambda: embeddings.embedding_job(request, target), size)
        self._dimensions = job.dimensions
        return job

    async def vectors(self, job: EmbeddingJob) -> bytes:
        """Those of the inputs, one behind the other. Raises `ApiError`."""
        return await self._encode(job.dimensions)

    @property
    def span_attributes(self) -> dict[str, Attribute]:
        told = super().span_attributes
        if self._dimensions is not None:
            told["gen_ai.embeddings.dimension.count"] = self._dimensions
        return told


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
