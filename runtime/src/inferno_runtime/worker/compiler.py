"""The process that compiles grammars before they reach an engine, so that one which explodes takes nothing with it.

It reads frames from its standard input and answers each grammar on its standard output. It ends when it takes more CPU
time for one than it may, when memory runs out, and with its input.
"""

import resource
import signal
import sys
from typing import BinaryIO

from inferno_runtime.engine.grammar import Compiler, GrammarError
from inferno_runtime.worker.grammars import SECONDS, Checked, Grammar, Vocabulary, from_server, read, written

_MEMORY = 1 << 30  # bytes beside what the vocabulary takes
_TOKEN_MEMORY = 2048  # bytes for each of its tokens


def main() -> None:
    """Serve on the standard streams."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the whole process group
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer grammars until the input ends; a vocabulary comes first."""
    compiler: Compiler | str = "no vocabulary"
    while (payload := read(source)) is not None:
        match from_server.decode(payload):
            case Vocabulary(tokens, end_tokens):
                _limit_memory(len(tokens))
                try:
                    compiler = Compiler(tokens, end_tokens)
                except GrammarError as error:
                    compiler = str(error)
            case Grammar(lark):
                target.write(written(Checked(compiler if isinstance(compiler, str) else _check(compiler, lark))))
                target.flush()


def _check(compiler: Compiler, lark: str) -> str | None:
    """What is wrong with a grammar, if anything is."""
    # CPU time and not the clock's: what a grammar takes must not depend on who else uses the machine. The signal ends the
    # process, since nothing else ends a compilation.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        compiler.check(lark)
    except GrammarError as error:
        return str(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def _limit_memory(tokens: int) -> None:
    limit = _MEMORY + tokens * _TOKEN_MEMORY
    with open("/proc/self/statm", "rb") as file:
        limit += int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
