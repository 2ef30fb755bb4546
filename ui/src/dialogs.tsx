// The frame of a dialog, and the small dialogs.
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { IconButton } from "./icons.tsx";
import * as store from "./store.ts";

interface DialogProps {
  title: string;
  children: ComponentChildren;
}

/** A modal dialog: the browser keeps the focus in it, closes it with Esc, and gives the focus back. */
export function Dialog({ title, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const element = dialog.current!;
    const before = document.activeElement as HTMLElement | null;
    element.showModal();
    return () => {
      element.close();
      before?.focus();
    };
  }, []);
  const close = () => store.set({ dialog: null });
  return (
    <dialog ref={dialog} aria-labelledby="dialog-title" onCancel={(event) => { event.preventDefault(); close(); }}
      onClick={(event) => event.target === dialog.current && close()}>
      <div class="dialog-frame">
        <div class="dialog-head">
          <h2 id="dialog-title">{title}</h2>
          <IconButton name="close" label="Close" onClick={close} />
        </div>
        {children}
      </div>
    </dialog>
  );
}

export function KeyDialog() {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    store.unlock(String(form.get("key")).trim(), form.get("remember") !== null);
  };
  return (
    <Dialog title="API key">
      <form class="stack" onSubmit={submit}>
        <p>This server answers only those who know a key. Whoever runs it can tell you.</p>
        <label class="line">
          Key
          <input name="key" type="password" required autocomplete="current-password" autofocus />
        </label>
        <label class="check">
          <input name="remember" type="checkbox" />
          Remember it in this browser; else it is forgotten with the tab
        </label>
        <div class="buttons"><button type="submit" class="primary">Use this key</button></div>
      </form>
    </Dialog>
  );
}

const KEYS: [string[], string][] = [
  [["Enter"], "send"],
  [["Shift", "Enter"], "break the line"],
  [["Esc"], "stop the answer, leave an editor, close what is open"],
  [["Ctrl", "Shift", "O"], "new conversation"],
  [["Ctrl", "Shift", ","], "settings"],
  [["Tab"], "go through all buttons; the first leads to the message field"],
];

export function KeyboardDialog() {
  return (
    <Dialog title="Keyboard">
      <dl class="keys-list">
        {KEYS.map(([keys, what]) => (
          <div key={what}>
            <dt>{keys.map((key, index) => <>{index > 0 && "+"}<kbd>{key}</kbd></>)}</dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="soft">On a touch screen the Enter key breaks the line, and the button sends.</p>
    </Dialog>
  );
}
