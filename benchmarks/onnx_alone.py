"""What onnxruntime alone does, in a process that has nothing else to do: `python -m benchmarks.onnx_alone` reads a `Job`
as JSON from standard input and writes its figures, as JSON, to standard output."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.peers import CORES
from benchmarks.stats import Figures

_BATCH = 16  # texts of a perfect batch


@dataclass(frozen=True, slots=True)
class Job:
    """Texts to be turned into vectors; or, where `tokens` are to follow each of them, to be answered."""

    folder: str
    texts: list[str]
    tokens: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def play(job: Job) -> Figures:
    """Do it, with all texts turned into tokens before the clock starts."""
    folder = Path(job.folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [encoding.ids for encoding in tokenizer.encode_batch(job.texts)]

    def run(texts: list[list[int]], tokens: int) -> None:
        if tokens:
            decode(session, texts, tokens)
        else:
            embed(session, texts)

    run(texts[:_BATCH], min(job.tokens, 8))  # to warm up
    began, processor = time.perf_counter(), time.process_time()
    run(texts, job.tokens)
    seconds, used = time.perf_counter() - began, time.process_time() - processor
    speeds = {"tokens_per_second": len(texts) * job.tokens / seconds} if job.tokens else {}
    return {**speeds, "vectors_per_second": len(texts) / seconds, "seconds": seconds, "cpu_seconds": used}


def decode(session: Any, prompts: list[list[int]], count: int) -> None:
    """Greedy answers, one after the other, with the cache handed over from run to run."""
    names = [value.name for value in session.get_inputs()]
    shapes = {value.name: value.shape for value in session.get_inputs() if value.name.startswith("past")}
    outputs = ["logits", *(name.replace("past_key_values", "present") for name in shapes)]
    for prompt in prompts:
        cells = {name: np.empty((1, shape[1], 0, shape[3]), dtype=np.float32) for name, shape in shapes.items()}
        ids, held = np.array([prompt]), 0
        for _ in range(count):
            feeds = {"input_ids": ids, "attention_mask": np.ones((1, held + ids.shape[1]), dtype=np.int64)}
            if "position_ids" in names:
                feeds["position_ids"] = np.arange(held, held + ids.shape[1])[None]
            logits, *present = session.run(outputs, feeds | cells)
            cells = dict(zip(cells, present, strict=True))
            held += ids.shape[1]
            ids = logits[:, -1].argmax(axis=-1)[:, None]


def embed(session: Any, texts: list[list[int]]) -> None:
    """Means of the states of texts, those of similar length together."""
    ordered = sorted(texts, key=len)
    names = {value.name for value in session.get_inputs()}
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        counts = np.array([len(text) for text in batch])
        mask = np.arange(counts.max()) < counts[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = [token for text in batch for token in text]
        feeds: dict[str, NDArray[Any]] = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if "token_type_ids" in names:
            feeds["token_type_ids"] = np.zeros_like(ids)
        states = session.run(["last_hidden_state"], feeds)[0]
        means = (states * mask[:, :, None]).sum(axis=1) / counts[:, None]
        means / np.linalg.norm(means, axis=1, keepdims=True)


def main() -> None:
    """Play the job that standard input holds."""
    json.dump(play(Job(**json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    main()
