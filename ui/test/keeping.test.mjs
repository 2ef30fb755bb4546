// The list of conversations, settings, files, tabs.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { setUp } from "./browser.mjs";

const t = setUp();

async function talk(...texts) {
  for (const text of texts) {
    await t.page.getByRole("button", { name: "New conversation" }).click();
    await t.send(text);
    await t.answer().getByText("How can I help").waitFor();
    await t.quiet();
  }
}

const titles = () => t.page.locator(".sidebar li a").allInnerTexts();

test("conversations are found, renamed, deleted, and got back", async () => {
  await t.open();
  await talk("About apples", "About bread", "About cheese");
  assert.deepEqual(await titles(), ["About cheese", "About bread", "About apples"]);

  await t.page.getByLabel("Search conversations").fill("BREAD about");
  assert.deepEqual(await titles(), ["About bread"]);
  await t.page.getByLabel("Search conversations").fill("how can i help");
  assert.equal((await titles()).length, 3, "answers are searched too");
  await t.page.getByLabel("Search conversations").fill("nothing has this");
  await t.page.getByText("Nothing found.").waitFor();
  await t.page.getByLabel("Search conversations").fill("");

  await t.page.getByRole("button", { name: "Rename About cheese" }).click();
  await t.page.getByLabel("Title").fill("Cheddar");
  await t.page.keyboard.press("Enter");
  assert.ok((await titles()).includes("Cheddar"));

  await t.page.getByRole("button", { name: "Delete Cheddar" }).click();
  await t.page.getByText("Deleted “Cheddar”.").waitFor();
  assert.deepEqual((await titles()).sort(), ["About apples", "About bread"]);
  await t.page.getByRole("button", { name: "Undo" }).click();
  await t.page.getByRole("link", { name: "Cheddar" }).waitFor();
  await t.page.reload();
  await t.page.getByRole("link", { name: "Cheddar" }).waitFor();
  assert.equal((await titles()).length, 3);
});

test("the address leads to a conversation, and back goes back", async () => {
  await t.open();
  await talk("First", "Second");
  await t.page.getByRole("link", { name: "First" }).click();
  await t.page.locator(".said-text", { hasText: "First" }).waitFor();
  await t.page.goBack();
  await t.page.locator(".said-text", { hasText: "Second" }).waitFor();
});

test("each conversation has its settings, and new ones take them if asked", async () => {
  await t.open();
  await t.page.getByRole("button", { name: "Settings", exact: true }).click();
  const values = { Temperature: "0.7", "Top p": "0.8", "Top k": "40", "Min p": "0.05", Seed: "42", "Longest answer": "64",
    "Frequency penalty": "0.5", "Presence penalty": "-0.5" };
  await t.page.getByLabel("System prompt").fill("Be brief.");
  for (const [label, value] of Object.entries(values)) await t.page.getByLabel(label).fill(value);
  await t.page.getByLabel("Top p").pressSequentially("9999");
  await t.page.getByText("Expected 0 to 1.").waitFor({ state: "detached" });
  await t.page.getByLabel("Top p").fill("1.5");
  await t.page.getByText("Expected 0 to 1.").waitFor();
  await t.page.getByLabel("Top p").fill("0.8");
  await t.page.getByText("Expected 0 to 1.").waitFor({ state: "detached" });
  await t.page.keyboard.press("Escape");
  await t.send("Hi");
  await t.quiet();
  const { messages, stream, stream_options, model, ...sent } = t.server.last.body;
  assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "Hi" }]);
  assert.deepEqual(sent, { temperature: 0.7, top_p: 0.8, top_k: 40, min_p: 0.05, seed: 42, max_tokens: 64,
    frequency_penalty: 0.5, presence_penalty: -0.5 });

  await talk("Without settings");
  assert.equal(t.server.last.body.temperature, 0.6);
  assert.equal(t.server.last.body.messages.length, 1);

  await t.page.getByRole("link", { name: "Hi" }).click();
  await t.page.getByRole("button", { name: "Settings", exact: true }).click();
  assert.equal(await t.page.getByLabel("Temperature").inputValue(), "0.7");
  await t.page.getByRole("button", { name: "Use for new conversations" }).click();
  await t.page.keyboard.press("Escape");
  await talk("With settings");
  assert.equal(t.server.last.body.temperature, 0.7);
  await t.page.getByRole("button", { name: "Settings", exact: true }).click();
  await t.page.getByRole("button", { name: "Clear all" }).click();
  assert.equal(await t.page.getByLabel("Temperature").inputValue(), "");
});

test("the model is chosen for a conversation, and its limits are named", async () => {
  await t.open();
  await t.page.getByLabel("Model").selectOption("stories260K");
  assert.match(await t.page.locator("#model-limits").innerText(), /512 tokens of context/);
  await t.page.getByRole("heading", { name: "Begin a text" }).waitFor();
  await t.send("Once");
  await t.page.locator(".document .figures").waitFor();
  assert.equal(t.server.last.body.model, "stories260K");
  await t.page.reload();
  await t.page.locator(".document .figures").waitFor();
  assert.equal(await t.page.getByLabel("Model").inputValue(), "stories260K");
});

test("a chat model also continues texts", async () => {
  await t.open();
  await t.page.getByRole("radio", { name: "Continue a text" }).check();
  await t.page.getByRole("heading", { name: "Begin a text" }).waitFor();
  await t.send("Once");
  await t.page.locator(".document .figures").waitFor();
  assert.equal(t.server.last.path, "/v1/completions");
  assert.equal(t.server.last.body.model, "llama-2-7b-chat");
});

test("what is exported can be imported, as JSON and as Markdown", async () => {
  t.server.reply = "Hello! How can I help?\n\n<!-- puna: user -->\n\n```\ncode\n```";
  await t.open();
  await talk("Première question");
  await t.answer().getByRole("button", { name: "Write another answer" }).click();
  await t.quiet();
  const save = async (name) => {
    await t.page.getByRole("button", { name: "Export and import" }).click();
    const [download] = await Promise.all([t.page.waitForEvent("download"), t.page.getByRole("button", { name, exact: true }).click()]);
    await t.page.keyboard.press("Escape");
    return { name: download.suggestedFilename(), path: await download.path() };
  };
  const json = await save("JSON");
  const markdown = await save("Markdown");
  assert.equal(json.name, "première-question.json");
  assert.equal(markdown.name, "première-question.md");
  const files = await Promise.all(
    [json, markdown].map(async ({ name, path }) => ({ name, mimeType: "text/plain", buffer: await readFile(path) })),
  );
  assert.match(files[1].buffer.toString(), /^# Première question\n\n<!-- puna: user -->\n## You\n\nPremière question\n/);

  await t.fresh();
  await t.open();
  await t.page.getByRole("button", { name: "Export and import" }).click();
  await t.page.getByLabel(/A file that was exported/).setInputFiles({ name: "x.json", mimeType: "", buffer: Buffer.from('{"a": 1}') });
  await t.page.getByText('x.json: Expected "format": "puna-conversations", "version": 1.').waitFor();
  await t.page.getByLabel(/A file that was exported/).setInputFiles(files);
  await t.page.getByText("Imported 2.").waitFor();
  await t.page.keyboard.press("Escape");
  for (const index of [0, 1]) {
    await t.page.locator(".sidebar li a").nth(index).click();
    await t.answer().locator(".code").waitFor();
    assert.equal(await t.page.locator(".turn").count(), 2);
    assert.ok((await t.answer().locator(".written").innerText()).includes("<!-- puna: user -->"));
  }
  await t.page.reload();
  await t.page.waitForFunction(() => document.querySelectorAll(".sidebar li a").length === 2);
});

test("a conversation that ends with a question can have it answered", async () => {
  const text = "# Asked\n\n<!-- puna: system -->\n## System prompt\n\nBe brief.\n\n<!-- puna: user -->\n## You\n\nWell?\n";
  await t.open();
  await t.page.getByRole("button", { name: "Export and import" }).click();
  const file = { name: "asked.md", mimeType: "text/markdown", buffer: Buffer.from(text) };
  await t.page.getByLabel(/A file that was exported/).setInputFiles(file);
  await t.page.getByText("Imported 1.").waitFor();
  await t.page.keyboard.press("Escape");
  await t.page.getByRole("link", { name: "Asked" }).click();
  await t.page.getByRole("button", { name: "Have this answered" }).click();
  await t.answer().getByText("How can I help").waitFor();
  assert.deepEqual(t.server.last.body.messages.map(({ content }) => content), ["Be brief.", "Well?"]);
});

test("two tabs show the same, and neither loses what the other writes", async () => {
  await t.open();
  await talk("Shared");
  const other = await t.context.newPage();
  await other.goto(t.page.url());
  await other.locator(".said-text", { hasText: "Shared" }).waitFor();
  await t.send("From the first tab");
  await t.quiet();
  await other.locator(".said-text", { hasText: "From the first tab" }).waitFor();
  await other.locator("#message").fill("From the second tab");
  await other.locator("#message").press("Enter");
  await t.page.locator(".said-text", { hasText: "From the second tab" }).waitFor();
  await t.page.waitForFunction(() => document.querySelectorAll(".turn").length === 6);
  await other.close();
});

test("colours follow the system, and the reader's choice", async () => {
  await t.fresh({ colorScheme: "dark" });
  await t.open();
  const ground = () => t.page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  assert.equal(await ground(), "rgb(22, 25, 23)");
  await t.page.getByRole("button", { name: "Settings", exact: true }).click();
  await t.page.getByRole("radio", { name: "Light" }).check();
  assert.equal(await ground(), "rgb(251, 250, 247)");
  await t.page.reload();
  await t.page.waitForSelector("#message");
  await t.page.waitForFunction(() => document.documentElement.dataset.theme === "light");
  assert.equal(await ground(), "rgb(251, 250, 247)");
});
