"""Puna beside llama.cpp (PyPI llama-cpp-python): the same files, threads and lengths, in turn, in one run.

    python bench/beside_llama_cpp.py [--shape tinyllama-1.1b] [--types q8_0,q4_0] [--rounds 5] [--threads 2] [--record]

`puna synth` writes the files under target/bench; each round then measures both programs, so that a
machine that slows down slows both. llama.cpp keeps its defaults, as Puna does: f16 cache. Printed: the median of each, its spread (smallest to largest), and
the median of the rounds' ratios. `--record` writes bench/record/DATE-MACHINE-llama_cpp.json.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import llama_cpp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PUNA = ROOT / "target" / "release" / "puna"


def parse_args():
    parser = argparse.ArgumentParser(description="Puna beside llama.cpp")
    parser.add_argument("--shape", default="tinyllama-1.1b")
    parser.add_argument("--types", default="q8_0,q4_0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--answer", type=int, default=32, help="tokens of the answer")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def synth(shape, kind):
    path = ROOT / "target" / "bench" / f"{shape}-{kind}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        subprocess.run([PUNA, "synth", "--shape", shape, "--type", kind, path], check=True)
    return path


def measure_puna(path, args):
    """Tokens a second of prefill and decode."""
    command = [PUNA, "bench", path, "-p", args.prompt, "-n", args.answer, "--threads", args.threads, "--json"]
    out = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
    (run,) = json.loads(out)["runs"]
    return tuple(run[phase]["tokens_per_sec"]["median"] for phase in ("prefill", "decode"))


class LlamaCpp:
    """One context of llama.cpp."""

    def __init__(self, path, args):
        self.model = llama_cpp.Llama(
            str(path), n_ctx=args.prompt + args.answer + 8, n_batch=512, n_threads=args.threads,
            n_threads_batch=args.threads, verbose=False,
        )  # fmt: skip
        self.args = args

    def measure(self):
        """Both from an empty cache, as `puna bench` does: the prompt at once, the answer one by one."""
        rng = np.random.default_rng(0)
        tokens = rng.integers(3, self.model.n_vocab(), self.args.prompt + self.args.answer).tolist()
        prompt, answer = tokens[: self.args.prompt], tokens[self.args.prompt :]
        prefill = self.timed(prompt, len(prompt))
        return prefill, self.timed(answer, 1)

    def timed(self, tokens, chunk):
        """Tokens a second when they are given `chunk` at a time."""
        self.model.reset()
        start = time.perf_counter()
        for i in range(0, len(tokens), chunk):
            self.model.eval(tokens[i : i + chunk])
        return len(tokens) / (time.perf_counter() - start)


def summary(values):
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 2) for name, value in figures.items()}


def compare(kind, args):
    path = synth(args.shape, kind)
    peer = LlamaCpp(path, args)
    peer.measure()  # reads the file into memory
    rounds = [(measure_puna(path, args), peer.measure()) for _ in range(args.rounds)]
    result = {"type": kind}
    for i, phase in enumerate(("prefill", "decode")):
        ours, theirs = [r[0][i] for r in rounds], [r[1][i] for r in rounds]
        ratio = summary([a / b for a, b in zip(ours, theirs)])
        result[phase] = {"puna": summary(ours), "llama_cpp": summary(theirs), "ratio": ratio}
        print(
            f"{kind:6} {phase:7}  puna {show(result[phase]['puna'])}  "
            f"llama.cpp {show(result[phase]['llama_cpp'])}  ratio {ratio['median']:.2f} "
            f"({ratio['min']:.2f} to {ratio['max']:.2f})"
        )
    return result


def show(s):
    return f"{s['median']:7.1f} tokens/s ({s['min']:.1f} to {s['max']:.1f})"


def machine():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def record(results, args):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    date = datetime.date.today().isoformat()
    value = {
        "date": date,
        "commit": commit.stdout.strip(),
        "cpu": machine(),
        "threads": args.threads,
        "shape": args.shape,
        "prompt": args.prompt,
        "answer": args.answer,
        "rounds": args.rounds,
        "peer": f"llama-cpp-python {llama_cpp.__version__}",
        "tokens_per_s": results,
    }
    name = machine().replace("(R)", "").lower().split()
    path = ROOT / "bench" / "record" / f"{date}-{'-'.join(name)}-llama_cpp.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
    print(f"recorded in {path.relative_to(ROOT)}")


def main():
    args = parse_args()
    results = [compare(kind, args) for kind in args.types.split(",")]
    if args.record:
        record(results, args)


if __name__ == "__main__":
    main()
