"""One sequence on its way through the engine."""

from dataclasses import dataclass, field

from inferno_runtime.engine.request import Request


@dataclass(slots=True, eq=False)
class Sequence:
    """A request, the slot it holds and how far it has come.

    The slot's cells hold `tokens[:position]`. While `position` < `len(tokens)` - 1 the sequence is in prefill; afterwards
    exactly one token, the last sampled, is still to be evaluated, and that is the next decode.
    """

    request: Request
    arrived: float  # seconds on the engine's clock
    slot: int = -1
    admitted: float = 0.0
    position: int = 0
    tokens: list[int] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)  # of generated tokens, for the penalties

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def id(self) -> int:
        return self.request.id

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def left(self) -> int:
        """Tokens still to be evaluated before the next one can be sampled."""
        return len(self.tokens) - self.position

    def append(self, token: int) -> None:
        """Take the token that was sampled."""
        self.tokens.append(token)
        if self.request.sampling.penalizes:
            self.counts[token] = self.counts.get(token, 0) + 1
