// What the browser keeps: an entry for each conversation, unsent texts, preferences, and the key if it shall.
import { newId, SETTINGS, type Conversation, type Settings, type Turn } from "./conversation.ts";
import { record } from "./api.ts";

const CONVERSATION = "puna/conversation/";
const DRAFT = "puna/draft/";
const PREFERENCES = "puna/preferences";
const KEY = "puna/key";

export interface Preferences {
  theme: "system" | "light" | "dark";
  /** Taken for new conversations. */
  system: string;
  settings: Settings;
  model: string | null;
}

/** Why something could not be kept, for the reader; none when all is well. */
export type Trouble = string | null;

export function loadConversations(): Conversation[] {
  const found: Conversation[] = [];
  for (const name of names()) {
    if (!name.startsWith(CONVERSATION)) continue;
    const conversation = conversationOf(parse(read(name)));
    if (conversation) found.push(conversation);
  }
  return found;
}

export function saveConversation(conversation: Conversation): Trouble {
  return write(CONVERSATION + conversation.id, JSON.stringify(conversation));
}

export function deleteConversation(id: string): void {
  forget(CONVERSATION + id);
  forget(DRAFT + id);
}

/** Calls back when another tab writes or deletes a conversation. */
export function onForeignChange(changed: (id: string, conversation: Conversation | null) => void): void {
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(CONVERSATION)) return;
    changed(key.slice(CONVERSATION.length), conversationOf(parse(newValue)));
  });
}

export function loadDraft(id: string): string {
  return read(DRAFT + id) ?? "";
}

export function saveDraft(id: string, text: string): void {
  if (text === "") forget(DRAFT + id);
  else write(DRAFT + id, text);
}

export function loadPreferences(): Preferences {
  const { theme, system, settings, model } = record(parse(read(PREFERENCES)));
  return {
    theme: theme === "light" || theme === "dark" ? theme : "system",
    system: typeof system === "string" ? system : "",
    settings: settingsOf(settings),
    model: typeof model === "string" ? model : null,
  };
}

export function savePreferences(preferences: Preferences): Trouble {
  return write(PREFERENCES, JSON.stringify(preferences));
}

export function loadKey(): string | null {
  return read(KEY, () => sessionStorage) ?? read(KEY);
}

/** Keeps the key until the tab closes, or until it is forgotten. */
export function saveKey(key: string, remember: boolean): void {
  forget(KEY);
  write(KEY, key, () => sessionStorage);
  if (remember) write(KEY, key);
}

export function forgetKey(): void {
  forget(KEY);
  forget(KEY, () => sessionStorage);
}

/** A conversation from what was stored or imported; nothing if it is none. */
export function conversationOf(value: unknown): Conversation | null {
  const { id, title, named, created, updated, mode, model, system, settings, turns, leaf } = record(value);
  if (typeof id !== "string" || !Array.isArray(turns)) return null;
  const read = turns.map(turnOf);
  if (read.some((turn) => turn === null)) return null;
  const valid = read as Turn[];
  // Parents come before their children, so there is no circle.
  const known = new Set<string | null>([null]);
  for (const turn of valid) {
    if (!known.has(turn.parent) || known.has(turn.id)) return null;
    known.add(turn.id);
  }
  const time = (value: unknown) => (typeof value === "number" ? value : Date.now());
  return {
    id,
    title: typeof title === "string" ? title : "",
    named: named === true,
    created: time(created),
    updated: time(updated),
    mode: mode === "text" ? "text" : "chat",
    model: typeof model === "string" ? model : null,
    system: typeof system === "string" ? system : "",
    settings: settingsOf(settings),
    turns: valid,
    leaf: typeof leaf === "string" && known.has(leaf) ? leaf : (valid.at(-1)?.id ?? null),
  };
}

function turnOf(value: unknown): Turn | null {
  const turn = record(value);
  const { id, parent, role, text } = turn;
  const isTurn =
    typeof id === "string" &&
    (typeof parent === "string" || parent === null) &&
    (role === "user" || role === "assistant") &&
    typeof text === "string";
  if (!isTurn) return null;
  const known: Turn = { id, parent, role, text, at: typeof turn["at"] === "number" ? turn["at"] : Date.now() };
  const copy = (name: keyof Turn, fits: (value: unknown) => boolean) => {
    if (fits(turn[name])) Object.assign(known, { [name]: turn[name] });
  };
  const isNumber = (value: unknown) => typeof value === "number";
  copy("state", (value) => ["writing", "done", "stopped", "failed"].includes(value as string));
  copy("problem", (value) => typeof record(value)["message"] === "string");
  copy("model", (value) => typeof value === "string");
  copy("finish", (value) => typeof value === "string");
  copy("usage", (value) => isNumber(record(value)["prompt"]) && isNumber(record(value)["completion"]));
  copy("rate", isNumber);
  copy("wait", isNumber);
  return known;
}

function settingsOf(value: unknown): Settings {
  const settings: Settings = {};
  for (const { name, min, max } of SETTINGS) {
    const number = record(value)[name];
    if (typeof number === "number" && number >= min && number <= max) settings[name] = number;
  }
  return settings;
}

/** The same conversation under another name, for an import beside one that is there. */
export function copyOf(conversation: Conversation): Conversation {
  return { ...conversation, id: newId() };
}

function names(): string[] {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

function read(name: string, store = () => localStorage): string | null {
  try {
    return store().getItem(name);
  } catch {
    return null;
  }
}

function write(name: string, value: string, store = () => localStorage): Trouble {
  try {
    store().setItem(name, value);
    return null;
  } catch (error) {
    return (error as Error).name === "QuotaExceededError"
      ? "The browser's storage is full, so what is new is not kept. Export this conversation, or delete others."
      : "The browser lets this page keep nothing, so conversations are gone when it closes. Export what you need.";
  }
}

function forget(name: string, store = () => localStorage): void {
  try {
    store().removeItem(name);
  } catch {
    // A store that keeps nothing has nothing to forget.
  }
}

function parse(text: string | null): unknown {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}
