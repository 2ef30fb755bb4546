"""Steps of training by PyTorch, for train.py: python train_worker.py DIM LAYERS HEADS HIDDEN VOCAB T B MODE COMPILE THREADS STEPS

The network as plainly as PyTorch users write it: F.linear, F.rms_norm, F.scaled_dot_product_attention, fused AdamW,
clipping; output tied. MODE is f32, or bf16 for autocast. Prints seconds of each step and peak memory as JSON.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, dim, n_heads, hidden):
        super().__init__()
        self.n_heads = n_heads
        self.attn_norm, self.ffn_norm = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.wqkv, self.wo = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.w_gate_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.w_down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        q, k, v = self.wqkv(self.attn_norm(x)).view(b, t, 3, self.n_heads, -1).unbind(2)
        q, k, v = (y.transpose(1, 2) for y in (turned(q, cos, sin), turned(k, cos, sin), v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.wo(out.transpose(1, 2).reshape(b, t, d))
        gate, up = self.w_gate_up(self.ffn_norm(x)).chunk(2, -1)
        return x + self.w_down(F.silu(gate) * up)


def turned(x, cos, sin):
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).type_as(x)


class Network(nn.Module):
    def __init__(self, dim, n_layers, n_heads, hidden, vocab, seq_len):
        super().__init__()
        self.embedding = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList(Block(dim, n_heads, hidden) for _ in range(n_layers))
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        head_dim = dim // n_heads
        freqs = 1e4 ** (-torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.outer(torch.arange(seq_len), freqs)[:, None]
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def main():
    dim, layers, heads, hidden, vocab, seq_len, batch = map(int, sys.argv[1:8])
    mode, is_compiled, threads, steps = sys.argv[8], sys.argv[9] == "1", int(sys.argv[10]), int(sys.argv[11])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    network = Network(dim, layers, heads, hidden, vocab, seq_len)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1, fused=True)
    forward = torch.compile(network) if is_compiled else network
    ids = torch.randint(vocab, (batch, seq_len + 1))
    secs, losses = [], []
    for _ in range(steps + 2):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "bf16"):
            loss = forward(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        secs.append(time.perf_counter() - start)
        losses.append(loss.item())
    # The first steps compile and meet memory that was never touched.
    print(json.dumps({"secs": secs[2:], "losses": losses, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))


if __name__ == "__main__":
    main()
