// Where the reader writes. What is unsent is kept, also when the page is loaded again.
import { useEffect, useRef, useState } from "preact/hooks";
import { answer, liveIn, say, stop } from "./answering.ts";
import { contextUsed, path, type Conversation } from "./conversation.ts";
import { Field } from "./editor.tsx";
import { isTouch } from "./focus.ts";
import { count, tokens } from "./format.ts";
import { IconButton } from "./icons.tsx";
import * as storage from "./storage.ts";
import * as store from "./store.ts";

const DRAFT_MS = 300;

export function Composer({ conversation }: { conversation: Conversation }) {
  const draftId = conversation.turns.length === 0 ? "new" : conversation.id;
  const [text, setText] = useState(() => storage.loadDraft(draftId));
  useKeptDraft(draftId, text);
  const live = liveIn(conversation.id);
  const isText = conversation.mode === "text";
  const canContinue = isText && conversation.leaf !== null;
  const canSend = !live && (text.trim() !== "" || canContinue);
  const send = () => {
    if (!canSend) return;
    if (text.trim() === "") return void answer(conversation.id, conversation.leaf);
    setText("");
    storage.saveDraft(draftId, "");
    say(conversation.id, conversation.leaf, isText ? text : text.trim());
  };
  const label = isText ? (canContinue ? "Add to the text" : "Write the first words") : "Write a message";
  const sendLabel = canContinue && text.trim() === "" ? "Continue the text" : "Send";
  return (
    <div class="composer">
      <Room conversation={conversation} />
      <form onSubmit={(event) => { event.preventDefault(); send(); }}>
        <Field id="message" label={label} text={text}
          placeholder={canContinue && !isTouch() ? `${label}, or press Enter to let it go on` : label}
          focus={!isTouch()} change={setText} send={send} />
        {live
          ? <IconButton name="stop" label="Stop" class="send stop" onClick={() => stop(conversation.id)} />
          : <IconButton name="send" label={sendLabel} class="send" disabled={!canSend} onClick={send} />}
      </form>
      <p class="hint">
        {"Models make mistakes. "}
        <span class="keys">
          <kbd>Enter</kbd> sends, <kbd>Shift</kbd>+<kbd>Enter</kbd> breaks the line, <kbd>Esc</kbd> stops.
        </span>
      </p>
    </div>
  );
}

/** Keeps what is unsent soon after each change, and at once when the page or the conversation goes. */
function useKeptDraft(id: string, text: string): void {
  const latest = useRef({ id, text });
  const kept = useRef({ id, text });
  latest.current = { id, text };
  const keep = () => {
    const { id, text } = latest.current;
    if (kept.current.id === id && kept.current.text === text) return;
    kept.current = latest.current;
    storage.saveDraft(id, text);
  };
  useEffect(() => {
    const timer = setTimeout(keep, DRAFT_MS);
    return () => clearTimeout(timer);
  }, [id, text]);
  useEffect(() => {
    addEventListener("pagehide", keep);
    return () => {
      removeEventListener("pagehide", keep);
      keep();
    };
  }, []);
}

const NEARLY = 0.8;

/** Warns before the context is full. */
function Room({ conversation }: { conversation: Conversation }) {
  const context = store.modelOf(conversation)?.context;
  const used = contextUsed(path(conversation));
  const isFull = context && used !== null && used >= context;
  const isNear = context && used !== null && used >= NEARLY * context;
  return (
    <div role="status">
      {isFull ? (
        <p class="room bad">
          The context is full ({tokens(context)}). Edit an earlier turn, or begin a new conversation.
        </p>
      ) : isNear ? (
        <p class="room">The context is nearly full: {count(context - used)} of {tokens(context)} are left.</p>
      ) : null}
    </div>
  );
}
