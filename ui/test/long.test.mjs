// Long conversations.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setUp } from "./browser.mjs";

const t = setUp();
const PARAGRAPH = "Some **bold** words and `code` in a paragraph of the usual length.\n\n- one\n- two\n\n";

test("a conversation of thousands of turns opens with its end and is written to as fast as any", async () => {
  const turns = [];
  for (let index = 0; index < 3000; index++) {
    const role = index % 2 === 0 ? "user" : "assistant";
    turns.push({ id: `turn${index}`, parent: index === 0 ? null : `turn${index - 1}`, role, text: `Turn ${index}. ${PARAGRAPH}`, at: 0, state: "done" });
  }
  const conversation = { id: "long", title: "Long", named: true, created: 0, updated: 0, mode: "chat", model: null, system: "", settings: {}, turns, leaf: "turn2999" };
  await t.open();
  await t.page.evaluate((value) => localStorage.setItem("puna/conversation/long", value), JSON.stringify(conversation));
  await t.open("/#long");
  await t.page.reload();
  await t.page.getByText("Turn 2999.").waitFor();
  assert.equal(await t.page.locator(".turn").count(), 100);
  await t.page.getByRole("button", { name: "Show earlier turns (2900)" }).click();
  await t.page.getByText("Turn 2800.").waitFor({ state: "attached" });
  assert.equal(await t.page.locator(".turn").count(), 200);
  await t.send("One more");
  await t.answer().getByText("How can I help").waitFor();
  assert.equal(t.server.last.body.messages.length, 3001);
});
