"""The servers that are compared: how each is started, with which flags, and what its requests carry beside the rest."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.build import Built
from benchmarks.loads import Load
from benchmarks.targets import BEST, EXAMPLE, HIGH_LEVEL, INFERNO, LLAMA_SERVER, PLAIN

MODEL = "bench"
CORES = len(os.sched_getaffinity(0))
# A load comes from one address, which by default may ask for 100 requests and 10,000 tokens a minute.
UNLIMITED = ("--requests-per-minute", "0", "--tokens-per-minute", "0", "--max-connections", "0")
# The same sampling for everybody: llama.cpp's own defaults.
SAMPLING = {"model": MODEL, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": 1}
# Flags for llama-server that were worth trying, on one machine or another. The best is found for each load.
CANDIDATES: tuple[tuple[str, ...], ...] = (
    (),
    ("-fa", "off"),
    ("-fa", "on", "--kv-unified"),
)
BUSY_CANDIDATES = (*CANDIDATES, ("-fa", "off", "-t", str(max(1, CORES // 2))))


@dataclass(frozen=True, slots=True)
class Start:
    """A command that serves on a port of the loopback interface; `files` are written before, beside the log."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test. `ready` is the path that answers 200 once it serves."""

    name: str
    title: str
    ready: str
    start: Callable[[Load, int, Path], Start]  # the load, the port, a folder of its own
    shown_flags: Callable[[Load], str]
    fields: dict[str, Any] = field(default_factory=dict)  # of each request's body
    loads: frozenset[str] | None = None  # None: all
    serial: bool = False  # one sequence at a time, so memory for one

    def cache_tokens(self, load: Load) -> int:
        """Tokens that the server's cache was asked to hold."""
        return 0 if load.embeds else load.context * (1 if self.serial else load.slots)


def servers(built: Built, best: dict[str, tuple[str, ...]]) -> dict[str, Server]:
    """All servers by name. `best` holds llama-server's best flags by load, and may be filled later."""

    def best_of(load: Load) -> tuple[str, ...]:
        return best.get(load.name, CANDIDATES[1])

    known = [
        _inferno(INFERNO, "Inferno", built, ()),
        llama_server(LLAMA_SERVER, "llama-server", built, lambda _: ()),
        llama_server(BEST, "llama-server, best flags", built, best_of),
        _example_server(built),
        _high_level_server(built),
    ]
    if off := speculation_off(_inferno_help()):
        known.append(_inferno(PLAIN, "Inferno without speculation", built, off, frozenset({"repetition"})))
    return {server.name: server for server in known}


def inferno_command() -> str:
    return str(Path(sys.executable).parent / "inferno")


def _inferno_help() -> str:
    result = subprocess.run([inferno_command(), "serve", "--help"], capture_output=True, text=True, timeout=60)
    return result.stdout


def speculation_off(usage: str) -> tuple[str, ...]:
    """The flag that turns speculation off, as the command's help shows it; nothing where there is none."""
    match = re.search(r"(--specul[a-z-]*) (\{[^}]*\}|[A-Z]+)", usage)
    if match is None:
        return ()
    return (match[1], "off" if "off" in match[2] else "0")


def _inferno(
    name: str, title: str, built: Built, flags: tuple[str, ...], loads: frozenset[str] | None = None
) -> Server:
    def words(load: Load) -> list[str]:
        # What is kept of evicted prefixes is a cache with a limit of its own, and what is measured is all that is not.
        kept = ("--prefix-cache-mb", "0") if load.name == "memory" else ()
        return ["--slots", str(load.slots), "--context-length", str(load.context), *kept, *flags]

    def start(load: Load, port: int, folder: Path) -> Start:
        command = [inferno_command(), "serve", str(built.model_for(load)), "--name", MODEL, "--port", str(port)]
        return Start([*command, *UNLIMITED, *words(load)])

    def shown(load: Load) -> str:
        return " ".join(words(load))

    return Server(name, title, "/health/ready", start, shown, {"ignore_eos": True}, loads)


def llama_server(name: str, title: str, built: Built, flags: Callable[[Load], tuple[str, ...]]) -> Server:
    """llama-server with as many slots, each with as much context, as the load asks for."""

    def words(load: Load) -> list[str]:
        embeddings = ("--embeddings",) if load.embeds else ()
        return ["-np", str(load.slots), "-c", str(load.slots * load.context), *embeddings, *flags(load)]

    def start(load: Load, port: int, folder: Path) -> Start:
        program = str(built.programs / "llama-server")
        command = [
            program,
            "-m",
            str(built.model_for(load)),
            "--alias",
            MODEL,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        # One that listens on loopback without its page, and says the same on every run.
        return Start([*command, "--offline", *words(load)])

    return Server(name, title, "/health", start, lambda load: " ".join(words(load)), {"ignore_eos": True})


def _example_server(built: Built) -> Server:
    def options(load: Load) -> dict[str, Any]:
        return {"n_ctx": load.slots * load.context, "n_seq_max": load.slots}

    def start(load: Load, port: int, folder: Path) -> Start:
        config = {
            "server": {"host": "127.0.0.1", "port": port},
            "model": {"path": str(built.model), "alias": MODEL, **options(load)},
        }
        target = str(built.example_server)
        return _python(built, target, "-C", str(folder / "config.json"), files={"config.json": json.dumps(config)})

    return Server(
        EXAMPLE,
        "llama-cpp-python's example server",
        "/healthz",
        start,
        lambda load: json.dumps(options(load)),
        loads=frozenset({"chat1", "chat8", "chat32", "shared8", "conversations", "long", "burst", "memory"}),
    )


def _high_level_server(built: Built) -> Server:
    def words(load: Load) -> list[str]:
        # Its defaults answer one request at a time, and drop that one when the next arrives.
        flags = ["--n_ctx", str(load.context), "--n_threads", str(CORES), "--n_threads_batch", str(CORES)]
        return [*flags, "--interrupt_requests", "false"]

    def start(load: Load, port: int, folder: Path) -> Start:
        where = ["--host", "127.0.0.1", "--port", str(port), "--model", str(built.model), "--model_alias", MODEL]
        return _python(built, "llama_cpp.server", *where, *words(load))

    return Server(
        HIGH_LEVEL,
        "llama_cpp.server",
        "/v1/models",
        start,
        lambda load: " ".join(words(load)),
        fields={"repeat_penalty": 1.0},  # nobody else has one by default
        loads=frozenset({"chat1", "chat8"}),
        serial=True,
    )


def _python(built: Built, target: str, *arguments: str, files: dict[str, str] | None = None) -> Start:
    launcher = str(Path(__file__).with_name("launch.py"))
    command = [str(built.python), "-P", launcher, str(built.programs), target, *arguments]
    return Start(command, {"PYTHONPATH": str(built.site)}, files or {})
