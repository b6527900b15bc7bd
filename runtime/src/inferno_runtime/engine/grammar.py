"""Compiles grammars, within bounds of what compiling and following them may take."""

import re
from collections.abc import Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

# Which token spells a forced text is the model's to say. Otherwise a tokenizer would have to be here that cuts it just as
# the model's own does.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'
_LONGEST_MESSAGE = 500  # characters
_EXCERPT = re.compile(r"^ +[0-9]+ \| ", re.MULTILINE)
_HIDDEN = "<non-verbose/>"
# Less than the library's own bounds, under which one lexer could have 500 MB, and one mask take many times a step.
_LEXER_STATES = 50_000  # of 1 to 2 kB each
_LEXER_FUEL = 100_000  # for a mask; 14,000 take a millisecond


class GrammarError(Exception):
    """A grammar that does not compile, or that takes too much; the message is the compiler's, in one line."""


class Compiler:
    """Compiles grammars for one vocabulary. Safe to call from several threads."""

    def __init__(self, tokens: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        """tokens: see `constraint.token_bytes`; end_tokens: those that end a text, at least one.

        Takes half a second of CPU time and 60 MB for 150,000 tokens, and holds the interpreter's lock meanwhile.
        Raises `GrammarError` where no token ends a text.
        """
        if not end_tokens:
            raise GrammarError("the model has no token that ends a text, so none can follow a grammar")
        wrapper = TokenizerWrapper(_Vocabulary(tokens, end_tokens[0]))
        self._tokenizer = LLTokenizer(wrapper, n_vocab=len(tokens), eos_token=list(end_tokens))
        self._limits = LLParserLimits(max_lexer_states=_LEXER_STATES, step_lexer_fuel=_LEXER_FUEL, verbose_errors=False)

    def matcher(self, lark: str) -> LLMatcher:
        """What follows a text through a grammar, at its beginning. Raises `GrammarError`.

        The interpreter's lock is free meanwhile.
        """
        matcher = LLMatcher(self._tokenizer, lark + _OPTIONS, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise GrammarError(reason(matcher))
        return matcher

    def check(self, lark: str) -> None:
        """See whether a grammar compiles and whether a text can begin by it. Raises `GrammarError`."""
        matcher = self.matcher(lark)
        matcher.compute_bitmask()
        if matcher.is_error():
            stuck = matcher.get_error().startswith("NoExtension")
            raise GrammarError("no text can follow this grammar" if stuck else reason(matcher))


def reason(matcher: LLMatcher) -> str:
    """Why a matcher failed, in one line, without the excerpt from the grammar that follows."""
    message = _EXCERPT.split(matcher.get_error().removesuffix(_HIDDEN), maxsplit=1)[0]
    return " ".join(message.split()).rstrip(".")[:_LONGEST_MESSAGE]


class _Vocabulary:
    """What llguidance asks of a tokenizer. Without forced texts it never tokenizes."""

    def __init__(self, tokens: Sequence[bytes], end_token: int) -> None:
        self.tokens = tokens
        self.eos_token_id = end_token
        self.bos_token_id = None
        self.special_token_ids: Sequence[int] = ()

    def __call__(self, text: bytes) -> list[int]:
        return []
