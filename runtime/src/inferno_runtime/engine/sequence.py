"""One sequence on its way through the engine."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from inferno_runtime.backends.base import Embeddings, Span
from inferno_runtime.engine.draft import Acceptance, PromptLookup, Rehearsal
from inferno_runtime.engine.images import Chunk
from inferno_runtime.engine.masking import Matching
from inferno_runtime.engine.request import Priority, Request
from inferno_runtime.engine.sampling import History
from inferno_runtime.engine.store import Entry


@dataclass(slots=True, eq=False)
class Sequence:
    """A request, the slot it holds and how far it has come.

    The slot's cells hold `tokens[:position]`. In prefill the tokens beyond are evaluated piece by piece; afterwards exactly
    one, the last sampled, is still to be evaluated, and that is the next decode. A sequence that is preempted gives its
    slot up and keeps its tokens, and its cells where there is room for them: later it is in prefill again, and goes on where it
    stopped.
    """

    request: Request
    arrived: float  # seconds on the engine's clock
    slot: int = -1
    aside: Entry | None = None  # the cells of its slot, while it has given that up
    admitted: float = 0.0
    position: int = 0
    cached: int = 0  # tokens of the prompt that were not evaluated again
    started: bool = False  # a token was sampled; stays so when the sequence is preempted
    paused: bool = False  # its client cannot take more: it is not to be evaluated
    indexed: int = 0  # tokens that the slot table knows of
    scored: int = 0  # tokens of the prompt behind which the logits are not wanted any more
    tokens: list[int] = field(default_factory=list)
    history: History = field(init=False)  # the same tokens, for the penalties
    lookup: PromptLookup = field(init=False)  # and for drafts
    acceptance: Acceptance = field(default_factory=Acceptance)
    rehearsal: Rehearsal = field(default_factory=Rehearsal)
    model_acceptance: Acceptance | None = None  # of what a draft model proposed
    embeddings: tuple[Chunk, Embeddings] | None = None  # of the chunk of an image that is being evaluated
    matching: Matching | None = None  # its way through the grammar that it must follow, if there is one

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)
        if not self.request.score_prompt:
            self.scored = len(self.tokens)
        self.history = History(self.tokens, len(self.tokens))
        self.lookup = PromptLookup(self.tokens)

    @property
    def id(self) -> int:
        return self.request.id

    @property
    def adapter(self) -> int:
        return self.request.adapter

    @property
    def priority(self) -> Priority:
        return self.request.priority

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.request.max_tokens - self.generated

    @property
    def reusable(self) -> list[int]:
        """The tokens that need not be evaluated if their cells are to be had: of one, at least, the logits are wanted."""
        return self.tokens[: min(self.scored, len(self.tokens) - 1)]

    @property
    def left(self) -> int:
        """Tokens still to be evaluated before the next one can be sampled."""
        return len(self.tokens) - self.position

    def span(self, tokens: Items[int], logits: int) -> Span:
        """The evaluation of these tokens behind its cells."""
        return Span(self.slot, self.position, tokens, logits, self.adapter, self.request.sampling.seeded)
