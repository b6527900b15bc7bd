"""What the engine is asked for, and what it answers."""

from enum import StrEnum

import msgspec

from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.images import Chunk


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"  # the model ended it, or a stop string was found
    LENGTH = "length"  # max_tokens or the context was reached
    CANCELLED = "cancelled"
    ERROR = "error"
    NO_MEMORY = "no_memory"


class Priority(StrEnum):
    """How much of the engine a request is given while others wait, the highest first."""

    VIP = "vip"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def weight(self) -> int:
        """Its share beside the others'."""
        return _WEIGHTS[self]


_WEIGHTS = {Priority.VIP: 8, Priority.HIGH: 4, Priority.NORMAL: 2, Priority.LOW: 1}


_COLD = 1e-5  # a temperature below which nothing but the likeliest token has a weight that 32 bits can hold


class Sampling(msgspec.Struct, frozen=True, array_like=True):
    """How the next token is chosen; ranges as in the API."""

    temperature: float = 0.7
    top_k: int = 40  # 0 is off
    top_p: float = 0.9
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0  # 64 bits; equal seeds and requests give equal text
    seeded: bool = False  # whether somebody relies on that
    repeat_penalty: float = 1.0  # 1 is off
    repeat_last_n: int = 64  # tokens of prompt and text that repeat_penalty looks back over; -1 is all of them
    typical_p: float = 1.0  # 1 is off
    top_n_sigma: float = 0.0  # 0 and less is off
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1  # more than 0.5 is off
    dry_multiplier: float = 0.0  # 0 is off
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1  # tokens of prompt and text that DRY looks back over; -1 is all of them
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, what is added to its logit)

    @property
    def greedy(self) -> bool:
        """Whether always the likeliest token is taken."""
        return self.temperature < _COLD or self.top_k == 1

    @property
    def penalizes(self) -> bool:
        """Whether the tokens generated so far change the choice."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One sequence to generate."""

    id: int  # chosen by the client, unique in the engine's life
    prompt: list[int]  # at least one token, and fewer than the context
    max_tokens: int
    sampling: Sampling
    ignore_eos: bool = False
    priority: Priority = Priority.NORMAL
    min_tokens: int = 0  # before which the model cannot end its text
    constraint: Constraint | None = None  # what form the text must have
    top_scores: int | None = (
        None  # how many of the likeliest tokens to tell beside each token's own score; None for none
    )
    score_prompt: bool = False  # tell the same of the prompt's tokens
    adapter: int = 0  # the place among those loaded, from 1 on; 0 is the model itself
    images: tuple[Chunk, ...] = ()  # that cells of the prompt stand for, in their order; the last cell is a token's


class Usage(msgspec.Struct, frozen=True):
    """What a sequence took: tokens, and seconds by phase."""

    prompt_tokens: int
    cached_tokens: int  # of the prompt, not evaluated again
    completion_tokens: int
    queued: float  # from the request's arrival to its slot
    prefill: float  # from there until the prompt was evaluated
    decode: float  # from the first token to the last
    first_token: float = 0.0  # of a first token that was computed, until it was with the server
    detokenize: float = 0.0  # turning the tokens into text, beside the decoding


class Started(msgspec.Struct, frozen=True, array_like=True):
    """A sequence's prompt has been evaluated and its first token follows."""

    id: int
    cached_tokens: int
    queued: float  # seconds
    prefill: float  # seconds


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """The end of a sequence."""

    id: int
    reason: FinishReason
    error: str | None = None  # a sentence for the client, with ERROR and NO_MEMORY


class Scores(msgspec.Struct, frozen=True, array_like=True):
    """How likely the model held consecutive tokens of a sequence to be, as natural logarithms of its own probabilities.

    Numbers are 32 bits wide, in this machine's byte order. The likeliest tokens, likeliest first, and their logarithms are
    as many for each token, one token's behind the other's.
    """

    id: int
    prompt: bool  # whether the tokens are the prompt's, from its second on; those that were generated otherwise
    chosen: bytes  # floats: of each token
    tokens: bytes  # integers: the likeliest
    likeliest: bytes  # floats: of these


class EmbeddingRequest(msgspec.Struct, frozen=True, array_like=True):
    """Turn texts into vectors, or pairs of them into scores.

    The tokens of an input are 32-bit integers in this machine's byte order.
    """

    id: int
    inputs: list[bytes]
    dimensions: int  # how many of a vector's numbers are wanted
    priority: Priority = Priority.NORMAL
    seconds: list[int] = []  # of pairs, where the second text of each begins


class Embedded(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a request for vectors, or why there is none.

    The vectors lie one behind the other in the order of the inputs, as little-endian 32-bit floats. They have length 1, but
    for scores, which are as the model gives them.
    """

    id: int
    reason: FinishReason
    error: str | None  # a sentence for the client, with ERROR and NO_MEMORY
    vectors: bytes
    queued: float  # seconds from the arrival to the first input's batch
    encoding: float  # and from there to the last input's
