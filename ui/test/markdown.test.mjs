// Markdown that grows: the same as Markdown that is whole, and not read from its beginning at every step.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import * as esbuild from "esbuild";
import { setUp } from "./browser.mjs";

const t = setUp();
let bundle;

before(async () => {
  const { outputFiles } = await esbuild.build({
    entryPoints: [new URL("../src/markdown.ts", import.meta.url).pathname],
    bundle: true, format: "iife", globalName: "markdown", write: false,
  });
  bundle = outputFiles[0].text;
});

async function load() {
  await t.open();
  await t.page.evaluate(`${bundle}; window.Markdown = markdown.Markdown; undefined`);
}

const DOCUMENTS = [
  "One paragraph.\n\nAnother with **bold** and `code`,\nand a second line.\n\nAnd a third.",
  "1. one\n\n2. two\n   - inner\n\n     with a paragraph\n3. three\n\nAfter it.\n\n- a\n- b\n\n\n- c\n\n* other\n\nEnd.",
  "# A\n\n## B\nText\n---\nTitle\n===\n\n***\n\n> quote\n> more\n\n> another\n\nEnd.",
  "```js\nconst a = `x`;\n\n\n# no heading\n```\n\nText.\n\n````md\n```\ninner\n```\n````\n\n~~~\ntilde\n~~~\nEnd",
  "| a | b |\n|---|:-:|\n| 1 | **2** |\n| 3 | 4 |\n\nText | not a table\n\n    indented code\n\n    more\n\nEnd.",
  "Carriage returns\r\n\r\n- a\r\n- b\r\n\r\nOld\rones.\r\r```\r\ncode\r\n```\r\n\r\nEnd.",
  "<div>\n\nhtml\n\n</div>\n\n<b>inline</b> & &amp; &lt;\n\n<!-- comment\n\nover -->\n\nEnd.",
  "Unclosed **bold\n\n`code\n\n[link](https://example.org\n\n![image](https://example.org/a.png)\n\n\\*escaped\\* ~~gone~~ https://example.org\n\nEnd.",
];

test("a text that grows is shown, once whole, as if it had come at once", async () => {
  await load();
  const differences = await t.page.evaluate((documents) => {
    const html = (use) => {
      const root = document.createElement("div");
      use(new Markdown(root));
      return root.innerHTML;
    };
    return documents.filter((text) => {
      const whole = html((markdown) => markdown.finish(text));
      const grown = (step) => html((markdown) => {
        for (let length = 0; length < text.length + step; length += step) markdown.grow(text.slice(0, length));
      });
      const ended = html((markdown) => {
        for (let length = 0; length <= text.length; length++) markdown.grow(text.slice(0, length));
        markdown.finish(text);
      });
      return ![grown(1), grown(3), grown(17), ended].every((other) => other === whole);
    });
  }, DOCUMENTS);
  assert.deepEqual(differences, []);
});

test("a text of four times the length takes about four times the work", async () => {
  await load();
  const [short, long] = await t.page.evaluate(() => {
    const paragraph = "Some **bold** words and `code` in a paragraph of the usual length.\n\n- one\n- two\n\n";
    const work = (paragraphs) => {
      const root = document.createElement("div");
      const markdown = new Markdown(root);
      const text = paragraph.repeat(paragraphs);
      const start = performance.now();
      for (let length = 0; length < text.length; length += 20) markdown.grow(text.slice(0, length));
      return performance.now() - start;
    };
    const best = (paragraphs) => Math.min(work(paragraphs), work(paragraphs), work(paragraphs));
    work(50);
    return [best(100), best(400)];
  });
  // Quadratic work would take 16 times as long.
  assert.ok(long < 8 * short, `${short} ms, then ${long} ms`);
});
