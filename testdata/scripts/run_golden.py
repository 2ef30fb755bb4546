"""Completes testdata/train/run.safetensors: a debug run of pre-training by PyTorch in f32, on the CPU.

The file comes with the run's new weights by Puna's names and its `sequences` [64, 33], four a step, written by
`cargo test -p puna-recipes --test pretrain write_debug_inputs -- --ignored`. This adds `losses` and `norms` [16] of AdamW (0.9,
0.95, 1e-5) with decay of 0.1 on matrices, clipping at 1, four steps of linear warm-up to 0.01 and a cosine to a tenth.
Run: python testdata/scripts/run_golden.py
"""

import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from train_golden import TARGET, network

N_STEPS, BATCH, N_WARMUP, PEAK = 16, 4, 4, 0.01
DIM, VOCAB = 24, 512
SHAPE = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 6, "hidden_dim": 64, "tied": False}
COLS = {"w_down": 64}


def rate(step):
    if step < N_WARMUP:
        return PEAK * step / N_WARMUP
    cosine = 0.5 * (1 + math.cos(math.pi * (step - N_WARMUP) / (N_STEPS - N_WARMUP)))
    return PEAK * (0.1 + 0.9 * cosine)


def main():
    path = TARGET / "run.safetensors"
    given = {name: t for name, t in load_file(path).items() if name not in ("losses", "norms")}
    sequences = given["sequences"].long().view(N_STEPS, BATCH, -1)
    w = {}
    for name, flat in given.items():
        kind = name.split(".")[-1]
        if name != "sequences":
            w[name] = flat.clone() if "norm" in kind else flat.view(-1, COLS.get(kind, DIM)).clone()
            w[name].requires_grad_()
    matrices = [t for t in w.values() if t.ndim == 2]
    norms = [t for t in w.values() if t.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-5)
    found = {"losses": [], "norms": []}
    for step, rows in enumerate(sequences, 1):
        loss = F.cross_entropy(network(w, SHAPE, rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        found["norms"].append(torch.nn.utils.clip_grad_norm_(w.values(), 1.0).item())
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        found["losses"].append(loss.item())
    save_file(given | {name: torch.tensor(values) for name, values in found.items()}, path)


if __name__ == "__main__":
    main()
