// OpenAI's package for JavaScript: responses and chats, with a tool and its result, whole and streamed.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [root, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${root}/v1`, apiKey: "none", maxRetries: 0 });
const question = "What is the weather in Paris?";
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const described = { name: "get_weather", description: "Get the weather of a city", parameters, strict: true };

const stream = client.responses.stream({
  model,
  input: question,
  tools: [{ type: "function", ...described }],
  tool_choice: "required",
  temperature: 0,
});
const kinds = [];
for await (const event of stream) kinds.push(event.type);
assert.deepEqual(kinds.slice(0, 2), ["response.created", "response.in_progress"]);
assert.equal(kinds.at(-1), "response.completed");
const first = await stream.finalResponse();
const [call] = first.output;
assert.deepEqual(JSON.parse(call.arguments), { city: "Paris" });
const second = await client.responses.create({
  model,
  input: [{ type: "function_call_output", call_id: call.call_id, output: '{"city": "Paris", "temperature": 21, "condition": "sunny"}' }],
  previous_response_id: first.id,
  temperature: 0,
});
assert.ok(second.output_text);

const runner = client.chat.completions.runTools({
  model,
  stream: true,
  temperature: 0,
  messages: [{ role: "user", content: question }],
  tools: [
    {
      type: "function",
      function: { ...described, parse: JSON.parse, function: () => '{"city": "Paris", "temperature": 21, "condition": "sunny"}' },
    },
  ],
});
let pieces = 0;
runner.on("chunk", () => (pieces += 1));
assert.ok(await runner.finalContent());
assert.ok(pieces > 3);
const roles = runner.messages.map((message) => message.role);
assert.deepEqual(roles, ["user", "assistant", "tool", "assistant"]);
