// Keyboard, screen reader, contrast, a phone, reduced motion.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { test } from "node:test";
import { setUp } from "./browser.mjs";
import { pause } from "./server.mjs";

const t = setUp();
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Nothing that axe finds, in what is shown now. */
async function audit(what) {
  // The page's own policy would not let the script in; the protocol of the developer tools does.
  await t.page.evaluate(`${axe}; undefined`);
  const found = await t.page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const violations = found.violations.map(({ id, impact, nodes }) => `${what}: ${id} (${impact}) ${nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(violations, []);
}

const RICH = "# Title\n\nSome **bold**, `code` and [a link](https://example.org).\n\n> quote\n\n```rust\nfn main() {}\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] done";

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing, ${colorScheme}`, async () => {
    await t.fresh({ colorScheme, reducedMotion: "reduce" });
    t.server.reply = RICH;
    t.server.usage = { prompt_tokens: 3900, completion_tokens: 100 };
    await t.open();
    await t.page.getByText("6.74B").first().waitFor();
    await audit("beginning");
    await t.send("Hi");
    await t.answer().locator(".figures").waitFor();
    await t.answer().getByRole("button", { name: "Write another answer" }).click();
    await t.answer().getByText("2/2").waitFor();
    await audit("conversation");
    await t.page.locator(".said").hover();
    await t.page.getByRole("button", { name: "Edit and send again" }).click();
    await audit("editor");
    await t.page.keyboard.press("Escape");
    await t.page.getByRole("button", { name: "Settings", exact: true }).click();
    await t.page.getByLabel("Top p").fill("7");
    await audit("settings");
    await t.page.keyboard.press("Escape");
    for (const name of ["Export and import", "Keyboard"]) {
      await t.page.getByRole("button", { name }).click();
      await audit(name);
      await t.page.keyboard.press("Escape");
    }
    await t.page.getByRole("button", { name: "Delete Hi" }).click();
    await t.page.getByText("Deleted").waitFor();
    await audit("message");
    t.server.hold(8);
    await t.send("Again");
    await t.answer().locator("strong").waitFor();
    await audit("being written");
    await t.page.keyboard.press("Escape");
    await t.answer().getByText("Stopped.").waitFor();
    await audit("stopped");
  });

  test(`axe finds nothing on a phone and in a text, ${colorScheme}`, async () => {
    await t.fresh({ colorScheme, reducedMotion: "reduce", viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    t.server.models = [t.server.models[1]];
    await t.open();
    await t.page.getByText("262K").first().waitFor();
    await audit("beginning");
    await t.page.locator(".starters button").first().tap();
    await t.page.locator(".document .figures").waitFor();
    await audit("text");
    await t.page.getByRole("button", { name: "Conversations", exact: true }).tap();
    await t.page.getByRole("button", { name: "Close the list" }).waitFor();
    await audit("list");
  });
}

test("everything can be done with the keyboard", async () => {
  await t.open();
  const { keyboard } = t.page;
  const focused = () => t.page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent);
  const tabTo = async (name, key = "Tab") => {
    for (let steps = 0; steps < 40; steps++) {
      if ((await focused()) === name) return;
      await keyboard.press(key);
    }
    assert.fail(`${name}: no Tab leads there`);
  };
  await tabTo("Go to the message field", "Shift+Tab");
  await keyboard.press("Enter");
  assert.equal(await focused(), "Write a message");
  await keyboard.type("Hello");
  await keyboard.press("Enter");
  await t.answer().locator(".figures").waitFor();
  await tabTo("Rename Hello");
  await keyboard.press("Enter");
  await keyboard.type("Greeting");
  await keyboard.press("Enter");
  await t.page.getByRole("link", { name: "Greeting" }).waitFor();
  await t.page.waitForFunction(() => document.activeElement.textContent === "Greeting");
  await tabTo("Settings");
  await keyboard.press("Enter");
  await t.page.getByRole("dialog", { name: "Settings" }).waitFor();
  await keyboard.press("Escape");
  await t.page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal(await focused(), "Settings", "a dialog gives the focus back");
  await tabTo("Edit and send again");
  await keyboard.press("Enter");
  assert.equal(await focused(), "Edit what you said");
  await keyboard.type(" there");
  await keyboard.press("Enter");
  await t.answer().getByText("How can I help").waitFor();
  await t.quiet();
  assert.equal(t.server.last.body.messages[0].content, "Hello there");
  await t.page.waitForFunction(() => document.activeElement.id === "message");
  await tabTo("Write another answer");
  await keyboard.press("Enter");
  await t.answer().getByText("2/2").waitFor();
  await t.page.waitForFunction(() => document.activeElement.id === "message");
  await tabTo("Delete Greeting");
  await keyboard.press("Enter");
  await t.page.getByText("Deleted “Greeting”.").waitFor();
  await tabTo("Undo");
  await keyboard.press("Enter");
  await t.page.getByRole("link", { name: "Greeting" }).waitFor();
  await keyboard.press("Control+Shift+O");
  await t.page.getByText("What shall we talk about?").waitFor();
});

test("a screen reader hears of an answer once, when it is whole", async () => {
  t.server.reply = "one two three four five six seven eight";
  t.server.delay = 30;
  await t.open();
  await t.page.evaluate(() => {
    window.heard = [];
    const regions = document.querySelectorAll("[aria-live], [role=status]");
    for (const region of regions) {
      new MutationObserver(() => window.heard.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
    }
  });
  await t.send("Hi");
  await t.answer().locator(".figures").waitFor();
  await pause(200);
  assert.deepEqual(await t.page.evaluate(() => window.heard.filter((text) => text !== "")), ["Answer: one two three four five six seven eight"]);
  assert.equal(await t.answer().getAttribute("aria-busy"), "false");
  assert.deepEqual(await t.page.locator("main h2").allTextContents(), ["You", "llama-2-7b-chat"]);
});

test("on a phone nothing is wider than the screen, and the list comes and goes", async () => {
  await t.fresh({ viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true });
  t.server.reply = `${RICH}\n\n\`\`\`\n${"long ".repeat(100)}\n\`\`\`\n\n${"unbroken".repeat(40)}\n\n|${" wide column |".repeat(12)}\n|${"---|".repeat(12)}`;
  await t.open();
  const overflow = () => t.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok((await overflow()) <= 0);
  await t.page.locator("#message").fill("Hello");
  await t.page.locator("#message").press("Enter");
  assert.equal(t.server.requests.length, 0, "Enter breaks the line where there is no Shift to hold");
  await t.page.getByRole("button", { name: "Send" }).tap();
  await t.answer().locator(".figures").waitFor();
  assert.ok((await overflow()) <= 0);
  const wide = await t.page.evaluate(() => [...document.querySelectorAll(".log-content, .log-content .block")].some((e) => e.getBoundingClientRect().right > innerWidth));
  assert.equal(wide, false);
  await t.page.getByRole("button", { name: "Conversations", exact: true }).tap();
  await t.page.waitForFunction(() => document.querySelector(".sidebar").contains(document.activeElement));
  assert.equal(await t.page.locator(".main").getAttribute("inert"), "");
  await t.page.keyboard.press("Escape");
  await t.page.waitForFunction(() => document.activeElement.getAttribute("aria-label") === "Conversations");
  await t.page.getByRole("button", { name: "Conversations", exact: true }).tap();
  await t.page.getByRole("button", { name: "New conversation" }).tap();
  await t.page.getByText("What shall we talk about?").waitFor();
  assert.equal(await t.page.locator(".main").getAttribute("inert"), null);
});

test("nothing moves for those who asked for that", async () => {
  await t.fresh({ reducedMotion: "reduce" });
  t.server.hold(1);
  await t.open();
  await t.send("Hi");
  await t.page.locator(".status .writing").waitFor();
  assert.deepEqual(await t.page.evaluate(() => document.getAnimations().length), 0);
});
