"""What a server over ONNX models makes of what onnxruntime alone can do: `make bench-onnx ARGS="--models FOLDER"`.

The folder holds `inferno-tiny-onnx` and `all-MiniLM-L6-v2-onnx`. Text is compared with a loop over one sequence that hands
the cache back to the session at every token; vectors with a process that has all tokens before it begins, and puts texts
of one length together, and with infinity. Rounds are interleaved, and compared with themselves.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.build import ROOT, BuildError
from benchmarks.infinity import infinity
from benchmarks.loads import LOADS, Load, Turn, User, Writer
from benchmarks.onnx_alone import Job
from benchmarks.peers import MODEL, UNLIMITED, Server, Start, inferno_command
from benchmarks.processes import ServerError, running
from benchmarks.runner import play
from benchmarks.stats import Figures, spread, summarize
from benchmarks.targets import INFERNO, Rounds, Target

FIGURES = Path("benchmarks", "onnx.json")  # beside the page
DECODER, ENCODER = "inferno-tiny-onnx", "all-MiniLM-L6-v2-onnx"
ALONE, INFINITY = "onnxruntime alone", "infinity"
_SENTENCE = "the fox said that one day we went home and saw a small river with a blue boat under the old tree"
_WORDS = _SENTENCE.split()
_PROMPT, _ANSWER = 24, 256  # words and tokens
_LIMIT = 600.0  # seconds that a peer may take


def _chat(users: int) -> Callable[[Writer, float], tuple[User, ...]]:
    def make(writer: Writer, share: float) -> tuple[User, ...]:
        answer = max(16, round(_ANSWER * share))
        return tuple(
            User(tuple(Turn(writer.text(_PROMPT), answer) for _ in range(4)), greedy=True) for _ in range(users)
        )

    return make


_TEXT = {
    f"decode{users}": Load(f"decode{users}", f"decode, {users} at a time", "", 8, 1024, _chat(users))
    for users in (1, 8)
}
ONNX_LOADS = {**_TEXT, "embeddings": replace(LOADS["embeddings"], context=256)}
ONNX_TARGETS = (
    Target("decode1", "tokens_per_second", ALONE, 1.0),
    Target("decode8", "tokens_per_second", ALONE, 4.0),
    Target("embeddings", "vectors_per_second", ALONE, 0.95),
    Target("embeddings", "vectors_per_second", INFINITY, 1.3),
)


@dataclass(slots=True)
class Measured:
    """The figures of all rounds, and a line for each peer that could not be measured."""

    rounds: Rounds = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def inferno(model: Path) -> Server:
    """Inferno over a model's folder."""

    def start(load: Load, port: int, _: Path) -> Start:
        flags = ["--slots", str(load.slots), "--context-length", str(load.context), "--speculation", "off"]
        return Start([inferno_command(), "serve", str(model), "--name", MODEL, "--port", str(port), *UNLIMITED, *flags])

    return Server(INFERNO, "Inferno", "/health/ready", start, lambda _: "", {"ignore_eos": True})


def serve(server: Server, load: Load, share: float, seed: str) -> Figures:
    """One run on a fresh server. Raises `ServerError`."""
    with running(server, load) as process:
        play(server, process, load.make(_WORDS, 0.25, "warm"))
        return summarize(play(server, process, load.make(_WORDS, share, seed)))


def alone(model: Path, load: Load, share: float, seed: str) -> Figures:
    """The figures of onnxruntime alone, in a process of its own."""
    turns = [turn for user in load.make(_WORDS, share, seed) for turn in user.turns]
    if load.embeds:
        job = Job(str(model), [text for turn in turns for text in turn.texts])
    else:
        job = Job(str(model), [turn.prompt for turn in turns[:4]], turns[0].max_tokens)
    command = [sys.executable, "-m", "benchmarks.onnx_alone"]
    done = subprocess.run(
        command, cwd=ROOT, input=job.to_json(), capture_output=True, text=True, timeout=_LIMIT, check=True
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def measure(models: Path, rounds: int, share: float) -> Measured:
    """All loads in each round, one server after the other."""
    measured = Measured()
    peer: Server | None = None
    try:
        peer = infinity(models / ENCODER)
    except BuildError as error:
        measured.failures.append(f"infinity could not be installed: {str(error).splitlines()[-1]}")
    for number in range(rounds):
        for name, load in ONNX_LOADS.items():
            model, seed = models / (ENCODER if load.embeds else DECODER), str(number)
            figures = {INFERNO: serve(inferno(model), load, share, seed), ALONE: alone(model, load, share, seed)}
            if load.embeds and peer is not None:
                try:
                    figures[INFINITY] = serve(peer, load, share, seed)
                except ServerError as error:
                    measured.failures.append(f"infinity: {str(error).splitlines()[0]}")
                    peer = None
            for server, one in figures.items():
                measured.rounds.setdefault(name, {}).setdefault(server, []).append(one)
    return measured


def table(measured: Measured) -> str:
    """What was measured, as markdown."""
    lines = ["| load | figure | Inferno | beside | its figure | ratio | target |", "|---|---|---|---|---|---|---|"]
    for target in ONNX_TARGETS:
        ratio = target.measured(measured.rounds)
        if ratio is None:
            continue
        servers = measured.rounds[target.load]
        ours, theirs = (spread([one[target.figure] for one in servers[name]]) for name in (INFERNO, target.peer))
        title, figure = ONNX_LOADS[target.load].title, target.figure.replace("_per_second", "/s")
        lines.append(f"| {title} | {figure} | {ours} | {target.peer} | {theirs} | {ratio} | ≥ {target.goal} |")
    return "\n".join(lines) + "".join(f"\n\nNot measured: {failure}." for failure in measured.failures)


def read(saved: Path) -> Measured:
    """What `main` wrote."""
    values: dict[str, Any] = json.loads(saved.read_text())
    return Measured(**values)


def main() -> None:
    """Print a table; the exit code says nothing, since machines differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=os.environ.get("INFERNO_TEST_MODELS"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="how much of each load to run")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help=f"write the figures to {FIGURES} in it, for `make bench` to report"
    )
    options = parser.parse_args()
    if options.models is None:
        parser.error("--models names the folder of the models")
    measured = measure(options.models.resolve(), options.rounds, options.share)
    print(table(measured))
    if options.write:
        (options.write / FIGURES).parent.mkdir(parents=True, exist_ok=True)
        saved = {"rounds": measured.rounds, "failures": measured.failures}
        (options.write / FIGURES).write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main()
