// Numbers and names as the page writes them.
import type { Model } from "./api.ts";
import type { Turn } from "./conversation.ts";

const whole = new Intl.NumberFormat("en");
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const hundredths = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (n: number): string => whole.format(n);
export const tokens = (n: number): string => `${count(n)} ${n === 1 ? "token" : "tokens"}`;
export const rate = (perSecond: number): string => `${three.format(perSecond)} tokens/s`;

/** What a model is and what it can take, in one line. */
export function describe(model: Model): string {
  const parts = [
    model.parameters !== null && `${compact.format(model.parameters)} parameters`,
    model.weights,
    model.context !== null && `${tokens(model.context)} of context`,
    model.chat ? null : "continues texts, does not chat",
  ];
  return parts.filter(Boolean).join(" · ");
}

/** How an answer came about, in one line. */
export function figures(turn: Turn): string {
  const { usage } = turn;
  const parts = [
    turn.model,
    usage && tokens(usage.completion),
    turn.rate !== undefined && rate(turn.rate),
    turn.wait !== undefined && `first after ${hundredths.format(turn.wait)} s`,
  ];
  return parts.filter(Boolean).join(" · ");
}

/** Why an answer is not whole, if it is not. */
export function incomplete(turn: Turn, isLive: boolean): string | null {
  if (turn.role === "user" || isLive) return null;
  switch (turn.state) {
    case "writing":
      return "Not whole: the page that wrote this was closed, or is another tab that still writes.";
    case "stopped":
      return turn.text === "" ? "Stopped before the first word." : "Stopped.";
    case "failed":
      return turn.problem?.message ?? "This failed.";
    default:
      return turn.finish === "length" ? "The limit of tokens ended this." : null;
  }
}

/** What to do about a problem, where it is not plain. */
export function advice(turn: Turn): string | null {
  switch (turn.problem?.kind) {
    case "context":
      return "Shorten what you wrote, edit an earlier turn, or begin a new conversation.";
    case "offline":
    case "cut":
      return turn.text === "" ? null : "What had come is kept.";
    case "busy":
      return "It has been asked several times.";
    default:
      return null;
  }
}

export function day(at: number): string {
  return new Date(at).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}
