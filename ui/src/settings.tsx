// Settings of the conversation, and of the page in this browser.
import { useState } from "preact/hooks";
import { SETTINGS, TEXT_TOKENS, type Conversation, type Settings, type SettingName } from "./conversation.ts";
import { Dialog } from "./dialogs.tsx";
import * as storage from "./storage.ts";
import * as store from "./store.ts";
import { usual, useKey } from "./api.ts";

export function SettingsDialog({ conversation }: { conversation: Conversation }) {
  const { id, mode, system, settings } = conversation;
  const [cleared, setCleared] = useState(0);
  const set = (change: Partial<Conversation>) => store.change(id, (before) => ({ ...before, ...change }));
  const clear = () => {
    set({ system: "", settings: {} });
    setCleared(cleared + 1);
  };
  return (
    <Dialog title="Settings">
      <section class="stack">
        <h3>This conversation</h3>
        {mode === "chat" && (
          <label class="line">System prompt
            <textarea rows={3} value={system} placeholder="What the model shall know or be before the first turn"
              onInput={(event) => set({ system: event.currentTarget.value })} />
          </label>
        )}
        <div class="grid">
          {SETTINGS.map((setting) => (
            <Setting key={`${setting.name} ${cleared}`} setting={setting} mode={mode} usual={usual(store.modelOf(conversation))} value={settings[setting.name]}
              change={(value) => {
                const { [setting.name]: _, ...others } = settings;
                set({ settings: value === undefined ? others : { ...others, [setting.name]: value } });
              }} />
          ))}
        </div>
        <div class="buttons">
          <button type="button" onClick={clear}>Clear all</button>
          <button type="button" onClick={() => keepAsDefaults(conversation)}>Use for new conversations</button>
        </div>
      </section>
      <section class="stack">
        <h3>This browser</h3>
        <Theme />
        <div class="buttons">
          <button type="button" onClick={() => store.set({ dialog: "key" })}>API key…</button>
          <button type="button" onClick={forgetKey}>Forget the key</button>
          <button type="button" onClick={() => store.set({ dialog: "transfer" })}>Export and import…</button>
        </div>
      </section>
    </Dialog>
  );
}

interface SettingProps {
  setting: (typeof SETTINGS)[number];
  mode: Conversation["mode"];
  usual: Settings;
  value: number | undefined;
  change: (value: number | undefined) => void;
}

function Setting({ setting, mode, usual, value, change }: SettingProps) {
  const { name, label, min, max, step, help } = setting;
  const [wrong, setWrong] = useState(false);
  const isWhole = step === 1;
  const onInput = (event: InputEvent) => {
    const field = event.currentTarget as HTMLInputElement;
    const number = field.valueAsNumber;
    const isEmpty = field.value === "" && !field.validity.badInput;
    const fits = number >= min && number <= max && (!isWhole || Number.isInteger(number));
    setWrong(!isEmpty && !fits);
    if (isEmpty) change(undefined);
    else if (fits) change(number);
  };
  const range = max > 1000 ? `a whole number from ${min}` : `${min} to ${max}`;
  return (
    <label class="line">{label}
      <input type="number" inputMode={isWhole ? "numeric" : "decimal"} min={min} max={max} step={isWhole ? 1 : "any"}
        defaultValue={value === undefined ? "" : String(value)}
        placeholder={placeholder(name, mode, usual)} aria-invalid={wrong} aria-describedby={`help-${name}`} onInput={onInput} />
      <small id={`help-${name}`} class={wrong ? "bad" : ""}>{wrong ? `Expected ${range}.` : help}</small>
    </label>
  );
}

function placeholder(name: SettingName, mode: Conversation["mode"], usual: Settings): string {
  if (name === "max_tokens") return mode === "text" ? String(TEXT_TOKENS) : "no limit";
  if (usual[name] !== undefined) return String(usual[name]);
  return name === "seed" ? "random" : "none";
}

function keepAsDefaults({ system, settings, model }: Conversation): void {
  store.setPreferences({ system, settings, model });
  store.set({ blank: store.fresh() });
  store.toast("New conversations begin with these settings.");
}

function forgetKey(): void {
  storage.forgetKey();
  useKey(null);
  store.toast("The key is forgotten.");
  void store.connect();
}

function Theme() {
  const { theme } = store.state.preferences;
  const option = (value: storage.Preferences["theme"], text: string) => (
    <label>
      <input type="radio" name="theme" checked={theme === value} onChange={() => store.setPreferences({ theme: value })} />
      <span>{text}</span>
    </label>
  );
  return (
    <fieldset class="choice">
      <legend>Colours</legend>
      {option("system", "As the system")}
      {option("light", "Light")}
      {option("dark", "Dark")}
    </fieldset>
  );
}
