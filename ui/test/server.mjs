// A server that speaks the interface of `puna serve`, and fails in the ways that a test asks for.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const DIST = new URL("../dist/", import.meta.url);
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css", svg: "image/svg+xml" };

export const CHAT = {
  id: "llama-2-7b-chat", object: "model", created: 0, owned_by: "puna",
  puna: { context_length: 4096, chat: true, weights: "Q4_K_M", parameters: 6_738_415_616,
    starters: ["What is a puna?", "Write a haiku about high grassland.", "Show a loop in Rust."] },
};
export const STORIES = {
  id: "stories260K", object: "model", created: 0, owned_by: "puna",
  puna: { context_length: 512, chat: false, weights: "F32", parameters: 262_208,
    starters: ["Once upon a time, there was a", "Lily and Ben went to the park."] },
};

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Server {
  /** What a test may change at any time. */
  models = [CHAT, STORIES];
  reply = "Hello! How can I help you today?";
  /** Milliseconds between tokens. */
  delay = 2;
  /** Tokens after which the connection breaks. */
  breakAfter = Infinity;
  /** Answers, one each, instead of a stream: { status, headers, error }. */
  refusals = [];
  key = null;
  timings = false;

  /** What has been asked: { path, body, authorization }; `ended` counts tokens sent once it is over. */
  requests = [];
  port = 0;
  #http = null;
  #hold = { after: Infinity };

  async start() {
    this.#http = createServer((request, response) => {
      this.#serve(request, response).catch((error) => response.destroy(error));
    });
    await new Promise((resolve) => this.#http.listen(this.port, "127.0.0.1", resolve));
    this.port = this.#http.address().port;
    return this;
  }

  /** Goes away, with all connections. */
  async stop() {
    this.#http?.closeAllConnections();
    await new Promise((resolve) => (this.#http ? this.#http.close(resolve) : resolve()));
    this.#http = null;
  }

  /** Has answers wait after so many tokens, until they are released. */
  hold(after) {
    this.#hold = { after };
    this.#hold.released = new Promise((resolve) => (this.#hold.release = resolve));
  }

  release() {
    this.#hold.release();
    this.#hold = { after: Infinity };
  }

  get origin() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The last request for an answer. */
  get last() {
    return this.requests.at(-1);
  }

  async #serve(request, response) {
    response.setHeader("Content-Security-Policy", "default-src 'self'");
    response.setHeader("X-Content-Type-Options", "nosniff");
    const { pathname } = new URL(request.url, "http://server");
    if (!pathname.startsWith("/v1/")) return this.#file(pathname, response);
    if (this.key && request.headers.authorization !== `Bearer ${this.key}`) {
      return refuse(response, { status: 401, error: { message: "This server needs an API key.", code: "invalid_api_key" } });
    }
    if (pathname === "/v1/models") return json(response, 200, { object: "list", data: this.models });
    let text = "";
    for await (const part of request) text += part;
    const entry = { path: pathname, body: JSON.parse(text), authorization: request.headers.authorization, sent: 0, over: false };
    this.requests.push(entry);
    entry.closed = new Promise((resolve) => response.on("close", resolve)).then(() => (entry.over = true));
    const refusal = this.refusals.shift();
    if (refusal) return refuse(response, refusal);
    await this.#stream(entry, response);
  }

  async #file(pathname, response) {
    const name = pathname === "/" ? "index.html" : pathname.replace(/^\/ui\//, "");
    const data = await readFile(new URL(name, DIST)).catch(() => null);
    response.statusCode = data ? 200 : 404;
    response.setHeader("Content-Type", TYPES[name.split(".").at(-1)] ?? "text/plain");
    response.end(data ?? "not found");
  }

  async #stream(entry, response) {
    const isChat = entry.path === "/v1/chat/completions";
    const { body } = entry;
    const reply = typeof this.reply === "function" ? this.reply(body) : this.reply;
    const all = reply.match(/\s*\S+|\s+/g) ?? [];
    const words = all.slice(0, body.max_tokens ?? Infinity);
    const head = { id: "x", object: isChat ? "chat.completion.chunk" : "text_completion", created: 0, model: body.model };
    const send = (chunk) => response.write(`data: ${JSON.stringify({ ...head, ...chunk })}\n\n`);
    const choice = (text, finish_reason = null) =>
      isChat ? { choices: [{ index: 0, delta: text === null ? {} : { content: text }, finish_reason }] }
        : { choices: [{ index: 0, text: text ?? "", finish_reason }] };
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    if (isChat) send({ choices: [{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }] });
    for (const word of words) {
      if (this.delay > 0) await pause(this.delay);
      if (entry.sent === this.#hold.after) await Promise.race([this.#hold.released, entry.closed]);
      if (entry.over) return;
      if (entry.sent === this.breakAfter) return response.destroy();
      send(choice(word));
      entry.sent++;
    }
    send(choice(null, words.length < all.length ? "length" : "stop"));
    const prompt = (body.prompt ?? JSON.stringify(body.messages)).split(/\s+/).length;
    const usage = { prompt_tokens: prompt, completion_tokens: words.length, total_tokens: prompt + words.length,
      prompt_tokens_details: { cached_tokens: 0 } };
    send({ choices: [], usage: this.usage ?? usage, ...(this.timings && { timings: { answer_tokens_per_sec: 12.345 } }) });
    response.end("data: [DONE]\n\n");
  }
}

function refuse(response, { status, headers = {}, error }) {
  json(response, status, { error: { message: "refused", type: "error", param: null, code: null, ...error } }, headers);
}

function json(response, status, value, headers = {}) {
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}
