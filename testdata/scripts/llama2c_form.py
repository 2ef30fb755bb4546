"""llama2.c's .bin files: the legacy float form and versions 1 (float) and 2 (Q8_0)."""

import struct

import numpy as np
import torch

from tiny_models import folder, halved, meta_layers

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")



def header(case, vocab_sign=1):
    c = case.config
    fields = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    values = [c[f] for f in fields] + [c["num_key_value_heads"]]
    return struct.pack("<7i", *values, vocab_sign * c["vocab_size"], c["max_position_embeddings"])


def parts(case):
    """Functions that give a kind of weight for all layers, and the state they look into."""
    state = meta_layers(case, case.state)
    n_layers = case.config["num_hidden_layers"]
    layers = lambda kind: [state[f"model.layers.{i}.{kind}.weight"] for i in range(n_layers)]
    return state, layers


def floats(tensors):
    return b"".join(t.numpy().astype("<f4").tobytes() for t in tensors)


def write_legacy(case):
    state, layers = parts(case)
    c = case.config
    tied = c["tie_word_embeddings"]
    head_dim = c["hidden_size"] // c["num_attention_heads"]
    freqs = 1.0 / 10000 ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(c["max_position_embeddings"]).float(), freqs)
    tensors = [state["model.embed_tokens.weight"], *layers("input_layernorm")]
    for kind in ("q_proj", "k_proj", "v_proj", "o_proj"):
        tensors += layers(f"self_attn.{kind}")
    tensors += layers("post_attention_layernorm")
    tensors += layers("mlp.gate_proj") + layers("mlp.down_proj") + layers("mlp.up_proj")
    tensors += [state["model.norm.weight"], angles.cos(), angles.sin()]
    if not tied:
        tensors.append(state["lm_head.weight"])
    path = folder(case, "llama2c") / "legacy.bin"
    path.write_bytes(header(case, 1 if tied else -1) + floats(tensors))


def versioned_header(case, version, tail=b""):
    tied = struct.pack("B", case.config["tie_word_embeddings"])
    head = struct.pack("<Ii", 0x616B3432, version) + header(case) + tied + tail
    return head.ljust(256, b"\0")


def norms(state, layers):
    both = layers("input_layernorm") + layers("post_attention_layernorm")
    return both + [state["model.norm.weight"]]


def matrix_names(case):
    names = ["model.embed_tokens.weight"]
    for matrix in MATRICES:
        kind = ("self_attn." if len(matrix) == 6 else "mlp.") + matrix
        names += [f"model.layers.{i}.{kind}.weight" for i in range(case.config["num_hidden_layers"])]
    return names + ([] if case.config["tie_word_embeddings"] else ["lm_head.weight"])


def write_v1(case):
    state, layers = parts(case)
    tensors = norms(state, layers) + [state[n] for n in matrix_names(case)]
    path = folder(case, "llama2c") / "v1.bin"
    path.write_bytes(versioned_header(case, 1) + floats(tensors))


def write_v2(case, group_size):
    """Symmetric int8 with one f32 scale per group; returns the weights after dequantisation."""
    state, layers = parts(case)
    data = versioned_header(case, 2, struct.pack("<i", group_size)) + floats(norms(state, layers))
    kept = dict(case.state)
    for name in matrix_names(case):
        groups = state[name].numpy().reshape(-1, group_size)
        scales = (np.abs(groups).max(axis=1) / np.float32(127)).astype("<f4")
        quants = np.rint(groups / scales[:, None]).astype(np.int8)
        data += quants.tobytes() + scales.tobytes()
        # Group by group along a row, so undoing the row permutation commutes with rounding.
        back = torch.tensor((quants * scales[:, None]).reshape(state[name].shape))
        kept[name] = halved(case, name, back)
    (folder(case, "llama2c") / "v2.bin").write_bytes(data)
    return kept
