"""GGUF files of architecture `llama`, by the PyPI writer and its quantisers."""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

from tiny_models import folder, halved, meta_layers

LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return TOP[stem] + ".weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.weight"


def add_vocabulary(writer, vocab_size):
    """An invented vocabulary: three control pieces, 256 bytes, then letters joined to a space."""
    pieces = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % b for b in range(256)]
    pieces += ["\u2581".encode(), *[bytes([c]) for c in range(97, 97 + vocab_size - len(pieces) - 1)]]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (vocab_size - len(kinds))
    assert len(pieces) == vocab_size, "between 260 and 286 pieces"
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(vocab_size - 259)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)


def add_config(writer, config):
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])
    if "head_dim" in config:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    rope = config.get("rope_parameters", {})
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    if rope.get("rope_type", "default") != "default":
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if "original_max_position_embeddings" in rope:
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def write_gguf(case, form, type_of, state=None, n_shards=1):
    """`type_of(name)` gives each matrix's type; norms stay F32. Returns the weights dequantised."""
    split = {"split_max_tensors": -(-len(case.state) // n_shards)} if n_shards > 1 else {}
    path = folder(case, "gguf") / f"{form}.gguf"
    writer = gguf.GGUFWriter(path, "llama", **split)
    add_config(writer, case.config)
    add_vocabulary(writer, case.config["vocab_size"])
    kept = {}
    for name, weight in meta_layers(case, state or case.state).items():
        kind = Type.F32 if weight.dim() == 1 else type_of(name)
        data = gguf.quants.quantize(weight.numpy(), kind)
        kept[name] = halved(case, name, torch.tensor(gguf.quants.dequantize(data, kind)))
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    finish(writer)
    return kept


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(rng, shape, kind):
    """Random blocks of a K-quant type with scales that make weights of a sensible size."""
    elements, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    rows, cols = shape
    blocks = rng.integers(0, 256, (rows * cols // elements, n_bytes), dtype=np.uint8)
    for offset, size in SCALES[kind]:
        scale = (rng.uniform(0.5, 1.5, len(blocks)) * size).astype("<f2")
        blocks[:, offset : offset + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


# Where the f16 scale `d` (and minimum `dmin`) of a block stands, and a sensible size for it.
SCALES = {
    Type.Q2_K: [(80, 0.004), (82, 0.006)],
    Type.Q3_K: [(108, 0.002)],
    Type.Q4_K: [(0, 0.0003), (2, 0.002)],
    Type.Q5_K: [(0, 0.00015), (2, 0.002)],
    Type.Q6_K: [(208, 0.00006)],
}


def write_k_quants(case, form, type_of):
    """As `write_gguf`, with random blocks in place of quantised weights: gguf cannot quantise these."""
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(folder(case, "gguf") / f"{form}.gguf", "llama")
    add_config(writer, case.config)
    add_vocabulary(writer, case.config["vocab_size"])
    kept = {}
    for name, weight in case.state.items():
        kind = Type.F32 if weight.dim() == 1 else type_of(name)
        data = weight.numpy() if kind == Type.F32 else random_blocks(rng, weight.shape, kind)
        kept[name] = halved(case, name, torch.tensor(gguf.quants.dequantize(data, kind)))
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    finish(writer)
    return kept
