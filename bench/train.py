"""Training speed: Puna beside PyTorch, the same shapes, the same run, in alternation.

    python bench/train.py [--shapes 7m,15m,110m] [--rounds 2] [--threads 2] [--record]

PyTorch runs the network of train_worker.py eager and compiled, in f32 and, where the CPU has instructions for it, with
bf16 autocast; each counts with its best.
A step is forward, backward, clipping and AdamW. Puna computes in f32. Needs torch (requirements-train.txt) and g++.
"""

import argparse
import json
import sys
from pathlib import Path

import common

WORKER = Path(__file__).resolve().parent / "train_worker.py"
# dim, layers, heads, FFN, vocabulary, tokens of a sequence, sequences
SHAPES = {
    "7m": (288, 6, 6, 768, 4096, 256, 16),
    "15m": (288, 6, 6, 768, 32000, 256, 8),
    "110m": (768, 12, 12, 2048, 32000, 512, 2),
}
# Ratio to the best of PyTorch in f32.
TARGET = 1.8


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="steps of a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-peer", action="store_true", help="Puna alone")
    parser.add_argument("--record", action="store_true", help="write bench/record/DATE-CPU-train.json")
    args = parser.parse_args()
    args.shapes = args.shapes.split(",")
    if unknown := set(args.shapes) - set(SHAPES):
        parser.error(f"--shapes: {', '.join(sorted(unknown))}; expected some of {', '.join(SHAPES)}")
    return args


def puna(shape, args):
    dim, layers, heads, hidden, vocab, seq_len, batch = SHAPES[shape]
    command = ["cargo", "run", "--release", "--quiet", "-p", "puna-train", "--example", "speed", "--"]
    numbers = [dim, layers, heads, heads, hidden, vocab, seq_len, batch, args.threads, args.steps + 2]
    return json.loads(common.run(*command, *numbers))


def peer(shape, mode, is_compiled, args):
    command = [sys.executable, WORKER, *SHAPES[shape], mode, int(is_compiled), args.threads, args.steps]
    return json.loads(common.run(*command))


def measure(shape, args):
    n_tokens = SHAPES[shape][5] * SHAPES[shape][6]
    speeds = lambda found: [n_tokens / secs for secs in found["secs"]]
    # Without instructions for bf16 PyTorch emulates it, ten times slower.
    has_bf16 = any("bf16" in flag for flag in common.cpu_flags())
    modes = () if args.without_peer else ("f32", "bf16") if has_bf16 else ("f32",)
    variants = [(mode, is_compiled) for mode in modes for is_compiled in (False, True)]
    ours, theirs = [], {variant: [] for variant in variants}
    memory, share = [], []
    for _ in range(args.rounds):
        found = puna(shape, args)
        ours.append(speeds(found))
        memory.append(found["memory_mb"])
        share.append(found["peak_share"])
        for variant in variants:
            theirs[variant].append(peer(shape, *variant, args))
    value = {"shape": shape, "puna": common.summary([max(s) for s in ours], 1)}
    value |= {"puna_memory_mb": round(max(memory)), "puna_share_of_f32_peak": round(max(share), 3)}
    for mode in modes:
        of_mode = {c: [max(speeds(found)) for found in theirs[mode, c]] for c in (False, True)}
        best = max(of_mode, key=lambda c: max(of_mode[c]))
        ratios = [max(a) / b for a, b in zip(ours, of_mode[best])]
        value[f"torch_{mode}"] = common.summary(of_mode[best], 1) | {"compiled": best}
        value[f"torch_{mode}"]["memory_mb"] = round(max(found["memory_mb"] for found in theirs[mode, best]))
        value[f"ratio_{mode}"] = common.summary(ratios)
    return value


def main():
    args = parse_args()
    common.run("cargo", "build", "--release", "-p", "puna-train", "--example", "speed")
    results = []
    for shape in args.shapes:
        results.append(measure(shape, args))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    record = common.about(args.threads) | {"target_f32": TARGET, "results": results}
    if not args.without_peer:
        import torch

        record["peer"] = f"torch {torch.__version__}"
    if args.record:
        path = common.record_path("train")
        common.write_record(path, record)
        print(f"recorded in {path.relative_to(common.ROOT)}", file=sys.stderr)
    else:
        print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
