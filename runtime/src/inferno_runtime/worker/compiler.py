"""The process that compiles grammars before they reach an engine, so that one which explodes takes nothing with it.

It reads frames from its standard input and answers each grammar on its standard output. It ends when it takes more CPU
time for one than it may, when memory runs out, and with its input.
"""

import signal
import sys
from typing import BinaryIO

from inferno_runtime.engine.grammar import Compiler, GrammarError
from inferno_runtime.worker.grammars import SECONDS, Checked, Grammar, Vocabulary, from_server, written
from inferno_runtime.worker.helper import framed, limit_memory, limited_time, read_frame

_MEMORY = 1 << 30  # bytes beside what the vocabulary takes
_TOKEN_MEMORY = 2048  # bytes for each of its tokens


def main() -> None:
    """Serve on the standard streams."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the whole process group
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer grammars until the input ends; a vocabulary comes first."""
    compiler: Compiler | str = "no vocabulary"
    while (payload := read_frame(source)) is not None:
        match from_server.decode(payload):
            case Vocabulary(tokens, end_tokens):
                limit_memory(_MEMORY + len(tokens) * _TOKEN_MEMORY)
                try:
                    compiler = Compiler(tokens, end_tokens)
                except GrammarError as error:
                    compiler = str(error)
            case Grammar(lark):
                refusal = compiler if isinstance(compiler, str) else _check(compiler, lark)
                target.write(framed(written(Checked(refusal))))
                target.flush()


def _check(compiler: Compiler, lark: str) -> str | None:
    """What is wrong with a grammar, if anything is."""
    try:
        with limited_time(SECONDS):
            compiler.check(lark)
    except GrammarError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main()
