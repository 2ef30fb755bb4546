"""`puna quantize` beside llama.cpp (PyPI llama-cpp-python): how far off each type is, and how fast a file is made.

    python bench/quantize.py [--shape tinyllama-1.1b] [--rounds 3] [--threads 2] [--values 4194304] [--record]

Accuracy: the same normal and heavy-tailed values (Student's t, three degrees of freedom) stored in every block
type by `puna quantize` and by ggml_quantize_chunk; printed is the root mean square of the error of each.
Speed: an F16 file of random weights (`puna synth`, under target/bench) made into Q4_K_M by both programs, in turn.
`--record` writes bench/record/DATE-MACHINE-quantize.json.
"""

import argparse
import ctypes
import json
import os
import tempfile
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType as Type

import common
from common import MODELS, PUNA, ROOT, run, summary

N_COLS = 4096
TOKENIZER = ROOT / "models" / "stories260K.tokenizer.model"
# The mix in which `up` of the feed-forward network has the type.
MIXES = {
    Type.Q4_0: "q4_0", Type.Q4_1: "q4_1", Type.Q5_0: "q5_0", Type.Q5_1: "q5_1", Type.Q8_0: "q8_0",
    Type.Q2_K: "q2_k", Type.Q3_K: "q3_k_s", Type.Q4_K: "q4_k_s", Type.Q5_K: "q5_k_s", Type.Q6_K: "q6_k",
}  # fmt: skip


def parse_args():
    parser = argparse.ArgumentParser(description="puna quantize beside llama.cpp")
    parser.add_argument("--shape", default="tinyllama-1.1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--values", type=int, default=1 << 22, help="values of each distribution")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def puna_quantize(source, target, mix, threads, *options):
    run(PUNA, "quantize", source, target, "--type", mix, "--no-proof", "--threads", threads, *options)


def samples(args):
    rng = np.random.default_rng(0)
    shape = (args.values // N_COLS, N_COLS)
    values = {"normal": rng.standard_normal(shape), "heavy": rng.standard_t(3, shape)}
    return {name: (x * 0.02).astype(np.float32) for name, x in values.items()}


def write_model(path, values):
    """A one-layer model whose `up` matrix holds the values; the other matrices are as small as they may be."""
    n_rows, rng = len(values), np.random.default_rng(1)
    random = lambda *shape: (rng.standard_normal(shape) * 0.02).astype(np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(N_COLS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(n_rows)
    writer.add_head_count(N_COLS // 128)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(128)
    writer.add_vocab_size(512)
    writer.add_tensor("token_embd.weight", random(512, N_COLS))
    writer.add_tensor("output_norm.weight", np.ones(N_COLS, np.float32))
    writer.add_tensor("output.weight", random(512, N_COLS))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(N_COLS, np.float32))
    writer.add_tensor("blk.0.attn_q.weight", random(N_COLS, N_COLS))
    writer.add_tensor("blk.0.attn_k.weight", random(128, N_COLS))
    writer.add_tensor("blk.0.attn_v.weight", random(128, N_COLS))
    writer.add_tensor("blk.0.attn_output.weight", random(N_COLS, N_COLS))
    writer.add_tensor("blk.0.ffn_gate.weight", random(n_rows, N_COLS))
    writer.add_tensor("blk.0.ffn_up.weight", values)
    writer.add_tensor("blk.0.ffn_down.weight", random(N_COLS, n_rows))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ours(source, kind, folder, threads):
    """What the values are after `puna quantize`."""
    target = folder / f"{kind.name}.gguf"
    puna_quantize(source, target, MIXES[kind], threads, "--tokenizer", TOKENIZER)
    (tensor,) = [t for t in gguf.GGUFReader(target).tensors if t.name == "blk.0.ffn_up.weight"]
    assert tensor.tensor_type == kind, f"{kind.name}: stored as {tensor.tensor_type.name}"
    values = gguf.quants.dequantize(np.array(tensor.data), kind)
    target.unlink()
    return values


def ggml_quantizer():
    """ggml_quantize_chunk(type, values, blocks, first row, rows, columns, importance or none)."""
    library = Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, integer, integer, integer, pointer]
    quantize.restype = ctypes.c_size_t
    return quantize


def theirs(quantize, kind, values):
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.empty((len(values), N_COLS // block_len * block_bytes), np.uint8)
    quantize(int(kind), values.ctypes.data, blocks.ctypes.data, 0, len(values), N_COLS, None)
    return gguf.quants.dequantize(blocks, kind)


def rms(error):
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


def accuracy(args):
    quantize, results = ggml_quantizer(), []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, values in samples(args).items():
            source = folder / f"{name}.gguf"
            write_model(source, values)
            for kind in MIXES:
                a = rms(ours(source, kind, folder, args.threads) - values)
                b = rms(theirs(quantize, kind, values) - values)
                results.append({"type": kind.name.lower(), "values": name, "puna": a, "llama_cpp": b})
                print(f"{kind.name.lower():5} {name:7} rms  puna {a:.6f}  llama.cpp {b:.6f}  ratio {a / b:.4f}")
    return results


def seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def llama_cpp_quantize(source, target, threads):
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert code == 0, f"llama_model_quantize: {code}"


def speed(args):
    source, target = common.synth(args.shape, "f16"), MODELS / "quantize-out.gguf"
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    rounds = []
    for _ in range(args.rounds):
        pair = []
        for make in (lambda: puna_quantize(source, target, "q4_k_m", args.threads),
                     lambda: llama_cpp_quantize(source, target, args.threads)):  # fmt: skip
            target.unlink(missing_ok=True)
            pair.append(seconds(make))
        rounds.append(pair)
    target.unlink()
    figures = {
        "puna": summary([a for a, _ in rounds]),
        "llama_cpp": summary([b for _, b in rounds]),
        "ratio": summary([b / a for a, b in rounds]),
    }
    print(f"q4_k_m of {args.shape}, seconds: {json.dumps(figures)}")
    return figures


def record(args, errors, times):
    value = common.about(args.threads) | {
        "peer": f"llama-cpp-python {llama_cpp.__version__}",
        "n_values": args.values,
        "rms_of_error": errors,
        "shape": args.shape,
        "rounds": args.rounds,
        "q4_k_m_seconds": times,
    }
    path = common.record_path("quantize")
    common.write_record(path, value)
    print(f"recorded in {path.relative_to(ROOT)}")


def main():
    args = parse_args()
    errors = accuracy(args)
    times = speed(args)
    if args.record:
        record(args, errors, times)


if __name__ == "__main__":
    main()
