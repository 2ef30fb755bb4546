"""Tiny random Llama models in Hugging Face's naming, and what transformers says they compute.

A `Case` is a config.json and a state dict of f32 tensors. Widths are such that attention is far
from uniform and logits are of the order of one, so that a wrong detail moves them visibly.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).resolve().parent.parent / "models"


@dataclass
class Case:
    name: str
    config: dict  # config.json as it is written
    state: dict  # name -> f32 tensor
    ids: np.ndarray  # the prompt, BOS first


def make(name, seed, dim, n_layers, n_heads, hidden_dim, vocab_size, n_prompt, n_kv_heads=None, **more):
    """A case with random weights; `more` goes into config.json as it is."""
    rng = np.random.default_rng(seed)
    n_kv_heads = n_kv_heads or n_heads
    head_dim = more.get("head_dim", dim // n_heads)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": dim,
        "intermediate_size": hidden_dim,
        "max_position_embeddings": 128,
        "model_type": "llama",
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": n_kv_heads,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": vocab_size,
    } | more

    def matrix(rows, cols, scale=1.0):
        return rng.standard_normal((rows, cols)) * scale / np.sqrt(cols)

    def norm():
        return 1 + 0.2 * rng.standard_normal(dim)

    state = {"model.embed_tokens.weight": rng.standard_normal((vocab_size, dim))}
    for i in range(n_layers):
        p = f"model.layers.{i}."
        state[p + "input_layernorm.weight"] = norm()
        state[p + "self_attn.q_proj.weight"] = matrix(n_heads * head_dim, dim, 1.5)
        state[p + "self_attn.k_proj.weight"] = matrix(n_kv_heads * head_dim, dim, 1.5)
        state[p + "self_attn.v_proj.weight"] = matrix(n_kv_heads * head_dim, dim)
        state[p + "self_attn.o_proj.weight"] = matrix(dim, n_heads * head_dim)
        state[p + "post_attention_layernorm.weight"] = norm()
        state[p + "mlp.gate_proj.weight"] = matrix(hidden_dim, dim)
        state[p + "mlp.up_proj.weight"] = matrix(hidden_dim, dim)
        state[p + "mlp.down_proj.weight"] = matrix(dim, hidden_dim)
    state["model.norm.weight"] = norm()
    if not config["tie_word_embeddings"]:
        state["lm_head.weight"] = matrix(vocab_size, dim)
    state = {k: torch.tensor(v, dtype=torch.float32) for k, v in state.items()}
    ids = np.concatenate([[1], rng.integers(3, vocab_size, n_prompt - 1)]).astype(np.int32)
    return Case(name, config, state, ids)


def folder(case, form):
    path = OUT / case.name / form
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def rounded(case, dtype):
    """The weights after a trip through a narrower type."""
    return {k: v.to(dtype).float() for k, v in case.state.items()}


def write_golden(case, name="golden", state=None):
    """What transformers computes in f32: logits [T, V] and hidden states after the last norm [T, D]."""
    config = LlamaConfig(**case.config, attn_implementation="eager")
    model = LlamaForCausalLM(config).float().eval()
    missing = model.load_state_dict(state or case.state, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if config.tie_word_embeddings else []), missing
    model.tie_weights()
    with torch.no_grad():
        hidden = model.model(torch.tensor(case.ids, dtype=torch.long)[None]).last_hidden_state
        logits = model.lm_head(hidden)
    arrays = {"ids": case.ids, "logits": logits[0].numpy(), "hidden": hidden[0].numpy()}
    assert all(np.isfinite(a).all() for a in arrays.values()), case.name
    path = folder(case, "") / f"{name}.safetensors"
    save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, path)
    print(f"{case.name}/{name}: |logits| up to {np.abs(arrays['logits']).max():.2f}")


def rotated_heads(case, name):
    """The number of heads whose rows RoPE turns, or None for any other weight."""
    counts = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    return next((case.config[key] for kind, key in counts.items() if kind in name), None)


def interleaved(case, name, weight):
    """Rows of a q or k projection from Hugging Face's order (halves) to Meta's (pairs)."""
    n_heads = rotated_heads(case, name)
    if n_heads is None:
        return weight
    rows, cols = weight.shape
    return weight.reshape(n_heads, 2, rows // n_heads // 2, cols).transpose(1, 2).reshape(rows, cols)


def halved(case, name, weight):
    """The inverse of `interleaved`."""
    n_heads = rotated_heads(case, name)
    if n_heads is None:
        return weight
    rows, cols = weight.shape
    return weight.reshape(n_heads, rows // n_heads // 2, 2, cols).transpose(1, 2).reshape(rows, cols)


def meta_layers(case, state):
    """The weights with q and k rows in Meta's order, still under Hugging Face's names."""
    return {name: interleaved(case, name, weight) for name, weight in state.items()}
