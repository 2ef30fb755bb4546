// A conversation is a tree of turns, of which one path is shown. Nothing here changes its arguments.

export type Mode = "chat" | "text";

export interface Usage {
  prompt: number;
  completion: number;
  cached?: number;
}

export interface Problem {
  /** Where it comes from; decides what the page offers. */
  kind: "offline" | "cut" | "key" | "busy" | "context" | "refused";
  message: string;
}

export interface Turn {
  id: string;
  /** The turn before; none for the first. */
  parent: string | null;
  role: "user" | "assistant";
  text: string;
  /** Milliseconds since 1970. */
  at: number;
  /** Of answers. One that is `writing` in the store but by nobody was left by a page that closed. */
  state?: "writing" | "done" | "stopped" | "failed";
  problem?: Problem;
  model?: string;
  finish?: string;
  usage?: Usage;
  /** Tokens per second. */
  rate?: number;
  /** Seconds until the first token. */
  wait?: number;
}

/** What is sent along with a request, by the names of the interface; what is absent is as usual. */
export type Settings = Partial<Record<SettingName, number>>;
export type SettingName = (typeof SETTINGS)[number]["name"];

export const SETTINGS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, help: "Higher is more varied; 0 always takes the likeliest token." },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01, help: "Only the likeliest tokens that together reach this probability." },
  { name: "top_k", label: "Top k", min: 0, max: 1_000_000, step: 1, help: "Only this many of the likeliest tokens; 0 for all." },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01, help: "Only tokens at least this likely, measured by the likeliest." },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1, help: "Makes tokens rarer, the more often they came." },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1, help: "Makes tokens rarer that came at all." },
  { name: "max_tokens", label: "Longest answer", min: 1, max: 10_000_000, step: 1, help: "In tokens." },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, help: "The same seed and text give the same answer." },
] as const;

/** What is sent where neither the user nor the model's files say anything, as the program itself samples at the terminal; the
 * interface's own defaults, which other clients then have, make small models ramble. */
export const USUAL: Settings = { temperature: 0.6, top_p: 0.9 };

/** Tokens of a continuation where nothing is set: it would go on until the context is full. */
export const TEXT_TOKENS = 256;

export interface Conversation {
  id: string;
  title: string;
  /** Whether the title was given by hand. */
  named: boolean;
  created: number;
  updated: number;
  mode: Mode;
  model: string | null;
  system: string;
  settings: Settings;
  turns: Turn[];
  /** The last turn of the path that is shown. */
  leaf: string | null;
}

/** Random, and not `crypto.randomUUID`, which plain HTTP from another machine does not have. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(mode: Mode, from?: Partial<Conversation>): Conversation {
  const now = Date.now();
  return {
    title: "", named: false, model: null, system: "", settings: {}, turns: [], leaf: null,
    ...from, id: newId(), created: now, updated: now, mode,
  };
}

/** The turns that are shown, first to last. */
export function path(conversation: Conversation): Turn[] {
  const byId = new Map(conversation.turns.map((turn) => [turn.id, turn]));
  const turns: Turn[] = [];
  let next = conversation.leaf;
  while (next !== null) {
    const turn = byId.get(next);
    if (!turn) break;
    byId.delete(next);
    turns.push(turn);
    next = turn.parent;
  }
  return turns.reverse();
}

const grouped = new WeakMap<Conversation, Map<string, string[]>>();

/** The ids of a turn's versions, itself among them, oldest first. */
export function versions(conversation: Conversation, turn: Turn): string[] {
  const group = ({ role, parent }: Turn) => `${role} after ${parent}`;
  let groups = grouped.get(conversation);
  if (!groups) {
    groups = new Map();
    for (const other of conversation.turns) {
      const ids = groups.get(group(other));
      if (ids) ids.push(other.id);
      else groups.set(group(other), [other.id]);
    }
    grouped.set(conversation, groups);
  }
  return groups.get(group(turn)) ?? [];
}

/** Shows the path through a turn, to the newest turn after it. */
export function show(conversation: Conversation, id: string): Conversation {
  const newestAfter = new Map<string | null, string>();
  for (const turn of conversation.turns) newestAfter.set(turn.parent, turn.id);
  let leaf = id;
  for (let next = newestAfter.get(leaf); next !== undefined; next = newestAfter.get(next)) leaf = next;
  return { ...conversation, leaf };
}

/** Adds a turn after `turn.parent` and shows it. The first text becomes the title. */
export function add(conversation: Conversation, turn: Turn): Conversation {
  const title = conversation.title || (turn.role === "user" ? titleOf(turn.text) : "");
  return { ...conversation, title, turns: [...conversation.turns, turn], leaf: turn.id, updated: Date.now() };
}

export function replace(conversation: Conversation, turn: Turn): Conversation {
  const turns = conversation.turns.map((other) => (other.id === turn.id ? turn : other));
  return { ...conversation, turns, updated: Date.now() };
}

/** Removes a turn that nothing comes after. */
export function remove(conversation: Conversation, turn: Turn): Conversation {
  const turns = conversation.turns.filter((other) => other.id !== turn.id);
  return { ...conversation, turns, leaf: conversation.leaf === turn.id ? turn.parent : conversation.leaf };
}

function titleOf(text: string): string {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

/** Address and body of the request for the answer after `turns`, with what is `usual` for the model. */
export function request(conversation: Conversation, turns: Turn[], model: string, usual = USUAL) {
  const common = { model, ...usual, ...conversation.settings, stream: true, stream_options: { include_usage: true } };
  if (conversation.mode === "text") {
    const prompt = turns.map((turn) => turn.text).join("");
    return { address: "v1/completions", body: { max_tokens: TEXT_TOKENS, ...common, prompt } };
  }
  const messages = turns
    .filter((turn) => turn.text !== "")
    .map(({ role, text }) => ({ role: role as string, content: text }));
  if (conversation.system.trim() !== "") messages.unshift({ role: "system", content: conversation.system });
  return { address: "v1/chat/completions", body: { ...common, messages } };
}

/** Tokens of the context that the path holds, as the server counted them with the last answer. */
export function contextUsed(turns: Turn[]): number | null {
  const usage = turns.findLast((turn) => turn.usage)?.usage;
  return usage ? usage.prompt + usage.completion : null;
}

/** Whether title or any version of a turn has all words of the query. */
export function matches(conversation: Conversation, query: string): boolean {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const text = [conversation.title, ...conversation.turns.map((turn) => turn.text)].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}
