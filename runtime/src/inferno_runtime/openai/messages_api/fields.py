"""What the fields of requests to `/v1/messages` mean; see `openai.fields`."""

import msgspec

from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai.convert import MAX_STOPS
from inferno_runtime.openai.described import Field
from inferno_runtime.openai.messages_api.convert import MAX_TOP_K
from inferno_runtime.openai.messages_api.requests import (
    CountTokensRequest,
    ImageBlock,
    ImageData,
    InputMessage,
    InputTool,
    MessagesRequest,
    OutputConfig,
    OutputFormat,
    RedactedThinkingBlock,
    TextBlock,
    Thinking,
    ThinkingBlock,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)

_SAMPLING = Sampling()
_IGNORED = Field("Taken and ignored.")

MEANINGS: dict[type[msgspec.Struct], dict[str, Field]] = {
    CountTokensRequest: {
        "model": Field("A model's name or an alias, as `/v1/models` has them."),
        "messages": Field("The conversation so far: one message or more."),
        "system": Field("What the model is told before it: a text, or blocks of the type `text`."),
        "tools": Field("Tools that the model may use.", refused="a server's own, by their types"),
        "tool_choice": Field("Whether it uses them; a use that is forced follows the tool's schema."),
        "thinking": Field("Whether the answer has what the model says to itself; without it, it has."),
        "output_config": Field("What the answer is to be like."),
        "mcp_servers": Field("Servers whose tools the model may use.", refused="any; have your client connect to them"),
        "priority": Field("As in a chat."),
    },
    MessagesRequest: {
        "max_tokens": Field(
            "The most tokens that the answer may have, thinking included; the end of the context may come before."
        ),
        "temperature": Field("As in a chat.", _SAMPLING.temperature),
        "top_p": Field("As in a chat.", _SAMPLING.top_p),
        "top_k": Field(f"As in a chat; above {MAX_TOP_K} it is {MAX_TOP_K}.", _SAMPLING.top_k),
        "seed": Field("As in a chat."),
        "stop_sequences": Field(f"Where the text ends: up to {MAX_STOPS} strings, none empty."),
        "stream": Field("Send events while the answer is made.", False),
        "metadata": _IGNORED,
        "service_tier": _IGNORED,
    },
    InputMessage: {
        "role": Field("Who says it."),
        "content": Field("What is said: a text, or blocks of the types below. Documents are refused."),
    },
    InputTool: {
        "name": Field("1 to 64 letters, digits, `_`, `-` and `.`."),
        "input_schema": Field("A JSON schema of what it is given, which is an object."),
        "description": Field("What it does, for the model."),
        "type": Field("`custom`.", "custom"),
        "strict": Field("As in a chat.", False),
    },
    ToolChoice: {
        "type": Field("As it likes, one at least, the one that is named, or none."),
        "name": Field("The tool, with the type `tool`."),
        "disable_parallel_tool_use": Field("Whether the answer may use one tool at most.", False),
    },
    Thinking: {
        "type": Field(
            "`disabled` leaves it out of the answer, and tells the model's template `enable_thinking: false`."
        ),
        "budget_tokens": _IGNORED,
        "display": Field("`omitted` leaves it out as well; no summary is made."),
    },
    OutputConfig: {
        "format": Field("What form the text must have; any without one."),
        "effort": Field("As `reasoning_effort` in a chat."),
    },
    OutputFormat: {
        "type": Field("`json_schema`."),
        "schema": Field("The JSON Schema."),
    },
    TextBlock: {
        "text": Field("The text."),
    },
    ImageBlock: {
        "source": Field("Where the image is. A model without a projector refuses any."),
    },
    ImageData: {
        "type": Field("`base64`, or `url`."),
        "media_type": Field("With `base64`, such as `image/png`; what counts is what the data is."),
        "data": Field("With `base64`, the image: PNG, JPEG, WebP, GIF or BMP."),
        "url": Field("With `url`, where it is fetched from, if the server does that (`imageHosts`)."),
    },
    ThinkingBlock: {
        "thinking": Field("The assistant's, for templates that repeat it. Its signature is ignored."),
    },
    RedactedThinkingBlock: {},
    ToolUseBlock: {
        "id": Field("What its result refers to."),
        "name": Field("The tool's name."),
        "input": Field("What it is given."),
    },
    ToolResultBlock: {
        "tool_use_id": Field("The use that it answers, which must stand in the message before."),
        "content": Field("What came of it: a text, or blocks of the types `text` and `image`."),
        "is_error": Field("Whether it went wrong; the model is told so.", False),
    },
}
