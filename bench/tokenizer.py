"""Encoding speed on one thread: Puna beside PyPI `sentencepiece`, same run, same text, line by line.

    python bench/tokenizer.py MODEL TEXT      (a tokenizer.model; TEXT may be .zst)

Also encodes 1 MB without a space. Checks that both give the same ids. Needs sentencepiece, numpy, zstandard.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sentencepiece as spm
import zstandard

from common import ROOT

MAX_CHARS = 20_000_000


def read(path):
    opened = zstandard.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".zst" else open(path, encoding="utf-8", newline="")
    with opened as f:
        return f.read(MAX_CHARS)


def puna(model, text, rounds):
    with tempfile.TemporaryDirectory() as folder:
        text_file, ids_file = Path(folder, "text"), Path(folder, "ids")
        text_file.write_text(text, encoding="utf-8", newline="")
        command = ["cargo", "run", "--release", "--quiet", "-p", "puna-tokenizer", "--example", "tokenizer_speed", "--"]
        out = subprocess.run([*command, model, text_file, ids_file, str(rounds)], cwd=ROOT, check=True, capture_output=True)
        return json.loads(out.stdout) | {"ids": np.fromfile(ids_file, dtype="<u4")}


def peer(model, text, rounds):
    sp = spm.SentencePieceProcessor(model_file=str(model))
    lines, secs = re.findall(r"[^\n]*\n|[^\n]+", text), []
    for _ in range(rounds):
        start = time.perf_counter()
        encoded = sp.encode(lines, num_threads=1)
        secs.append(time.perf_counter() - start)
    return {"secs": secs, "ids": np.concatenate([np.asarray(ids, dtype="<u4") for ids in encoded])}


def compare(name, model, text, rounds):
    mb = len(text.encode("utf-8")) / 1e6
    theirs, ours = peer(model, text, rounds), puna(model, text, rounds + 2)
    same = np.array_equal(ours["ids"], theirs["ids"])
    best_ours, best_theirs = min(ours["secs"]), min(theirs["secs"])
    print(
        f"{name}: {mb:.1f} MB, {len(ours['ids'])} ids, {'equal' if same else 'DIFFERENT'}; "
        f"puna {mb / best_ours:.1f} MB/s (first round {mb / ours['secs'][0]:.1f}), sentencepiece {mb / best_theirs:.1f} MB/s, "
        f"ratio {best_theirs / best_ours:.1f}; puna decodes {mb / min(ours['decode_secs']):.0f} MB/s, loads in {ours['load_secs'] * 1e3:.0f} ms"
    )
    return same


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model, text = map(Path, sys.argv[1:])
    prose = read(text)
    ok = compare("prose", model, prose, 2)
    solid = "".join(c for c in prose if not c.isspace())[:1_000_000]
    ok &= compare("1 MB without a space", model, solid, 1)
    sys.exit(0 if ok else 1)
