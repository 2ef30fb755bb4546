// Where the focus goes when what had it is gone.

export const isTouch = (): boolean => matchMedia("(pointer: coarse)").matches;

/** To the message field; on a touch screen, where that would bring up the keyboard, to the conversation. */
export function focusMessage(): void {
  const selector = isTouch() ? ".log" : "#message";
  requestAnimationFrame(() => document.querySelector<HTMLElement>(selector)?.focus());
}
