// OpenAI's own client for JavaScript against `pocketlm serve` with the real model: node clients.mjs PACKAGE URL.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url] = process.argv.slice(2);
const entry = createRequire(path.resolve(folder, "x")).resolve("openai");
const { default: OpenAI } = await import(pathToFileURL(entry));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const ask = { model, temperature: 0, max_tokens: 40, messages: [{ role: "user", content: "Why is the sky blue?" }] };

const checks = {
  async chat() {
    const whole = await client.chat.completions.create(ask);
    const text = whole.choices[0].message.content;
    assert(text.length > 50);
    let streamed = "";
    let usage = null;
    for await (const chunk of await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
      streamed += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(streamed, text);
    assert.equal(usage.total_tokens, whole.usage.total_tokens);
    const helper = client.chat.completions.stream(ask);
    assert.equal((await helper.finalChatCompletion()).choices[0].message.content, text);
  },
  async tools() {
    const weather = {
      name: "get_weather",
      description: "Says what the weather is like in a city.",
      parameters: { type: "object", properties: { city: { type: "string", maxLength: 20 } }, required: ["city"], additionalProperties: false },
    };
    const stream = client.chat.completions.stream({ ...ask, max_tokens: 80, tools: [{ type: "function", function: weather }], tool_choice: "required" });
    const call = (await stream.finalChatCompletion()).choices[0].message.tool_calls[0];
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
  },
  async forms() {
    const schema = { type: "object", properties: { color: { enum: ["red", "blue"] } }, required: ["color"], additionalProperties: false };
    const answer = await client.chat.completions.create({ ...ask, response_format: { type: "json_schema", json_schema: { name: "sky", schema } } });
    assert(["red", "blue"].includes(JSON.parse(answer.choices[0].message.content).color));
  },
  async responses() {
    const stream = client.responses.stream({ model, input: "Say hello.", temperature: 0, max_output_tokens: 200 });
    let deltas = "";
    for await (const event of stream) if (event.type === "response.output_text.delta") deltas += event.delta;
    const last = await stream.finalResponse();
    assert.equal(last.output_text, deltas);
    assert(deltas.length > 3);
  },
  async embeddings() {
    const coded = await client.embeddings.create({ model, input: "A cat sat on the mat." });
    const plain = await client.embeddings.create({ model, input: "A cat sat on the mat.", encoding_format: "float" });
    assert.deepEqual(Float32Array.from(coded.data[0].embedding), Float32Array.from(plain.data[0].embedding));
  },
  async refusals() {
    await assert.rejects(client.chat.completions.create({ ...ask, model: "gpt-4o" }), OpenAI.NotFoundError);
    await assert.rejects(client.chat.completions.create({ ...ask, top_p: 7 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "top_p");
  },
  async leaving() {
    const stream = await client.chat.completions.create({ ...ask, max_tokens: 2000, stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
    for (let tries = 0; ; tries++) {
      const metrics = await (await fetch(`${url}/metrics`)).text();
      if (metrics.includes("\npocketlm:requests_processing 0\n")) break;
      assert(tries < 100, metrics);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },
};
for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`openai for JavaScript: ${name} is fine`);
}
