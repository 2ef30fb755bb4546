"""Writes testdata/dequant: for each block type some blocks and the f32 values PyPI gguf gives them.

A safetensors file per type: `blocks` u8 [n_blocks, block_bytes] and `values` f32 [n_blocks,
elements]. The first blocks come from the quantiser fed with normal noise, where gguf has one for
the type; the rest are random bytes under scales of every size, a negative and a zero one included.
Run: python testdata/scripts/dequant_golden.py
"""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parent.parent / "dequant"
N_RANDOM = 24

# Offsets of the f16 scales (and minima) within a block; the other bytes may be anything.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}  # fmt: skip


def random_blocks(rng, kind):
    _, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (N_RANDOM, n_bytes), dtype=np.uint8)
    for offset in SCALES[kind]:
        scales = (rng.standard_normal(N_RANDOM) * 2.0 ** rng.integers(-20, 4, N_RANDOM)).astype("<f2")
        scales[:3] = [0.0, -0.0625, 6e-8]  # the last is the smallest f16 denormal
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


def every_half(kind):
    """Every seventh bit pattern of a 16-bit float, without the infinities and NaNs."""
    bits = np.arange(1 << 16, dtype="<u2")
    exponent = 0x7C00 if kind == Type.F16 else 0x7F80
    finite = bits[(bits & exponent) != exponent]
    return finite[::7].copy().view(np.uint8).reshape(-1, 2)


def blocks_of(rng, kind):
    if kind in (Type.F16, Type.BF16):
        return every_half(kind)
    elements, _ = gguf.GGML_QUANT_SIZES[kind]
    noise = rng.standard_normal((8, elements)).astype(np.float32) * 0.05
    try:
        return np.concatenate([gguf.quants.quantize(noise, kind), random_blocks(rng, kind)])
    except NotImplementedError:
        return random_blocks(rng, kind)


def main():
    OUT.mkdir(exist_ok=True)
    for kind in (Type.F16, Type.BF16, *SCALES):
        blocks = blocks_of(np.random.default_rng(int(kind)), kind)
        # gguf's F16 path takes the floats themselves.
        source = blocks.view("<f2") if kind == Type.F16 else blocks
        values = gguf.quants.dequantize(source, kind).astype("<f4")
        assert np.isfinite(values).all(), kind.name
        arrays = {"blocks": blocks, "values": np.ascontiguousarray(values)}
        save_file(arrays, OUT / f"{kind.name.lower()}.safetensors")
        print(f"{kind.name}: {len(blocks)} blocks, {values.size} values")


if __name__ == "__main__":
    main()
