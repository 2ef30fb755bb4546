"""Writes testdata/mixes.json: the type that llama.cpp gives each tensor of small models, for each mix.

The models have random weights and shapes that try the rules: depth, grouped queries, a tied output, the depth of 70B, rows
that blocks do not divide. llama.cpp quantises them (PyPI llama-cpp-python); PyPI gguf reads what came out.
Run: python testdata/scripts/mixes_golden.py
"""

import ctypes
import json
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
# name: dim, hidden, layers, heads, KV heads, tied
SHAPES = {
    "deep": (256, 256, 18, 4, 4, False),
    "grouped": (256, 256, 9, 8, 2, False),
    "tied": (256, 256, 3, 4, 4, True),
    "as deep as 70B": (256, 256, 80, 8, 1, False),
    "narrow": (96, 256, 8, 4, 4, False),
    "narrow and tied": (288, 768, 6, 6, 6, True),
    "odd": (40, 72, 2, 2, 2, False),
}
MIXES = {
    "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q4_k_m": 15, "q4_k_s": 14, "q4_0": 2, "q4_1": 3,
    "q5_0": 8, "q5_1": 9, "q3_k_l": 13, "q3_k_m": 12, "q3_k_s": 11, "q2_k": 10,
}  # fmt: skip
VOCAB = 64


def write_model(path, dim, hidden, n_layers, n_heads, n_kv_heads, tied):
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(dim)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(dim // n_heads)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{i}" for i in range(VOCAB)])
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types([2, 3, 3] + [1] * (VOCAB - 3))
    kv = dim // n_heads * n_kv_heads

    def add(name, *shape):
        values = rng.standard_normal(shape).astype(np.float32)
        writer.add_tensor(name, values if len(shape) == 1 else values.astype(np.float16))

    add("token_embd.weight", VOCAB, dim)
    for i in range(n_layers):
        for name, *shape in [
            ("attn_norm", dim), ("attn_q", dim, dim), ("attn_k", kv, dim), ("attn_v", kv, dim),
            ("attn_output", dim, dim), ("ffn_norm", dim), ("ffn_gate", hidden, dim), ("ffn_up", hidden, dim),
            ("ffn_down", dim, hidden),
        ]:  # fmt: skip
            add(f"blk.{i}.{name}.weight", *shape)
    add("output_norm.weight", dim)
    if not tied:
        add("output.weight", VOCAB, dim)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def types(model, mix, out):
    """Tensors and their types; nothing where llama.cpp refuses."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = MIXES[mix], 2
    code = llama_cpp.llama_model_quantize(str(model).encode(), str(out).encode(), ctypes.byref(params))
    if code != 0:
        return None
    return {t.name: t.tensor_type.name.lower() for t in gguf.GGUFReader(out).tensors}


def compact(tensors):
    """Types by layer, one where all are the same: {"blk.ffn_down.weight": "q4_k q4_k q6_k"}."""
    joined = {}
    for name, kind in sorted(tensors.items(), key=lambda item: layer_of(item[0])):
        parts = name.split(".")
        key = "blk." + ".".join(parts[2:]) if parts[0] == "blk" else name
        joined.setdefault(key, []).append(kind)
    matrices = {key: kinds for key, kinds in sorted(joined.items()) if "norm" not in key}
    return {key: " ".join(kinds if len(set(kinds)) > 1 else kinds[:1]) for key, kinds in matrices.items()}


def layer_of(name):
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1


def main():
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "model.gguf", Path(folder) / "out.gguf"
        for name, shape in SHAPES.items():
            write_model(model, *shape)
            keys = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "tied_output")
            mixes = {mix: types(model, mix, out) for mix in MIXES}
            mixes = {mix: compact(found) for mix, found in mixes.items() if found}
            print(f"{name}: {len(mixes)} mixes")
            cases.append({"name": name, **dict(zip(keys, shape)), "mixes": mixes})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (ROOT / "testdata" / "mixes.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
