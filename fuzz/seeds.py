"""Writes the hand-made seeds of the fuzz targets: small sound files of every form, so that a fuzzer starts
behind the first checks. Plain Python 3; run it in this folder. Files that it does not write are findings."""

import json
import os
import struct

DIM, HIDDEN, LAYERS, HEADS, KV, VOCAB, SEQ = 4, 6, 1, 2, 1, 3, 8
HEAD = DIM // HEADS
SHAPES = {
    "attn_norm": (DIM,), "wq": (DIM, DIM), "wk": (KV * HEAD, DIM), "wv": (KV * HEAD, DIM), "wo": (DIM, DIM),
    "ffn_norm": (DIM,), "w1": (HIDDEN, DIM), "w2": (DIM, HIDDEN), "w3": (HIDDEN, DIM),
}


def put(target, name, data):
    os.makedirs(os.path.join("seeds", target), exist_ok=True)
    with open(os.path.join("seeds", target, name), "wb") as f:
        f.write(data)


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def floats(*shape):
    return struct.pack(f"<{count(shape)}f", *(0.25 * (i % 7) for i in range(count(shape))))


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def gguf():
    def array(kind, fmt, items):
        return 9, struct.pack("<IQ", kind, len(items)) + b"".join(struct.pack(fmt, i) for i in items)

    u32 = lambda v: (4, struct.pack("<I", v))
    f32 = lambda v: (6, struct.pack("<f", v))
    text = lambda v: (8, string(v))
    pieces = ["<unk>", "<s>", "</s>"]
    metadata = {
        "general.architecture": text("llama"), "llama.context_length": u32(SEQ),
        "llama.embedding_length": u32(DIM), "llama.block_count": u32(LAYERS),
        "llama.feed_forward_length": u32(HIDDEN), "llama.attention.head_count": u32(HEADS),
        "llama.attention.head_count_kv": u32(KV), "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.rope.scaling.type": text("yarn"), "llama.rope.scaling.factor": f32(2.0),
        "llama.rope.scaling.original_context_length": u32(4),
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.tokens": (9, struct.pack("<IQ", 8, VOCAB) + b"".join(map(string, pieces))),
        "tokenizer.ggml.scores": array(6, "<f", [0.0] * VOCAB),
        "tokenizer.ggml.token_type": array(5, "<i", [2, 3, 3]),
        "tokenizer.ggml.bos_token_id": u32(1), "tokenizer.ggml.eos_token_id": u32(2),
        "nested": (9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 2) + b"ab"),
    }
    names = {
        "attn_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
        "ffn_norm": "ffn_norm", "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up",
    }
    tensors = [("token_embd.weight", (VOCAB, DIM))]
    tensors += [(f"blk.0.{names[k]}.weight", s) for k, s in SHAPES.items()]
    tensors += [("output_norm.weight", (DIM,))]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(string(k) + struct.pack("<I", t) + v for k, (t, v) in metadata.items())
    data = b""
    for name, shape in tensors:
        head += string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", d) for d in reversed(shape)) + struct.pack("<IQ", 0, len(data))
        data += floats(*shape)
        data += bytes(-len(data) % 32)
    put("gguf", "whole", head + bytes(-len(head) % 32) + data)
    put("gguf", "no-vocabulary", struct.pack("<4sIQQ", b"GGUF", 2, 0, 1) + string("general.architecture")
        + struct.pack("<I", 8) + string("llama"))


def llama2c():
    ints = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV, -VOCAB, SEQ)
    body = b"".join(floats(*s) for s in SHAPES.values())
    tables = floats(SEQ, HEAD)
    put("llama2c", "legacy", ints + floats(VOCAB, DIM) + body + floats(DIM) + tables + floats(VOCAB, DIM))
    ints = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV, VOCAB, SEQ)
    head = struct.pack("<Ii", 0x616B3432, 1) + ints + b"\1"
    matrices = ["wq", "wk", "wv", "wo", "w1", "w2", "w3"]
    norms = floats(DIM) * 3
    put("llama2c", "version-1", head + bytes(256 - len(head)) + norms + floats(VOCAB, DIM)
        + b"".join(floats(*SHAPES[m]) for m in matrices))
    head = struct.pack("<Ii", 0x616B3432, 2) + ints + b"\1" + struct.pack("<i", 2)
    groups = lambda n: bytes(range(n)) + floats(n // 2)
    put("llama2c", "version-2", head + bytes(256 - len(head)) + norms + groups(VOCAB * DIM)
        + b"".join(groups(count(SHAPES[m])) for m in matrices))


gguf()
llama2c()
