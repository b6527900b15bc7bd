"""`/v1/rerank`: a request for scores on its way through an engine, and its handler."""

from collections.abc import Callable

from inferno_runtime.openai import requests, rerank
from inferno_runtime.openai.rerank import RerankJob, RerankRequest
from inferno_runtime.server.base import require_json
from inferno_runtime.server.encode import Encode
from inferno_runtime.server.handlers import WorkHandler
from inferno_runtime.server.work import aside


class Rerank(Encode):
    """Its way: `take`, and then `scores`."""

    operation = "rerank"

    async def take(self, decode: Callable[[], RerankRequest], size: int) -> RerankJob:
        """Find out what the engine is to do. decode: reads the request; size: of what it reads, in bytes.

        Raises `ApiError`.
        """
        request = await aside(decode, size)
        served = self._find(request.model, request.priority)
        target = served.rerank_target(self._config.overlong_inputs == "truncate")
        read = size + len(request.query) * len(request.documents)  # once with each of them
        self._job = job = await self._tokenized(lambda: rerank.rerank_job(request, target), read)
        return job

    async def scores(self, job: RerankJob) -> bytes:
        """Those of the pairs, one behind the other. Raises `ApiError`."""
        return await self._encode(1, [pair.second for pair in job.pairs])


class RerankHandler(WorkHandler):
    """Takes a request and writes its results, the best first."""

    endpoint = "rerank"

    async def run(self) -> None:
        work = Rerank(self.context, self.arrival)
        await self.carry_out(work, self._answer_with(work))

    async def _answer_with(self, work: Rerank) -> None:
        require_json(self.request)
        body = self.body
        job = await work.take(lambda: requests.decode(body, RerankRequest), len(body))
        scores = await work.scores(job)
        with work.writing():
            size = len(body) if job.with_documents else len(scores)
            await self.finish(await aside(lambda: rerank.answer(self.request_id, work.model, job, scores), size))
        work.done()
