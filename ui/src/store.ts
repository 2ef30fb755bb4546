// The state of the page and the ways to change it. Components read `state` and are drawn again after each change.
import { useEffect, useState } from "preact/hooks";
import * as api from "./api.ts";
import { newConversation, type Conversation, type Mode } from "./conversation.ts";
import * as storage from "./storage.ts";

export type DialogName = "settings" | "key" | "transfer" | "keyboard";

interface Toast {
  text: string;
  undo?: () => void;
}

export const state = {
  conversations: [] as Conversation[],
  /** What is shown while no conversation is chosen; it joins them with its first turn. */
  blank: newConversation("chat"),
  currentId: null as string | null,
  models: [] as api.Model[],
  connection: "starting" as "starting" | "up" | "down" | "locked",
  /** Whether the server has been away and is back. */
  returned: false,
  trouble: null as storage.Trouble,
  toast: null as Toast | null,
  dialog: null as DialogName | null,
  menuOpen: false,
  announcement: "",
  preferences: storage.loadPreferences(),
};

const listeners = new Set<() => void>();

/** Has the component drawn again when the state changes. */
export function useStore(): typeof state {
  const [, draw] = useState(0);
  useEffect(() => {
    const listener = () => draw((count) => count + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return state;
}

export function set(change: Partial<typeof state>): void {
  Object.assign(state, change);
  listeners.forEach((listener) => listener());
}

export function start(): void {
  const key = storage.loadKey();
  api.useKey(key);
  set({ conversations: sorted(storage.loadConversations()), blank: fresh() });
  followAddress();
  addEventListener("hashchange", followAddress);
  storage.onForeignChange((id, conversation) => {
    if (!conversation) return set({ conversations: state.conversations.filter((other) => other.id !== id) });
    put(foreignChange(conversation));
  });
  void connect();
}

/** What becomes of a conversation that another tab wrote; `answering.ts` keeps what is being written here. */
let foreignChange = (conversation: Conversation) => conversation;
export function onForeignChange(merge: typeof foreignChange): void {
  foreignChange = merge;
}

// Conversations

export function find(id: string): Conversation | undefined {
  return state.blank.id === id ? state.blank : state.conversations.find((conversation) => conversation.id === id);
}

export function current(): Conversation {
  return state.conversations.find((conversation) => conversation.id === state.currentId) ?? state.blank;
}

/** Changes a conversation and keeps it, once there is something in it. */
export function change(id: string, how: (conversation: Conversation) => Conversation): void {
  const before = find(id);
  if (!before) return;
  const after = how(before);
  if (before === state.blank && after.turns.length === 0) return set({ blank: after });
  if (before === state.blank) {
    storage.saveDraft("new", "");
    set({ blank: fresh(), currentId: id });
    location.hash = id;
  }
  put(after);
  save(after);
}

export function save(conversation: Conversation): void {
  const trouble = storage.saveConversation(conversation);
  if (trouble !== state.trouble) set({ trouble });
}

function put(conversation: Conversation): void {
  const others = state.conversations.filter((other) => other.id !== conversation.id);
  set({ conversations: sorted([conversation, ...others]) });
}

function sorted(conversations: Conversation[]): Conversation[] {
  return conversations.sort((a, b) => b.updated - a.updated);
}

export function fresh(): Conversation {
  const { system, settings, model } = state.preferences;
  return newConversation(modeFor(model), { system, settings, model });
}

function modeFor(model: string | null): Mode {
  return (modelNamed(model) ?? state.models[0])?.chat === false ? "text" : "chat";
}

export function open(id: string | null): void {
  set({ menuOpen: false });
  if (id === null && location.hash === "") return followAddress();
  location.hash = id ?? "";
}

function followAddress(): void {
  const id = location.hash.slice(1) || null;
  const known = state.conversations.some((conversation) => conversation.id === id);
  set({ currentId: known ? id : null, menuOpen: false });
}

/** Deletes a conversation at once; the message that says so can undo it. */
export function erase(id: string): void {
  const conversation = state.conversations.find((other) => other.id === id);
  if (!conversation) return;
  storage.deleteConversation(id);
  set({ conversations: state.conversations.filter((other) => other.id !== id) });
  if (state.currentId === id) open(null);
  const undo = () => {
    put(conversation);
    save(conversation);
    open(id);
  };
  toast(`Deleted “${conversation.title || "Untitled"}”.`, undo);
}

export function restore(conversations: Conversation[]): void {
  const taken = new Set(state.conversations.map((conversation) => conversation.id));
  for (const conversation of conversations) {
    const entry = taken.has(conversation.id) ? storage.copyOf(conversation) : conversation;
    put(entry);
    save(entry);
  }
}

// Models and the server

export function modelNamed(id: string | null): api.Model | undefined {
  return state.models.find((model) => model.id === id);
}

/** The model that answers in a conversation: its own if it is served, else the first that is. */
export function modelOf(conversation: Conversation): api.Model | undefined {
  return modelNamed(conversation.model) ?? state.models[0];
}

const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
let attempts = 0;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Asks the server for its models, again and again while it is away. */
export async function connect(): Promise<void> {
  clearTimeout(timer);
  try {
    const models = await api.models();
    attempts = 0;
    set({ models, returned: state.returned || state.connection === "down", connection: "up" });
    const model = modelOf(state.blank);
    if (model) set({ blank: { ...state.blank, mode: model.chat ? state.blank.mode : "text" } });
  } catch (error) {
    if ((error as api.ApiError).kind === "key") return set({ connection: "locked", dialog: "key" });
    set({ connection: "down", returned: false });
    timer = setTimeout(connect, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
  }
}

export function unlock(key: string, remember: boolean): void {
  storage.saveKey(key, remember);
  api.useKey(key);
  set({ dialog: null });
  void connect();
}

// The rest

export function setPreferences(change: Partial<storage.Preferences>): void {
  const preferences = { ...state.preferences, ...change };
  const trouble = storage.savePreferences(preferences);
  set({ preferences, trouble });
}

export function toast(text: string, undo?: () => void): void {
  set({ toast: undo ? { text, undo } : { text } });
}

/** Says something to those who use a screen reader. */
export function announce(text: string): void {
  set({ announcement: text });
}
