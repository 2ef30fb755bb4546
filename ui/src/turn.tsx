// One turn of a chat.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { answer, liveIn, liveOf, retry, say, type Live } from "./answering.ts";
import { show, versions, type Conversation, type Turn } from "./conversation.ts";
import { Editor } from "./editor.tsx";
import { focusMessage } from "./focus.ts";
import { advice, figures, incomplete, rate } from "./format.ts";
import { IconButton } from "./icons.tsx";
import { Markdown } from "./markdown.ts";
import * as store from "./store.ts";
import { copy } from "./transfer.ts";

interface TurnProps {
  conversation: Conversation;
  turn: Turn;
}

export function TurnView({ conversation, turn }: TurnProps) {
  return turn.role === "user"
    ? <Said conversation={conversation} turn={turn} />
    : <Answered conversation={conversation} turn={turn} />;
}

function Said({ conversation, turn }: TurnProps) {
  const [editing, setEditing] = useState(false);
  const article = useRef<HTMLElement>(null);
  const close = () => {
    setEditing(false);
    requestAnimationFrame(() => article.current?.querySelector<HTMLElement>("[aria-label^=Edit]")?.focus());
  };
  const send = (text: string) => {
    setEditing(false);
    say(conversation.id, turn.parent, text);
    focusMessage();
  };
  const answerNow = () => {
    void answer(conversation.id, turn.id);
    focusMessage();
  };
  return (
    <article class="turn said" ref={article}>
      <h2 class="unseen">You</h2>
      {editing ? <Editor label="Edit what you said" text={turn.text} send={send} close={close} />
        : <div class="said-text">{turn.text}</div>}
      {!editing && (
        <div class="turn-tools">
          <Versions conversation={conversation} turn={turn} />
          <CopyButton text={turn.text} what="what you said" />
          {!liveIn(conversation.id) && (
            <>
              <IconButton name="edit" label="Edit and send again" onClick={() => setEditing(true)} />
              {conversation.leaf === turn.id && (
                <IconButton name="retry" label="Have this answered" onClick={answerNow} />
              )}
            </>
          )}
        </div>
      )}
    </article>
  );
}

function Answered({ conversation, turn }: TurnProps) {
  const live = liveOf(turn.id);
  return (
    <article class={`turn answered ${live ? "live" : ""}`} aria-busy={live !== undefined}>
      <h2 class="unseen">{turn.model ?? "Model"}</h2>
      <Written turn={turn} live={live} />
      {live ? <LiveStatus live={live} /> : <Outcome conversation={conversation} turn={turn} />}
    </article>
  );
}

/** How much longer than a drawing took the page rests before the next: so drawing takes a small part of the time. */
const REST = 6;

/** Markdown that grows while it is being written, drawn at most once a frame. */
function Written({ turn, live }: { turn: Turn; live: Live | undefined }) {
  const root = useRef<HTMLDivElement>(null);
  const markdown = useRef<Markdown | null>(null);
  useLayoutEffect(() => {
    markdown.current ??= new Markdown(root.current!);
    if (!live) markdown.current.finish(turn.text);
  }, [turn.text, live]);
  useFrames(live, () => markdown.current!.grow(live!.text));
  return <div class="written" ref={root} />;
}

/** Calls `draw` in an animation frame after each change of what is live. */
export function useFrames(live: Live | undefined, draw: () => void): void {
  useEffect(() => {
    if (!live) return;
    let frame = 0;
    let restUntil = 0;
    const onFrame = (now: number) => {
      if (now < restUntil) {
        frame = requestAnimationFrame(onFrame);
        return;
      }
      frame = 0;
      const start = performance.now();
      draw();
      const end = performance.now();
      restUntil = end + REST * (end - start);
    };
    const onChange = () => {
      frame ||= requestAnimationFrame(onFrame);
    };
    onChange();
    live.listeners.add(onChange);
    return () => {
      live.listeners.delete(onChange);
      cancelAnimationFrame(frame);
    };
  }, [live]);
}

export function LiveStatus({ live }: { live: Live }) {
  const [, draw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => draw((count) => count + 1), 250);
    return () => clearInterval(timer);
  }, [live]);
  const { waitingUntil } = live;
  const text = waitingUntil !== null
    ? `The server is busy; it is asked again in ${Math.max(0, Math.ceil((waitingUntil - Date.now()) / 1000))} s.`
    : live.pieces === 0 ? "Reading…"
    : live.rate !== null ? `${rate(live.rate)}` : "Writing…";
  return <p class="status"><span class="writing" />{text}</p>;
}

/** What there is to say about an answer that is over, and what can be done with it. */
export function Outcome({ conversation, turn, children }: TurnProps & { children?: preact.ComponentChildren }) {
  const reason = incomplete(turn, false);
  const hint = advice(turn);
  const isProblem = turn.state === "failed";
  const retryNow = () => {
    retry(conversation.id, turn);
    focusMessage();
  };
  const again = (isProblem || turn.text === "" || turn.state === "writing") && conversation.leaf === turn.id;
  return (
    <>
      {reason && (
        <p class={isProblem ? "reason bad" : "reason"}>
          <span>{reason}{hint && ` ${hint}`}</span>
          {again && (
            <button type="button" onClick={retryNow}>Try again</button>
          )}
        </p>
      )}
      <div class="turn-tools">
        <Versions conversation={conversation} turn={turn} />
        {turn.text !== "" && !children && <CopyButton text={turn.text} what="the answer" />}
        {!again && !liveIn(conversation.id) && (
          <IconButton name="retry" label="Write another answer" onClick={retryNow} />
        )}
        {children}
        <span class="figures">{figures(turn)}</span>
      </div>
    </>
  );
}

export function CopyButton({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  const onClick = async () => {
    const done = await copy(text);
    setCopied(done);
    store.announce(done ? "Copied" : "The browser did not let it be copied");
    setTimeout(() => setCopied(false), 2_000);
  };
  return <IconButton name={copied ? "check" : "copy"} label={`Copy ${what}`} onClick={onClick} />;
}

/** Leads to the other versions of a turn, where there are some. */
export function Versions({ conversation, turn }: TurnProps) {
  const ids = versions(conversation, turn);
  const at = ids.indexOf(turn.id);
  if (ids.length < 2) return null;
  const go = (index: number) => store.change(conversation.id, (before) => show(before, ids[index]!));
  return (
    <span class="versions" role="group" aria-label="Versions">
      <IconButton name="left" label="Version before" disabled={at === 0} onClick={() => go(at - 1)} />
      <span>{at + 1}/{ids.length}</span>
      <IconButton name="right" label="Version after" disabled={at === ids.length - 1} onClick={() => go(at + 1)} />
    </span>
  );
}
