"""What a server over ONNX models makes of what onnxruntime alone can do: `make bench-onnx ARGS="--models FOLDER"`.

The folder holds `inferno-tiny-onnx` and `all-MiniLM-L6-v2-onnx`. Text is compared with a loop over one sequence that hands
the cache back to the session at every token, and vectors with a process that has all tokens before it begins, and puts texts
of one length together. Rounds are interleaved, and compared with themselves.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.build import ROOT
from benchmarks.loads import LOADS, Load, Turn, User, Writer
from benchmarks.peers import CORES, MODEL, UNLIMITED, Server, Start, inferno_command
from benchmarks.processes import running
from benchmarks.runner import play
from benchmarks.stats import Figures, Spread, ratios, summarize

FIGURES = Path("benchmarks", "onnx.json")  # beside the page
DECODER, ENCODER = "inferno-tiny-onnx", "all-MiniLM-L6-v2-onnx"
_WORDS = [
    "the",
    "fox",
    "said",
    "that",
    "one",
    "day",
    "we",
    "went",
    "home",
    "and",
    "saw",
    "a",
    "small",
    "river",
    "with",
    "a",
    "blue",
    "boat",
    "under",
    "the",
    "old",
    "tree",
]
_PROMPT, _ANSWER = 24, 256  # words and tokens
_BATCH = 16  # texts of a perfect batch
_LIMIT = 600.0  # seconds that a peer may take


@dataclass(frozen=True, slots=True)
class Comparison:
    """A load, the peer that it is compared with, and how many times the peer's figure there should be."""

    load: Load
    model: str
    peer: str
    figure: str
    goal: float


def _chat(users: int) -> Callable[[Writer, float], tuple[User, ...]]:
    def make(writer: Writer, share: float) -> tuple[User, ...]:
        answer = max(16, round(_ANSWER * share))
        return tuple(
            User(tuple(Turn(writer.text(_PROMPT), answer) for _ in range(4)), greedy=True) for _ in range(users)
        )

    return make


def _text(users: int) -> Load:
    return Load(f"decode{users}", f"decode, {users} at a time", "", 8, 1024, _chat(users))


COMPARISONS = (
    Comparison(_text(1), DECODER, "loop", "tokens_per_second", 1.0),
    Comparison(_text(8), DECODER, "loop", "tokens_per_second", 4.0),
    Comparison(replace(LOADS["embeddings"], context=256), ENCODER, "perfect", "vectors_per_second", 0.95),
)


def server(folder: Path, load: Load) -> Server:
    """Inferno over a model's folder."""

    def start(load: Load, port: int, _: Path) -> Start:
        flags = ["--slots", str(load.slots), "--context-length", str(load.context), "--speculation", "off"]
        return Start(
            [inferno_command(), "serve", str(folder), "--name", MODEL, "--port", str(port), *UNLIMITED, *flags]
        )

    return Server("inferno", "Inferno", "/health/ready", start, lambda _: "", {"ignore_eos": True})


def peer(kind: str, folder: Path, load: Load, share: float, seed: str) -> Figures:
    """The figures of onnxruntime alone, in a process of its own."""
    users = load.make(_WORDS, share, seed)
    work = [turn.prompt for user in users for turn in user.turns] if kind == "loop" else []
    texts = [text for user in users for turn in user.turns for text in turn.texts]
    tokens = max(turn.max_tokens for user in users for turn in user.turns)
    job = json.dumps({"kind": kind, "folder": str(folder), "texts": texts or work[:4], "tokens": tokens})
    command = [sys.executable, "-m", "benchmarks.onnx", "--peer"]
    done = subprocess.run(command, cwd=ROOT, input=job, capture_output=True, text=True, timeout=_LIMIT, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def play_peer(job: dict[str, Any]) -> Figures:
    """What `peer` asks for."""
    folder = Path(job["folder"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(job["texts"])]
    measure = decode if job["kind"] == "loop" else embed
    measure(session, tokens[:_BATCH], min(job["tokens"], 8))  # to warm up
    began, processor = time.perf_counter(), time.process_time()
    figure, count = measure(session, tokens, job["tokens"])
    seconds = time.perf_counter() - began
    return {figure: count / seconds, "seconds": seconds, "cpu_seconds": time.process_time() - processor}


def decode(session: Any, prompts: list[list[int]], count: int) -> tuple[str, int]:
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
    return "tokens_per_second", len(prompts) * count


def embed(session: Any, texts: list[list[int]], _: int) -> tuple[str, int]:
    """Means of the states of texts, those of similar length together."""
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        counts = np.array([len(text) for text in batch])
        mask = np.arange(counts.max()) < counts[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = [token for text in batch for token in text]
        feeds: dict[str, NDArray[Any]] = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if any(value.name == "token_type_ids" for value in session.get_inputs()):
            feeds["token_type_ids"] = np.zeros_like(ids)
        states = session.run(["last_hidden_state"], feeds)[0]
        means = (states * mask[:, :, None]).sum(axis=1) / counts[:, None]
        means / np.linalg.norm(means, axis=1, keepdims=True)
    return "vectors_per_second", len(texts)


def compare(comparison: Comparison, models: Path, share: float, seed: str) -> tuple[Figures, Figures]:
    """One round: the server's figures, and its peer's."""
    folder, load = models / comparison.model, comparison.load
    one = server(folder, load)
    with running(one, load) as process:
        play(one, process, load.make(_WORDS, 0.25, "warm"))
        ours = summarize(play(one, process, load.make(_WORDS, share, seed)))
    return ours, peer(comparison.peer, folder, load, share, seed)


def main() -> None:
    """Print a table; the exit code says nothing, since machines differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=os.environ.get("INFERNO_TEST_MODELS"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="how much of each load to run")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help=f"write the figures to {FIGURES} in it, for `make bench` to report"
    )
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        json.dump(play_peer(json.load(sys.stdin)), sys.stdout)
        return
    if options.models is None:
        parser.error("--models names the folder of the models")
    rounds: dict[str, tuple[list[Figures], list[Figures]]] = {one.load.name: ([], []) for one in COMPARISONS}
    for number in range(options.rounds):
        for one in COMPARISONS:
            for kept, figures in zip(
                rounds[one.load.name], compare(one, options.models, options.share, str(number)), strict=True
            ):
                kept.append(figures)
    print(table(rounds))
    if options.write:
        (options.write / FIGURES).parent.mkdir(parents=True, exist_ok=True)
        (options.write / FIGURES).write_text(json.dumps(rounds, indent=1) + "\n")


def table(rounds: dict[str, tuple[list[Figures], list[Figures]]]) -> str:
    """What was measured, as markdown."""
    lines = ["| load | figure | Inferno | onnxruntime alone | ratio | target |", "|---|---|---|---|---|---|"]
    for one in COMPARISONS:
        ours, theirs = rounds.get(one.load.name, ([], []))
        measured = ratios(ours, theirs, one.figure, less_is_better=False)
        if measured is None:
            continue
        shown = [_middle(figures, one.figure) for figures in (ours, theirs)]
        title = one.figure.replace("_per_second", "/s")
        lines.append(f"| {one.load.title} | {title} | {shown[0]} | {shown[1]} | {measured} | ≥ {one.goal} |")
    return "\n".join(lines)


def _middle(figures: list[Figures], name: str) -> str:
    values = sorted(one[name] for one in figures if name in one)
    return str(Spread(values[len(values) // 2], values[0], values[-1], len(values))) if values else ""


if __name__ == "__main__":
    main()
