"""What the fields of requests to `/v1/responses` mean; see `openai.fields`."""

import msgspec

from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai.convert import DEFAULT_MAX_TOKENS
from inferno_runtime.openai.described import Field
from inferno_runtime.openai.responses_api.requests import (
    FunctionCallItem,
    FunctionCallOutputItem,
    FunctionTool,
    MessageItem,
    ReasoningItem,
    ReasoningOptions,
    ReferenceItem,
    ResponsesRequest,
    TextFormat,
    TextOptions,
)

_SAMPLING = Sampling()
_IGNORED = Field("Taken and ignored.")
_REPEATED = Field("Taken, and repeated in the response.")
_ID = Field("The item's id; one without is given one.")
_TAKEN_PARTS = "a text, or a list of parts of the types `input_text` and `input_image` (an `image_url`, as in a chat)"

MEANINGS: dict[type[msgspec.Struct], dict[str, Field]] = {
    ResponsesRequest: {
        "model": Field("A model's name or an alias, as `/v1/models` has them."),
        "input": Field("What is said next: a text of the user's, or items of a conversation."),
        "instructions": Field("What the model is told before the conversation, in this request only."),
        "previous_response_id": Field("The stored response to go on from: its input and output come before `input`."),
        "tools": Field("Functions that the model may call.", refused="tools of any other type than `function`"),
        "tool_choice": Field(
            "`none`, `auto`, `required`, the function that must be called, or `allowed_tools`. A forced call follows the "
            "function's schema.",
            "auto",
        ),
        "parallel_tool_calls": Field("Whether a response may have several calls.", True),
        "text": Field("What the text is to be like."),
        "reasoning": Field("What the thinking is to be like."),
        "max_output_tokens": Field(
            "The most tokens that a response may have, thinking included; the end of the context may come before.",
            DEFAULT_MAX_TOKENS,
        ),
        "temperature": Field("As in a chat.", _SAMPLING.temperature),
        "top_p": Field("As in a chat.", _SAMPLING.top_p),
        "seed": Field("As in a chat."),
        "priority": Field("As in a chat."),
        "stream": Field("Send typed events while the response is made.", False),
        "stream_options": Field("What a stream carries besides; only together with `stream`."),
        "store": Field("Keep the response, so that it can be asked for and gone on from.", True),
        "metadata": Field("Up to 16 pairs of texts, of up to 64 and 512 characters, which the response repeats."),
        "include": Field("What else the response is to have. What this server has is there in any case."),
        "truncation": Field(
            "What becomes of a conversation that is too long for the model: `disabled` refuses it, `auto` leaves out its "
            "oldest turns.",
            "disabled",
        ),
        "max_tool_calls": Field("Of a server's own tools, of which there are none; repeated in the response."),
        "user": _REPEATED,
        "safety_identifier": _REPEATED,
        "prompt_cache_key": _REPEATED,
        "prompt_cache_retention": _IGNORED,
        "prompt_cache_options": _IGNORED,
        "context_management": Field("Taken and ignored; see `truncation`."),
        "image": _IGNORED,
        "access_programs": _IGNORED,
        "service_tier": _IGNORED,
        "background": Field("Answer before the response is there.", False, refused="`true`"),
        "background_options": _IGNORED,
        "conversation": Field("A conversation that the server keeps.", refused="any"),
        "prompt": Field("A prompt that the server keeps.", refused="any"),
        "top_logprobs": Field("Tell how likely each token of the text was, and so many of the likeliest at its place."),
        "moderation": Field("Which model is to judge the request and its answer.", refused="any"),
    },
    TextOptions: {
        "format": Field("What form it must have; any without one."),
        "verbosity": _REPEATED,
    },
    TextFormat: {
        "type": Field("Any text, a JSON object, or JSON by a schema."),
        "name": Field("What the schema is called, with the type `json_schema`."),
        "description": _IGNORED,
        "schema": Field("The JSON Schema, with the type `json_schema`."),
        "strict": Field("Taken and ignored: an answer always follows its schema."),
    },
    ReasoningOptions: {
        "effort": Field("As `reasoning_effort` in a chat, and repeated in the response."),
        "summary": Field("Taken and ignored: a reasoning item has the thinking itself."),
    },
    FunctionTool: {
        "name": Field("1 to 64 letters, digits, `_`, `-` and `.`."),
        "description": Field("What it does, for the model."),
        "parameters": Field("A JSON schema of its arguments, which are an object. Without one, it has none."),
        "strict": Field("As in a chat.", False),
    },
    MessageItem: {
        "role": Field("Who says it; `developer` is the same as `system`."),
        "content": Field(f"What is said: {_TAKEN_PARTS}, or of the assistant's `output_text` or `refusal`."),
        "id": _ID,
    },
    FunctionCallItem: {
        "call_id": Field("What its output refers to."),
        "name": Field("The function's name."),
        "arguments": Field("Its arguments, as JSON text."),
        "id": _ID,
    },
    FunctionCallOutputItem: {
        "call_id": Field("The call that it answers, which must stand before it."),
        "output": Field(f"What came of it: {_TAKEN_PARTS}."),
        "id": _ID,
    },
    ReasoningItem: {
        "id": _ID,
        "summary": Field("Parts of the type `summary_text`; read where there is no `content`."),
        "content": Field("Parts of the type `reasoning_text`."),
    },
    ReferenceItem: {
        "id": Field("That of an item in the output of a response that is still kept."),
    },
}
