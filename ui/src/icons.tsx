// Icons, drawn with the text's colour. They say nothing to a screen reader: what they stand on has a name.

const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  retry: "M19 12a7 7 0 1 1-2-5l2 2M19 4v5h-5",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  left: "M14 7l-5 5 5 5",
  right: "M10 7l5 5-5 5",
  down: "M12 5v14M6 13l6 6 6-6",
  sliders: "M5 8h8M17 8h2M15 6v4M5 16h2M11 16h8M9 14v4",
  file: "M12 4v10M8 10l4 4 4-4M5 16v4h14v-4",
  keyboard: "M3 7h18v11H3zM7 11h.01M11 11h.01M15 11h2M8 15h8",
  search: "M11 5a6 6 0 1 1 0 12 6 6 0 0 1 0-12M16 16l4 4",
  check: "M5 13l4 4L19 7",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface IconButtonProps {
  name: IconName;
  label: string;
  onClick: () => void;
  class?: string;
  disabled?: boolean;
}

/** A button with an icon and a name that is shown when it is pointed at. */
export function IconButton({ name, label, onClick, class: className = "", disabled = false }: IconButtonProps) {
  return (
    <button
      type="button"
      class={`icon-button ${className}`}
      aria-label={label}
      title={label}
      onClick={onClick}
      disabled={disabled}
    >
      <Icon name={name} />
    </button>
  );
}
