"""Requests for vectors, on a fake encoder and a virtual clock."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, OutOfMemory
from inferno_runtime.backends.fake import FakeEncoder, meaning
from inferno_runtime.engine.embedding import EmbeddingScheduler, unit
from inferno_runtime.engine.request import Embedded, EmbeddingRequest, FinishReason
from inferno_runtime.engine.threads import ThreadGovernor

DIMENSIONS = 6


class Rig:
    """A scheduler, what it encoded and what it answered."""

    def __init__(self, governor: ThreadGovernor | None = None, **encoder: Any) -> None:
        self.now = 0.0
        self.token_seconds = 0.001
        self.batches: list[list[list[int]]] = []
        self.poison: dict[int, Exception] = {}  # by token: what a batch with it fails with
        self.encoder = FakeEncoder(dimensions=DIMENSIONS, on_encode=self._on_encode, **encoder)
        self.scheduler = EmbeddingScheduler(self.encoder, step_budget=0.05, clock=lambda: self.now, governor=governor)
        self.answers: dict[int, Embedded] = {}

    def _on_encode(self, sequences: Sequence[Sequence[int]]) -> None:
        self.batches.append([list(tokens) for tokens in sequences])
        self.now += self.token_seconds * sum(map(len, sequences))
        for tokens in sequences:
            for token in tokens:
                if token in self.poison:
                    raise self.poison[token]

    def submit(self, request_id: int, inputs: list[list[int]], dimensions: int = DIMENSIONS) -> None:
        packed = [np.asarray(tokens, dtype=np.int32).tobytes() for tokens in inputs]
        self.scheduler.submit(EmbeddingRequest(request_id, packed, dimensions))

    def step(self) -> None:
        for answer in self.scheduler.step():
            assert answer.id not in self.answers, "answered twice"
            self.answers[answer.id] = answer

    def run(self) -> None:
        for _ in range(1000):
            if not self.scheduler.busy:
                return
            self.step()
        raise AssertionError("the scheduler does not come to an end")

    def vectors(self, request_id: int, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
        answer = self.answers[request_id]
        assert answer.reason is FinishReason.STOP
        return np.frombuffer(answer.vectors, dtype="<f4").reshape(-1, dimensions)


def expected(inputs: list[list[int]], dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    return unit(np.stack([meaning(tokens, DIMENSIONS)[:dimensions] for tokens in inputs]))


def test_each_input_has_its_own_vector_of_length_one() -> None:
    rig = Rig()
    inputs = {1: [[1, 2, 3]], 2: [[number] * (1 + number % 30) for number in range(40)], 3: [[5], [5], [6]]}
    for request_id, given_ in inputs.items():
        rig.submit(request_id, given_)
    rig.run()
    for request_id, given_ in inputs.items():
        assert np.array_equal(rig.vectors(request_id), expected(given_))
        assert np.allclose(np.linalg.norm(rig.vectors(request_id), axis=1), 1)
    assert (rig.scheduler.active, rig.scheduler.queued) == (0, 0)


def test_scores_are_as_the_model_gives_them_and_pairs_know_their_second_text() -> None:
    rig = Rig(task="rerank")
    packed = [np.asarray(tokens, dtype=np.int32).tobytes() for tokens in ([1, 2, 3], [4, 5])]
    for request_id, seconds in ((1, [1, 2]), (2, [2, 1])):
        rig.scheduler.submit(EmbeddingRequest(request_id, packed, DIMENSIONS, seconds=seconds))
    rig.run()
    assert len(rig.batches) == 1
    for request_id, seconds in ((1, [1, 2]), (2, [2, 1])):
        right = [
            meaning([*tokens, -second], DIMENSIONS) for tokens, second in zip(([1, 2, 3], [4, 5]), seconds, strict=True)
        ]
        assert np.array_equal(rig.vectors(request_id), np.stack(right))


def test_requests_share_batches() -> None:
    rig = Rig(max_batch=32, max_sequences=8)
    for request_id in range(8):
        rig.submit(request_id, [[request_id] * 4])
    rig.step()
    assert len(rig.batches) == 1
    assert len(rig.answers) == 8


def test_fewer_dimensions_have_length_one_too() -> None:
    rig = Rig()
    rig.submit(1, [[1], [2]], dimensions=2)
    rig.submit(2, [[1], [2]])
    rig.run()
    assert np.array_equal(rig.vectors(1, 2), expected([[1], [2]], 2))
    cut = rig.vectors(2)[:, :2]
    assert np.allclose(rig.vectors(1, 2), cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)


def test_an_input_longer_than_a_batch() -> None:
    rig = Rig(max_batch=16, context=64)
    rig.submit(1, [[7] * 64, [1, 2]])
    rig.run()
    assert np.array_equal(rig.vectors(1), expected([[7] * 64, [1, 2]]))


def test_a_short_request_is_answered_while_a_long_one_is_encoded() -> None:
    rig = Rig(max_batch=32)
    rig.submit(1, [[1] * 32] * 20)
    rig.step()
    rig.submit(2, [[2, 3]])
    rig.step()
    assert list(rig.answers) == [2]
    assert (rig.scheduler.active, rig.scheduler.queued) == (1, 0)
    rig.run()
    assert list(rig.answers) == [2, 1]


def test_a_cancelled_request_is_encoded_no_further() -> None:
    rig = Rig(max_batch=32)
    rig.submit(1, [[1] * 32] * 3)
    rig.submit(2, [[2]])
    rig.step()
    rig.scheduler.cancel(1)
    rig.scheduler.cancel(99)
    rig.run()
    assert {number: answer.reason for number, answer in rig.answers.items()} == {
        1: FinishReason.CANCELLED,
        2: FinishReason.STOP,
    }
    assert (rig.scheduler.active, rig.scheduler.queued) == (0, 0)
    rig.scheduler.cancel(2)  # which was answered
    assert not rig.scheduler.busy
    assert sum(len(batch) for batch in rig.batches) <= 3


@pytest.mark.parametrize(
    ("error", "reason"), [(BackendError("broken"), FinishReason.ERROR), (OutOfMemory("full"), FinishReason.NO_MEMORY)]
)
def test_an_input_that_fails_fails_its_request_alone(error: BackendError, reason: FinishReason) -> None:
    rig = Rig()
    rig.poison = {13: error}
    rig.submit(1, [[1], [2]])
    rig.submit(2, [[3], [13], [4], [13, 13]])
    rig.submit(3, [[5]])
    rig.run()
    assert rig.answers[2].reason is reason
    assert rig.answers[2].error
    assert rig.answers[2].vectors == b""
    assert np.array_equal(rig.vectors(1), expected([[1], [2]]))
    assert np.array_equal(rig.vectors(3), expected([[5]]))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_vector_that_is_no_vector_is_an_error(number: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    broken = np.full((1, DIMENSIONS), number, dtype=np.float32)
    monkeypatch.setattr(rig.encoder, "encode", lambda sequences, seconds: broken)
    rig.submit(1, [[1]])
    rig.run()
    assert rig.answers[1].reason is FinishReason.ERROR


def test_times_are_told() -> None:
    rig = Rig(max_batch=32)
    rig.submit(1, [[1] * 30])
    rig.submit(2, [[2] * 30, [2] * 30])
    rig.run()
    assert rig.answers[1].queued == 0
    assert rig.answers[1].encoding == pytest.approx(0.030)
    assert rig.answers[2].queued == pytest.approx(0.030)
    assert rig.answers[2].encoding == pytest.approx(0.060)


def test_the_number_of_threads_follows_the_batches_times() -> None:
    rig = Rig(ThreadGovernor(2, 2), max_batch=64, context=64)
    rig.encoder.threads = 2

    def beside_a_neighbour(sequences: Sequence[Sequence[int]]) -> None:
        crowded = rig.now > 1.0
        cost = 0.02 if crowded and rig.encoder.threads == 2 else 0.001
        rig.now += cost * sum(map(len, sequences))

    rig.encoder._on_encode = beside_a_neighbour
    for request_id in range(200):
        rig.submit(request_id, [[1] * 40])
        rig.run()
    assert rig.encoder.threads == 1


@given(st.lists(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=4, max_size=4), min_size=1, max_size=4))
def test_unit_vectors(rows: list[list[float]]) -> None:
    vectors = np.asarray(rows, dtype=np.float32)
    made = unit(vectors)
    for row, scaled in zip(vectors, made, strict=True):
        length = np.linalg.norm(row.astype(np.float64))
        assert np.allclose(scaled, row / length if length else 0, atol=1e-6)
