"""From a request to what the engine is asked: prompts as tokens, sampling, limits.

Everything here is a plain function of the request and the model; it may take long on a long prompt, and is safe to call
in a thread.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.chat.model import ChatModel, Prompt
from inferno_runtime.chat.parser import Parser
from inferno_runtime.chat.template import TemplateError, encode_pieces
from inferno_runtime.chat.tools import Toolbox
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai import errors
from inferno_runtime.openai.formats import constraint_of
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest
from inferno_runtime.openai.tools import toolbox_of
from inferno_runtime.openai.turns import turns_of

DEFAULT_MAX_TOKENS = 512
MAX_STOPS = 16
MAX_BIASES = 1024
# Those that mean the same to the engine as they do in a request.
_SAMPLING_FIELDS = tuple(
    set(Sampling.__struct_fields__) & set(GenerationRequest.__struct_fields__) - {"top_k", "seed", "logit_bias"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request goes to, as far as conversion needs it."""

    tokenizer: Tokenizer
    chat: ChatModel | None
    template_error: str  # why it cannot chat
    context: int  # tokens per sequence
    longest_piece: int  # characters that one token can stand for, at most
    max_sequences: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How the texts of a request are read: as what the model says in them."""

    chat: ChatModel
    prompt: Prompt
    toolbox: Toolbox

    def parser(self) -> Parser:
        """A parser for one of them."""
        return self.chat.parser(self.prompt, self.toolbox)

    @property
    def pieces(self) -> Sequence[bytes]:
        """The text of each token for it."""
        return self.chat.pieces


@dataclass(frozen=True, slots=True)
class Job:
    """What one request asks of the engine: a sequence for each prompt, or `choices` of them, one after the other."""

    prompts: list[list[int]]
    choices: int
    echoes: list[str]  # what each sequence's text begins with; empty where nothing is repeated
    max_tokens: int
    min_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    ignore_eos: bool
    stream: bool
    include_usage: bool
    constraint: Constraint | None = None
    constrained_by: str = "response_format"  # the field that asks for it
    reading: Reading | None = None  # how the texts are read; None where they are text and nothing else

    def sampling_of(self, index: int) -> Sampling:
        """That of a sequence: those of one prompt must not all say the same, and equal requests must."""
        other = index % self.choices
        return (
            msgspec.structs.replace(self.sampling, seed=(self.sampling.seed + other) % 2**64)
            if other
            else self.sampling
        )


def chat_job(request: ChatRequest, target: Target) -> Job:
    """The job of a chat request. Raises `ApiError`."""
    _refuse_unsupported_chat(request)
    limit = _same_limit(request)
    toolbox = toolbox_of(request)
    turns = turns_of(request.messages)
    if target.chat is None:
        raise errors.bad_request(target.template_error, "messages", "no_chat_template")
    try:
        prompt = target.chat.prompt(turns, toolbox)
    except TemplateError as error:
        raise errors.bad_request(str(error), "messages", "chat_template_error") from error
    _refuse_hopeless(prompt.characters, "messages", target)
    job = _job(request, [encode_pieces(prompt.pieces, target.tokenizer)], limit, "messages", target)
    reading = Reading(target.chat, prompt, toolbox) if target.chat.parses(toolbox) else None
    constraint = target.chat.constraint(prompt, toolbox)
    if constraint is not None:  # which is no answer in words, of whatever form
        job = replace(job, constraint=constraint, constrained_by="tools")
    return replace(job, reading=reading)


def completion_job(request: CompletionRequest, target: Target) -> Job:
    """The job of a completion request. Raises `ApiError`."""
    _refuse_unsupported_completion(request)
    given = _given(request.prompt, target)
    prompts = [_prompt_tokens(item, target) for item in given]
    echoes = [_text_of(item, target.tokenizer) for item in given] if request.echo else []
    return _job(request, prompts, request.max_tokens or DEFAULT_MAX_TOKENS, "prompt", target, echoes)


def job_of(request: GenerationRequest, target: Target) -> Job:
    """The job of a request of either kind. Raises `ApiError`."""
    if isinstance(request, ChatRequest):
        return chat_job(request, target)
    assert isinstance(request, CompletionRequest)
    return completion_job(request, target)


def _job(
    request: GenerationRequest,
    prompts: list[list[int]],
    limit: int,
    param: str,
    target: Target,
    echoes: Sequence[str] = (),
) -> Job:
    choices = request.n or 1
    if len(prompts) * choices > target.max_sequences:
        raise errors.bad_request(
            f"A request may ask for at most {target.max_sequences} sequences, and this one asks for {len(prompts) * choices}.",
            param if choices == 1 else "n",
        )
    for prompt in prompts:
        if len(prompt) >= target.context:
            raise errors.context_length_exceeded(target.context, len(prompt), param)
    constraint, constrained_by = constraint_of(request)
    stream = bool(request.stream)
    if request.stream_options is not None and not stream:
        raise errors.bad_request("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    return Job(
        prompts=[prompt for prompt in prompts for _ in range(choices)],
        choices=choices,
        echoes=[echo for echo in echoes for _ in range(choices)],
        max_tokens=limit,
        min_tokens=_least(request, limit),
        sampling=_sampling(request, target),
        stop=_stops(request.stop),
        ignore_eos=bool(request.ignore_eos),
        stream=stream,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        constraint=constraint,
        constrained_by=constrained_by,
    )


def _least(request: GenerationRequest, limit: int) -> int:
    least = request.min_tokens or 0
    if least > limit:
        raise errors.bad_request(f"'min_tokens' is {least}, which is above the limit of {limit} tokens.", "min_tokens")
    return least


def _sampling(request: GenerationRequest, target: Target) -> Sampling:
    given = {name: getattr(request, name) for name in _SAMPLING_FIELDS}
    given |= {
        # -1, as other servers' clients send it, means off as well.
        "top_k": None if request.top_k is None else max(request.top_k, 0),
        "seed": secrets.randbits(64) if request.seed is None else request.seed % 2**64,
        "logit_bias": _bias(request.logit_bias, target),
    }
    return Sampling(**{name: value for name, value in given.items() if value is not None})


def _bias(bias: dict[str, float] | None, target: Target) -> tuple[tuple[int, float], ...]:
    """What is added to the logits of tokens. Raises `ApiError` where an entry is none."""
    if bias is not None and len(bias) > MAX_BIASES:
        raise errors.bad_request(f"'logit_bias' may hold at most {MAX_BIASES} entries.", "logit_bias")
    vocabulary = len(target.tokenizer.pieces)
    entries = []
    for token, change in (bias or {}).items():
        # A longer number is none, however long it takes to read.
        if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < vocabulary):
            raise errors.bad_request(
                f"'logit_bias' holds '{token[:64]}', which is no token id below {vocabulary}.", "logit_bias"
            )
        entries.append((int(token), change))
    return tuple(entries)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise errors.bad_request(f"'stop' may hold at most {MAX_STOPS} strings.", "stop")
    if "" in stops:
        raise errors.bad_request("A stop string must not be empty.", "stop")
    return stops


def _same_limit(request: ChatRequest) -> int:
    """`max_completion_tokens` is `max_tokens` by its newer name."""
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise errors.bad_request(
            "'max_tokens' and 'max_completion_tokens' are the same limit and must not differ.", "max_completion_tokens"
        )
    return new or old or DEFAULT_MAX_TOKENS


def _given(prompt: str | list[str | int | list[int]], target: Target) -> list[str | list[int]]:
    """The prompts, which must be of one kind."""
    given: list[str | list[int]]
    if isinstance(prompt, str):
        given = [prompt]
    elif prompt and all(isinstance(item, int) for item in prompt):
        given = [[item for item in prompt if isinstance(item, int)]]
    else:
        given = [item for item in prompt if not isinstance(item, int)]
        if len(given) != len(prompt) or len({type(item) for item in given}) != 1:
            raise errors.bad_request(
                "'prompt' must be a string, strings, token ids or lists of token ids, not empty and not a mix.",
                "prompt",
            )
    if len(given) > target.max_sequences:
        raise errors.bad_request(
            f"A request may ask for at most {target.max_sequences} sequences, and this one has {len(given)} prompts.",
            "prompt",
        )
    return given


def _text_of(prompt: str | list[int], tokenizer: Tokenizer) -> str:
    """A prompt as it stands at the beginning of its answer."""
    if isinstance(prompt, str):
        return prompt
    return b"".join(tokenizer.pieces[token] for token in prompt).decode(errors="replace")


def _refuse_hopeless(characters: int, param: str, target: Target) -> None:
    """Refuse a text that cannot fit however it is tokenized, which would take long to find out."""
    at_least = characters // target.longest_piece
    if at_least >= target.context:
        raise errors.context_length_exceeded(target.context, f"at least {at_least}", param)


def _prompt_tokens(prompt: str | list[int], target: Target) -> list[int]:
    tokenizer = target.tokenizer
    if isinstance(prompt, str):
        _refuse_hopeless(len(prompt), "prompt", target)
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


def _refuse_unsupported_chat(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not request.logprobs:
        raise errors.bad_request("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    if request.logprobs:
        raise errors.unsupported("logprobs")
    if request.functions and request.function_call != "none":
        raise errors.unsupported("functions")
    if request.modalities and request.modalities != ["text"]:
        raise errors.unsupported("modalities", "This model answers in text only.")


def _refuse_unsupported_completion(request: CompletionRequest) -> None:
    best_of = request.best_of or 1
    if request.stream and best_of > 1:
        raise errors.bad_request("'best_of' cannot be combined with 'stream'.", "best_of")
    if best_of > 1:
        raise errors.unsupported("best_of")
    if request.suffix:
        raise errors.unsupported("suffix")
    if request.logprobs is not None:
        raise errors.unsupported("logprobs")
