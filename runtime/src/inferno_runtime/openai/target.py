"""What the conversion of requests for text needs to know of a model."""

from dataclasses import dataclass

from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.chat.model import ChatModel


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request goes to, as far as conversion needs it."""

    tokenizer: Tokenizer
    chat: ChatModel | None
    template_error: str  # why it cannot chat
    context: int  # tokens per sequence
    longest_piece: int  # characters that one token can stand for, at most
    max_sequences: int
