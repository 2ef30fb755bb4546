// The page: conversations at the left, one conversation at the right, and what lies above both.
import { useEffect, useRef } from "preact/hooks";
import { stop } from "./answering.ts";
import { Composer } from "./composer.tsx";
import { contextUsed, path, type Conversation } from "./conversation.ts";
import { KeyDialog, KeyboardDialog } from "./dialogs.tsx";
import { focusMessage } from "./focus.ts";
import { count, describe } from "./format.ts";
import { Icon, IconButton } from "./icons.tsx";
import { Log } from "./log.tsx";
import { SettingsDialog } from "./settings.tsx";
import { Sidebar } from "./sidebar.tsx";
import * as store from "./store.ts";
import { TransferDialog } from "./transfer-dialog.tsx";

export function App() {
  const state = store.useStore();
  const conversation = store.current();
  useShortcuts();
  useEffect(() => {
    const { theme } = state.preferences;
    if (theme === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset["theme"] = theme;
  }, [state.preferences.theme]);
  useEffect(() => {
    document.title = conversation.title ? `${conversation.title} · Puna` : "Puna";
  }, [conversation.title]);

  return (
    <div class={`page ${state.menuOpen ? "menu-open" : ""}`}>
      <a class="skip" href="#message" onClick={skipToMessage}>Go to the message field</a>
      <Sidebar />
      <div class="veil" onClick={() => store.set({ menuOpen: false })} />
      <div class="main" inert={state.menuOpen}>
        <Header conversation={conversation} />
        <main>
          <Banner />
          <Log key={conversation.id} conversation={conversation} />
          <Composer key={`composer ${conversation.id}`} conversation={conversation} />
        </main>
      </div>
      <Toast />
      <div class="unseen" role="status" aria-live="polite">{state.announcement}</div>
      {state.dialog === "settings" && <SettingsDialog conversation={conversation} />}
      {state.dialog === "transfer" && <TransferDialog conversation={conversation} />}
      {state.dialog === "keyboard" && <KeyboardDialog />}
      {state.dialog === "key" && <KeyDialog />}
    </div>
  );
}

function skipToMessage(event: Event): void {
  event.preventDefault();
  document.getElementById("message")?.focus();
}

/** Keys that work everywhere on the page; the dialog "Keyboard" lists them. */
function useShortcuts(): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const command = (event.ctrlKey || event.metaKey) && event.shiftKey && !event.altKey;
      if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) {
        if (store.state.dialog) return;
        if (store.state.menuOpen) closeMenu();
        else stop(store.current().id);
      } else if (command && event.code === "KeyO") {
        event.preventDefault();
        store.open(null);
        focusMessage();
      } else if (command && event.code === "Comma") {
        event.preventDefault();
        store.set({ dialog: "settings" });
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}

function closeMenu(): void {
  store.set({ menuOpen: false });
  requestAnimationFrame(() => document.querySelector<HTMLElement>(".menu-button")?.focus());
}

function Header({ conversation }: { conversation: Conversation }) {
  const { models } = store.state;
  const model = store.modelOf(conversation);
  const isChat = conversation.mode === "chat" && conversation.turns.length > 0;
  return (
    <header>
      <IconButton name="menu" label="Conversations" class="menu-button" onClick={openMenu} />
      <div class="model">
        <label class="unseen" for="model">Model</label>
        <select id="model" aria-describedby="model-limits" value={model?.id ?? ""} disabled={models.length === 0}
          onChange={(event) => chooseModel(conversation, event.currentTarget.value)}>
          {models.length === 0 && <option value="">No model yet</option>}
          {models.map(({ id, chat }) => <option key={id} value={id} disabled={isChat && !chat}>{id}</option>)}
        </select>
        <span id="model-limits" class="limits">{model ? describe(model) : "waiting for the server"}</span>
      </div>
      <Meter conversation={conversation} />
      <IconButton name="sliders" label="Settings" onClick={() => store.set({ dialog: "settings" })} />
    </header>
  );
}

function openMenu(): void {
  store.set({ menuOpen: true });
  requestAnimationFrame(() => document.querySelector<HTMLElement>(".sidebar a, .sidebar button")?.focus());
}

function chooseModel(conversation: Conversation, id: string): void {
  const chat = store.modelNamed(id)?.chat !== false;
  store.change(conversation.id, (before) => {
    const mode = before.turns.length > 0 ? before.mode : chat ? "chat" : "text";
    return { ...before, model: id, mode };
  });
  store.setPreferences({ model: id });
}

/** How full the context is, once the server has counted. */
function Meter({ conversation }: { conversation: Conversation }) {
  const context = store.modelOf(conversation)?.context;
  const used = contextUsed(path(conversation));
  if (!context || used === null) return null;
  const share = Math.min(1, used / context);
  const text = `${count(used)} of ${count(context)} tokens of context used`;
  return (
    <div class={`meter ${share >= 0.8 ? "nearly" : ""}`} role="meter" aria-label="Context used" title={text}
      aria-valuemin={0} aria-valuemax={context} aria-valuenow={Math.min(used, context)} aria-valuetext={text}>
      <span class="meter-text">{count(used)} / {count(context)}</span>
      <span class="meter-bar"><span style={{ width: `${share * 100}%` }} /></span>
    </div>
  );
}

/** What stands in the way, above everything else. */
function Banner() {
  const { connection, returned, trouble, models } = store.state;
  const lines = [];
  if (connection === "down") {
    const text = models.length > 0 || returned ? "The server has gone away." : "The server cannot be reached.";
    lines.push(
      <p class="banner bad" key="down">
        <span>{text} What is here is kept; the page asks again until the server is back.</span>
        <button type="button" onClick={() => void store.connect()}>Ask now</button>
      </p>,
    );
  } else if (connection === "locked") {
    lines.push(
      <p class="banner bad" key="locked">
        <span>The server needs an API key.</span>
        <button type="button" onClick={() => store.set({ dialog: "key" })}>Enter the key</button>
      </p>,
    );
  } else if (returned) {
    lines.push(
      <p class="banner good" key="back">
        <span>The server is back.</span>
        <button type="button" onClick={() => store.set({ returned: false })}>Dismiss</button>
      </p>,
    );
  }
  if (trouble) {
    lines.push(
      <p class="banner bad" key="trouble">
        <span>{trouble}</span>
        <button type="button" onClick={() => store.set({ dialog: "transfer" })}>Export</button>
      </p>,
    );
  }
  return <div role="status">{lines}</div>;
}

const TOAST_MS = 10_000;

/** A short message; it stays while it is pointed at or has the focus. */
function Toast() {
  const { toast } = store.state;
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!toast) return;
    const timer = setInterval(() => {
      if (!element.current?.matches(":hover, :focus-within")) store.set({ toast: null });
    }, TOAST_MS);
    return () => clearInterval(timer);
  }, [toast]);
  return (
    <div class="toasts" role="status">
      {toast && (
        <div class="toast" ref={element}>
          <span>{toast.text}</span>
          {toast.undo && (
            <button type="button" onClick={() => { toast.undo!(); store.set({ toast: null }); }}>Undo</button>
          )}
          <button type="button" class="icon-button" aria-label="Dismiss" onClick={() => store.set({ toast: null })}>
            <Icon name="close" />
          </button>
        </div>
      )}
    </div>
  );
}

