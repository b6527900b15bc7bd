"""What the fields of requests mean, for the API's description and its reference page.

Their names, types and ranges are those of the types in `requests` and `embeddings`. Each of them stands here once, with
what leaving it out means.
"""

from dataclasses import dataclass

import msgspec

from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai.convert import DEFAULT_MAX_TOKENS, MAX_BIASES, MAX_STOPS
from inferno_runtime.openai.embeddings import MAX_CHARACTERS, MAX_INPUTS, EmbeddingsRequest
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest, Message, StreamOptions
from inferno_runtime.openai.rerank import MAX_CHARACTERS as MAX_QUERY
from inferno_runtime.openai.rerank import MAX_DOCUMENTS, RerankRequest

REQUESTS: tuple[type[msgspec.Struct], ...] = (
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    RerankRequest,
    Message,
    StreamOptions,
)
"""The types that have fields of requests."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request.

    meaning: in Markdown; default: the value that leaving it out stands for, None where there is none or `meaning` says it;
    refused: the values that this server knows and refuses, in words.
    """

    meaning: str
    default: bool | float | str | None = None
    refused: str = ""


_SAMPLING = Sampling()
_MODEL = Field("A model's name or an alias, as `/v1/models` has them.")
_USER = Field("Taken and ignored.")
_PRIORITY = Field(
    "Who comes first where requests wait; wins over the header `X-Inferno-Priority`. "
    "Without either, the priority of the key, or else `normal`."
)

MEANINGS: dict[type, dict[str, Field]] = {
    GenerationRequest: {
        "model": _MODEL,
        "temperature": Field(
            "How evenly tokens are drawn: 1 is what the model says, less prefers what is likely, and 0 always takes the likeliest.",
            _SAMPLING.temperature,
        ),
        "top_p": Field(
            "Draw from the likeliest tokens that have this probability together; 1 is off.", _SAMPLING.top_p
        ),
        "top_k": Field("Draw from so many of the likeliest tokens; 0 and -1 are off.", _SAMPLING.top_k),
        "min_p": Field(
            "Leave out tokens whose probability is below this share of the likeliest one's; 0 is off.", _SAMPLING.min_p
        ),
        "max_tokens": Field(
            "The most tokens that an answer may have; the end of the context may come before.", DEFAULT_MAX_TOKENS
        ),
        "presence_penalty": Field(
            "What is taken from the logit of each token that the answer has already.", _SAMPLING.presence_penalty
        ),
        "frequency_penalty": Field("The same, for each time that the answer has it.", _SAMPLING.frequency_penalty),
        "seed": Field(
            "The same seed and request give the same text, whatever else runs. Without one each request draws its own."
        ),
        "stop": Field(
            f"Where the text ends: up to {MAX_STOPS} strings, none empty. Of a stop string nothing is sent, not even its beginning."
        ),
        "stream": Field("Send the text as server-sent events while it is made.", False),
        "stream_options": Field("What a stream carries besides; only together with `stream`."),
        "ignore_eos": Field("Go on where the model would end; for measurements.", False),
        "user": _USER,
        "priority": _PRIORITY,
        "n": Field("How many answers to give to each prompt, which is evaluated once.", 1),
        "min_tokens": Field("How many tokens an answer must have before the model may end it.", 0),
        "logit_bias": Field(f"What is added to the logits of up to {MAX_BIASES} tokens, by their ids."),
        "typical_p": Field(
            "Draw from the tokens that are most nearly as surprising as is usual here; 1 is off.", _SAMPLING.typical_p
        ),
        "top_n_sigma": Field(
            "Leave out tokens whose logit is more than so many standard deviations below the highest; 0 is off.",
            _SAMPLING.top_n_sigma,
        ),
        "repeat_penalty": Field(
            "What the logits of recent tokens are divided by, or multiplied with if negative; 1 is off.",
            _SAMPLING.repeat_penalty,
        ),
        "repeat_last_n": Field(
            "How many tokens of prompt and text `repeat_penalty` looks back over; -1 is all.", _SAMPLING.repeat_last_n
        ),
        "xtc_probability": Field(
            "How often the likeliest tokens are left out, so that the text is less usual; 0 is off.",
            _SAMPLING.xtc_probability,
        ),
        "xtc_threshold": Field(
            "Of the tokens with at least this probability only the least likely stays then; above 0.5 is off.",
            _SAMPLING.xtc_threshold,
        ),
        "dry_multiplier": Field(
            "How strongly tokens are penalized that would prolong a repetition; 0 is off.", _SAMPLING.dry_multiplier
        ),
        "dry_base": Field("By what that grows with each token of the repetition.", _SAMPLING.dry_base),
        "dry_allowed_length": Field("How long a repetition may be without it.", _SAMPLING.dry_allowed_length),
        "dry_penalty_last_n": Field(
            "How many tokens of prompt and text it looks back over; -1 is all.", _SAMPLING.dry_penalty_last_n
        ),
    },
    ChatRequest: {
        "messages": Field("The conversation so far: one message or more."),
        "max_completion_tokens": Field("`max_tokens` by its newer name; the two must not differ."),
        "logprobs": Field("Tell how likely each token was.", False, refused="`true`"),
        "top_logprobs": Field("Tell the same of so many others at each place.", refused="any"),
        "response_format": Field("What form the answer must have.", refused='any but `{"type": "text"}`'),
        "tools": Field("Functions that the model may call.", refused="any, unless `tool_choice` is `none`"),
        "tool_choice": Field("Whether it calls them.", refused="any but `none` and `auto`"),
        "functions": Field("`tools` by an older name.", refused="any, unless `function_call` is `none`"),
        "function_call": Field("`tool_choice` by an older name; says nothing without `functions`."),
        "modalities": Field("What the answer consists of.", refused='any but `["text"]`'),
    },
    CompletionRequest: {
        "prompt": Field(
            "A text, several, or the same as token ids. Each is continued by itself. "
            "The spelling of a special token is read as one."
        ),
        "best_of": Field("How many continuations to make for each one that is given.", 1, refused="more than 1"),
        "echo": Field("Begin the text with the prompt.", False),
        "suffix": Field("What comes behind the text.", refused="any but an empty one"),
        "logprobs": Field("Tell how likely each token was, and so many others at its place.", refused="any"),
    },
    Message: {
        "role": Field("`system` or `developer`, which are the same, `user` or `assistant`."),
        "content": Field("A text, or a list of parts of the type `text`, which are joined by line ends."),
        "name": Field("Who speaks, where the model's template has a place for it: 1 to 64 characters without spaces."),
        "tool_calls": Field("Calls that the assistant made.", refused="any"),
    },
    StreamOptions: {
        "include_usage": Field("Send the usage in an event without choices before the end.", False),
    },
    EmbeddingsRequest: {
        "model": _MODEL,
        "input": Field(
            f"A text, several, or the same as token ids: up to {MAX_INPUTS} inputs, none empty, "
            f"of up to {MAX_CHARACTERS:,} characters each."
        ),
        "encoding_format": Field(
            "`base64` gives the numbers as little-endian 32-bit floats, in a quarter of the size.", "float"
        ),
        "dimensions": Field(
            "Only so many numbers of each vector, brought to length 1 again; more than the model has are refused. "
            "Without it, all."
        ),
        "truncate": Field(
            "Whether an input with more tokens than the model takes loses its end, or is refused with both numbers. "
            "Without it, as `overlongInputs` is set. What the model wants behind a text, such as a separator, stays."
        ),
        "user": _USER,
        "priority": _PRIORITY,
    },
    RerankRequest: {
        "model": _MODEL,
        "query": Field(f"What the documents are to answer: up to {MAX_QUERY:,} characters."),
        "documents": Field(
            f"1 to {MAX_DOCUMENTS:,} documents of up to {MAX_QUERY:,} characters each: texts, or objects with a `text`."
        ),
        "top_n": Field("How many results to give, the best first. Without it, all."),
        "return_documents": Field("Whether each result has its document.", False),
        "raw_scores": Field(
            "Give the numbers that the model gives, of any size and sign, in place of probabilities from 0 to 1.", False
        ),
        "truncate": Field(
            "Whether a document that has more tokens with the query than the model takes loses its end, or is refused. "
            "Without it, as `overlongInputs` is set."
        ),
        "user": _USER,
        "priority": _PRIORITY,
    },
}


def described(kind: type) -> dict[str, Field]:
    """The fields of a type of `REQUESTS`, those that must be there first."""
    known = {name: field for base in reversed(kind.__mro__) for name, field in MEANINGS.get(base, {}).items()}
    infos = sorted(msgspec.structs.fields(kind), key=lambda info: not info.required)  # stable otherwise
    return {info.encode_name: known[info.encode_name] for info in infos}
