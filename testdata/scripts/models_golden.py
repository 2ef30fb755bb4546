"""Writes testdata/models: tiny random Llama models in every published form, with golden logits.

Each folder is one model. `golden.safetensors` holds the prompt `ids` [T], `logits` [T, V] and
`hidden` [T, D] (after the last norm) that transformers computes in f32; `golden-X.safetensors` the
same for the weights as form X stores them. Run: python testdata/scripts/models_golden.py
"""

import torch
from gguf import GGMLQuantizationType as Type

from gguf_form import write_gguf, write_k_quants
from hf_form import write_bin_shards, write_safetensors, write_safetensors_shards
from llama2c_form import write_legacy, write_v1, write_v2
from meta_form import write_meta
from tiny_models import make, rounded, write_golden


def by_kind(kinds, default):
    """Types by the last part of a weight's name; the rest get `default`."""
    return lambda name: next((t for part, t in kinds.items() if part in name), default)


def multi_head():
    """Every head has its own keys and values; config.json as Llama 2's was published."""
    case = make("mha", 1, 32, 2, 4, 96, 272, 24, rope_scaling=None, pretraining_tp=1)
    write_golden(case)
    write_safetensors(case)
    write_meta(case, "meta", torch.float32, 1, multiple_of=32)
    write_gguf(case, "f32", lambda name: Type.F32)
    write_legacy(case)
    write_v1(case)
    write_golden(case, "golden-v2", write_v2(case, 32))
    half = rounded(case, torch.float16)
    write_golden(case, "golden-f16", half)
    write_bin_shards(case, "hf-bin", torch.float16)
    write_meta(case, "meta-2", torch.float16, 2, multiple_of=32)
    write_gguf(case, "f16", lambda name: Type.F16, half)
    write_golden(case, "golden-q8_0", write_gguf(case, "q8_0", lambda name: Type.Q8_0))


def grouped_query():
    """Four query heads share a key/value head; the FFN width comes from Meta's multiplier."""
    case = make("gqa", 2, 32, 2, 8, 64, 272, 24, n_kv_heads=2)
    write_golden(case)
    write_gguf(case, "f32", lambda name: Type.F32, n_shards=2)
    write_legacy(case)
    half = rounded(case, torch.bfloat16)
    write_golden(case, "golden-bf16", half)
    write_safetensors_shards(case, "hf", torch.bfloat16)
    write_meta(case, "meta-2", torch.bfloat16, 2, multiple_of=32, n_kv_heads=2, ffn_dim_multiplier=0.75)
    write_gguf(case, "bf16", lambda name: Type.BF16, half)
    kinds = {"q_proj": Type.Q4_0, "k_proj": Type.Q4_1, "v_proj": Type.Q5_0, "o_proj": Type.Q5_1}
    kinds |= {"up_proj": Type.Q5_0, "down_proj": Type.Q4_0, "embed": Type.Q5_1, "lm_head": Type.Q4_1}
    write_golden(case, "golden-mixed", write_gguf(case, "mixed", by_kind(kinds, Type.Q8_0)))


def k_quants():
    """One tensor at least of each K-quant type, whose rows are multiples of 256."""
    case = make("k-quants", 3, 256, 1, 4, 256, 272, 16, n_kv_heads=1)
    kinds = {"q_proj": Type.Q2_K, "k_proj": Type.Q5_K, "o_proj": Type.Q3_K, "up_proj": Type.Q4_K}
    kinds |= {"v_proj": Type.Q6_K, "down_proj": Type.Q6_K, "embed": Type.Q3_K, "lm_head": Type.Q6_K}
    write_golden(case, state=write_k_quants(case, "k-quants", by_kind(kinds, Type.Q5_K)))


def shapes():
    """Tied output, sizes that are multiples of nothing, heads wider than dim / n_heads."""
    tied = make("tied", 4, 32, 1, 4, 64, 272, 24, n_kv_heads=2, tie_word_embeddings=True)
    write_legacy(tied)
    write_gguf(tied, "f32", lambda name: Type.F32)
    odd = make("odd", 5, 40, 3, 4, 77, 131, 70, n_kv_heads=1, rms_norm_eps=1e-6, rope_theta=500000.0)
    wide = make("head-dim", 6, 24, 2, 3, 40, 97, 24, head_dim=12)
    for case in (tied, odd, wide):
        write_golden(case)
        write_safetensors(case)


def rope_scaling():
    """Prompts longer than the original context, in the old and the new spelling of config.json."""
    size = dict(dim=32, n_layers=1, n_heads=2, hidden_dim=48, vocab_size=272, n_prompt=100)
    linear = {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0}
    yarn = {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0}
    yarn |= {"original_max_position_embeddings": 32}
    old_linear = {"type": "linear", "factor": 4.0}
    # Dynamic NTK: transformers takes the base for the length of the prompt; compare with ctx = 100.
    dynamic = {"type": "dynamic", "factor": 2.0}
    cases = [
        make("rope-linear", 8, **size, rope_parameters=linear),
        make("rope-linear-old", 8, **size, rope_scaling=old_linear, rope_theta=10000.0),
        make("rope-yarn", 9, **size, rope_parameters=yarn),
        make("rope-dynamic", 10, **size, rope_scaling=dynamic, max_position_embeddings=32),
    ]
    for case in cases:
        write_golden(case)
        write_safetensors(case)
        if "rope_parameters" in case.config:
            write_gguf(case, "f32", lambda name: Type.F32)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for write in (multi_head, grouped_query, k_quants, shapes, rope_scaling):
        write()
