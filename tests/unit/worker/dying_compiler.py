"""A compiler that takes some grammars ill: `spin` takes for ever, `grow` takes all memory, and `die` ends it."""

import os
import sys

from inferno_runtime.worker import compiler


class Compiler:
    def __init__(self, tokens: list[bytes], end_tokens: list[int]) -> None:
        pass

    def check(self, lark: str) -> None:
        while lark == "spin":
            pass
        if lark == "grow":
            taken = []
            try:
                while True:
                    taken.append(bytes(1 << 28))
            except MemoryError:  # from which Rust does not come back
                os.abort()
        if lark == "die":
            sys.exit(3)


compiler.Compiler = Compiler  # type: ignore[assignment, misc]
compiler.SECONDS = 0.2  # type: ignore[misc]
compiler.main()
