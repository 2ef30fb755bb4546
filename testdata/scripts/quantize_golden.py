"""Writes testdata/quantize/golden.safetensors: values, and how far off llama.cpp stores them in each block type.

Four samples f32 [rows, columns]: `normal`; `heavy`, Student's t with three degrees of freedom; `outliers`, normal
with one in a thousand twenty times as large; `offset`, normal about another mean in each row. `importance`
[columns] is what an importance matrix would hold. For each type an array [samples, 3] of root mean squares of the
error: without importance; with it, weighted by it; and the same weighted as llama.cpp does, by
importance·√(mean(x²) + x²), the mean being the row's. Blocks are made by ggml_quantize_chunk of the library in PyPI
llama-cpp-python, values by PyPI gguf.
Run: python testdata/scripts/quantize_golden.py
"""

import ctypes
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

TARGET = Path(__file__).resolve().parent.parent / "quantize" / "golden.safetensors"
N_ROWS, N_COLS = 8, 1024
TYPES = [
    Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0,
    Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K,
]  # fmt: skip


def samples(rng):
    shape = (N_ROWS, N_COLS)
    normal = rng.standard_normal(shape)
    outliers = np.where(rng.random(shape) < 0.001, 20, 1) * rng.standard_normal(shape)
    offset = rng.standard_normal(shape) + 3 * rng.standard_normal((N_ROWS, 1))
    values = {"normal": normal, "heavy": rng.standard_t(3, shape), "outliers": outliers, "offset": offset}
    return {name: (x * 0.02).astype(np.float32) for name, x in values.items()}


def quantizer():
    """ggml_quantize_chunk(type, values, blocks, first row, rows, columns, importance or none)."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = next(folder.glob("libggml-base.so"))
    quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, integer, integer, integer, pointer]
    quantize.restype = ctypes.c_size_t
    return quantize


def stored(quantize, kind, x, importance):
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.empty((N_ROWS, N_COLS // block_len * block_bytes), np.uint8)
    pointer = None if importance is None else importance.ctypes.data
    n_bytes = quantize(int(kind), x.ctypes.data, blocks.ctypes.data, 0, N_ROWS, N_COLS, pointer)
    assert n_bytes == blocks.nbytes, kind.name
    return gguf.quants.dequantize(blocks, kind)


def rms(error, weights):
    return np.sqrt(np.average(error**2, weights=np.broadcast_to(weights, error.shape)))


def errors(quantize, kind, x, importance):
    exact = x.astype(np.float64)
    plain = stored(quantize, kind, x, None) - exact
    weighted = stored(quantize, kind, x, importance) - exact
    mean_square = (exact**2).mean(axis=1, keepdims=True)
    theirs = importance * np.sqrt(mean_square + exact**2)
    return [rms(plain, 1.0), rms(weighted, importance), rms(weighted, theirs)]


def main():
    rng = np.random.default_rng(2026)
    values = samples(rng)
    importance = np.exp(1.5 * rng.standard_normal(N_COLS)).astype(np.float32)
    quantize = quantizer()
    arrays = {"importance": importance, **values}
    for kind in TYPES:
        rows = [errors(quantize, kind, x, importance) for x in values.values()]
        arrays[kind.name.lower()] = np.array(rows, dtype=np.float32)
        print(kind.name, *(f"{row[0]:.6f}" for row in rows))
    TARGET.parent.mkdir(exist_ok=True)
    save_file(arrays, TARGET)


if __name__ == "__main__":
    main()
