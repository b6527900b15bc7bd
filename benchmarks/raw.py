"""What the library alone can do: llama-batched-bench's prefill and decode rates, and what they allow a server."""

import json
import subprocess
from dataclasses import dataclass

from benchmarks.build import Built
from benchmarks.stats import Figures

_LIMIT = 300.0  # seconds
_PROMPT, _ANSWER = 128, 64
_VARIANTS = (("-fa", "auto"), ("-fa", "off"))


@dataclass(frozen=True, slots=True)
class RawRates:
    """Tokens per second: of prompts, the best at any number of sequences; of answers, by number of sequences."""

    prefill: float
    decode: dict[int, float]

    def allow(self, figures: Figures, sequences: int, *, at_once: bool = False) -> Figures:
        """The figures of a server that did a run's prompts and answers at these rates and lost no time.

        at_once: all requests come at the same time, so that the last first token waits for all prompts: it comes soonest
        where nothing else is done before.
        """
        prompts = figures["prompt_tokens"] / self.prefill
        allowed = {"tokens_per_second": figures["tokens"] / (prompts + figures["tokens"] / self.decode[sequences])}
        return allowed | {"first_p99": prompts} if at_once else allowed


def parse(lines: str) -> list[dict[str, float]]:
    """The measurements in batched-bench's output, which are JSON objects on lines of their own."""
    return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]


def rates(measurements: list[dict[str, float]]) -> RawRates:
    """The best of each kind."""
    decode: dict[int, float] = {}
    for one in measurements:
        sequences = int(one["pl"])
        decode[sequences] = max(decode.get(sequences, 0.0), one["speed_tg"])
    return RawRates(max(one["speed_pp"] for one in measurements), decode)


def measure(built: Built, sequences: tuple[int, ...]) -> RawRates:
    """Run batched-bench as often as there are flags worth trying. Raises `subprocess.SubprocessError`."""
    found: list[dict[str, float]] = []
    for flags in _VARIANTS:
        command = [str(built.programs / "llama-batched-bench"), "-m", str(built.model), "--output-format", "jsonl"]
        command += ["-c", str(max(sequences) * (_PROMPT + _ANSWER)), "-npp", str(_PROMPT), "-ntg", str(_ANSWER)]
        command += ["-npl", ",".join(str(count) for count in sequences), *flags]
        result = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=True)
        found += parse(result.stdout)
    return rates(found)
