"""The Llama 2 network over a llama2.c file, in numpy float32, one token at a time.

Written for reading, as an oracle that shares nothing with transformers or llama.cpp.
"""

import numpy as np

F = np.float32


class Model:
    """A legacy-form file: header of seven i32, then f32 arrays (llama2.c, export.py)."""

    def __init__(self, path):
        data = path.read_bytes()
        header = np.frombuffer(data, "<i4", 7).tolist()
        self.dim, hidden, self.n_layers, self.n_heads, self.n_kv_heads, vocab, self.ctx = header
        self.tied = vocab > 0
        self.head_dim = self.dim // self.n_heads
        kv, L, D = self.head_dim * self.n_kv_heads, self.n_layers, self.dim
        rest = np.frombuffer(data, "<f4", offset=28)

        def take(*shape):
            nonlocal rest
            n = int(np.prod(shape))
            part, rest = rest[:n].reshape(shape), rest[n:]
            return part

        self.embed = take(abs(vocab), D)
        self.attn_norm = take(L, D)
        self.wq, self.wk, self.wv, self.wo = take(L, D, D), take(L, kv, D), take(L, kv, D), take(L, D, D)
        self.ffn_norm = take(L, D)
        self.w1, self.w2, self.w3 = take(L, hidden, D), take(L, D, hidden), take(L, hidden, D)
        self.norm = take(D)
        take(2, self.ctx, self.head_dim // 2)  # cosines and sines, which we compute
        self.output = self.embed if self.tied else take(abs(vocab), D)
        assert rest.size == 0, "the file is longer than its header says"
        self.keys = [[] for _ in range(L)]
        self.values = [[] for _ in range(L)]
        self.watch = lambda layer, matrix, inputs: None

    def forward(self, token, pos):
        """Logits [V] after `token` at position `pos`; positions must come in order."""
        x = self.embed[token].copy()
        for l in range(self.n_layers):
            h = rmsnorm(x, self.attn_norm[l])
            self.watch(l, "attn_q", h)
            q = rope((self.wq[l] @ h).reshape(self.n_heads, -1), pos)
            self.keys[l].append(rope((self.wk[l] @ h).reshape(self.n_kv_heads, -1), pos))
            self.values[l].append((self.wv[l] @ h).reshape(self.n_kv_heads, -1))
            attended = self.attention(q, np.array(self.keys[l]), np.array(self.values[l]))
            self.watch(l, "attn_output", attended)
            x = x + self.wo[l] @ attended
            h = rmsnorm(x, self.ffn_norm[l])
            self.watch(l, "ffn_gate", h)
            gate, up = self.w1[l] @ h, self.w3[l] @ h
            gated = gate / (F(1) + np.exp(-gate)) * up
            self.watch(l, "ffn_down", gated)
            x = x + self.w2[l] @ gated
        return self.output @ rmsnorm(x, self.norm)

    def attention(self, q, keys, values):
        """q [N, H] over keys and values [S, K, H]; returns [N * H]."""
        group = self.n_heads // self.n_kv_heads
        out = []
        for head in range(self.n_heads):
            scores = keys[:, head // group] @ q[head] / np.sqrt(F(self.head_dim))
            weights = np.exp(scores - scores.max())
            out.append((weights / weights.sum()) @ values[:, head // group])
        return np.concatenate(out)


def rmsnorm(x, weight):
    return weight * (x / np.sqrt(np.mean(x * x) + F(1e-5)))


def rope(heads, pos):
    """Turns pairs (2i, 2i + 1) of each head [n, H] by pos · 10000^(-2i / H)."""
    n, h = heads.shape
    angles = F(pos) * (F(1) / F(10000) ** (np.arange(0, h, 2, dtype=F) / F(h)))
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = heads[:, 0::2], heads[:, 1::2]
    return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(n, h)
