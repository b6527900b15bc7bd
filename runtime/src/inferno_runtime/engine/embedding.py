"""Turns requests for vectors into batches and back.

Pure but for the encoder and the clock that it is given; one thread drives it. A step encodes one batch, which may hold inputs
of several requests, and a request is answered when the last of its inputs is done.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, Encoder, OutOfMemory
from inferno_runtime.engine.packing import Input, Packer
from inferno_runtime.engine.request import Embedded, EmbeddingRequest, FinishReason
from inferno_runtime.engine.threads import ThreadGovernor

logger = logging.getLogger(__name__)

_TOKEN_BYTES = 4  # in a request's inputs


@dataclass(slots=True)
class _Work:
    """A request and what has come of it so far."""

    request: EmbeddingRequest
    vectors: NDArray[np.float32] | None  # of every input, from the first batch on
    left: int  # inputs without a vector
    arrived: float
    begun: float = 0.0


class EmbeddingScheduler:
    """Runs an encoder."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        step_budget: float,
        clock: Callable[[], float],
        governor: ThreadGovernor | None = None,
    ) -> None:
        """step_budget: seconds that a batch may take; clock: seconds, monotonic; governor: has the number of threads follow
        the batches' times, None if it is fixed."""
        self._encoder = encoder
        self._clock = clock
        self._governor = governor
        self._packer = Packer(encoder.max_batch, encoder.max_sequences, step_budget)
        self._works: dict[int, _Work] = {}
        self._finished: list[Embedded] = []

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do or to tell."""
        return len(self._packer) > 0 or bool(self._finished)

    @property
    def active(self) -> int:
        """Requests of which something was encoded."""
        return sum(work.vectors is not None for work in self._works.values())

    @property
    def queued(self) -> int:
        """Requests of which nothing was."""
        return len(self._works) - self.active

    def submit(self, request: EmbeddingRequest) -> None:
        """Take a request; its inputs have 1 to `Encoder.context` tokens each."""
        now = self._clock()
        self._works[request.id] = _Work(request, None, len(request.inputs), now)
        sizes = [len(tokens) // _TOKEN_BYTES for tokens in request.inputs]
        self._packer.add(request.id, sizes, now, request.priority)

    def cancel(self, request_id: int) -> None:
        """End a request before the next step; one that is unknown or was answered is ignored."""
        self._packer.remove(request_id)
        if work := self._works.get(request_id):
            self._end(work, FinishReason.CANCELLED)

    def step(self) -> list[Embedded]:
        """Encode one batch. Returns the requests that are answered by it."""
        batch = self._packer.next(self._clock())
        if batch:
            for item in batch:
                self._begin(self._works[item.request_id])
            self._encode(batch)
        finished, self._finished = self._finished, []
        return finished

    def _begin(self, work: _Work) -> None:
        if work.vectors is None:
            work.vectors = np.empty((len(work.request.inputs), self._encoder.info.dimensions), dtype=np.float32)
            work.begun = self._clock()

    def _encode(self, batch: list[Input]) -> None:
        try:
            vectors = self._timed(batch)
        except BackendError as error:
            if len(batch) == 1:
                self._fail(batch[0].request_id, error)
                return
            logger.warning("a batch of %d inputs failed (%s); encoding them one by one", len(batch), error)
            for item in batch:
                if item.request_id in self._works:  # and has not failed with another of its inputs
                    self._encode([item])
            return
        for item, vector in zip(batch, vectors, strict=True):
            self._take(item, vector)

    def _timed(self, batch: list[Input]) -> NDArray[np.float32]:
        encoder, governor = self._encoder, self._governor
        if governor is not None and (threads := governor.threads("prefill")) != encoder.threads:
            encoder.set_threads(threads)
        sequences = [self._tokens(item) for item in batch]
        tokens = sum(item.tokens for item in batch)
        began = self._clock()
        vectors = encoder.encode(sequences, self._seconds(batch))
        seconds = self._clock() - began
        if governor is None:
            self._packer.observe(tokens, seconds)
        else:
            if encoder.threads == governor.settled("prefill"):  # otherwise it says nothing of the batches to come
                self._packer.observe(tokens, seconds)
            governor.observe("prefill", tokens, 0, seconds, encoder.threads)
        return vectors

    def _tokens(self, item: Input) -> list[int]:
        data = self._works[item.request_id].request.inputs[item.index]
        tokens: list[int] = np.frombuffer(data, dtype=np.int32).tolist()
        return tokens

    def _seconds(self, batch: list[Input]) -> list[int]:
        requests = [(self._works[item.request_id].request, item.index) for item in batch]
        return [request.seconds[index] for request, index in requests if request.seconds]

    def _take(self, item: Input, vector: NDArray[np.float32]) -> None:
        work = self._works[item.request_id]
        assert work.vectors is not None
        work.vectors[item.index] = vector
        work.left -= 1
        if not work.left:
            self._answer(work, work.vectors)

    def _answer(self, work: _Work, vectors: NDArray[np.float32]) -> None:
        if self._encoder.info.task == "embed":
            vectors = unit(vectors[:, : work.request.dimensions])
        if not np.isfinite(vectors).all():
            self._fail(work.request.id, BackendError("a number of the model's answer is not finite"))
            return
        self._end(work, FinishReason.STOP, vectors=vectors.astype("<f4", copy=False).tobytes())

    def _fail(self, request_id: int, error: BackendError) -> None:
        self._packer.remove(request_id)
        work = self._works[request_id]
        if isinstance(error, OutOfMemory):
            self._end(work, FinishReason.NO_MEMORY, "There is no memory for an input of this length.")
        else:
            self._end(work, FinishReason.ERROR, f"The input could not be encoded: {error}.")

    def _end(self, work: _Work, reason: FinishReason, error: str | None = None, vectors: bytes = b"") -> None:
        del self._works[work.request.id]
        now = self._clock()
        begun = now if work.vectors is None else work.begun
        self._finished.append(
            Embedded(work.request.id, reason, error, vectors, queued=begun - work.arrived, encoding=now - begun)
        )


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its length; one without length stays as it is."""
    with np.errstate(invalid="ignore"):  # what is not a number stays so, and is found out by the caller
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        lengths[lengths == 0] = 1.0
        scaled: NDArray[np.float32] = (vectors / lengths[:, None]).astype(np.float32)
    return scaled
