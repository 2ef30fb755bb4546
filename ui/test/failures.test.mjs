// The server going away, refusing, being busy, asking for a key; a browser that keeps nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FAILED_LOAD, setUp } from "./browser.mjs";
import { pause } from "./server.mjs";

const t = setUp();

test("the server goes away in an answer and comes back", async () => {
  t.expected = [FAILED_LOAD];
  t.server.reply = "word ".repeat(500);
  t.server.hold(3);
  await t.open();
  await t.send("Go on");
  await t.page.getByText("word word word").waitFor();
  await t.server.stop();
  await t.answer().getByText("The connection broke while the answer was being written. What had come is kept.").waitFor();
  await t.page.getByText("The server has gone away.").waitFor();
  assert.match(await t.answer().locator(".written").innerText(), /^word word word/);

  await t.send("Are you there?");
  await t.answer().getByText("The server cannot be reached.").waitFor();
  assert.equal(await t.page.locator(".said").last().locator(".said-text").innerText(), "Are you there?");

  t.server.release();
  t.server.reply = "Yes.";
  await t.server.start();
  await t.page.getByText("The server is back.").waitFor();
  await t.answer().getByRole("button", { name: "Try again" }).click();
  await t.answer().getByText("Yes.").waitFor();
  await t.quiet();
  assert.equal(await t.answer().locator(".versions").count(), 0, "an answer without a word leaves no version");
});

test("a connection that breaks in an answer is told from a server that is away", async () => {
  t.expected = [FAILED_LOAD];
  t.server.breakAfter = 3;
  await t.open();
  await t.send("Hi");
  await t.answer().getByText("The connection broke while the answer was being written.").waitFor();
  await pause(200);
  assert.equal(await t.page.locator(".banner").count(), 0);
});

test("a server that is away when the page begins is asked until it is there", async () => {
  t.expected = [FAILED_LOAD];
  await t.open();
  await t.page.route("**/v1/models", (route) => route.abort());
  await t.page.reload();
  await t.page.getByText("The server cannot be reached.").waitFor();
  await t.page.unroute("**/v1/models");
  await t.page.getByText("The server is back.").waitFor();
  await t.page.getByText("6.74B parameters · Q4_K_M · 4,096 tokens of context").first().waitFor();
});

test("a busy server is asked again when it said", async () => {
  t.expected = [FAILED_LOAD];
  const error = { message: "Too many requests." };
  t.server.refusals = [{ status: 429, headers: { "Retry-After": "3" }, error }, { status: 503, headers: { "Retry-After": "0" }, error }];
  await t.open();
  const before = Date.now();
  await t.send("Hi");
  await t.page.getByText(/The server is busy; it is asked again in \d s\./).waitFor();
  await t.answer().getByText("How can I help").waitFor();
  assert.ok(Date.now() - before >= 3000);
  assert.equal(t.server.requests.length, 3);
});

test("waiting for a busy server can be stopped", async () => {
  t.expected = [FAILED_LOAD];
  t.server.refusals = [{ status: 503, headers: { "Retry-After": "60" } }];
  await t.open();
  await t.send("Hi");
  await t.page.getByText(/asked again in \d+ s/).waitFor();
  await t.page.getByRole("button", { name: "Stop" }).click();
  await t.answer().getByText("Stopped before the first word.").waitFor();
  assert.equal(t.server.requests.length, 1);
});

test("a server that stays busy is given up", async () => {
  t.expected = [FAILED_LOAD];
  t.server.refusals = Array(5).fill({ status: 429, headers: { "Retry-After": "0" }, error: { message: "All places are taken." } });
  await t.open();
  await t.send("Hi");
  await t.answer().getByText("All places are taken. It has been asked several times.").waitFor();
  assert.equal(t.server.requests.length, 5);
});

test("an error of the server is shown in its own words", async () => {
  t.expected = [FAILED_LOAD];
  t.server.refusals = [{ status: 400, error: { message: "temperature: expected 0 to 2, found 9", param: "temperature" } }];
  await t.open();
  await t.send("Hi");
  await t.answer().getByText("temperature: expected 0 to 2, found 9").waitFor();
});

test("a key is asked for, and forgotten with the tab", async () => {
  t.expected = [FAILED_LOAD];
  t.server.key = "secret";
  await t.open();
  const dialog = t.page.getByRole("dialog", { name: "API key" });
  await dialog.getByLabel("Key", { exact: true }).fill("wrong");
  await t.page.keyboard.press("Enter");
  await dialog.waitFor();
  await dialog.getByLabel("Key", { exact: true }).fill("secret");
  await t.page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  await t.send("Hi");
  await t.answer().getByText("How can I help").waitFor();
  assert.equal(t.server.last.authorization, "Bearer secret");
  const kept = await t.page.evaluate(() => [localStorage["puna/key"], sessionStorage["puna/key"]]);
  assert.deepEqual(kept, [undefined, "secret"]);
  const other = await t.context.newPage();
  await other.goto(t.server.origin);
  await other.getByRole("dialog", { name: "API key" }).waitFor();
});

test("a key can be remembered, and forgotten", async () => {
  t.expected = [FAILED_LOAD];
  t.server.key = "secret";
  await t.open();
  await t.page.getByLabel("Key", { exact: true }).fill("secret");
  await t.page.getByLabel(/Remember it/).check();
  await t.page.getByRole("button", { name: "Use this key" }).click();
  await t.page.getByText("6.74B parameters").first().waitFor();
  const other = await t.context.newPage();
  await other.goto(t.server.origin);
  await other.getByText("6.74B parameters").first().waitFor();
  await other.close();
  await t.page.getByRole("button", { name: "Settings" }).click();
  await t.page.getByRole("button", { name: "Forget the key" }).click();
  await t.page.getByRole("dialog", { name: "API key" }).waitFor();
  assert.deepEqual(await t.page.evaluate(() => [localStorage["puna/key"], sessionStorage["puna/key"]]), [undefined, undefined]);
});

test("a key that the server no longer takes is asked for anew, and the answer can be had", async () => {
  t.expected = [FAILED_LOAD];
  await t.open();
  t.server.key = "new";
  await t.send("Hi");
  const dialog = t.page.getByRole("dialog", { name: "API key" });
  await dialog.getByLabel("Key", { exact: true }).fill("new");
  await t.page.keyboard.press("Enter");
  await t.answer().getByRole("button", { name: "Try again" }).click();
  await t.answer().getByText("How can I help").waitFor();
});

test("full storage is said, and the page goes on", async () => {
  await t.open();
  await t.page.evaluate(() => {
    let size = 4 << 20;
    for (let index = 0; size > 0; index++) {
      try {
        localStorage[`filler${index}`] = "x".repeat(size);
      } catch {
        size >>= 1;
      }
    }
  });
  await t.send("Hi");
  await t.answer().getByText("How can I help").waitFor();
  await t.page.getByText("The browser's storage is full").waitFor();
  await t.page.evaluate(() => localStorage.removeItem("filler0"));
  await t.quiet();
  await t.send("More");
  await t.page.getByText("The browser's storage is full").waitFor({ state: "detached" });
  await t.quiet();
  await t.page.reload();
  await t.page.waitForFunction(() => document.querySelectorAll(".turn").length === 4);
});

test("a browser that lets the page keep nothing is no obstacle", async () => {
  await t.page.addInitScript(() => {
    const forbid = { get: () => { throw new DOMException("denied", "SecurityError"); } };
    Object.defineProperty(window, "localStorage", forbid);
    Object.defineProperty(window, "sessionStorage", forbid);
  });
  await t.open();
  await t.send("Hi");
  await t.answer().getByText("How can I help").waitFor();
  await t.page.getByText("The browser lets this page keep nothing").waitFor();
});
