// A text field that grows with its text, and the form to edit a turn with it.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { isTouch } from "./focus.ts";

interface FieldProps {
  id?: string;
  label: string;
  text: string;
  placeholder?: string;
  focus?: boolean;
  change: (text: string) => void;
  send: () => void;
  onKeyDown?: (event: KeyboardEvent) => void;
}

/** Enter sends and Shift+Enter breaks the line, but not on a touch screen, whose keyboard has no Shift to hold. */
export function Field({ id, label, text, placeholder, focus, change, send, onKeyDown }: FieldProps) {
  const area = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const element = area.current!;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight + 2}px`;
  }, [text]);
  useLayoutEffect(() => {
    if (!focus) return;
    area.current!.focus();
    area.current!.setSelectionRange(text.length, text.length);
  }, []);
  const key = (event: KeyboardEvent) => {
    // While an input method composes, Enter takes its suggestion (keyCode 229 in Safari).
    if (event.isComposing || event.keyCode === 229) return;
    onKeyDown?.(event);
    if (event.key !== "Enter" || event.shiftKey || event.altKey || event.defaultPrevented) return;
    if (isTouch() && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    send();
  };
  return (
    <textarea id={id} ref={area} rows={1} value={text} aria-label={label} placeholder={placeholder} autocomplete="off"
      onInput={(event) => change(event.currentTarget.value)} onKeyDown={key} />
  );
}

interface EditorProps {
  label: string;
  text: string;
  send: (text: string) => void;
  close: () => void;
}

export function Editor({ label, text: before, send, close }: EditorProps) {
  const [text, change] = useState(before);
  const done = () => {
    if (text.trim() !== "") send(text);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    close();
  };
  return (
    <form class="editor" onSubmit={(event) => { event.preventDefault(); done(); }}>
      <Field label={label} text={text} focus change={change} send={done} onKeyDown={onKeyDown} />
      <div class="buttons">
        <button type="button" onClick={close}>Cancel</button>
        <button type="submit" class="primary" disabled={text.trim() === ""}>Send</button>
      </div>
    </form>
  );
}
