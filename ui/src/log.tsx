// One conversation: its turns, or before the first the ways to begin.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { liveOf, say } from "./answering.ts";
import { path, type Conversation, type Mode, type Turn } from "./conversation.ts";
import { focusMessage } from "./focus.ts";
import { describe } from "./format.ts";
import { Icon } from "./icons.tsx";
import * as store from "./store.ts";
import { TextDocument } from "./text-document.tsx";
import { TurnView } from "./turn.tsx";
import { copy } from "./transfer.ts";

/** How near to its end, in pixels, a log counts as read to the end. */
const NEAR = 48;

export function Log({ conversation }: { conversation: Conversation }) {
  const { scroller, content, follows, toEnd } = useFollowing(conversation.leaf);
  const turns = path(conversation);
  return (
    <div class="log-frame">
      <div class="log" ref={scroller} role="region" aria-label="Conversation" tabIndex={0} onClick={copyCode}>
        <div class="log-content" ref={content}>
          {turns.length > 0 && <h1 class="unseen">{conversation.title || "Untitled"}</h1>}
          {turns.length === 0 ? <Begin conversation={conversation} />
            : conversation.mode === "text" ? <TextDocument conversation={conversation} turns={turns} />
            : <Turns conversation={conversation} turns={turns} />}
        </div>
      </div>
      {!follows && (
        <button type="button" class="to-end" onClick={toEnd}><Icon name="down" />To the end</button>
      )}
    </div>
  );
}

/** So many turns are shown at first, and more at a time on demand: a page of thousands is slow. */
const SHOWN = 100;

function Turns({ conversation, turns }: { conversation: Conversation; turns: Turn[] }) {
  const [shown, setShown] = useState(SHOWN);
  const hidden = Math.max(0, turns.length - shown);
  return (
    <>
      {hidden > 0 && (
        <button type="button" class="earlier" onClick={() => setShown(shown + SHOWN)}>
          Show earlier turns ({hidden})
        </button>
      )}
      {turns.slice(hidden).map((turn) => <TurnView key={turn.id} conversation={conversation} turn={turn} />)}
    </>
  );
}

/** Keeps the end in view as it grows, unless the reader has scrolled away from it. */
function useFollowing(leaf: string | null) {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const [follows, setFollows] = useState(true);
  const follow = (value: boolean) => {
    following.current = value;
    setFollows(value);
  };
  const toEnd = () => {
    const { current } = scroller;
    if (current) current.scrollTop = current.scrollHeight;
    follow(true);
  };
  // A conversation opens at its end, and a new turn is the reader's own doing; turning to a version moves nothing.
  const isOpen = useRef(false);
  useLayoutEffect(() => {
    if (!isOpen.current || (leaf !== null && liveOf(leaf))) toEnd();
    isOpen.current = true;
  }, [leaf]);
  useEffect(() => {
    const element = scroller.current!;
    let top = element.scrollTop;
    let height = element.scrollHeight;
    const onScroll = () => {
      // What shrinks also moves the top up, without anybody having scrolled.
      const isUp = element.scrollTop < top - 1 && element.scrollHeight >= height;
      const isNear = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR;
      top = element.scrollTop;
      height = element.scrollHeight;
      if (isUp) follow(false);
      else if (isNear) follow(true);
    };
    const observer = new ResizeObserver(() => {
      if (following.current) element.scrollTop = element.scrollHeight;
      top = element.scrollTop;
      height = element.scrollHeight;
    });
    observer.observe(content.current!);
    observer.observe(element);
    element.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", onScroll);
    };
  }, []);
  return { scroller, content, follows, toEnd };
}

/** The copy buttons of code blocks, which are not drawn by components. */
async function copyCode(event: MouseEvent): Promise<void> {
  const button = (event.target as Element).closest<HTMLButtonElement>("button[data-copy]");
  const code = button?.closest(".code")?.querySelector("pre");
  if (!button || !code) return;
  const done = await copy(code.textContent);
  button.textContent = done ? "Copied" : "Not copied";
  store.announce(done ? "Code copied" : "The browser did not let the code be copied");
  setTimeout(() => (button.textContent = "Copy"), 2_000);
}

const CHAT_STARTERS = [
  "Explain why the sky is blue, in three sentences.",
  "Give me five names for a small bakery.",
  "Write a polite reply that declines an invitation.",
];
const TEXT_STARTERS = [
  "Once upon a time, there was a little dog",
  "Lily and Tom went to the park. They saw",
  "One day, a small bird found a big red ball.",
];

function Begin({ conversation }: { conversation: Conversation }) {
  const model = store.modelOf(conversation);
  const own = model?.starters ?? [];
  const fitting = model?.chat === (conversation.mode === "chat") ? own : [];
  const starters = fitting.length > 0 ? fitting : conversation.mode === "chat" ? CHAT_STARTERS : TEXT_STARTERS;
  const begin = (text: string) => {
    say(conversation.id, null, text);
    focusMessage();
  };
  return (
    <div class="begin">
      <img src="ui/icon.svg" alt="" width="56" height="56" />
      <h1>{conversation.mode === "chat" ? "What shall we talk about?" : "Begin a text"}</h1>
      <p class="soft">
        {conversation.mode === "text" && "Write the first words; the model goes on from there. "}
        {model && <><strong>{model.id}</strong>{` · ${describe(model)}`}</>}
      </p>
      {model?.chat && <ModeChoice conversation={conversation} />}
      {model && (
        <ul class="starters" aria-label="Ways to begin">
          {starters.slice(0, 6).map((text) => (
            <li key={text}>
              <button type="button" onClick={() => begin(text)}>{text}</button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function ModeChoice({ conversation }: { conversation: Conversation }) {
  const option = (mode: Mode, text: string) => (
    <label>
      <input type="radio" name="mode" checked={conversation.mode === mode}
        onChange={() => store.change(conversation.id, (before) => ({ ...before, mode }))} />
      <span>{text}</span>
    </label>
  );
  return (
    <fieldset class="choice">
      <legend class="unseen">Kind</legend>
      {option("chat", "Chat")}
      {option("text", "Continue a text")}
    </fieldset>
  );
}
