"""Raw prompts, as `/v1/completions` takes them: texts and token ids, and texts with a hole."""

from collections.abc import Sequence

from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.openai import errors
from inferno_runtime.openai.target import Target


def given(prompt: str | list[str | int | list[int]], target: Target) -> list[str | list[int]]:
    """The prompts, which must be of one kind. Raises `ApiError`."""
    found: list[str | list[int]]
    if isinstance(prompt, str):
        found = [prompt]
    elif prompt and all(isinstance(item, int) for item in prompt):
        found = [[item for item in prompt if isinstance(item, int)]]
    else:
        found = [item for item in prompt if not isinstance(item, int)]
        if len(found) != len(prompt) or len({type(item) for item in found}) != 1:
            raise errors.bad_request(
                "'prompt' must be a string, strings, token ids or lists of token ids, not empty and not a mix.",
                "prompt",
            )
    if len(found) > target.max_sequences:
        raise errors.bad_request(
            f"A request may ask for at most {target.max_sequences} sequences, and this one has {len(found)} prompts.",
            "prompt",
        )
    return found


def text_of(prompt: str | list[int], tokenizer: Tokenizer) -> str:
    """A prompt as it stands at the beginning of its answer."""
    if isinstance(prompt, str):
        return prompt
    return b"".join(tokenizer.pieces[token] for token in prompt).decode(errors="replace")


def refuse_hopeless(characters: int, param: str, target: Target) -> None:
    """Refuse a text that cannot fit however it is tokenized, which would take long to find out."""
    at_least = characters // target.longest_piece
    if at_least >= target.context:
        raise errors.context_length_exceeded(target.context, f"at least {at_least}", param)


def prompt_tokens(prompt: str | list[int], target: Target) -> list[int]:
    """The tokens of a raw prompt. Raises `ApiError`."""
    tokenizer = target.tokenizer
    if isinstance(prompt, str):
        refuse_hopeless(len(prompt), "prompt", target)
        # An empty prompt is the beginning of a text, which needs a token to be evaluated all the same.
        tokens = tokenizer.encode(prompt, add_special=True, parse_special=True) or tokenizer.encode(
            tokenizer.bos, add_special=False, parse_special=True
        )
    else:
        tokens = prompt
        if any(not 0 <= token < len(tokenizer.pieces) for token in tokens):
            raise errors.bad_request(
                f"'prompt' holds a token id outside the vocabulary of {len(tokenizer.pieces)} tokens.", "prompt"
            )
    if not tokens:
        raise errors.bad_request("'prompt' must hold at least one token.", "prompt")
    return tokens


def infill_prompts(prompts: Sequence[str | list[int]], suffix: str, target: Target) -> list[list[int]]:
    """The tokens that ask for what stands between each prompt and `suffix`: prefix, suffix, middle. Raises `ApiError`."""
    tokenizer = target.tokenizer
    if tokenizer.infill is None:
        raise errors.unsupported(
            "suffix", "This model has no fill-in tokens, so it cannot write what comes before a suffix."
        )
    before, behind, between = tokenizer.infill
    refuse_hopeless(len(suffix), "suffix", target)
    tail = [behind, *tokenizer.encode(suffix, add_special=False, parse_special=True), between]
    return [[*_opening(tokenizer), before, *_bare(prompt, target), *tail] for prompt in prompts]


def _bare(prompt: str | list[int], target: Target) -> list[int]:
    """The tokens of a prompt alone, without those that the model wants around a text."""
    if not isinstance(prompt, str):
        return prompt_tokens(prompt, target)
    refuse_hopeless(len(prompt), "prompt", target)
    return target.tokenizer.encode(prompt, add_special=False, parse_special=True)


def _opening(tokenizer: Tokenizer) -> list[int]:
    """The token that the model wants at a text's beginning, if it wants one."""
    begin = tokenizer.encode(tokenizer.bos, add_special=False, parse_special=True) if tokenizer.bos else []
    around = tokenizer.encode("", add_special=True, parse_special=True)
    return begin if begin and around[: len(begin)] == begin else []
