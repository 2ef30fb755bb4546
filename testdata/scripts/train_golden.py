"""Writes testdata/train/*.safetensors: ten steps of training tiny Llama 2 networks by PyTorch in f32, on the CPU.

Each file holds a network's weights before training by Puna's names; `tokens`, `targets` [B, T] and `mask` [B, T];
`logits` [B, T, V] and `grad.NAME` of the first step; `losses` [10], the mean over tokens that are not masked, before each
step; `norms` [10], of the gradient before clipping at 1; and `after.NAME`, weights after the tenth step of AdamW (0.9,
0.95, 1e-5) at a learning rate of 0.01, with weight decay of 0.1 on matrices. Metadata: the shape.
Run: python testdata/scripts/train_golden.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

TARGET = Path(__file__).resolve().parent.parent / "train"
N_STEPS = 10
BATCH, SEQ_LEN, VOCAB = 2, 9, 31
CASES = {
    "multi_head": {"n_heads": 3, "n_kv_heads": 3, "head_dim": 4, "hidden_dim": 18, "tied": False},
    "grouped_query": {"n_heads": 4, "n_kv_heads": 2, "head_dim": 4, "hidden_dim": 22, "tied": False},
    "tied": {"n_heads": 2, "n_kv_heads": 1, "head_dim": 6, "hidden_dim": 20, "tied": True},
}
N_LAYERS, EPS, THETA = 2, 1e-5, 1e4


def new_weights(shape, generator):
    dim = shape["n_heads"] * shape["head_dim"]
    kv_dim = shape["n_kv_heads"] * shape["head_dim"]
    hidden = shape["hidden_dim"]
    sizes = {"tok_embeddings": (VOCAB, dim)}
    for i in range(N_LAYERS):
        layer = {
            "attn_norm": (dim,), "wq": (dim, dim), "wk": (kv_dim, dim), "wv": (kv_dim, dim), "wo": (dim, dim),
            "ffn_norm": (dim,), "w_gate": (hidden, dim), "w_up": (hidden, dim), "w_down": (dim, hidden),
        }  # fmt: skip
        sizes |= {f"layers.{i}.{name}": size for name, size in layer.items()}
    sizes["norm"] = (dim,)
    if not shape["tied"]:
        sizes["output"] = (VOCAB, dim)
    random = lambda size: torch.randn(size, generator=generator)
    return {n: 1 + 0.1 * random(s) if len(s) == 1 else 0.2 * random(s) for n, s in sizes.items()}


def turned(x):
    """RoPE of [B, T, heads, H], pairs interleaved."""
    n, head_dim = x.shape[1], x.shape[3]
    freqs = THETA ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(n, dtype=torch.float64), freqs)
    turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn[:, None]).flatten(-2)


def network(w, shape, tokens):
    heads = lambda x, n: x.unflatten(-1, (n, shape["head_dim"]))
    norm = lambda x, name: F.rms_norm(x, x.shape[-1:], w[name], EPS)
    x = w["tok_embeddings"][tokens]
    for i in range(N_LAYERS):
        of = lambda name: f"layers.{i}.{name}"
        h = norm(x, of("attn_norm"))
        q = turned(heads(h @ w[of("wq")].T, shape["n_heads"]))
        k = turned(heads(h @ w[of("wk")].T, shape["n_kv_heads"]))
        v = heads(h @ w[of("wv")].T, shape["n_kv_heads"])
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + out.transpose(1, 2).flatten(2) @ w[of("wo")].T
        h = norm(x, of("ffn_norm"))
        x = x + (F.silu(h @ w[of("w_gate")].T) * (h @ w[of("w_up")].T)) @ w[of("w_down")].T
    return norm(x, "norm") @ w["tok_embeddings" if shape["tied"] else "output"].T


def train(shape, generator):
    w = {name: t.requires_grad_() for name, t in new_weights(shape, generator).items()}
    before = {name: t.detach().clone() for name, t in w.items()}
    ids = torch.randint(VOCAB, (2, BATCH, SEQ_LEN), generator=generator)
    mask = torch.ones(BATCH, SEQ_LEN)
    mask[0, 2] = mask[1, 7] = 0
    matrices = [t for t in w.values() if t.ndim == 2]
    norms = [t for t in w.values() if t.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-5)
    found = {"losses": [], "norms": []}
    for step in range(N_STEPS):
        logits = network(w, shape, ids[0])
        losses = F.cross_entropy(logits.flatten(0, 1), ids[1].flatten(), reduction="none")
        loss = (losses * mask.flatten()).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            found["logits"] = logits.detach().clone()
            found |= {f"grad.{name}": t.grad.clone() for name, t in w.items()}
        norm = torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        optimizer.step()
        found["losses"].append(loss.item())
        found["norms"].append(norm.item())
    after = {f"after.{name}": t.detach() for name, t in w.items()}
    found["losses"], found["norms"] = torch.tensor(found["losses"]), torch.tensor(found["norms"])
    data = {"tokens": ids[0].contiguous(), "targets": ids[1].contiguous(), "mask": mask}
    return before | data | found | after


def main():
    TARGET.mkdir(exist_ok=True)
    for seed, (name, shape) in enumerate(CASES.items()):
        tensors = train(shape, torch.Generator().manual_seed(seed))
        metadata = {key: str(int(value)) for key, value in shape.items()}
        save_file(tensors, TARGET / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
