// Builds the page: `node build.mjs` writes dist/, `node build.mjs --check` compares dist/ with a fresh build.
import * as esbuild from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = `${here}dist/`;
const MAX_BYTES = 200_000;

/** All files of dist/, by name. */
async function build() {
  const { outputFiles, metafile } = await esbuild.build({
    absWorkingDir: here,
    entryPoints: [
      { in: "src/main.tsx", out: "app" },
      { in: "src/style.css", out: "app" },
    ],
    outdir: "dist",
    bundle: true,
    minify: true,
    format: "iife",
    target: ["es2022", "chrome123", "firefox125", "safari17.5"],
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "none",
    charset: "utf8",
    metafile: true,
    write: false,
  });
  const files = new Map(outputFiles.map((file) => [file.path.split("/").at(-1), file.text]));
  let html = await readFile(`${here}src/index.html`, "utf8");
  for (const name of ["app.js", "app.css"]) {
    // A changed file has another address, so that no browser shows an old one.
    const hash = createHash("sha256").update(files.get(name)).digest("hex").slice(0, 12);
    html = html.replace(`"ui/${name}"`, `"ui/${name}?v=${hash}"`);
  }
  files.set("index.html", html);
  files.set("icon.svg", await readFile(`${here}src/icon.svg`, "utf8"));
  files.set("licences.txt", await notices(Object.keys(metafile.inputs)));
  return files;
}

/** The licence of each package of which something is in the built files. */
async function notices(inputs) {
  const names = new Set(inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]).filter(Boolean));
  const parts = ["The page of Puna is built with these libraries.\n"];
  for (const name of [...names].sort()) {
    const folder = `${here}node_modules/${name}/`;
    const { version, license } = JSON.parse(await readFile(`${folder}package.json`, "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name}: no licence file`);
    const text = (await readFile(folder + file, "utf8")).replaceAll("\r\n", "\n").trim();
    parts.push(`${"=".repeat(80)}\n${name} ${version}, ${license}\n${"=".repeat(80)}\n\n${text}\n`);
  }
  return parts.join("\n");
}

const files = await build();
for (const [name, text] of files) {
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_BYTES) throw new Error(`dist/${name}: ${bytes} bytes, the limit is ${MAX_BYTES}`);
}
if (process.argv.includes("--check")) {
  const names = await readdir(dist).catch(() => []);
  const stale = names.filter((name) => !files.has(name));
  for (const [name, text] of files) {
    if ((await readFile(dist + name, "utf8").catch(() => null)) !== text) stale.push(name);
  }
  if (stale.length > 0) {
    console.error(`dist/ differs from a fresh build in ${stale.join(", ")}: run npm run build`);
    process.exit(1);
  }
} else {
  await rm(dist, { recursive: true, force: true });
  await mkdir(dist);
  for (const [name, text] of files) {
    await writeFile(dist + name, text);
    console.log(`dist/${name}  ${Buffer.byteLength(text)} bytes`);
  }
}
