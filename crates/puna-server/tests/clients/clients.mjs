// The JavaScript client of OpenAI's protocol; clients.py runs it.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.PUNA_URL}/v1`, apiKey: process.env.PUNA_KEY, maxRetries: 0 });
const model = "stories260K";
const messages = [{ role: "user", content: "Once upon a time" }];
const ask = { model, messages, max_tokens: 20, temperature: 0 };

const models = await client.models.list();
assert.deepEqual(models.data.map((m) => m.id), [model]);

const whole = await client.chat.completions.create(ask);
const text = whole.choices[0].message.content;
assert.match(text, /^, there was a little girl/);

let streamed = "";
let usage;
const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, text);
assert.equal(usage.completion_tokens, 20);

const completion = await client.completions.create({ model, prompt: "Once upon a time", max_tokens: 20, temperature: 0 });
assert.equal(completion.choices[0].text, text);

const embeddings = await client.embeddings.create({ model, input: ["a cat"] });
assert.equal(embeddings.data[0].embedding.length, 64);

const response = await client.responses.create({ model, input: "Once upon a time", temperature: 0, max_output_tokens: 20 });
assert.equal(response.output_text, text);

await assert.rejects(client.chat.completions.create({ ...ask, model: "gpt-4" }), OpenAI.NotFoundError);

// An answer that is broken off.
const controller = new AbortController();
const long = await client.completions.create(
  { model, prompt: "Once", max_tokens: 400, stream: true },
  { signal: controller.signal },
);
for await (const _ of long) {
  controller.abort();
  break;
}
console.log("  models, chat, streams, completions, embeddings, responses, errors: ok");
