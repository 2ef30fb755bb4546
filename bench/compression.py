"""Bits per byte of held-out text: a model beside `xz -9e` and an order-5 n-gram model, on the same bytes.

    python bench/compression.py DATA [--model MODEL] [--ctx N] [--puna PUNA] [--record]

DATA is what `puna data build` wrote. For each source its held-out documents are taken as `puna data text` writes them:

- `xz`: all of them in one file, a zero byte after each, packed by `xz -9e`; nothing else is known to it beforehand.
- n-gram: the probability of each byte after the five before it, interpolated modified Kneser-Ney (Chen and Goodman,
  1998) of orders 0 to 5 and the uniform distribution below, counted on the documents that DATA holds for training,
  each once; a zero byte ends a document and is predicted like any other. Contexts reach over the ends of documents.
- the model: `puna perplexity`, windows of --ctx tokens that begin every --ctx / 2, so each token but the first
  --ctx / 2 has at least that many before it; blank lines stand between documents.

Bits are divided by the bytes of the documents alone. Needs numpy, and `xz`. Some minutes and 2 GB for 200 MB of text.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import common

# Bytes before the one that is predicted.
ORDER = 5
# Grams that are sorted at once.
STRETCH = 1 << 24
MARKER = "<|endofdoc|>"


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--puna", type=Path, default=common.PUNA)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def documents(args, source, *side):
    """The documents of a source, as bytes."""
    command = [args.puna, "data", "text", args.data, "--source", source, "--marker", MARKER, *side]
    text = subprocess.run(command, capture_output=True, check=True).stdout
    parts = text.split(f"\n{MARKER}\n".encode())
    return [part for part in [*parts[:-1], parts[-1].removesuffix(b"\n")] if part]


def joined(texts):
    """Documents as one row of bytes with a zero after each. A zero inside a document would be taken for its end."""
    assert not any(b"\0" in text for text in texts)
    return np.frombuffer(b"".join(text + b"\0" for text in texts), dtype=np.uint8)


def grams(row, n):
    """Every stretch of `n` bytes as a number, the first byte the most significant."""
    keys = np.zeros(len(row) - n + 1, dtype=np.uint64)
    for i in range(n):
        keys = keys << np.uint64(8) | row[i : len(row) - n + 1 + i]
    return keys


def merged(keys, counts):
    """Keys in order, each once, with the sum of its counts."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return keys[starts], np.add.reduceat(counts, starts)


class Counts:
    """How often each gram of the longest order occurs."""

    def __init__(self):
        self.keys, self.counts = np.empty(0, np.uint64), np.empty(0, np.int64)

    def add(self, row):
        for start in range(0, len(row), STRETCH):
            stretch = row[start : start + STRETCH + ORDER]
            if len(stretch) <= ORDER:
                break
            keys, counts = np.unique(grams(stretch, ORDER + 1), return_counts=True)
            self.keys, self.counts = merged(np.r_[self.keys, keys], np.r_[self.counts, counts])


class Level:
    """One order of the model: counts of its grams, and for each context their sum and what is left to lower orders."""

    def __init__(self, keys, counts):
        self.keys = keys
        n = [np.count_nonzero(counts == c) for c in (1, 2, 3, 4)]
        # Discounts by count, 1, 2, 3 and more (Chen and Goodman, equation 26); where counts of counts are missing, as
        # among single bytes, none above a half.
        y = n[0] / (n[0] + 2 * n[1]) if n[0] else 0.5
        step = [c + 1 - (c + 2) * y * n[c + 1] / n[c] if n[c] and n[c + 1] else 0.5 for c in range(3)]
        discounts = np.array([min(max(d, 0.0), c + 1.0) for c, d in enumerate(step)])
        taken = discounts[np.minimum(counts, 3) - 1]
        self.left = counts - taken
        contexts = keys >> np.uint64(8)
        starts = np.flatnonzero(np.r_[True, contexts[1:] != contexts[:-1]])
        self.contexts = contexts[starts]
        self.totals = np.add.reduceat(counts, starts)
        self.to_lower = np.add.reduceat(taken, starts) / self.totals

    def probability(self, keys, lower):
        """Of the last byte of each gram after the others, given what the lower orders say."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        left = np.where(self.keys[at] == keys, self.left[at], 0.0)
        contexts = keys >> np.uint64(8)
        at = np.minimum(np.searchsorted(self.contexts, contexts), len(self.contexts) - 1)
        known = self.contexts[at] == contexts
        return np.where(known, left / self.totals[at] + self.to_lower[at] * lower, lower)


class NGram:
    """Interpolated modified Kneser-Ney over bytes."""

    def __init__(self, counts):
        keys, counts = counts.keys, counts.counts
        self.levels = [Level(keys, counts)]
        for n in range(ORDER, 0, -1):
            # A shorter gram counts once for every byte that was seen before it.
            suffixes = keys & np.uint64((1 << 8 * n) - 1)
            keys, counts = merged(suffixes, np.ones(len(keys), np.int64))
            self.levels.insert(0, Level(keys, counts))

    def bits(self, row):
        """Bits of all bytes of `row`; before the first stands the end of another document."""
        row = np.r_[np.zeros(ORDER, np.uint8), row]
        keys = grams(row, ORDER + 1)
        p = np.full(len(keys), 1 / 256)
        for n, level in enumerate(self.levels, 1):
            p = level.probability(keys & np.uint64((1 << 8 * n) - 1), p)
        return float(-np.log2(p).sum())


def check():
    """Probabilities of all bytes after any context add up to one."""
    counts = Counts()
    counts.add(joined([b"the cat sat on the mat", b"a cat and a bat"]))
    model = NGram(counts)
    for context in (b"e cat", b"\0\0\0\0\0", b"zzzzz", b"zz th"):
        row = np.concatenate([np.frombuffer(context, np.uint8), np.zeros(1, np.uint8)])
        keys = grams(row, ORDER + 1)[0] + np.arange(256, dtype=np.uint64)
        p = np.full(256, 1 / 256)
        for n, level in enumerate(model.levels, 1):
            p = level.probability(keys & np.uint64((1 << 8 * n) - 1), p)
        assert abs(p.sum() - 1) < 1e-9, (context, p.sum())


def xz_bits(row):
    packed = subprocess.run(["xz", "-9e", "-c"], input=row.tobytes(), capture_output=True, check=True).stdout
    return 8 * len(packed)


def model_bits(args, texts):
    """Bits per byte by the model's own count of the bytes that it scored."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(b"\n\n".join(texts))
        file.flush()
        options = ("--ctx", args.ctx, "--stride", args.ctx // 2, "--json")
        told = json.loads(common.run(args.puna, "perplexity", args.model, "--file", file.name, *options))
    return told["result"]["bits_per_byte"]["mean"]


def main():
    args = parse_args()
    check()
    manifest = json.loads(common.run(args.puna, "data", "show", args.data, "--json"))
    sources = [source["name"] for source in manifest["sources"]]
    counts, n_trained = Counts(), 0
    for source in sources:
        row = joined(documents(args, source, "--train"))
        n_trained += len(row)
        counts.add(row)
        print(f"counted {source}: {len(counts.keys):,} grams", file=sys.stderr)
    ngram = NGram(counts)
    rows = []
    for source in sources:
        texts = documents(args, source)
        if not texts:
            continue
        row, n_bytes = joined(texts), sum(map(len, texts))
        figures = {"source": source, "documents": len(texts), "bytes": n_bytes}
        figures["xz"] = xz_bits(row) / n_bytes
        figures["ngram"] = ngram.bits(row) / n_bytes
        if args.model:
            figures["model"] = model_bits(args, texts)
        rows.append(figures)
        print(figures, file=sys.stderr)
    columns = [name for name in ("xz", "ngram", "model") if name in rows[0]]
    print("| held out | documents | bytes | " + " | ".join(columns) + " |")
    print("|---" * (3 + len(columns)) + "|")
    for row in rows:
        cells = [f"{row[name]:.3f}" for name in columns]
        print(f"| {row['source']} | {row['documents']} | {row['bytes']:,} | " + " | ".join(cells) + " |")
    if args.record:
        record = {
            "date": common.today(),
            "commit": common.commit(),
            "what": "bits per byte of held-out text",
            "tokenizer": manifest["tokenizer"]["sha256"],
            "configuration": manifest["config"]["sha256"],
            "model": args.model,
            "ctx": args.ctx,
            "ngram": {"order": ORDER, "trained_on_bytes": n_trained, "grams": len(counts.keys)},
            "rows": [{key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in rows],
        }
        common.write_record(common.RECORDS / f"{common.today()}-compression.json", record)


if __name__ == "__main__":
    main()
