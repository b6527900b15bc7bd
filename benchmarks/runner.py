"""Runs the loads: every round takes each load, and each load every server, one after the other.

Servers are interleaved because machines drift: a figure is compared only with one that was taken minutes apart. Each run
has a fresh server, warmed up with prompts that the load does not contain.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import raw
from benchmarks.build import ROOT, Built
from benchmarks.client import Job, Record
from benchmarks.loads import LOADS, Load, User
from benchmarks.model import words_of
from benchmarks.peers import BUSY_CANDIDATES, CANDIDATES, MODEL, SAMPLING, Server, llama_server, servers
from benchmarks.processes import Running, ServerError, neighbours, overhead, running
from benchmarks.stats import Figures, speed, summarize
from benchmarks.targets import BEST, INFERNO, LLAMA_SERVER, RAW, Rounds

_LIMIT = 180.0  # seconds that one run of a load may take
_RAW_SEQUENCES = {"chat1": 1, "chat8": 8, "chat32": 32, "burst": 32}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `share` scales the loads, 1 being all of it."""

    loads: tuple[str, ...]
    servers: tuple[str, ...]  # empty: all
    rounds: int
    share: float
    tune: bool  # whether llama-server's best flags are found for each load
    seconds: float = math.inf  # after so long no further load is begun


@dataclass(slots=True)
class Results:
    """What was measured, and what could not be."""

    rounds: Rounds = field(default_factory=dict)
    flags: dict[str, dict[str, str]] = field(default_factory=dict)  # server → load → its flags
    titles: dict[str, str] = field(default_factory=dict)  # of servers
    raw_rates: list[dict[str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def run(plan: Plan, built: Built, say: Say, save: Callable[[Results], None]) -> Results:
    """Run a plan. A server that fails is left out of that round, and named in the results.

    `save` is called after each round, so that a run that is cut short leaves what it has.
    """
    began = time.monotonic()
    # What Inferno measured at an earlier start, on a machine that may have been busy, must not be remembered.
    built.model.with_name(f"{built.model.name}.tuning.json").unlink(missing_ok=True)
    best: dict[str, tuple[str, ...]] = {}
    known = servers(built, best)
    chosen = [server for name, server in known.items() if not plan.servers or name in plan.servers]
    loads = [LOADS[name] for name in plan.loads]
    runner = _Runner(built, words_of(built.model), plan.share, Results(), say)
    if plan.tune and any(server.name == BEST for server in chosen):
        for load in loads:
            if load.name != "memory":
                best[load.name] = runner.tune(load)
    for number in range(plan.rounds):
        for load in loads:
            if time.monotonic() - began > plan.seconds:
                runner.fail(f"{load.name} in round {number + 1}: no time was left")
                continue
            say(f"round {number + 1} of {plan.rounds}: {load.title}")
            runner.round(number, load, [one for one in chosen if one.loads is None or load.name in one.loads])
        if RAW in plan.servers or not plan.servers:
            runner.raw(number, [load.name for load in loads if load.name in _RAW_SEQUENCES])
        save(runner.results)
    return runner.results


@dataclass(slots=True)
class _Runner:
    built: Built
    words: list[str]
    share: float
    results: Results
    say: Say

    def tune(self, load: Load) -> tuple[str, ...]:
        """The flags with which llama-server has most throughput on a load."""
        self.say(f"looking for llama-server's best flags: {load.title}")
        speeds: dict[tuple[str, ...], float] = {}
        for flags in BUSY_CANDIDATES if load.neighbour else CANDIDATES:
            title = f"llama-server {' '.join(flags)}"
            server = llama_server(LLAMA_SERVER, title, self.built, partial(_always, flags))
            figures = self.attempt(server, load, seed="tune", share=self.share / 3)
            if figures is not None:
                speeds[flags] = speed(figures)
        return max(speeds, key=lambda flags: speeds[flags], default=CANDIDATES[1])

    def round(self, number: int, load: Load, chosen: list[Server]) -> None:
        """Every server once, another one first in each round."""
        at = number % max(1, len(chosen))
        measured: dict[tuple[str, ...], Figures | None] = {}  # by command: a peer's defaults may be its best
        for server in chosen[at:] + chosen[:at]:
            self.results.titles[server.name] = server.title
            self.results.flags.setdefault(server.name, {})[load.name] = server.shown_flags(load)
            command = tuple(server.start(load, 0, Path()).command)
            if command not in measured:
                measured[command] = self.attempt(server, load, str(number), self.share)
            # A round without figures keeps its place: rounds are compared with each other by number.
            self.results.rounds.setdefault(load.name, {}).setdefault(server.name, []).append(measured[command] or {})

    def attempt(self, server: Server, load: Load, seed: str, share: float) -> Figures | None:
        """One run on a fresh server; None, and a line in the failures, where it could not be done."""
        try:
            figures = self.measure(server, load, seed, share)
        except (ServerError, OSError, subprocess.SubprocessError, ValueError) as error:
            self.fail(f"{load.name}, {server.title}: {error}")
            return None
        self.say(f"  {server.title:36} {describe(figures)}")
        return figures

    def measure(self, server: Server, load: Load, seed: str, share: float) -> Figures:
        """One run on a fresh server. Raises `ServerError` and what subprocesses raise."""
        with running(server, load) as process:
            warm = load if load.embeds else LOADS["chat1"]
            play(server, process, warm.make(self.words, 0.25, "warm"))
            with neighbours(load.neighbour, _LIMIT):
                records = play(server, process, load.make(self.words, share, seed))
            figures = summarize(records)
            for message in sorted({record.error for record in records if record.error}):
                self.fail(f"{load.name}, {server.title}: {message}")
            figures["overhead_mb"] = overhead(process.pid, server.cache_tokens(load), self.built.model_for(load))
            return figures

    def raw(self, number: int, loads: Iterable[str]) -> None:
        """What the library alone allows, for the loads where that is known."""
        wanted = {name: _RAW_SEQUENCES[name] for name in loads}
        if not wanted:
            return
        try:
            rates = raw.measure(self.built, tuple(sorted(wanted.values())))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self.fail(f"batched-bench: {error}")
            return
        shown = {"prefill": rates.prefill} | {f"decode {count}": speed for count, speed in rates.decode.items()}
        self.results.raw_rates.append(shown)
        self.results.titles[RAW] = "what batched-bench's rates allow"
        self.say(f"  batched-bench: {', '.join(f'{name} {speed:.0f}' for name, speed in shown.items())} tokens/s")
        for name, sequences in wanted.items():
            by_server = self.results.rounds.get(name, {})
            ours = by_server.get(INFERNO, [])
            good = len(ours) > number and bool(ours[number].get("tokens"))
            at_once = LOADS[name].at_once
            by_server.setdefault(RAW, []).append(rates.allow(ours[number], sequences, at_once=at_once) if good else {})

    def fail(self, message: str) -> None:
        self.say(f"  FAILED: {message}")
        self.results.failures.append(publishable(message, {self.built.model.parent: "…", ROOT: ".", Path.home(): "~"}))


def play(server: Server, process: Running, users: tuple[User, ...]) -> list[Record]:
    """Let a load's users loose on a server, from a process of their own."""
    fields = {**SAMPLING, **server.fields, "model": MODEL}
    job = Job("127.0.0.1", process.port, fields, users, _LIMIT)
    command = [sys.executable, "-m", "benchmarks.client"]
    result = subprocess.run(
        command, cwd=ROOT, input=job.to_json(), capture_output=True, text=True, timeout=_LIMIT + 30, check=False
    )
    if result.returncode:
        raise ServerError(f"the client failed:\n{result.stderr[-2000:]}")
    return [Record(**record) for record in json.loads(result.stdout)]


def publishable(message: str, places: dict[Path, str]) -> str:
    """The first and the last line of a message, without the paths of this machine."""
    for path, name in places.items():
        message = message.replace(str(path), name)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " … ".join(lines[:1] + lines[1:][-1:])


def describe(figures: Figures) -> str:
    """A line for a person who watches."""
    if "vectors_per_second" in figures:
        parts = [f"{figures['vectors_per_second']:6.0f} vec/s", f"answer {figures['answer_p50'] * 1000:5.0f} ms"]
    elif "tokens_per_second" in figures:
        parts = [f"{figures['tokens_per_second']:6.1f} tok/s", f"first {figures['first_p50'] * 1000:6.0f} ms"]
    else:
        return "no answer"
    if "gap_max" in figures:
        parts.append(f"worst gap {figures['gap_max'] * 1000:5.0f} ms")
    if "long_first" in figures:
        parts.append(f"long prompt {figures['long_first']:.2f} s")
    parts.append(f"{figures['overhead_mb']:.0f} MB")
    parts += [f"{figures[name]:.0f} {name}" for name in ("failed", "short") if figures[name]]
    return ", ".join(parts)


def _always(flags: tuple[str, ...], load: Load) -> tuple[str, ...]:
    return flags
