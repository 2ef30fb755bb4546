"""Perplexity by Puna and by llama.cpp (PyPI llama-cpp-python) of the same GGUF file on the same text, windows and scored
tokens, and the divergence of a quantised file from it: figures must agree within Puna's standard error.

What is computed from llama.cpp's logits is what its perplexity tool computes: windows of `ctx` tokens one after another,
the first token of each replaced by BOS, tokens of the second half scored.
Run: python testdata/scripts/perplexity_peers.py PUNA [MODEL TEXT]
Without MODEL and TEXT: the built-in model, converted to GGUF by PUNA, on its own kind of text.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

from perplexity_golden import TEXT

CTX = 128


def log_probs(llama, ids):
    """ln p of every token after each row of one window, [T, V]."""
    llama.reset()
    llama.eval(ids)
    logits = llama.scores[: len(ids)].astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def open_llama(path):
    return llama_cpp.Llama(str(path), n_ctx=CTX, n_batch=CTX, n_ubatch=CTX, logits_all=True, verbose=False)


def by_llama_cpp(parent, child, text):
    parent, child = open_llama(parent), open_llama(child)
    bos = parent.token_bos()
    ids = parent.tokenize(text, add_bos=True, special=False)
    nll, nll_child, kl, same = [], [], [], []
    for start in range(0, len(ids) - CTX + 1, CTX):
        window = [bos] + ids[start + 1 : start + CTX]
        p, q = log_probs(parent, window), log_probs(child, window)
        for row in range(CTX // 2, CTX - 1):
            token = window[row + 1]
            nll.append(-p[row, token])
            nll_child.append(-q[row, token])
            kl.append((np.exp(p[row]) * (p[row] - q[row])).sum())
            same.append(p[row].argmax() == q[row].argmax())
    return {
        "n_scored": len(nll),
        "parent": np.exp(np.mean(nll)),
        "model": np.exp(np.mean(nll_child)),
        "kl": np.mean(kl),
        "top_1_agreement": np.mean(same),
    }


def by_puna(puna, parent, child, text):
    command = [puna, "perplexity", child, "--against", parent, "--file", text, "--ctx", CTX, "--json"]
    result = json.loads(subprocess.run([str(c) for c in command], check=True, capture_output=True).stdout)["result"]
    found = {"n_scored": (result["model"]["n_scored"], 0.5)}
    for name in ("parent", "model"):
        estimate = result[name]["perplexity"]
        found[name] = (estimate["mean"], estimate["error"])
    for name in ("kl", "top_1_agreement"):
        # Both round activations in their own way, which is a part of the divergence itself.
        found[name] = (result[name]["mean"], max(4 * result[name]["error"], 0.1 * result[name]["mean"]))
    return found


def main():
    puna = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if len(sys.argv) > 2:
            source, text = Path(sys.argv[2]), Path(sys.argv[3])
        else:
            source, text = "stories260K", folder / "text"
            text.write_text(TEXT * 4)
        parent, child = folder / "parent.gguf", folder / "child.gguf"
        subprocess.run([puna, "convert", source, parent], check=True)
        command = [puna, "quantize", parent, child, "--type", "q4_0", "--no-proof"]
        subprocess.run(command, check=True)
        ours = by_puna(puna, parent, child, text)
        theirs = by_llama_cpp(parent, child, text.read_bytes())
    failed = False
    for name, expected in theirs.items():
        found, bound = ours[name]
        agrees = abs(found - expected) <= bound
        failed |= not agrees
        print(f"{name:16} puna {found:.6g}  llama.cpp {expected:.6g}  within {bound:.2g}: {'yes' if agrees else 'NO'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
