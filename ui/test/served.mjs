// The page as the program itself serves it: `node test/served.mjs PUNA [PICTURE]`. The tests beside this one speak to a server
// made for them; this one shows that the real one is understood. With PICTURE it also writes one of the built-in chat.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { FAILED_LOAD, launch } from "./browser.mjs";

const [puna, picture] = process.argv.slice(2);
if (!puna) throw new Error("usage: node test/served.mjs PUNA [PICTURE]");

/** Starts the program and returns its address. */
async function serve(models, port = 0) {
  const child = spawn(puna, ["serve", ...models, "--port", String(port)], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  for await (const data of child.stderr) {
    said += data;
    const found = /serving .* at (http:\S+)\n/.exec(said);
    if (found) return { child, origin: found[1] };
  }
  throw new Error(`no server: ${said}`);
}

async function end({ child }, signal = "SIGTERM") {
  child.stderr.destroy();
  child.kill(signal);
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
}

function check(name, condition, found) {
  assert.ok(condition, `${name}: ${found}`);
  console.log(`  ${name}: ok`);
}

const MODELS = ["stories7m", "stories260K"];
let server = await serve(MODELS);
let { origin } = server;
const browser = await launch();
const wrong = [];
try {
  const context = await browser.newContext({ viewport: { width: 1120, height: 700 }, locale: "en" });
  context.setDefaultTimeout(60_000);
  context.on("request", (request) => {
    if (!/^(blob:|data:)/.test(request.url()) && !request.url().startsWith(origin)) wrong.push(request.url());
  });
  context.on("weberror", (error) => wrong.push(error.error().stack));
  context.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !FAILED_LOAD.test(message.text())) wrong.push(message.text());
  });
  const page = await context.newPage();
  const response = await page.goto(origin);
  check("policy", response.headers()["content-security-policy"].startsWith("default-src 'self'"));
  await page.getByRole("heading", { name: "Begin a text" }).waitFor();
  check("a base model continues texts", true);
  const options = await page.getByRole("combobox").first().locator("option").allInnerTexts();
  check("models", options.join() === "stories7m,stories260K", options);
  check("limits", (await page.locator("#model-limits").innerText()).includes("512 tokens of context"));
  const starters = await page.locator(".starters button").allInnerTexts();
  check("starters", starters.length === 4 && starters[0].startsWith("Once upon a time"), starters);

  await page.locator(".starters button").first().click();
  await page.locator(".document .figures").waitFor();
  const figures = await page.locator(".document .figures").innerText();
  check("figures", /stories7m · \d+ tokens · [\d.,]+ tokens\/s/.test(figures), figures);
  const text = () => page.locator(".document .prose").innerText();
  const written = await text();
  check("a starter is continued", written.startsWith(starters[0]) && written.length > starters[0].length + 100, written);
  check("context use", /\d+ of 512/.test(await page.getByRole("meter").getAttribute("aria-valuetext")));
  await page.reload();
  await page.locator(".document .prose").waitFor();
  check("reload", (await text()) === written, await text());

  await page.getByRole("button", { name: "Edit the text and continue" }).click();
  await page.getByLabel("Edit the text").fill("Lily had a red ball");
  await page.getByLabel("Edit the text").press("Enter");
  await page.locator(".document .figures").waitFor();
  check("edit", (await text()).startsWith("Lily had a red ball"), await text());

  // A small model is faster than a hand: stopped as soon as there is a button for it.
  await page.evaluate(() => {
    new MutationObserver((_, observer) => {
      const button = document.querySelector(".composer .stop");
      if (!button) return;
      observer.disconnect();
      button.click();
    }).observe(document.body, { childList: true, subtree: true, attributes: true });
  });
  await page.locator("#message").fill(" One day");
  await page.locator("#message").press("Enter");
  await page.getByText(/^Stopped/).first().waitFor();
  check("stop", true);

  await end(server, "SIGKILL");
  await page.locator("#message").fill(" and then");
  await page.locator("#message").press("Enter");
  await page.getByText("The server cannot be reached.").first().waitFor();
  server = await serve(MODELS, new URL(origin).port);
  await page.getByText("The server is back.").waitFor();
  await page.getByRole("button", { name: "Try again" }).last().click();
  await page.locator(".document .figures").waitFor();
  check("the server goes away and comes back", true);

  // What is served where no model is named.
  await page.close();
  await end(server);
  server = await serve([]);
  ({ origin } = server);
  const chat = await context.newPage();
  await chat.goto(origin);
  for (const asked of ["Hello!", "Tell me a story about a rabbit.", "What is the capital of France?"]) {
    await chat.locator("#message").fill(asked);
    await chat.locator("#message").press("Enter");
    await chat.getByText(asked).first().waitFor();
    await chat.locator(".composer .stop").waitFor({ state: "detached" });
  }
  const said = await chat.locator("main").innerText();
  check("the built-in chat tells a story", /\brabbit\b/.test(said.split("a story about a rabbit.")[1] ?? ""), said);
  if (picture) {
    await chat.mouse.move(0, 0);
    await chat.screenshot({ path: picture });
  }
  assert.deepEqual(wrong, []);
} finally {
  await browser.close();
  await end(server);
}
