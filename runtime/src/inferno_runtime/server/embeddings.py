"""`/v1/embeddings`."""

import asyncio

from inferno_runtime.engine.request import Embedded
from inferno_runtime.openai import embeddings, requests
from inferno_runtime.openai.embeddings import EmbeddingJob, EmbeddingsRequest
from inferno_runtime.server.base import Context
from inferno_runtime.server.registry import Served
from inferno_runtime.server.work import WorkHandler
from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.errors import EngineError


class EmbeddingsHandler(WorkHandler):
    """Takes a request, has its inputs encoded together with those of others, and writes the vectors."""

    endpoint = "embeddings"

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        self._encoding: Encoding | None = None

    async def work(self) -> None:
        request = await self.off_loop(lambda: requests.decode(self.body, EmbeddingsRequest))
        served = self.context.registry.find(request.model)
        self.model_label = served.name
        target = served.embedding_target(self.context.config.server.overlong_inputs == "truncate")
        job = await self.off_loop(lambda: embeddings.embedding_job(request, target))
        self.log_fields["inputs"] = len(job.inputs)
        self.log_fields["prompt_tokens"] = job.tokens
        answer = await self._encode(job, served)
        sizes = [len(tokens) for tokens in job.inputs]
        self.context.metrics.embeddings(served.name, sizes, answer.queued, answer.encoding, self.elapsed())
        vectors = answer.vectors
        await self.finish(await self.off_loop(lambda: embeddings.answer(served.name, job, vectors), len(vectors)))

    def cancel_work(self) -> None:
        if self._encoding is not None:
            self._encoding.cancel()

    async def _encode(self, job: EmbeddingJob, served: Served) -> Embedded:
        try:
            async with asyncio.timeout_at(self.deadline):
                self._encoding = await served.engine.embed(
                    job.inputs, dimensions=job.dimensions, deadline=self.deadline
                )
                return await self._encoding.read()
        except (TimeoutError, EngineError) as error:
            raise self.engine_error(error) from error
