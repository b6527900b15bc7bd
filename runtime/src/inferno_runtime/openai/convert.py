"""From a request to what the engine is asked: prompts as tokens, sampling, limits.

Everything here is a plain function of the request and the model; it may take long on a long prompt, and is safe to call
in a thread.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import msgspec

from inferno_runtime.backends.base import Image, Layout
from inferno_runtime.chat.conversation import nesting
from inferno_runtime.chat.model import ChatModel, Prompt
from inferno_runtime.chat.parser import Parser
from inferno_runtime.chat.template import GIVEN, Options, TemplateError, encode_with_images
from inferno_runtime.chat.tools import Toolbox
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.images import Chunk
from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai import errors
from inferno_runtime.openai.formats import Form, form_of
from inferno_runtime.openai.images import sources_of, unseen
from inferno_runtime.openai.prompts import given, infill_prompts, prompt_tokens, refuse_hopeless, text_of
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest, Message
from inferno_runtime.openai.target import Target
from inferno_runtime.openai.tools import toolbox_of
from inferno_runtime.openai.turns import turns_of

DEFAULT_MAX_TOKENS = 512
MAX_STOPS = 16
MAX_BIASES = 1024
MAX_METADATA = 16  # entries
MAX_OPTIONS = 16  # of a template
_OPTIONS_NESTED = 8  # levels
_METADATA_KEY = 64  # characters
# Those that mean the same to the engine as they do in a request.
_SAMPLING_FIELDS = tuple(
    set(Sampling.__struct_fields__) & set(GenerationRequest.__struct_fields__) - {"top_k", "seed", "logit_bias"}
)


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
    answers: int  # of each prompt's choices, the best of which are given
    echoes: list[str]  # what each answer's text begins with; empty where nothing is repeated
    logprobs: int | None  # how many of the likeliest tokens to tell beside each; None where nothing is told of any
    max_tokens: int
    min_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    ignore_eos: bool
    stream: bool
    include_usage: bool
    constraint: Constraint | None = None
    constrained_by: str = ""  # the field that asks for it
    reading: Reading | None = None  # how the texts are read; None where they are text and nothing else
    images: tuple[Chunk, ...] = ()  # in each of the prompts

    @property
    def top_scores(self) -> int | None:
        """What the engine is to tell of each token's likelihood; the best of several are chosen by it, too."""
        return 0 if self.logprobs is None and self.choices > self.answers else self.logprobs

    @property
    def score_prompt(self) -> bool:
        """Whether it is to tell the same of the prompt's tokens, since they are repeated."""
        return bool(self.echoes) and self.logprobs is not None

    def echo_of(self, index: int) -> str:
        """What the text of the sequence of that index begins with."""
        return self.echoes[index // self.choices * self.answers] if self.echoes else ""

    def sampling_of(self, index: int) -> Sampling:
        """That of a sequence: those of one prompt must not all say the same, and equal requests must."""
        other = index % self.choices
        return (
            msgspec.structs.replace(self.sampling, seed=(self.sampling.seed + other) % 2**64)
            if other
            else self.sampling
        )


def chat_job(request: ChatRequest, target: Target, images: Sequence[tuple[Image, Layout]] = ()) -> Job:
    """The job of a chat request. images: those of its messages, in order. Raises `ApiError`."""
    _refuse_unsupported_chat(request)
    if sources := sources_of(request)[len(images) :]:
        raise unseen(sources[0])
    limit = _same_limit(request)
    form = form_of(request)
    toolbox = replace(toolbox_of(request), formed=form is not None and form.lark is None)
    chat, prompt = chat_prompt(request.messages, target, toolbox, _options(request))
    refuse_hopeless(prompt.characters, "messages", target)
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    tokens, chunks = encode_with_images(prompt.pieces, target.tokenizer, images)
    job = _job(request, [tokens], limit, "messages", target, logprobs=logprobs)
    reading = Reading(chat, prompt, toolbox) if chat.parses(toolbox) else None
    return _held(replace(job, reading=reading, images=tuple(chunks)), chat, prompt, toolbox, form)


def _held(job: Job, chat: ChatModel, prompt: Prompt, toolbox: Toolbox, form: Form | None) -> Job:
    """The job with what its answer is held to, which may be a call, and may come after reasoning."""
    if form is not None and form.lark is not None and not toolbox.forced:
        return job  # the client's grammar says itself what there is room for
    constraint = chat.constraint(prompt, toolbox, form.term if form else None)
    if constraint is None:
        return job
    return replace(job, constraint=constraint, constrained_by=form.param if form and not toolbox.forced else "tools")


def chat_prompt(
    messages: Sequence[Message], target: Target, toolbox: Toolbox, options: Options = MappingProxyType({})
) -> tuple[ChatModel, Prompt]:
    """How the model chats, and what that makes of messages. options: for its template. Raises `ApiError`."""
    turns = turns_of(messages)
    if target.chat is None:
        raise errors.bad_request(target.template_error, "messages", "no_chat_template")
    try:
        return target.chat, target.chat.prompt(turns, toolbox, options)
    except TemplateError as error:
        raise errors.bad_request(str(error), "messages", "chat_template_error") from error


def _options(request: ChatRequest) -> Options:
    """What the template is told besides. Raises `ApiError`."""
    options: dict[str, Any] = {}
    if request.reasoning_effort is not None:
        options["reasoning_effort"] = request.reasoning_effort
        if request.reasoning_effort == "none":
            options["enable_thinking"] = False
    given, field = request.chat_template_kwargs or {}, "chat_template_kwargs"
    if len(given) > MAX_OPTIONS or nesting(given) > _OPTIONS_NESTED:
        raise errors.bad_request(f"'{field}' holds too much, or nests too deep.", field)
    for name in given.keys() & GIVEN:
        raise errors.bad_request(f"'{field}' must not hold '{name}', which is this server's to say.", field)
    return options | given


def completion_job(request: CompletionRequest, target: Target) -> Job:
    """The job of a completion request. Raises `ApiError`."""
    _refuse_unsupported_completion(request)
    asked = given(request.prompt, target)
    if request.suffix:
        prompts = infill_prompts(asked, request.suffix, target)
    else:
        prompts = [prompt_tokens(item, target) for item in asked]
    return _job(
        request,
        prompts,
        request.max_tokens or DEFAULT_MAX_TOKENS,
        "prompt",
        target,
        echoes=[text_of(item, target.tokenizer) for item in asked] if request.echo else [],
        logprobs=request.logprobs,
        best_of=request.best_of,
    )


def job_of(request: GenerationRequest, target: Target, images: Sequence[tuple[Image, Layout]] = ()) -> Job:
    """The job of a request of either kind. images: those of a chat's messages, in order. Raises `ApiError`."""
    if isinstance(request, ChatRequest):
        return chat_job(request, target, images)
    assert isinstance(request, CompletionRequest)
    return completion_job(request, target)


def _job(
    request: GenerationRequest,
    prompts: list[list[int]],
    limit: int,
    param: str,
    target: Target,
    *,
    logprobs: int | None,
    echoes: Sequence[str] = (),
    best_of: int | None = None,
) -> Job:
    answers = request.n or 1
    choices = best_of or answers
    if choices < answers:
        raise errors.bad_request(f"'best_of' is {choices}, which is less than 'n', {answers}.", "best_of")
    if len(prompts) * choices > target.max_sequences:
        raise errors.bad_request(
            f"A request may ask for at most {target.max_sequences} sequences, and this one asks for {len(prompts) * choices}.",
            param if choices == 1 else "n" if choices == answers else "best_of",
        )
    for prompt in prompts:
        if len(prompt) >= target.context:
            raise errors.context_length_exceeded(target.context, len(prompt), param)
    form = form_of(request)
    stream = bool(request.stream)
    if request.stream_options is not None and not stream:
        raise errors.bad_request("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    return Job(
        prompts=[prompt for prompt in prompts for _ in range(choices)],
        choices=choices,
        answers=answers,
        echoes=[echo for echo in echoes for _ in range(answers)],
        logprobs=logprobs,
        max_tokens=limit,
        min_tokens=_least(request, limit),
        sampling=_sampling(request, target),
        stop=_stops(request.stop),
        ignore_eos=bool(request.ignore_eos),
        stream=stream,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        constraint=form.constraint if form else None,
        constrained_by=form.param if form else "",
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
        "seeded": request.seed is not None,
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


def _refuse_unsupported_chat(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not request.logprobs:
        raise errors.bad_request("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    if request.functions and request.function_call != "none":
        raise errors.unsupported("functions")
    if request.modalities and request.modalities != ["text"]:
        raise errors.unsupported("modalities", "This model answers in text only.")
    if request.audio is not None:
        raise errors.unsupported("audio", "This model answers in text only.")
    if request.web_search_options is not None:
        raise errors.unsupported("web_search_options", "This server does not search the web.")
    if request.moderation is not None:
        raise errors.unsupported("moderation", "This server has no model that moderates.")
    _check_metadata(request.metadata)


def _check_metadata(metadata: dict[str, str] | None) -> None:
    """Hold what is ignored to OpenAI's limits, so that a client finds out here what it would find out there."""
    if metadata is not None and len(metadata) > MAX_METADATA:
        raise errors.bad_request(f"'metadata' may hold at most {MAX_METADATA} entries.", "metadata")
    if any(len(key) > _METADATA_KEY for key in metadata or ()):
        raise errors.bad_request(f"A key of 'metadata' may have at most {_METADATA_KEY} characters.", "metadata")


def _refuse_unsupported_completion(request: CompletionRequest) -> None:
    best_of = request.best_of or 1
    if request.stream and best_of > 1:
        raise errors.bad_request("'best_of' cannot be combined with 'stream'.", "best_of")
    if request.suffix and request.echo:
        raise errors.bad_request("'echo' cannot be combined with 'suffix'.", "echo")
