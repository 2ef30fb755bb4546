// Conversations as files: JSON with everything in it, Markdown to read. Both can be read again.
import { add, newConversation, newId, path, type Conversation } from "./conversation.ts";
import { record } from "./api.ts";
import { conversationOf } from "./storage.ts";

const FORMAT = "puna-conversations";
const MARK = /^<!-- puna: (user|assistant|system) -->$/;
const TITLES = { user: "You", assistant: "Model", system: "System prompt" };

export function toJson(conversations: Conversation[]): string {
  return `${JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 2)}\n`;
}

/** The path that is shown. Comments mark where turns begin; one in a text gets a backslash. */
export function toMarkdown(conversation: Conversation): string {
  const lines = [`# ${conversation.title || "Untitled"}`];
  const part = (role: keyof typeof TITLES, text: string, model?: string) => {
    const guarded = text.split("\n").map((line) => (MARK.test(line.replace(/^\\+/, "")) ? `\\${line}` : line));
    lines.push("", `<!-- puna: ${role} -->`, `## ${model ?? TITLES[role]}`, "", ...guarded);
  };
  if (conversation.system !== "") part("system", conversation.system);
  for (const turn of path(conversation)) part(turn.role, turn.text, turn.model);
  return `${lines.join("\n")}\n`;
}

/** The conversations of a file; an error that says what is wrong with it if there are none. */
export function fromFile(name: string, text: string): Conversation[] {
  return /\.(md|markdown|txt)$/i.test(name) ? [fromMarkdown(text)] : fromJson(text);
}

function fromJson(text: string): Conversation[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${(error as Error).message}`);
  }
  const { format, version, conversations } = record(value);
  if (format !== FORMAT || version !== 1) throw new Error(`Expected "format": "${FORMAT}", "version": 1.`);
  if (!Array.isArray(conversations)) throw new Error('Expected a list "conversations".');
  return conversations.map((entry, index) => {
    const conversation = conversationOf(entry);
    if (!conversation) throw new Error(`Conversation ${index + 1} of ${conversations.length} cannot be read.`);
    return conversation;
  });
}

function fromMarkdown(text: string): Conversation {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const title = /^# (.+)/.exec(lines[0] ?? "")?.[1] ?? "";
  const starts = lines.flatMap((line, index) => (MARK.test(line) ? [index] : []));
  if (starts.length === 0) throw new Error("Expected turns after comments such as <!-- puna: user -->.");
  let conversation = newConversation("chat", { title, named: title !== "" });
  starts.forEach((start, index) => {
    const role = MARK.exec(lines[start]!)![1] as keyof typeof TITLES;
    // After the mark come a heading and an empty line, before the next mark an empty line.
    const body = lines.slice(start + 3, (starts[index + 1] ?? lines.length) - 1);
    const content = body.map((line) => (MARK.test(line.replace(/^\\+/, "")) ? line.slice(1) : line)).join("\n");
    if (role === "system") {
      conversation = { ...conversation, system: content };
    } else {
      const turn = { id: newId(), parent: conversation.leaf, role, text: content, at: Date.now() };
      conversation = add(conversation, role === "assistant" ? { ...turn, state: "done" } : turn);
    }
  });
  return conversation;
}

/** Gives the reader a file. */
export function download(name: string, type: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A file's name from a title. */
export function fileName(title: string, extension: string): string {
  const name = title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40);
  return `${name || "conversation"}.${extension}`;
}

/** Puts a text on the clipboard, also where plain HTTP from another machine leaves only the old way. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    const focused = document.activeElement as HTMLElement | null;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}
