// Makes the pictures of the documents: `npm run screenshots` writes docs/page-*.png.
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { launch } from "./browser.mjs";
import { Server, STORIES } from "./server.mjs";

const docs = fileURLToPath(new URL("../../docs/", import.meta.url));
const QUESTIONS = [
  ["What is a puna?", "A **puna** is the high grassland of the central Andes, between about 3,200 and 4,800 metres.\n\n| zone | metres | plants |\n|---|--:|---|\n| wet puna | 3,500 | tussock grass, cushion plants |\n| dry puna | 4,000 | shrubs, bare ground |\n\nVicuñas, llamas and alpacas graze there."],
  ["Show a loop in Rust that prints the zones.", "Each zone is a name and a height:\n\n```rust\nfn main() {\n    let zones = [(\"wet puna\", 3_500), (\"dry puna\", 4_000)];\n    for (name, metres) in zones {\n        println!(\"{name}: {metres} m\");\n    }\n}\n```\n\n1. `zones` is an array of pairs.\n2. The pattern `(name, metres)` takes each pair apart."],
];
const STORY = ", there was a little dog named Max. He liked to run in the park and play with his ball. One day, Max saw a big red bird in a tree. “Hello, bird!” said Max. “Do you want to play with me?”\n\nThe bird flew down and sat beside him. They played all day, and Max was very happy.";

const browser = await launch();
const server = await new Server().start();
server.delay = 25;
await mkdir(docs, { recursive: true });

async function shoot(name, options, steps) {
  const context = await browser.newContext({ locale: "en", ...options });
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  await page.goto(server.origin);
  await page.waitForSelector("#message:enabled");
  await page.getByRole("heading", { level: 1 }).waitFor();
  await steps(page);
  await page.mouse.move(0, 0);
  await page.screenshot({ path: `${docs}page-${name}.png` });
  await context.close();
}

const talk = async (page) => {
  let shown = 0;
  for (const [question, reply] of QUESTIONS) {
    server.reply = reply;
    await page.locator("#message").fill(question);
    await page.locator("#message").press("Enter");
    await page.locator(".answered .figures").nth(shown++).waitFor();
  }
  await page.waitForTimeout(300);
};

await shoot("light", { viewport: { width: 1120, height: 760 }, colorScheme: "light" }, talk);
await shoot("dark", { viewport: { width: 1120, height: 760 }, colorScheme: "dark" }, talk);
server.models = [STORIES];
server.reply = STORY;
await shoot("phone", { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true, colorScheme: "light" }, async (page) => {
  await page.locator("#message").fill("Once upon a time");
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator(".document .figures").waitFor();
  await page.waitForTimeout(300);
});
await browser.close();
await server.stop();
