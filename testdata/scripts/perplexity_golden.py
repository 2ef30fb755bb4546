"""Writes testdata/perplexity.json: how models/stories260K.bin predicts a text, by the numpy network.

Windows and scored tokens as llama.cpp's perplexity tool has them: consecutive windows of `ctx` tokens, the first
replaced by BOS, the second half scored; with a stride, the last `stride` tokens of windows that overlap. The child is
the same network with only five bits of every mantissa in its matrices. Everything after the logits is computed in f64.
`mean_squares` are the inputs of matrices of the first and last block, as an importance matrix has them.
Run: python testdata/scripts/perplexity_golden.py
"""

import json
from pathlib import Path

import numpy as np
import sentencepiece

from llama2c_reference import Model

ROOT = Path(__file__).resolve().parent.parent.parent
CHECKPOINT = ROOT / "models" / "stories260K.bin"
TOKENIZER = ROOT / "models" / "stories260K.tokenizer.model"
CASES = [(64, None), (48, 16)]
TEXT = """Once upon a time, in a small house by the sea, there lived a boy named Tom. Tom had a red boat. Every day he \
went to the beach with his dog to play. One day the wind was very strong and the boat went far away. Tom was sad. "Do \
not cry," said his mom. "We can look for it." They walked and walked, and at the end of the beach they saw something \
red in the sand. It was the boat! Tom was so happy. He hugged his mom and said, "Thank you for helping me."
The capital of France is Paris, which had 2,102,650 inhabitants in 2023. Café, naïve, 12 × 7 = 84.
"""


def coarse(model):
    """Cuts the mantissa of every matrix element to five bits; norms stay."""
    for name in ("embed", "wq", "wk", "wv", "wo", "w1", "w2", "w3", "output"):
        bits = getattr(model, name).view(np.uint32) & np.uint32(0xFFFC0000)
        setattr(model, name, bits.view(np.float32))
    return model


def log_probs(model, ids):
    """ln p [T, V] after each token of one window."""
    model.keys = [[] for _ in range(model.n_layers)]
    model.values = [[] for _ in range(model.n_layers)]
    logits = np.array([model.forward(token, pos) for pos, token in enumerate(ids)], np.float64)
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def estimate(values):
    values = np.array(values)
    return [float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))]


def measure(parent, child, sp, ctx, stride):
    ids = [sp.bos_id()] + sp.encode(TEXT)
    step, first = (stride, ctx - stride) if stride else (ctx, ctx // 2 + 1)
    nll, nll_child, kl, same, n_bytes = [], [], [], [], 0
    for start in range(0, len(ids) - ctx + 1, step):
        window = [sp.bos_id()] + ids[start + 1 : start + ctx]
        p, q = log_probs(parent, window), log_probs(child, window)
        for place in range(first, ctx):
            token, row = ids[start + place], place - 1
            nll.append(-p[row, token])
            nll_child.append(-q[row, token])
            kl.append((np.exp(p[row]) * (p[row] - q[row])).sum())
            same.append(float(p[row].argmax() == q[row].argmax()))
            piece = sp.id_to_piece(token)
            n_bytes += 1 if sp.is_byte(token) else len(piece.replace("\u2581", " ").encode())
    kl_p99 = float(np.sort(kl)[int(np.ceil(0.99 * len(kl))) - 1])
    return {
        "ctx": ctx,
        "stride": stride,
        "n_tokens": len(nll),
        "n_bytes": n_bytes,
        "nll": estimate(nll),
        "nll_child": estimate(nll_child),
        "kl": estimate(kl),
        "kl_p99": kl_p99,
        "same_top": float(np.mean(same)),
    }


def mean_squares(model, sp, ctx):
    """The mean square of each input over all tokens of all windows, by the GGUF name of the matrix."""
    sums, n = {}, 0
    layers = (0, model.n_layers - 1)

    def watch(layer, matrix, inputs):
        if layer in layers:
            name = f"blk.{layer}.{matrix}.weight"
            sums[name] = sums.get(name, 0.0) + inputs.astype(np.float64) ** 2

    ids = [sp.bos_id()] + sp.encode(TEXT)
    model.watch = watch
    for start in range(0, len(ids) - ctx + 1, ctx):
        log_probs(model, [sp.bos_id()] + ids[start + 1 : start + ctx])
        n += ctx
    return {name: [float(f"{x:.7g}") for x in total / n] for name, total in sums.items()}


def main():
    sp = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
    parent, child = Model(CHECKPOINT), coarse(Model(CHECKPOINT))
    cases = [measure(parent, child, sp, ctx, stride) for ctx, stride in CASES]
    for case in cases:
        print(case)
    value = {"text": TEXT, "cases": cases, "mean_squares": mean_squares(parent, sp, 64)}
    (ROOT / "testdata" / "perplexity.json").write_text(json.dumps(value, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
