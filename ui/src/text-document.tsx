// A text that the model continues: one document, in which what the reader wrote is marked.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { answer, liveIn, liveOf, say } from "./answering.ts";
import type { Conversation, Turn } from "./conversation.ts";
import { Editor } from "./editor.tsx";
import { focusMessage } from "./focus.ts";
import { IconButton } from "./icons.tsx";
import { CopyButton, LiveStatus, Outcome, useFrames, Versions } from "./turn.tsx";

export function TextDocument({ conversation, turns }: { conversation: Conversation; turns: Turn[] }) {
  const [editing, setEditing] = useState(false);
  const last = turns.at(-1)!;
  const live = liveOf(last.id);
  const whole = turns.map((turn) => turn.text).join("");
  const send = (text: string) => {
    setEditing(false);
    say(conversation.id, null, text);
    focusMessage();
  };
  if (editing) {
    return (
      <article class="document">
        <Editor label="Edit the text" text={whole} send={send} close={() => setEditing(false)} />
      </article>
    );
  }
  const goOn = () => {
    void answer(conversation.id, conversation.leaf);
    focusMessage();
  };
  const tools = (
    <>
      {last.text !== "" && <button type="button" class="go-on" onClick={goOn}>Continue</button>}
      <CopyButton text={whole} what="the whole text" />
      {!liveIn(conversation.id) && (
        <IconButton name="edit" label="Edit the text and continue" onClick={() => setEditing(true)} />
      )}
    </>
  );
  return (
    <article class="document" aria-busy={live !== undefined}>
      <h2 class="unseen">Text</h2>
      <div class="prose">
        {turns.map((turn) => (
          <span key={turn.id}>
            {turn.role === "user" ? <span class="given">{turn.text}</span> : <Growing turn={turn} />}
            {turn !== last && <Versions conversation={conversation} turn={turn} />}
          </span>
        ))}
      </div>
      {live ? <LiveStatus live={live} />
        : last.role === "assistant" ? <Outcome conversation={conversation} turn={last}>{tools}</Outcome>
        : <div class="turn-tools"><Versions conversation={conversation} turn={last} />{tools}</div>}
    </article>
  );
}

/** Plain text that is added to as it is written. */
function Growing({ turn }: { turn: Turn }) {
  const live = liveOf(turn.id);
  const root = useRef<HTMLSpanElement>(null);
  const shown = useRef("");
  const draw = (text: string) => {
    if (text.startsWith(shown.current)) root.current!.append(text.slice(shown.current.length));
    else root.current!.textContent = text;
    shown.current = text;
  };
  useLayoutEffect(() => {
    if (live) return;
    draw(turn.text);
    root.current!.normalize();
  }, [turn.text, live]);
  useFrames(live, () => draw(live!.text));
  return <span ref={root} />;
}
