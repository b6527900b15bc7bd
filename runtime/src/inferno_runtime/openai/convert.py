"""From a request to what the engine is asked: prompts as tokens, sampling, limits.

Everything here is a plain function of the request and the model; it may take long on a long prompt, and is safe to call
in a thread.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.chat.template import ChatTemplate, TemplateError, encode_pieces
from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai import errors
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest, Message

DEFAULT_MAX_TOKENS = 512
MAX_STOPS = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What OpenAI takes for a name: it stands in the prompt, so it must not look like a part of the template's own.
_NAME = re.compile(r"[^\s<|\\/>]{1,64}")


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request goes to, as far as conversion needs it."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    template_error: str  # why there is no template
    context: int  # tokens per sequence
    longest_piece: int  # characters that one token can stand for, at most
    max_sequences: int


@dataclass(frozen=True, slots=True)
class Job:
    """What one request asks of the engine: a sequence for each prompt."""

    prompts: list[list[int]]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    ignore_eos: bool
    stream: bool
    include_usage: bool


def chat_job(request: ChatRequest, target: Target) -> Job:
    """The job of a chat request. Raises `ApiError`."""
    _refuse_unsupported_chat(request)
    limit = _same_limit(request)
    messages = _plain(request.messages)
    if target.template is None:
        raise errors.bad_request(target.template_error, "messages", "no_chat_template")
    try:
        pieces = target.template.pieces(messages)
    except TemplateError as error:
        raise errors.bad_request(str(error), "messages", "chat_template_error") from error
    _refuse_hopeless(sum(len(piece.text) for piece in pieces), "messages", target)
    prompt = encode_pieces(pieces, target.tokenizer)
    return _job(request, [prompt], limit, "messages", target)


def completion_job(request: CompletionRequest, target: Target) -> Job:
    """The job of a completion request. Raises `ApiError`."""
    _refuse_unsupported_completion(request)
    prompts = _prompts(request.prompt, target)
    return _job(request, prompts, request.max_tokens or DEFAULT_MAX_TOKENS, "prompt", target)


def job_of(request: GenerationRequest, target: Target) -> Job:
    """The job of a request of either kind. Raises `ApiError`."""
    if isinstance(request, ChatRequest):
        return chat_job(request, target)
    assert isinstance(request, CompletionRequest)
    return completion_job(request, target)


def _job(request: GenerationRequest, prompts: list[list[int]], limit: int, param: str, target: Target) -> Job:
    for prompt in prompts:
        if len(prompt) >= target.context:
            raise errors.context_length_exceeded(target.context, len(prompt), param)
    stream = bool(request.stream)
    if request.stream_options is not None and not stream:
        raise errors.bad_request("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    return Job(
        prompts=prompts,
        max_tokens=limit,
        sampling=_sampling(request),
        stop=_stops(request.stop),
        ignore_eos=bool(request.ignore_eos),
        stream=stream,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
    )


def _sampling(request: GenerationRequest) -> Sampling:
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "min_p": request.min_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        # -1, as other servers' clients send it, means off as well.
        "top_k": None if request.top_k is None else max(request.top_k, 0),
        "seed": secrets.randbits(64) if request.seed is None else request.seed % 2**64,
    }
    return Sampling(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


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


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as templates know them: role, content and name, all strings."""
    if not messages:
        raise errors.bad_request("'messages' must hold at least one message.", "messages")
    return [_plain_message(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _plain_message(message: Message, where: str) -> dict[str, str]:
    if message.role in ("tool", "function") or message.tool_calls:
        raise errors.unsupported("messages", f"{where}: tool calls are not supported by this server.")
    role = _ROLES.get(message.role)
    if role is None:
        raise errors.bad_request(f"{where}.role must be one of {', '.join(_ROLES)}, not '{message.role}'.", "messages")
    if message.content is None:
        raise errors.bad_request(f"{where}.content is missing.", "messages")
    plain = {"role": role, "content": _text(message.content, f"{where}.content")}
    if message.name is not None:
        if not _NAME.fullmatch(message.name):
            raise errors.bad_request(f"{where}.name has characters that a name cannot have, or too many.", "messages")
        plain["name"] = message.name
    return plain


def _text(content: str | list[dict[str, object]], where: str) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for number, part in enumerate(content):
        kind = part.get("type")
        if kind not in ("text", "refusal"):
            raise errors.unsupported("messages", f"{where}[{number}]: this model takes parts of type 'text' only.")
        text = part.get(kind)
        if not isinstance(text, str):
            raise errors.bad_request(f"{where}[{number}].{kind} must be a string.", "messages")
        texts.append(text)
    return "\n".join(texts)


def _prompts(prompt: str | list[str | int | list[int]], target: Target) -> list[list[int]]:
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
    return [_prompt_tokens(item, target) for item in given]


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


def _refuse_unsupported(request: GenerationRequest) -> None:
    if request.n is not None and request.n > 1:
        raise errors.unsupported("n")
    if request.min_tokens:
        if request.max_tokens is not None and request.min_tokens > request.max_tokens:
            raise errors.bad_request("'min_tokens' must not be above 'max_tokens'.", "min_tokens")
        raise errors.unsupported("min_tokens")
    if request.typical_p is not None and request.typical_p != 1:
        raise errors.unsupported("typical_p")
    if request.repeat_penalty is not None and request.repeat_penalty != 1:
        raise errors.unsupported("repeat_penalty")
    if request.logit_bias:
        raise errors.unsupported("logit_bias")


def _refuse_unsupported_chat(request: ChatRequest) -> None:
    _refuse_unsupported(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise errors.bad_request("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    if request.logprobs:
        raise errors.unsupported("logprobs")
    if request.response_format is not None and request.response_format.get("type") != "text":
        _refuse_format(request.response_format.get("type"))
    if request.tools and request.tool_choice != "none":
        raise errors.unsupported("tools")
    if not request.tools and request.tool_choice not in (None, "none", "auto"):
        raise errors.bad_request("'tool_choice' is only allowed with 'tools'.", "tool_choice")
    if request.functions and request.function_call != "none":
        raise errors.unsupported("functions")
    if request.modalities and request.modalities != ["text"]:
        raise errors.unsupported("modalities", "This model answers in text only.")


def _refuse_format(kind: object) -> None:
    if kind in ("json_object", "json_schema"):
        raise errors.unsupported("response_format")
    raise errors.bad_request(
        "'response_format.type' must be 'text', 'json_object' or 'json_schema'.", "response_format"
    )


def _refuse_unsupported_completion(request: CompletionRequest) -> None:
    _refuse_unsupported(request)
    best_of = request.best_of or 1
    if request.stream and best_of > 1:
        raise errors.bad_request("'best_of' cannot be combined with 'stream'.", "best_of")
    if best_of > 1:
        raise errors.unsupported("best_of")
    if request.echo:
        raise errors.unsupported("echo")
    if request.suffix:
        raise errors.unsupported("suffix")
    if request.logprobs is not None:
        raise errors.unsupported("logprobs")
