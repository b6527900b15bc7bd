// Anthropic's package for JavaScript: messages with a tool and its result, streamed.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const [root, model] = process.argv.slice(2);
const client = new Anthropic({ baseURL: root, apiKey: "none", maxRetries: 0 });
const tools = [
  {
    name: "get_weather",
    description: "Get the weather of a city",
    input_schema: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
];
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const shared = { model, max_tokens: 100, tools, temperature: 0 };

const kinds = [];
const stream = client.messages.stream({ ...shared, messages, tool_choice: { type: "any" } });
stream.on("streamEvent", (event) => kinds.push(event.type));
const message = await stream.finalMessage();
assert.equal(kinds[0], "message_start");
assert.equal(kinds.at(-1), "message_stop");
assert.equal(message.stop_reason, "tool_use");
const [use] = message.content;
assert.deepEqual([use.name, use.input], ["get_weather", { city: "Paris" }]);
messages.push(
  { role: "assistant", content: message.content },
  { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: '{"city": "Paris", "temperature": 21, "condition": "sunny"}' }] },
);
const text = await client.messages.stream({ ...shared, messages }).finalText();
assert.ok(text);
