// Streams a chat with nothing but fetch, in Node 18 or newer: node stream.mjs [BASE_URL [MODEL]]
const [url = "http://127.0.0.1:8000/v1", model = "inferno-tiny"] = process.argv.slice(2);

const response = await fetch(`${url}/chat/completions`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    model,
    stream: true,
    temperature: 0,
    messages: [{ role: "user", content: "What is the capital of France?" }],
  }),
});
if (!response.ok) throw new Error((await response.json()).error.message);

let rest = "";
for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const event = JSON.parse(line.slice("data: ".length));
    if (event.error) throw new Error(event.error.message);
    process.stdout.write(event.choices[0].delta.content ?? "");
  }
}
console.log();
