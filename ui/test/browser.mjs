// Chromium for tests. After each test nothing may have gone wrong in the page that the test did not expect.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, afterEach, before, beforeEach } from "node:test";
import { chromium } from "playwright-core";
import { Server } from "./server.mjs";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** A browser with a fresh profile. */
export async function launch() {
  const found = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(
    (path) => path && existsSync(path),
  );
  if (!found) throw new Error("no Chromium: install Debian's chromium, or name one in CHROMIUM");
  return chromium.launch({ executablePath: found, headless: true, args: FLAGS });
}

/** A test's surroundings: `t.server` and `t.page`, both new for each test. */
export function setUp() {
  const t = { server: null, page: null, context: null, browser: null, expected: [] };
  const wrong = [];

  before(async () => (t.browser = await launch()));
  after(() => t.browser?.close());

  beforeEach(async () => {
    wrong.length = 0;
    t.expected = [];
    t.server = await new Server().start();
    await t.fresh();
  });

  /** Another browser context, which remembers nothing. */
  t.fresh = async (options = {}) => {
    await t.context?.close();
    t.context = await t.browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
    t.context.setDefaultTimeout(120_000);
    t.context.on("request", (request) => {
      if (!/^(blob:|data:)/.test(request.url()) && !request.url().startsWith(t.server.origin)) {
        wrong.push(`request to another origin: ${request.url()}`);
      }
    });
    t.context.on("weberror", (error) => wrong.push(`error in the page: ${error.error().stack}`));
    t.context.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) wrong.push(`console: ${message.text()}`);
    });
    t.page = await t.context.newPage();
  };

  t.open = async (address = "/") => {
    await t.page.goto(t.server.origin + address);
    await t.page.waitForSelector("#message");
  };

  afterEach(async () => {
    await t.context.close();
    t.context = null;
    await t.server.stop();
    const surprising = wrong.filter((line) => !t.expected.some((pattern) => pattern.test(line)));
    assert.deepEqual(surprising, []);
  });

  /** Sends a message as a reader would. */
  t.send = async (text) => {
    await t.page.getByLabel(/Write a message|Add to the text|Write the first words/).fill(text);
    await t.page.keyboard.press("Enter");
  };
  /** Waits until no answer is being written. */
  t.quiet = () => t.page.waitForSelector(".composer .send:not(.stop)");
  t.answer = (index = -1) => t.page.locator(".answered").nth(index);
  return t;
}

/** What the browser says by itself of answers that are not 2xx, and of connections that break. */
export const FAILED_LOAD = /Failed to load resource/;
