// Writing, streaming, stopping, going again, editing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FAILED_LOAD, setUp } from "./browser.mjs";
import { pause } from "./server.mjs";

const t = setUp();

test("a message is sent with Enter and answered piece by piece", async () => {
  t.server.reply = "One two three four five six seven eight nine ten.";
  t.server.hold(3);
  await t.open();
  await t.page.getByLabel("Write a message").pressSequentially("Count to ten");
  await t.page.keyboard.press("Enter");
  await t.answer().getByText("One two three").waitFor();
  await t.page.getByRole("button", { name: "Stop" }).waitFor();
  assert.ok(!(await t.answer().innerText()).includes("four"));
  t.server.release();
  await t.quiet();
  assert.match(await t.answer().innerText(), /One two .* ten\./);
  const { path, body } = t.server.last;
  assert.equal(path, "/v1/chat/completions");
  assert.deepEqual(body, {
    model: "llama-2-7b-chat", temperature: 0.6, top_p: 0.9, stream: true, stream_options: { include_usage: true },
    messages: [{ role: "user", content: "Count to ten" }],
  });
  assert.match(await t.answer().locator(".figures").innerText(), /llama-2-7b-chat · 10 tokens · [\d.]+ tokens\/s · first after [\d.]+ s/);
  assert.match(await t.page.getByRole("meter").getAttribute("aria-valuetext"), /^\d+ of 4,096 tokens of context used$/);
  assert.equal(await t.page.locator("#message").inputValue(), "");
  assert.equal(await t.page.evaluate(() => document.activeElement.id), "message");
  assert.match(await t.page.locator(".page > .unseen").innerText(), /^Answer: One two/);
});

test("the server's own measure of speed is shown where it gives one", async () => {
  t.server.timings = true;
  await t.open();
  await t.send("Hi");
  await t.quiet();
  assert.match(await t.answer().locator(".figures").innerText(), /12\.3 tokens\/s/);
});

test("Shift+Enter breaks the line and an input method's Enter does not send", async () => {
  await t.open();
  const field = t.page.locator("#message");
  await field.pressSequentially("a");
  await t.page.keyboard.press("Shift+Enter");
  await field.pressSequentially("b");
  await field.evaluate((element) =>
    element.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true })));
  assert.equal(await field.inputValue(), "a\nb");
  assert.equal(t.server.requests.length, 0);
  await t.page.keyboard.press("Enter");
  await t.quiet();
  assert.equal(t.server.last.body.messages[0].content, "a\nb");
});

test("Markdown is shown as such, and code can be copied", async () => {
  t.server.reply = "# Title\n\nSome **bold** and `code`.\n\n- one\n- two\n\n```rust\nfn main() {\n    println!(\"hi\");\n}\n```\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\nThe end.";
  await t.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await t.open();
  await t.send("Show me Markdown");
  await t.quiet();
  const answer = t.answer();
  assert.equal(await answer.locator("h3").innerText(), "Title");
  assert.equal(await answer.locator("strong").innerText(), "bold");
  assert.equal(await answer.locator("li").count(), 2);
  assert.equal(await answer.locator("td").count(), 2);
  await answer.getByRole("button", { name: "Copy rust code" }).click();
  await answer.getByText("Copied").waitFor();
  const read = () => t.page.evaluate(() => navigator.clipboard.readText());
  assert.equal((await read()).trim(), 'fn main() {\n    println!("hi");\n}');
  await answer.getByRole("button", { name: "Copy the answer" }).click();
  await t.page.waitForFunction(async () => (await navigator.clipboard.readText()).startsWith("# Title"));
  assert.equal(await read(), t.server.reply);
});

test("an answer cannot run anything or load anything", async () => {
  t.server.reply = [
    "<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 1'>", "![picture](https://example.org/a.png)",
    "[link](javascript:window.hit=1)", "<a href='javascript:window.hit=1'>x</a>", "<style>body{display:none}</style>",
    "[good](https://example.org/)", "a<br>b", "<iframe src='https://example.org'></iframe>", "<form action=x><input></form>",
    '```"><img/src=x/onerror=window.hit=1>\ncode\n```', '[t](https://example.org/ "x\\" onclick=\\"window.hit=1")',
  ].join("\n\n");
  await t.open();
  await t.send("Attack");
  await t.quiet();
  const written = t.answer().locator(".written");
  assert.equal(await written.locator("script, img, iframe, style, form, input, svg, [onerror], [onclick], [style]").count(), 0);
  assert.deepEqual(
    await written.locator("a").evaluateAll((links) => links.map((link) => link.getAttribute("href"))),
    ["https://example.org/a.png", null, "https://example.org/", "https://example.org/"],
  );
  assert.ok((await written.innerText()).includes("<script>window.hit = 1</script>"), "HTML is shown as it was written");
  assert.equal(await written.locator("a").nth(2).getAttribute("rel"), "noopener noreferrer nofollow");
  await pause(100);
  assert.equal(await t.page.evaluate(() => window.hit), undefined);
});

test("Esc stops an answer, which is kept; another one is its second version", async () => {
  t.server.reply = "word ".repeat(500);
  t.server.hold(3);
  await t.open();
  await t.send("Go on");
  await t.page.getByText("word word word").waitFor();
  await t.page.keyboard.press("Escape");
  await t.quiet();
  await t.answer().getByText("Stopped.").waitFor();
  assert.match(await t.answer().locator(".written").innerText(), /^word word/);
  await t.server.last.closed;
  assert.equal(t.server.last.sent, 3, "the server sees that it was stopped");

  t.server.release();
  t.server.reply = "Short.";
  await t.answer().getByRole("button", { name: "Write another answer" }).click();
  await t.answer().getByText("Short.").waitFor();
  await t.quiet();
  assert.equal(await t.page.locator(".answered").count(), 1);
  assert.equal(t.server.last.body.messages.length, 1);
  const versions = t.answer().getByRole("group", { name: "Versions" });
  assert.equal((await versions.innerText()).trim(), "2/2");
  await versions.getByRole("button", { name: "Version before" }).click();
  await t.answer().getByText("word word").waitFor();
  assert.equal((await versions.innerText()).trim(), "1/2");
});

test("editing a turn forks the conversation, and the older branch stays", async () => {
  t.server.reply = (body) => `You said: ${body.messages.at(-1).content}`;
  await t.open();
  for (const text of ["first", "second"]) {
    await t.send(text);
    await t.answer().getByText(`You said: ${text}`).waitFor();
    await t.quiet();
  }
  const first = t.page.locator(".said").first();
  await first.hover();
  await first.getByRole("button", { name: "Edit and send again" }).click();
  const editor = t.page.getByLabel("Edit what you said");
  assert.equal(await editor.inputValue(), "first");
  await t.page.keyboard.press("Escape");
  assert.equal(await editor.count(), 0);
  await t.page.waitForFunction(() => document.activeElement.getAttribute("aria-label") === "Edit and send again");
  await t.page.keyboard.press("Enter");
  await editor.fill("changed");
  await t.page.keyboard.press("Enter");
  await t.answer().getByText("You said: changed").waitFor();
  await t.quiet();
  assert.equal(await t.page.locator(".turn").count(), 2);
  assert.deepEqual(t.server.last.body.messages, [{ role: "user", content: "changed" }]);
  await first.getByRole("button", { name: "Version before" }).click();
  await t.page.getByText("You said: second").waitFor();
  assert.equal(await t.page.locator(".turn").count(), 4);
});

test("a conversation, its branches and an unsent text survive a reload", async () => {
  await t.open();
  await t.send("Hi");
  await t.quiet();
  await t.page.locator("#message").fill("not yet sent");
  await t.page.reload();
  await t.answer().getByText("How can I help").waitFor();
  assert.equal(await t.page.locator("#message").inputValue(), "not yet sent");
  assert.equal(await t.page.title(), "Hi · Puna");
  await t.send("And again");
  await t.quiet();
  assert.equal(t.server.last.body.messages.length, 3);
});

test("an answer that a reload interrupts is kept as far as it was", async () => {
  t.server.reply = "word ".repeat(500);
  t.server.hold(3);
  await t.open();
  await t.send("Go on");
  await t.page.getByText("word word word").waitFor();
  await t.page.reload();
  await t.answer().getByText("Not whole: the page that wrote this was closed").waitFor();
  assert.match(await t.answer().locator(".written").innerText(), /^word word word/);
  t.server.release();
  t.server.reply = "Whole.";
  await t.answer().getByRole("button", { name: "Try again" }).click();
  await t.answer().getByText("Whole.").waitFor();
});

test("an answer goes on while another conversation is shown", async () => {
  t.server.reply = "word ".repeat(60) + "end";
  t.server.hold(2);
  await t.open();
  await t.send("Long one");
  await t.page.getByText("word word").waitFor();
  await t.page.keyboard.press("Control+Shift+O");
  await t.page.getByText("What shall we talk about?").waitFor();
  await t.page.locator(".sidebar .writing").waitFor();
  t.server.release();
  await t.page.locator(".sidebar .writing").waitFor({ state: "detached" });
  await t.page.getByRole("link", { name: "Long one" }).click();
  assert.match(await t.answer().innerText(), /word end/);
});

test("the log follows the end unless the reader scrolls away", async () => {
  t.server.reply = `${"A line of text.\n\n".repeat(100)}Middle.\n\n${"Another line.\n\n".repeat(100)}End.`;
  t.server.delay = 0;
  t.server.hold(401);
  await t.open();
  await t.send("Many lines");
  const log = t.page.locator(".log");
  const gap = () => log.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight);
  const top = () => log.evaluate((element) => element.scrollTop);
  await t.answer().getByText("Middle.").waitFor();
  await t.page.waitForFunction(() => {
    const { scrollHeight, scrollTop, clientHeight } = document.querySelector(".log");
    return scrollTop > 300 && scrollHeight - scrollTop - clientHeight < 60;
  });
  await log.hover();
  await t.page.mouse.wheel(0, -300);
  await t.page.getByRole("button", { name: "To the end" }).waitFor();
  await pause(500);
  const before = await top();
  t.server.release();
  await t.answer().getByText("End.").waitFor();
  await t.quiet();
  assert.equal(await top(), before, "the reader's place stays");
  await t.page.getByRole("button", { name: "To the end" }).click();
  await t.page.getByRole("button", { name: "To the end" }).waitFor({ state: "detached" });
  assert.ok((await gap()) < 60);
});

test("a base model continues texts", async () => {
  t.server.models = [{ ...t.server.models[1] }];
  t.server.reply = (body) => ` and then ${body.prompt.length}`;
  await t.open();
  await t.page.getByRole("heading", { name: "Begin a text" }).waitFor();
  assert.match(await t.page.locator("#model-limits").innerText(), /262K parameters · F32 · 512 tokens of context · continues texts/);
  await t.page.getByRole("button", { name: "Lily and Ben went to the park." }).click();
  await t.page.waitForFunction(() => document.querySelector(".prose")?.textContent.includes("and then 30"));
  await t.quiet();
  assert.equal(t.server.last.path, "/v1/completions");
  assert.equal(t.server.last.body.prompt, "Lily and Ben went to the park.");
  assert.equal(t.server.last.body.max_tokens, 256);
  await t.page.getByRole("button", { name: "Continue the text" }).click();
  await t.page.waitForFunction(() => document.querySelector(".prose").textContent.includes("and then 42"));
  await t.quiet();
  await t.send(" So");
  await t.page.waitForFunction(() => document.querySelector(".prose").textContent.includes("So and then 57"));
  await t.quiet();
  assert.equal(await t.page.locator(".prose").innerText(), "Lily and Ben went to the park. and then 30 and then 42 So and then 57");
  await t.page.getByRole("button", { name: "Edit the text and continue" }).click();
  await t.page.getByLabel("Edit the text").fill("Tom");
  await t.page.keyboard.press("Enter");
  await t.page.waitForFunction(() => document.querySelector(".prose")?.textContent.endsWith(" and then 3"));
  assert.equal(t.server.last.body.prompt, "Tom");
});

test("the limit of tokens is named where it ends an answer", async () => {
  t.server.reply = "one two three four five six";
  await t.open();
  await t.page.getByRole("button", { name: "Settings" }).click();
  await t.page.getByLabel("Longest answer").fill("3");
  await t.page.keyboard.press("Escape");
  await t.send("Count");
  await t.answer().getByText("The limit of tokens ended this.").waitFor();
  assert.equal(t.server.last.body.max_tokens, 3);
});

test("the page warns before the context is full", async () => {
  t.server.usage = { prompt_tokens: 3500, completion_tokens: 100 };
  await t.open();
  await t.send("Hi");
  await t.page.getByText("The context is nearly full: 496 of 4,096 tokens are left.").waitFor();
  t.server.usage = { prompt_tokens: 4000, completion_tokens: 96 };
  await t.quiet();
  await t.send("Hi");
  await t.page.getByText("The context is full (4,096 tokens).").waitFor();
});

test("a prompt that does not fit says so, with what to do", async () => {
  t.expected = [FAILED_LOAD];
  t.server.refusals = [{ status: 400, error: {
    message: "The prompt has 5000 tokens, the model takes 4096.", code: "context_length_exceeded" } }];
  await t.open();
  await t.send("Too long");
  await t.answer().getByText("The prompt has 5000 tokens, the model takes 4096. Shorten what you wrote").waitFor();
});
