"""Training speed: Puna beside PyTorch, the same shapes, the same run, in alternation.

    python bench/train.py [--shapes 7m,15m,110m] [--rounds 2] [--threads 2] [--record]

Both run in f32 and, where the CPU has instructions for it, in bf16: Puna with products of bf16 factors, PyTorch with bf16
autocast. PyTorch runs the network of train_worker.py eager and compiled; the better counts.
A step is forward, backward, clipping and AdamW. Memory is the most that the process held. With --lengths, Puna alone at
growing sequences of the same number of tokens. Needs torch (requirements-train.txt) and g++.
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
# Ratios to the best of PyTorch that are asked for.
TARGETS = {"7m": {"bf16": 1.6, "f32": 1.8}, "15m": {"bf16": 1.6, "f32": 1.8}, "110m": {"bf16": 1.4, "f32": 1.8}}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="steps of a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lengths", action="store_true", help="also Puna alone at growing sequences")
    parser.add_argument("--without-peer", action="store_true", help="Puna alone")
    parser.add_argument("--record", action="store_true", help="write bench/record/DATE-CPU-train.json")
    args = parser.parse_args()
    args.shapes = args.shapes.split(",")
    if unknown := set(args.shapes) - set(SHAPES):
        parser.error(f"--shapes: {', '.join(sorted(unknown))}; expected some of {', '.join(SHAPES)}")
    return args


def puna(numbers, mode, args):
    dim, layers, heads, hidden, vocab, seq_len, batch = numbers
    command = ["cargo", "run", "--release", "--quiet", "-p", "puna-train", "--example", "speed", "--"]
    numbers = [dim, layers, heads, heads, hidden, vocab, seq_len, batch, args.threads, args.steps + 2]
    return json.loads(common.run(*command, *numbers, *(["bf16"] if mode == "bf16" else [])))


def peer(shape, mode, is_compiled, args):
    command = [sys.executable, WORKER, *SHAPES[shape], mode, int(is_compiled), args.threads, args.steps]
    return json.loads(common.run(*command))


def modes():
    # Without instructions for bf16 Puna has none and PyTorch emulates it, ten times slower.
    has_bf16 = any("bf16" in flag for flag in common.cpu_flags())
    return ("f32", "bf16") if has_bf16 else ("f32",)


def measure(shape, mode, args):
    n_tokens = SHAPES[shape][5] * SHAPES[shape][6]
    speeds = lambda found: [n_tokens / secs for secs in found["secs"]]
    ours, theirs = [], {} if args.without_peer else {False: [], True: []}
    for _ in range(args.rounds):
        ours.append(puna(SHAPES[shape], mode, args))
        for is_compiled in theirs:
            theirs[is_compiled].append(peer(shape, mode, is_compiled, args))
    best = [max(speeds(found)) for found in ours]
    value = {"shape": shape, "mode": mode, "puna": common.summary(best, 1)}
    value["puna"]["memory_mb"] = round(max(found["memory_mb"] for found in ours))
    value["share_of_peak"] = round(max(found["peak_share"] for found in ours), 3)
    value["peak_gflops"] = round(max(found["peak_gflops"] for found in ours))
    if theirs:
        of_kind = {c: [max(speeds(found)) for found in theirs[c]] for c in theirs}
        kind = max(of_kind, key=lambda c: max(of_kind[c]))
        value["torch"] = common.summary(of_kind[kind], 1) | {"compiled": kind}
        value["torch"]["memory_mb"] = round(max(found["memory_mb"] for found in theirs[kind]))
        value["ratio"] = common.summary([a / b for a, b in zip(best, of_kind[kind])])
        value["target"] = TARGETS[shape][mode]
    return value


def lengths(args):
    """Tokens a second of the smallest shape, by the length of a sequence. At 256 gradients of a micro-batch are summed in one
    product, at 255 sequence by sequence, which is what independence of micro-batches costs at most."""
    found = {}
    for seq_len in (255, 256, 512, 1024, 2048):
        numbers = [*SHAPES["7m"][:5], seq_len, 4096 // seq_len]
        secs = min(puna(numbers, modes()[-1], args)["secs"])
        found[seq_len] = round(seq_len * (4096 // seq_len) / secs)
    return found


def main():
    args = parse_args()
    common.run("cargo", "build", "--release", "-p", "puna-train", "--example", "speed")
    results = []
    for shape in args.shapes:
        for mode in modes():
            results.append(measure(shape, mode, args))
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    record = common.about(args.threads) | {"results": results}
    if args.lengths:
        record["tokens_per_sec_by_length"] = lengths(args)
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
