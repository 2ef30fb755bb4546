"""From the figures of rounds to results: ratios, targets, and the table that is printed."""

from common import summary

# Puna / llama.cpp where AVX-512 has VNNI and BF16, for a prompt of 512.
PREFILL_TARGETS = {
    "q4_0": 2.3, "q4_k_m": 2.3, "q5_k_m": 2.0, "q6_k": 2.0, "q8_0": 4.0, "bf16": 1.4, "f16": 1.2,
}  # fmt: skip
COLUMNS = ["row", "shape", "type", "work", "unit", "Puna", "llama.cpp", "ratio", "target", "reached", "of peak"]


def target(row, shape, kind, work, flags):
    """The ratio to reach: at least, but at most for `start`. None where there is none."""
    if row == "prefill" and work == "prefill 512":
        if not any(flag.startswith("avx512") for flag in flags):
            return 1.5
        return PREFILL_TARGETS.get(kind) if {"avx512_vnni", "avx512_bf16"} <= set(flags) else None
    if row == "decode":
        return 1.5 if shape == "15m" else 1.0
    if row == "parallel" and work.endswith((" x8", " x16")):
        return 1.8
    if row == "depth":
        return 1.5 if work.startswith("prefill") else 1.1
    if row == "drafts" and work.startswith("repeating"):
        return 1.8
    return 0.6 if row == "start" else None


def result(case, work, unit, ours, theirs, flags):
    """One line of the record. `ours` and `theirs` have a figure a round; `theirs` is empty without the peer."""
    value = {"row": case.row, "shape": case.shape, "type": case.kind, "work": work, "unit": unit}
    value["puna"] = summary([figure.value for figure in ours])
    if theirs:
        value["plain" if case.row == "drafts" else "llama_cpp"] = summary(theirs)
        value["ratio"] = summary([a.value / b for a, b in zip(ours, theirs)], 3)
    value["target"] = target(case.row, case.shape, case.kind, work, flags)
    if ours[0].peak:
        value["share_of_peak"] = summary([figure.share for figure in ours], 3) | {"peak": ours[0].peak}
    if ours[0].limit:
        value["limit"] = round(ours[0].limit, 2)
    return value


def reached(value):
    """Whether the median reaches the target or keeps the limit; None where there is nothing to reach."""
    if "limit" in value:
        return value["puna"]["max"] <= value["limit"]
    if value["target"] is None or "ratio" not in value:
        return None
    ratio = value["ratio"]["median"]
    return ratio <= value["target"] if value["row"] == "start" else ratio >= value["target"]


def spread(figures, form):
    if figures is None:
        return "-"
    low, middle, high = (format(figures[name], form) for name in ("min", "median", "max"))
    return f"{middle} ({low} to {high})"


def cells(value):
    goal = "-"
    if value["target"] is not None:
        goal = f"{'≤' if value['row'] == 'start' else '≥'} {value['target']}"
    if "limit" in value:
        goal = f"≤ {value['limit']:.1f} {value['unit']}"
    share = value.get("share_of_peak")
    return [
        *(value[name] for name in ("row", "shape", "type", "work", "unit")),
        spread(value["puna"], ".1f" if value["unit"] != "s" else ".2f"),
        spread(value.get("llama_cpp", value.get("plain")), ".1f" if value["unit"] != "s" else ".2f"),
        spread(value.get("ratio"), ".2f"),
        goal,
        {True: "yes", False: "NO", None: "-"}[reached(value)],
        f"{100 * share['median']:.0f} % {share['peak']}" if share else "-",
    ]


def markdown(results):
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
