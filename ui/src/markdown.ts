// Markdown to elements. A text is cut into blocks (paragraph, list, code, …); of an answer that is being written only
// the last ones can still change, so only they are read and replaced again.
import DOMPurify from "dompurify";
import { Marked, type Token } from "marked";

/** Blocks at the end that more text could still change: a list may go on after its blank line. */
const OPEN_BLOCKS = 2;

const escape = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // What looks like HTML is shown as the model wrote it.
    html: ({ text }) => (/^<br\s*\/?>$/i.test(text.trim()) ? "<br>" : escape(text)),
    // An image would be a request to somewhere else.
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    // Below the headings of the turns.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
  },
});

const sanitizer = DOMPurify(window);
const ALLOWED = {
  ALLOWED_TAGS: (
    "a blockquote br code del em h3 h4 h5 h6 hr li ol p pre strong table tbody td th thead tr ul"
  ).split(" "),
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};
sanitizer.addHook("uponSanitizeAttribute", (_, data) => {
  if (data.attrName === "class") data.keepAttr = /^language-[\w+#.-]+$/.test(data.attrValue);
});

export class Markdown {
  /** The HTML of each child of the root. */
  #shown: string[] = [];
  /** Blocks that no longer change, and how much of the text they are. */
  #closed: string[] = [];
  #closedLength = 0;

  constructor(readonly root: HTMLElement) {}

  /** Shows a text that begins with the one shown before, and may go on. */
  grow(text: string): void {
    const tokens = marked.lexer(lines(text).slice(this.#closedLength));
    const solid = tokens.flatMap((token, index) => (token.type === "space" ? [] : [index]));
    const firstOpen = solid.at(-OPEN_BLOCKS) ?? 0;
    const close = tokens.slice(0, solid.length > OPEN_BLOCKS ? firstOpen : 0);
    const open = tokens.slice(close.length);
    this.#closed.push(...html(close));
    this.#closedLength += close.reduce((sum, token) => sum + token.raw.length, 0);
    this.#show([...this.#closed, ...html(open)]);
  }

  /** Shows a text that is whole. */
  finish(text: string): void {
    this.#closed = [];
    this.#closedLength = 0;
    this.#show(html(marked.lexer(lines(text))));
  }

  #show(blocks: string[]): void {
    blocks.forEach((block, index) => {
      if (this.#shown[index] === block) return;
      const element = document.createElement("div");
      element.className = "block";
      element.append(sanitizer.sanitize(block, { ...ALLOWED, RETURN_DOM_FRAGMENT: true }));
      decorate(element);
      const old = this.root.children[index];
      if (old) old.replaceWith(element);
      else this.root.append(element);
    });
    while (this.root.children.length > blocks.length) this.root.lastChild!.remove();
    this.#shown = blocks;
  }
}

/** As the lexer would do, so that the lengths of its tokens are those of the text. */
function lines(text: string): string {
  return text.replace(/\r\n?/g, "\n");
}

function html(tokens: Token[]): string[] {
  return tokens
    .filter((token) => token.type !== "space" && token.type !== "def")
    .map((token) => marked.parser([token]));
}

/** What the sanitiser does not let through because only the page may write it. */
function decorate(element: HTMLElement): void {
  for (const link of element.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of element.querySelectorAll("table")) {
    const frame = scrolling(document.createElement("div"), "Table");
    frame.className = "table";
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of element.querySelectorAll("pre")) {
    const language = /language-(\S+)/.exec(pre.querySelector("code")?.className ?? "")?.[1] ?? "";
    const frame = document.createElement("div");
    frame.className = "code";
    const name = document.createElement("span");
    name.textContent = language || "code";
    const copy = document.createElement("button");
    copy.type = "button";
    copy.dataset["copy"] = "";
    copy.textContent = "Copy";
    copy.setAttribute("aria-label", `Copy ${language} code`.replace("  ", " "));
    const head = document.createElement("div");
    head.append(name, copy);
    pre.replaceWith(frame);
    frame.append(head, scrolling(pre, `${language} code`.trim()));
  }
}

/** A keyboard must reach what scrolls sideways. */
function scrolling(element: HTMLElement, label: string): HTMLElement {
  element.tabIndex = 0;
  element.role = "group";
  element.ariaLabel = label;
  return element;
}
