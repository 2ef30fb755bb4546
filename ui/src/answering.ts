// Answers being written. Each goes on, whatever conversation is shown, until it ends, fails or is stopped.
import * as api from "./api.ts";
import {
  add, newId, path, remove, replace, request, type Conversation, type Problem, type Turn,
} from "./conversation.ts";
import * as store from "./store.ts";

/** How often a busy server is asked again before the page gives up. */
const MAX_TRIES = 5;
const SAVE_MS = 1_000;

export class Live {
  text = "";
  pieces = 0;
  firstAt = 0;
  lastAt = 0;
  /** While the server is busy: when it is asked again. */
  waitingUntil: number | null = null;
  readonly startedAt = performance.now();
  readonly abort = new AbortController();
  readonly listeners = new Set<() => void>();

  constructor(
    readonly conversationId: string,
    readonly turnId: string,
  ) {}

  /** Tokens per second so far; each piece is about a token. */
  get rate(): number | null {
    const seconds = (this.lastAt - this.firstAt) / 1000;
    return this.pieces > 1 && seconds > 0 ? (this.pieces - 1) / seconds : null;
  }

  changed(): void {
    this.listeners.forEach((listener) => listener());
  }
}

const live = new Map<string, Live>();

export function liveOf(turnId: string): Live | undefined {
  return live.get(turnId);
}

export function liveIn(conversationId: string): Live | undefined {
  return [...live.values()].find((entry) => entry.conversationId === conversationId);
}

export function stop(conversationId: string): void {
  liveIn(conversationId)?.abort.abort();
}

/** Adds what the user says, after the turn `parent`, and has it answered. */
export function say(conversationId: string, parent: string | null, text: string): void {
  const turn: Turn = { id: newId(), parent, role: "user", text, at: Date.now() };
  store.change(conversationId, (conversation) => add(conversation, turn));
  void answer(conversationId, turn.id);
}

/** Writes another version of an answer; one without a word is replaced. */
export function retry(conversationId: string, turn: Turn): void {
  if (turn.text === "") store.change(conversationId, (conversation) => remove(conversation, turn));
  void answer(conversationId, turn.parent);
}

/** Has the turn `parent` answered. */
export async function answer(conversationId: string, parent: string | null): Promise<void> {
  const conversation = store.find(conversationId);
  if (!conversation || liveIn(conversationId)) return;
  const model = store.modelOf(conversation);
  const turn: Turn = { id: newId(), parent, role: "assistant", text: "", at: Date.now(), state: "writing" };
  if (model) turn.model = model.id;
  const entry = new Live(conversationId, turn.id);
  live.set(turn.id, entry);
  store.change(conversationId, (before) => add(before, turn));
  const before = path({ ...conversation, leaf: parent });
  const { address, body } = request(conversation, before, model?.id ?? "", api.usual(model));

  const saver = setInterval(() => keep(entry), SAVE_MS);
  const end: Partial<Turn> = { state: "done" };
  try {
    await write(entry, address, body, end);
  } catch (error) {
    // The browser breaks connections when the page goes; what is kept stays `writing`.
    if (leaving) return;
    if (entry.abort.signal.aborted) {
      end.state = "stopped";
    } else {
      end.state = "failed";
      end.problem = problemOf(error);
    }
  }
  clearInterval(saver);
  live.delete(turn.id);
  finish(entry, end);
}

/** Reads the answer; asks again when the server is busy. */
async function write(entry: Live, address: string, body: object, end: Partial<Turn>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      for await (const piece of api.answer(address, body, entry.abort.signal)) {
        if (piece.text !== undefined) {
          entry.lastAt = performance.now();
          entry.firstAt ||= entry.lastAt;
          entry.pieces++;
          entry.text += piece.text;
          entry.changed();
        }
        if (piece.finish !== undefined) end.finish = piece.finish;
        if (piece.usage) end.usage = piece.usage;
        if (piece.rate !== undefined) end.rate = piece.rate;
      }
      return;
    } catch (error) {
      const isBusy = error instanceof api.ApiError && error.kind === "busy" && entry.text === "";
      if (!isBusy || tries === MAX_TRIES) throw error;
      await pause(entry, (error.retryAfter ?? tries) * 1000);
    }
  }
}

async function pause(entry: Live, ms: number): Promise<void> {
  entry.waitingUntil = Date.now() + ms;
  const tick = setInterval(() => entry.changed(), 500);
  entry.changed();
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, ms);
      entry.abort.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(entry.abort.signal.reason);
      });
    });
  } finally {
    clearInterval(tick);
    entry.waitingUntil = null;
  }
}

function problemOf(error: unknown): Problem {
  if (!(error instanceof api.ApiError)) return { kind: "refused", message: `The page failed: ${error}` };
  const { kind, message } = error;
  // Whether the server is away shows when it is asked for its models.
  if (kind === "offline" || kind === "cut") void store.connect();
  if (kind === "key") store.set({ connection: "locked", dialog: "key" });
  return { kind, message };
}

function finish(entry: Live, end: Partial<Turn>): void {
  const { text } = entry;
  const measured: Partial<Turn> = {};
  if (text !== "") measured.wait = (entry.firstAt - entry.startedAt) / 1000;
  const seconds = (entry.lastAt - entry.firstAt) / 1000;
  const tokens = end.usage?.completion ?? entry.pieces;
  if (tokens > 1 && seconds > 0) measured.rate = (tokens - 1) / seconds;
  store.change(entry.conversationId, (conversation) => {
    const turn = conversation.turns.find(({ id }) => id === entry.turnId);
    return turn ? replace(conversation, { ...turn, ...measured, ...end, text }) : conversation;
  });
  if (end.state === "done") store.set({ returned: false });
  const how = { done: "Answer", stopped: "Stopped", failed: "Failed", writing: "" }[end.state!];
  store.announce(`${how}: ${end.problem ? `${end.problem.message} ` : ""}${text}`);
}

/** Writes what there is of an answer into the store, in case the page goes. */
function keep(entry: Live): void {
  const conversation = store.find(entry.conversationId);
  if (conversation) store.save(withLive(conversation));
}

/** A conversation with the answers that are being written, as far as they are. */
function withLive(conversation: Conversation): Conversation {
  const turns = conversation.turns.map((turn) => ({ ...turn, text: live.get(turn.id)?.text ?? turn.text }));
  return { ...conversation, turns };
}

let leaving = false;
addEventListener("pagehide", () => {
  leaving = true;
  live.forEach(keep);
});
// A page that the browser had put away has lost its connections.
addEventListener("pageshow", (event) => event.persisted && location.reload());

// Another tab wrote a conversation in which this one is writing: its turns and ours.
store.onForeignChange((foreign) => {
  const entry = liveIn(foreign.id);
  const ours = store.find(foreign.id)?.turns.find((turn) => turn.id === entry?.turnId);
  if (!entry || !ours) return foreign;
  return { ...foreign, turns: [...foreign.turns.filter(({ id }) => id !== ours.id), ours], leaf: ours.id };
});
