// Export and import.
import { useState } from "preact/hooks";
import type { Conversation } from "./conversation.ts";
import { Dialog } from "./dialogs.tsx";
import * as store from "./store.ts";
import { download, fileName, fromFile, toJson, toMarkdown } from "./transfer.ts";

export function TransferDialog({ conversation }: { conversation: Conversation }) {
  const { conversations } = store.state;
  const isEmpty = conversation.turns.length === 0;
  const json = (name: string, which: Conversation[]) => download(name, "application/json", toJson(which));
  const { title } = conversation;
  return (
    <Dialog title="Export and import">
      <section class="stack">
        <h3>This conversation</h3>
        <p class="soft">JSON holds every version of each turn, Markdown what is shown.</p>
        <div class="buttons">
          <button type="button" disabled={isEmpty} onClick={() => json(fileName(title, "json"), [conversation])}>JSON</button>
          <button type="button" disabled={isEmpty}
            onClick={() => download(fileName(title, "md"), "text/markdown", toMarkdown(conversation))}>Markdown</button>
        </div>
        <h3>All conversations</h3>
        <div class="buttons">
          <button type="button" disabled={conversations.length === 0}
            onClick={() => json("puna-conversations.json", conversations)}>JSON, {conversations.length} in all</button>
        </div>
        <h3>Import</h3>
        <Import />
      </section>
    </Dialog>
  );
}

function Import() {
  const [message, setMessage] = useState<{ text: string; isBad: boolean } | null>(null);
  const onChange = async (event: Event) => {
    const field = event.currentTarget as HTMLInputElement;
    const files = [...(field.files ?? [])];
    try {
      const read = await Promise.all(files.map(async (file) => readFile(file.name, await file.text())));
      const conversations = read.flat();
      store.restore(conversations);
      setMessage({ text: `Imported ${conversations.length}.`, isBad: false });
    } catch (error) {
      setMessage({ text: (error as Error).message, isBad: true });
    }
    field.value = "";
  };
  return (
    <>
      <label class="line">A file that was exported here, JSON or Markdown
        <input type="file" accept=".json,.md,.markdown,.txt,application/json,text/markdown" multiple onChange={onChange} />
      </label>
      <p role="status" class={message?.isBad ? "bad" : ""}>{message?.text}</p>
    </>
  );
}

function readFile(name: string, text: string): Conversation[] {
  try {
    return fromFile(name, text);
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`);
  }
}
