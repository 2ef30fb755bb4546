// The list of conversations: find, open, rename, delete.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { liveIn } from "./answering.ts";
import { matches, type Conversation } from "./conversation.ts";
import { focusMessage } from "./focus.ts";
import { day } from "./format.ts";
import { Icon, IconButton } from "./icons.tsx";
import * as store from "./store.ts";

export function Sidebar() {
  const { conversations, currentId } = store.state;
  const [query, setQuery] = useState("");
  const [renaming, setRenaming] = useState<string | null>(null);
  const found = conversations.filter((conversation) => matches(conversation, query));
  return (
    <nav class="sidebar" aria-label="Conversations">
      <div class="brand"><img src="ui/icon.svg" alt="" width="28" height="28" /><span>Puna</span></div>
      <button type="button" class="new" onClick={newOne}><Icon name="plus" />New conversation</button>
      <div class="search">
        <Icon name="search" />
        <input type="search" placeholder="Search" aria-label="Search conversations" value={query}
          onInput={(event) => setQuery(event.currentTarget.value)} />
      </div>
      <ul>
        {found.map((conversation) => (
          <li key={conversation.id} class={conversation.id === currentId ? "current" : ""}>
            {renaming === conversation.id
              ? <Rename conversation={conversation} done={() => setRenaming(null)} />
              : <Entry conversation={conversation} rename={() => setRenaming(conversation.id)} />}
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="none">{query ? "Nothing found." : "Conversations are kept in this browser."}</p>}
      <div class="foot">
        <IconButton name="file" label="Export and import" onClick={() => store.set({ dialog: "transfer" })} />
        <IconButton name="keyboard" label="Keyboard" onClick={() => store.set({ dialog: "keyboard" })} />
        <IconButton name="close" label="Close the list" class="close-menu" onClick={() => store.set({ menuOpen: false })} />
      </div>
    </nav>
  );
}

function newOne(): void {
  store.open(null);
  focusMessage();
}

function Entry({ conversation, rename }: { conversation: Conversation; rename: () => void }) {
  const { id, updated } = conversation;
  const title = conversation.title || "Untitled";
  const isCurrent = id === store.state.currentId;
  return (
    <>
      <a href={`#${id}`} aria-current={isCurrent ? "page" : undefined} title={`${title}, ${day(updated)}`}
        onClick={() => store.set({ menuOpen: false })}>
        {title}
      </a>
      {liveIn(id) && <span class="writing" role="img" aria-label="being written" />}
      <span class="tools">
        <IconButton name="edit" label={`Rename ${title}`} onClick={rename} />
        <IconButton name="trash" label={`Delete ${title}`} onClick={() => erase(id)} />
      </span>
    </>
  );
}

/** Deletes and leaves the focus on the entry that takes the place. */
function erase(id: string): void {
  const before = [...document.querySelectorAll(".sidebar li a")];
  const index = before.findIndex((link) => link.getAttribute("href") === `#${id}`);
  store.erase(id);
  requestAnimationFrame(() => {
    const links = document.querySelectorAll<HTMLElement>(".sidebar li a");
    (links[Math.min(index, links.length - 1)] ?? document.querySelector<HTMLElement>(".sidebar .new"))?.focus();
  });
}

function Rename({ conversation, done }: { conversation: Conversation; done: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const open = useRef(true);
  useLayoutEffect(() => field.current!.select(), []);
  const finish = (keep: boolean) => {
    if (!open.current) return;
    open.current = false;
    const title = field.current!.value.trim();
    if (keep && title !== "") store.change(conversation.id, (before) => ({ ...before, title, named: true }));
    done();
    requestAnimationFrame(() => document.querySelector<HTMLElement>(`.sidebar a[href="#${conversation.id}"]`)?.focus());
  };
  return (
    <input ref={field} class="rename" aria-label="Title" value={conversation.title} maxLength={200}
      onBlur={() => finish(true)}
      onKeyDown={(event) => {
        if (event.isComposing) return;
        if (event.key === "Enter") finish(true);
        if (event.key === "Escape") {
          event.preventDefault();
          finish(false);
        }
      }} />
  );
}
