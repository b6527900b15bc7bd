"""What the fields of requests mean, for the API's description and its reference page.

Their names, types and ranges are those of the types in `requests` and `embeddings`. Each of them stands here once, with
what leaving it out means.
"""

import msgspec

from inferno_runtime.chat.conversation import MOST_NESTED
from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai.convert import DEFAULT_MAX_TOKENS, MAX_BIASES, MAX_METADATA, MAX_STOPS
from inferno_runtime.openai.described import Field
from inferno_runtime.openai.embeddings import MAX_CHARACTERS, MAX_INPUTS, EmbeddingsRequest
from inferno_runtime.openai.messages_api import fields as messages_api
from inferno_runtime.openai.requests import (
    ChatRequest,
    CompletionRequest,
    Function,
    FunctionCall,
    GenerationRequest,
    JsonSchema,
    Message,
    ResponseFormat,
    StreamOptions,
    StructuredOutputs,
    ToolCall,
    ToolDefinition,
)
from inferno_runtime.openai.rerank import MAX_CHARACTERS as MAX_QUERY
from inferno_runtime.openai.rerank import MAX_DOCUMENTS, RerankRequest
from inferno_runtime.openai.responses_api import fields as responses_api
from inferno_runtime.openai.tokens import MOST, ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest
from inferno_runtime.openai.tools import MAX_TOOLS

REQUESTS: tuple[type[msgspec.Struct], ...] = (
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    RerankRequest,
    Message,
    ToolCall,
    FunctionCall,
    ToolDefinition,
    Function,
    ResponseFormat,
    JsonSchema,
    StructuredOutputs,
    StreamOptions,
    TokenizeRequest,
    DetokenizeRequest,
    ApplyTemplateRequest,
    *responses_api.MEANINGS,
    *messages_api.MEANINGS,
)
"""The types that have fields of requests."""


_SAMPLING = Sampling()
_MODEL = Field("A model's name or an alias, as `/v1/models` has them.")
_USER = Field("Who the request is made for.", ignored=True)
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
        "response_format": Field("What form the answer must have."),
        "structured_outputs": Field("The same in vLLM's words; one of both at most."),
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
        "logprobs": Field("Tell how likely each token was.", False),
        "top_logprobs": Field(
            "Tell the same of so many of the likeliest at each place; only together with `logprobs`."
        ),
        "tools": Field(f"Functions that the model may call: up to {MAX_TOOLS}, of different names."),
        "tool_choice": Field(
            "Whether it calls them: `none`, `auto` (as it likes), `required` (one at least), an object that names one, "
            "or one of the type `allowed_tools`. Without it, `auto` where there are `tools`."
        ),
        "parallel_tool_calls": Field("Whether one answer may have several calls.", True),
        "functions": Field("`tools` by an older name.", refused="any, unless `function_call` is `none`"),
        "function_call": Field("`tool_choice` by an older name; says nothing without `functions`."),
        "modalities": Field("What the answer consists of.", refused='any but `["text"]`'),
        "audio": Field("How the answer sounds.", refused="any"),
        "web_search_options": Field("Where to look for an answer.", refused="any"),
        "moderation": Field("Which model is to judge the request and its answer.", refused="any"),
        "reasoning_effort": Field(
            "How long to think: told to the model's template as `reasoning_effort`, if that knows such a thing; `none` is "
            "also told as `enable_thinking: false`."
        ),
        "chat_template_kwargs": Field(
            "Further variables for the model's template, such as `enable_thinking`: up to 16."
        ),
        "store": Field("Whether to keep the answer; none is kept.", ignored=True),
        "metadata": Field(
            f"What to remember the answer by: up to {MAX_METADATA} texts of up to 512 characters, by names of up to 64.",
            ignored=True,
        ),
        "service_tier": Field("Which of a provider's services is meant; see `priority`.", ignored=True),
        "prediction": Field("What the answer will be for the most part; drafts come without it.", ignored=True),
        "verbosity": Field("How many words to make.", ignored=True),
        "safety_identifier": Field("Who the request is made for, by its newer name.", ignored=True),
        "prompt_cache_key": Field("Which requests begin alike; prefixes are found without it.", ignored=True),
        "prompt_cache_retention": Field("How long to remember a prompt.", ignored=True),
        "prompt_cache_options": Field("What of a prompt to remember.", ignored=True),
    },
    CompletionRequest: {
        "prompt": Field(
            "A text, several, or the same as token ids. Each is continued by itself. "
            "The spelling of a special token is read as one."
        ),
        "best_of": Field(
            "How many continuations to make of each prompt, of which the `n` with the highest mean log probability are given; "
            "not less than `n`, and not with `stream`."
        ),
        "echo": Field("Begin the text with the prompt.", False),
        "suffix": Field(
            "What comes behind the text, on models with fill-in tokens; not with `echo`.",
            refused="any but an empty one, by models without fill-in tokens",
        ),
        "logprobs": Field("Tell how likely each token was, and so many of the likeliest at its place."),
    },
    Message: {
        "role": Field("`system` or `developer`, which are the same, `user`, `assistant` or `tool`."),
        "content": Field(
            "A text, or a list of parts: those of the type `text` are joined by line ends, and those of the type `image_url`, "
            "in messages of the roles `user` and `tool`, are shown to a model with a projector.",
            refused="images, by models without a projector",
        ),
        "name": Field("Who speaks, where the model's template has a place for it: 1 to 64 characters without spaces."),
        "tool_calls": Field("Calls that the assistant made; a message of the role `tool` must answer each."),
        "tool_call_id": Field("Of the role `tool`: the id of the call whose result `content` is."),
        "reasoning_content": Field("What the assistant said to itself, for templates that repeat it."),
    },
    ToolCall: {
        "id": Field("What the answer called it; each call of a message has its own."),
        "type": Field("`function`.", "function"),
        "function": Field("What was called."),
    },
    FunctionCall: {
        "name": Field("The function's name."),
        "arguments": Field("Its arguments, as JSON text."),
    },
    ToolDefinition: {
        "type": Field("`function`."),
        "function": Field("The function."),
    },
    Function: {
        "name": Field("1 to 64 letters, digits, `_`, `-` and `.`."),
        "description": Field("What it does, for the model."),
        "parameters": Field(
            f"A JSON schema of its arguments, which are an object; at most {MOST_NESTED} levels deep. Without one, it has none."
        ),
        "strict": Field("Whether each call follows the schema; one that is forced does in any case.", False),
    },
    ResponseFormat: {
        "type": Field(
            "Any text; a JSON object; JSON by a schema; a text by a grammar or a regular expression.",
        ),
        "json_schema": Field("The schema, with the type `json_schema`."),
        "grammar": Field("The grammar, with the type `grammar`, in llguidance's dialect of Lark."),
        "regex": Field("The expression, with the type `regex`, in the syntax of Rust; it matches the whole text."),
    },
    JsonSchema: {
        "name": Field("What the schema is called: up to 64 letters, digits, `_` and `-`."),
        "description": Field("Taken and ignored."),
        "schema": Field("The JSON Schema itself. Without one, any object."),
        "strict": Field("Taken and ignored: an answer always follows its schema."),
    },
    StructuredOutputs: {
        "json": Field("A JSON Schema, also as text."),
        "json_object": Field("Any JSON object."),
        "grammar": Field("A grammar in llguidance's dialect of Lark."),
        "regex": Field("A regular expression in the syntax of Rust, which matches the whole text."),
        "choice": Field("Texts, of which the answer is one."),
    },
    StreamOptions: {
        "include_usage": Field("Send the usage in an event without choices before the end.", False),
        "include_obfuscation": Field("Whether to hide the sizes of events; they are not.", ignored=True),
    },
    TokenizeRequest: {
        "model": _MODEL,
        "prompt": Field("A text, raw as in a completion: the spelling of a special token is read as one."),
        "messages": Field("In its place a conversation, as a chat would be evaluated."),
        "add_special_tokens": Field("Put the tokens around a prompt that the model wants there.", True),
        "return_token_strs": Field("Say how each token is spelled, too.", False),
    },
    DetokenizeRequest: {
        "model": _MODEL,
        "tokens": Field(f"Token ids, {MOST:,} at most."),
    },
    ApplyTemplateRequest: {
        "model": _MODEL,
        "messages": Field("The conversation: one message or more."),
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
    **responses_api.MEANINGS,
    **messages_api.MEANINGS,
}


def described(kind: type) -> dict[str, Field]:
    """The fields of a type of `REQUESTS`, those that must be there first."""
    known = {name: field for base in reversed(kind.__mro__) for name, field in MEANINGS.get(base, {}).items()}
    infos = sorted(msgspec.structs.fields(kind), key=lambda info: not info.required)  # stable otherwise
    return {info.encode_name: known[info.encode_name] for info in infos}
