// The server's interface: its models, and answers as they are written.
import { SETTINGS, USUAL, type Problem, type Settings, type Usage } from "./conversation.ts";

export interface Model {
  id: string;
  /** Tokens that prompt and answer may have together, if the server says. */
  context: number | null;
  /** Whether it has a chat template; else it continues texts. */
  chat: boolean;
  weights: string | null;
  parameters: number | null;
  starters: string[];
  /** How its files suggest to draw tokens. */
  sampling: Settings;
}

/** What is sent to a model where nothing is set. */
export function usual(model: Model | undefined): Settings {
  return { ...USUAL, ...model?.sampling };
}

/** A piece of an answer, or what the server tells at its end. */
export interface Piece {
  text?: string;
  finish?: string;
  usage?: Usage;
  /** Tokens per second, measured by the server. */
  rate?: number;
}

export class ApiError extends Error {
  constructor(
    readonly kind: Problem["kind"],
    message: string,
    /** Seconds after which to ask again, if the server says. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

let key: string | null = null;

export function useKey(value: string | null): void {
  key = value;
}

export async function models(): Promise<Model[]> {
  const response = await call("v1/models", { signal: AbortSignal.timeout(10_000) });
  const list: unknown = await response.json().catch(() => null);
  const data = record(list)["data"];
  if (!Array.isArray(data)) throw new ApiError("refused", "The server's list of models cannot be read.");
  return data.map((entry) => {
    const { id, puna } = record(entry);
    // What is no part of OpenAI's form may stand in a record of its own or beside the rest.
    const more = { ...record(entry), ...record(puna) };
    const weights = more["weights"] ?? more["weight_type"];
    return {
      id: String(id),
      context: number(more["context_length"]),
      chat: more["chat"] !== false,
      weights: typeof weights === "string" ? weights : null,
      parameters: number(more["parameters"] ?? more["n_params"]),
      starters: Array.isArray(more["starters"]) ? more["starters"].map(String) : [],
      sampling: settings(more["sampling"]),
    };
  });
}

/** The settings of the page among what a record suggests. */
function settings(found: unknown): Settings {
  const suggested = record(found);
  const known = SETTINGS.map(({ name }) => [name, number(suggested[name])] as const);
  return Object.fromEntries(known.filter(([, value]) => value !== null));
}

/** Sends a request and yields the answer as it comes. It ends without an error only if the server said so. */
export async function* answer(address: string, body: object, signal: AbortSignal): AsyncGenerator<Piece> {
  const response = await call(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  let ended = false;
  try {
    for await (const data of events(response.body!)) {
      if (data === "[DONE]") return;
      const chunk = record(parse(data));
      if (chunk["error"]) throw problem(response, chunk["error"]);
      const piece = pieceOf(chunk);
      ended ||= piece.finish !== undefined;
      yield piece;
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError("cut", "The connection broke while the answer was being written.");
  }
  if (!ended) throw new ApiError("cut", "The answer ended before its end: the server closed the connection.");
}

function pieceOf(chunk: Record<string, unknown>): Piece {
  const choice = record((chunk["choices"] as unknown[] | undefined)?.[0]);
  const text = record(choice["delta"])["content"] ?? choice["text"];
  const piece: Piece = {};
  if (typeof text === "string" && text !== "") piece.text = text;
  if (typeof choice["finish_reason"] === "string") piece.finish = choice["finish_reason"];
  const usage = record(chunk["usage"]);
  const prompt = number(usage["prompt_tokens"]);
  if (prompt !== null) {
    piece.usage = { prompt, completion: number(usage["completion_tokens"]) ?? 0 };
    const cached = number(record(usage["prompt_tokens_details"])["cached_tokens"]);
    if (cached) piece.usage.cached = cached;
  }
  const rate = number(record(chunk["timings"])["answer_tokens_per_sec"]);
  if (rate !== null) piece.rate = rate;
  return piece;
}

/** The data of server-sent events. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? `${decoder.decode()}\n\n` : decoder.decode(value, { stream: true });
      const lines = rest.split(/\r\n|\n/);
      rest = lines.pop()!;
      for (const line of lines) {
        if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        } else if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        }
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

async function call(address: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response: Response;
  try {
    response = await fetch(new URL(address, document.baseURI), { ...init, headers, credentials: "same-origin" });
  } catch (error) {
    // A timeout is a server that does not answer; being stopped is none of the server's doing.
    if (init.signal?.aborted && (error as Error).name !== "TimeoutError") throw error;
    throw new ApiError("offline", "The server cannot be reached.");
  }
  if (!response.ok) throw problem(response, record(parse(await response.text().catch(() => "")))["error"]);
  return response;
}

function problem(response: Response, error: unknown): ApiError {
  const { message, code } = record(error);
  const status = `${response.status} ${response.statusText}`.trim();
  const text = typeof message === "string" ? message : `The server answered ${status}.`;
  const tooLong = code === "context_length_exceeded" || /context (length|window|size)/i.test(text);
  switch (response.status) {
    case 401:
      return new ApiError("key", text);
    case 429:
    case 503:
      return new ApiError("busy", text, retryAfter(response.headers.get("Retry-After")));
    default:
      return new ApiError(tooLong ? "context" : "refused", text);
  }
}

/** Seconds until what a `Retry-After` says, a number or a date. */
function retryAfter(value: string | null): number | null {
  if (value === null) return null;
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
