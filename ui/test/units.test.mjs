// The parts that need no browser.
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { test } from "node:test";
import * as esbuild from "esbuild";

// Node 18 has it only as a module.
globalThis.crypto ??= webcrypto;

/** A module of the page. */
async function load(path) {
  const entry = new URL(`../src/${path}`, import.meta.url).pathname;
  const { outputFiles } = await esbuild.build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}

const api = await load("api.ts");
const tree = await load("conversation.ts");
const transfer = await load("transfer.ts");
const storage = await load("storage.ts");

async function eventsOf(text, size) {
  const bytes = new TextEncoder().encode(text);
  const body = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
  const found = [];
  for await (const data of api.events(body)) found.push(data);
  return found;
}

test("server-sent events are the same however the bytes are cut", async () => {
  const text = ": comment\r\ndata: {\"a\": \"é🌾\"}\r\n\r\nevent: x\ndata:one\ndata: two\n\n\n\ndata: [DONE]\n\ndata: cut off";
  for (let size = 1; size < 40; size++) {
    assert.deepEqual(await eventsOf(text, size), ['{"a": "é🌾"}', "one\ntwo", "[DONE]", "cut off"], `${size} bytes at a time`);
  }
});

function grown() {
  let conversation = tree.newConversation("chat");
  const add = (id, parent, role, text) => (conversation = tree.add(conversation, { id, parent, role, text, at: 0 }));
  add("a", null, "user", "first");
  add("b", "a", "assistant", "answer");
  add("c", "b", "user", "second");
  add("d", "c", "assistant", "");
  add("e", "a", "assistant", "another");
  return conversation;
}
const ids = (conversation) => tree.path(conversation).map(({ id }) => id).join("");

test("a path goes through the version that is shown, to its newest end", () => {
  const conversation = grown();
  assert.equal(ids(conversation), "ae");
  assert.equal(ids(tree.show(conversation, "b")), "abcd");
  assert.deepEqual(tree.versions(conversation, conversation.turns[1]), ["b", "e"]);
  assert.deepEqual(tree.versions(conversation, conversation.turns[0]), ["a"]);
  assert.equal(ids(tree.remove(conversation, conversation.turns[4])), "a");
});

test("a request holds the path, without answers that have no word", () => {
  const conversation = { ...tree.show(grown(), "b"), system: "Be brief.", settings: { seed: 1 } };
  const { address, body } = tree.request(conversation, tree.path(conversation), "m");
  assert.equal(address, "v1/chat/completions");
  assert.deepEqual(body.messages.map(({ content }) => content), ["Be brief.", "first", "answer", "second"]);
  assert.equal(body.seed, 1);
  assert.equal(body.temperature, 0.6);
  const own = tree.request({ ...conversation, settings: { top_p: 0.5 } }, [], "m", { temperature: 0.2, top_p: 0.7 });
  assert.deepEqual([own.body.temperature, own.body.top_p], [0.2, 0.5]);
  const text = tree.request({ ...conversation, mode: "text", settings: { max_tokens: 9 } }, tree.path(conversation), "m");
  assert.equal(text.body.prompt, "firstanswersecond");
  assert.equal(text.body.max_tokens, 9);
});

test("what was stored is read only if it is a conversation", () => {
  const good = JSON.parse(JSON.stringify(grown()));
  assert.deepEqual(storage.conversationOf(good), good);
  const bad = [
    null, 7, [], {}, { ...good, id: 5 }, { ...good, turns: {} }, { ...good, turns: [{}] },
    { ...good, turns: [{ ...good.turns[0], parent: "a" }] },
    { ...good, turns: [good.turns[1], good.turns[0]] },
    { ...good, turns: [good.turns[0], good.turns[0]] },
    { ...good, turns: [{ ...good.turns[0], role: "system" }] },
    { ...good, turns: [{ ...good.turns[0], text: null }] },
  ];
  for (const value of bad) assert.equal(storage.conversationOf(value), null, JSON.stringify(value));
  const odd = storage.conversationOf({ ...good, leaf: "gone", mode: "x", settings: { seed: -1, top_p: 0.5, evil: 1 }, title: 3 });
  assert.deepEqual([odd.leaf, odd.mode, odd.settings, odd.title], ["e", "chat", { top_p: 0.5 }, ""]);
});

test("Markdown that is read again is the same", () => {
  for (const text of ["plain", "a\n\nb\n", "\n\nx", "<!-- puna: assistant -->", "\\<!-- puna: user -->", "# Title\n\n## You\n", ""]) {
    let conversation = tree.newConversation("chat", { system: "S", title: "T" });
    conversation = tree.add(conversation, { id: "a", parent: null, role: "user", text, at: 0 });
    conversation = tree.add(conversation, { id: "b", parent: "a", role: "assistant", text, at: 0, model: "m" });
    const [read] = transfer.fromFile("x.md", transfer.toMarkdown(conversation));
    assert.deepEqual(tree.path(read).map((turn) => [turn.role, turn.text]), [["user", text], ["assistant", text]]);
    assert.deepEqual([read.system, read.title], ["S", "T"]);
  }
  assert.throws(() => transfer.fromFile("x.md", "nothing"), /Expected turns/);
  assert.throws(() => transfer.fromFile("x.json", "{"), /no JSON/);
});
