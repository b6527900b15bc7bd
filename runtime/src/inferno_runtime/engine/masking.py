"""Which tokens the grammars of sequences allow next, found out while the batch is evaluated."""

import contextlib
from collections import OrderedDict
from collections.abc import Sequence as Items
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from llguidance import LLExecutor, LLMatcher
from llguidance.numpy import (
    allocate_token_bitmask,
    fill_next_token_bitmask_par,
    fill_next_token_bitmask_par_with_draft_tokens,
)
from numpy.typing import NDArray

from inferno_runtime.cpu import cpu_quota
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.grammar import Compiler, reason

Bits = NDArray[np.uint8]  # one for each token, the least significant first: whether it is allowed
Row = Bits | None  # None where every token is

_KEPT = 8  # compiled grammars that are kept for requests to come
_MOST_THREADS = 4  # a mask takes some 50 µs, so more would only be in the model's way


class Matching:
    """A sequence's way through its grammar. It keeps its place when the sequence is preempted."""

    def __init__(self, compiled: "Future[LLMatcher]") -> None:
        self._compiled = compiled
        self.error: str | None = None  # why the text cannot go on

    @property
    def ready(self) -> bool:
        """Whether the grammar has been compiled, or could not be."""
        return self._compiled.done()

    def wait(self, seconds: float) -> None:
        """Wait until it is ready, or so long."""
        with contextlib.suppress(TimeoutError):
            self._compiled.exception(seconds)

    @property
    def matcher(self) -> LLMatcher | None:
        """None after a failure, which `error` tells."""
        if self.error is not None:
            return None
        failure = self._compiled.exception()
        if failure is None:
            return self._compiled.result()
        self.error = str(failure)
        return None

    def advance(self, token: int) -> bool:
        """Take the next token of the text. True if the text is at its end, also by an error."""
        matcher = self.matcher
        if matcher is None or not matcher.consume_token(token):
            self._fail()
            return True
        return matcher.is_stopped()

    def allowed(self, draft: list[int]) -> list[int]:
        """As much of a draft as the grammar allows."""
        matcher = self.matcher
        return draft[: matcher.validate_tokens(draft)] if matcher is not None else []

    def judge(self, failure: BaseException | None) -> None:
        """See whether finding out what is allowed has failed. failure: of all that were looked at together."""
        matcher = self.matcher
        if failure is not None:
            self.error = self.error or str(failure)
        elif matcher is not None and matcher.is_error():
            self._fail()

    def _fail(self) -> None:
        matcher = self.matcher
        if matcher is not None:
            self.error = reason(matcher) or "the text does not follow it"


class Masks:
    """What is allowed at each position of a batch, being found out."""

    def __init__(self, places: list[tuple[Matching, int] | None], bits: "Future[Bits]") -> None:
        """places: for each row of logits its grammar and the row of `bits` that it has, None where all is allowed."""
        self._places = places
        self._bits = bits

    def rows(self) -> list[Row]:
        """What each row of logits allows; waits until that is known."""
        failure = self._bits.exception()
        for matching in {place[0] for place in self._places if place is not None}:
            matching.judge(failure)
        if failure is not None:
            return [None] * len(self._places)
        bits = self._bits.result()
        return [None if place is None else bits[place[1]] for place in self._places]

    def settle(self) -> None:
        """Wait until nothing reads the grammars any more."""
        self._bits.exception()


class Masker:
    """Compiles grammars and finds out what they allow, on threads of its own, which take no part of the interpreter's lock.

    One thread calls it. Without sequences that have a grammar it holds nothing.
    """

    def __init__(self, tokens: Items[bytes], end_tokens: Items[int]) -> None:
        """See `Compiler`."""
        self._tokens, self._end_tokens = tokens, end_tokens
        self._builder: ThreadPoolExecutor | None = None
        self._compiler: Future[Compiler]
        self._compiled: OrderedDict[Constraint, Future[LLMatcher]] = OrderedDict()

    def begin(self, constraint: Constraint) -> Matching:
        """Have a grammar compiled."""
        if self._builder is None:
            self._builder = ThreadPoolExecutor(1, "grammars")
            self._filler = ThreadPoolExecutor(1, "masks")
            self._executor = LLExecutor(min(cpu_quota(), _MOST_THREADS))
            self._compiler = self._builder.submit(Compiler, self._tokens, self._end_tokens)
        compiled = self._compiled.pop(constraint, None) or self._builder.submit(self._compile, constraint)
        self._compiled[constraint] = compiled
        if len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return Matching(self._builder.submit(lambda: compiled.result().deep_copy()))

    def fill(self, batch: Items[tuple[Matching | None, list[int]]]) -> Masks:
        """Begin to find out what is allowed behind the text and behind each token of a draft.

        batch: of each sequence that is evaluated its grammar and its draft, of which the grammar must allow every token.
        """
        places: list[tuple[Matching, int] | None] = []
        count = 0
        plain: list[tuple[LLMatcher, int]] = []
        drafted: list[tuple[LLMatcher, int, list[int]]] = []
        for matching, draft in batch:
            if matching is None or (matcher := matching.matcher) is None:
                places += [None] * (len(draft) + 1)
                continue
            if draft:
                drafted.append((matcher, count, draft))
            else:
                plain.append((matcher, count))
            places += [(matching, count + ahead) for ahead in range(len(draft) + 1)]
            count += len(draft) + 1
        return Masks(places, self._filler.submit(self._fill, count, plain, drafted))

    def _compile(self, constraint: Constraint) -> LLMatcher:
        return self._compiler.result().matcher(constraint.lark)

    def _fill(
        self, count: int, plain: list[tuple[LLMatcher, int]], drafted: list[tuple[LLMatcher, int, list[int]]]
    ) -> Bits:
        bits = allocate_token_bitmask(max(count, 1), len(self._tokens))
        if plain:
            fill_next_token_bitmask_par(self._executor, plain, bits)
        if drafted:
            fill_next_token_bitmask_par_with_draft_tokens(self._executor, drafted, bits)
        return bits.view(np.uint8)
