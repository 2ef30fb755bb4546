"""Meta's folders: params.json with consolidated.NN.pth, whole or split for model parallelism."""

import torch

from tiny_models import folder, meta_layers, write_json

LAYER = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOP = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}

# The dimension along which fairscale's parallel layers cut a weight; norms are repeated.
SPLIT = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1, "tok_embeddings": 1}


def meta_name(name):
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return TOP[stem] + ".weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"layers.{layer}.{LAYER[rest]}.weight"


def write_meta(case, form, dtype, n_shards, multiple_of, **more):
    c = case.config
    path = folder(case, form)
    params = {
        "dim": c["hidden_size"],
        "multiple_of": multiple_of,
        "n_heads": c["num_attention_heads"],
        "n_layers": c["num_hidden_layers"],
        "norm_eps": c["rms_norm_eps"],
        "vocab_size": -1,
    }
    write_json(path / "params.json", params | more)
    weights = {meta_name(k): v.to(dtype) for k, v in meta_layers(case, case.state).items()}
    head_dim = c["hidden_size"] // c["num_attention_heads"]
    freqs = 1.0 / 10000 ** (torch.arange(0, head_dim, 2).float() / head_dim)
    for i in range(n_shards):
        shard = {}
        for name, weight in weights.items():
            dim = SPLIT.get(name.split(".")[-2])
            shard[name] = weight.clone() if dim is None else weight.chunk(n_shards, dim)[i].clone()
        shard["rope.freqs"] = freqs.to(dtype)
        torch.save(shard, path / f"consolidated.{i:02}.pth")
