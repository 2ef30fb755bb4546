"""Writes the hand-made seeds of the fuzz targets: small sound files of every form, so that a fuzzer starts
behind the first checks. Plain Python 3; run it in this folder. Files that it does not write are findings."""

import io
import json
import os
import struct
import zipfile

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
    put("gguf", "sound-whole", head + bytes(-len(head) % 32) + data)
    put("gguf", "no-vocabulary", struct.pack("<4sIQQ", b"GGUF", 2, 0, 1) + string("general.architecture")
        + struct.pack("<I", 8) + string("llama"))


def llama2c():
    ints = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV, -VOCAB, SEQ)
    body = b"".join(floats(*s) for s in SHAPES.values())
    tables = floats(SEQ, HEAD)
    put("llama2c", "sound-legacy", ints + floats(VOCAB, DIM) + body + floats(DIM) + tables + floats(VOCAB, DIM))
    ints = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV, VOCAB, SEQ)
    head = struct.pack("<Ii", 0x616B3432, 1) + ints + b"\1"
    matrices = ["wq", "wk", "wv", "wo", "w1", "w2", "w3"]
    norms = floats(DIM) * 3
    put("llama2c", "sound-version-1", head + bytes(256 - len(head)) + norms + floats(VOCAB, DIM)
        + b"".join(floats(*SHAPES[m]) for m in matrices))
    head = struct.pack("<Ii", 0x616B3432, 2) + ints + b"\1" + struct.pack("<i", 2)
    groups = lambda n: bytes(range(n)) + floats(n // 2)
    put("llama2c", "sound-version-2", head + bytes(256 - len(head)) + norms + groups(VOCAB * DIM)
        + b"".join(groups(count(SHAPES[m])) for m in matrices))


PIECES = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
LETTERS = [("ab", -1, 1), ("▁ab", -2, 1), ("<x>", 0, 4), ("▁", -3, 1), ("a", -4, 1), ("b", -5, 1), ("bb", -6, 5)]


def byte_pieces():
    return [(f"<0x{b:02X}>", 0, 6) for b in range(256)]


def tokenizer_model():
    def varint(n):
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

    number = lambda field, n: varint(field << 3) + varint(n)
    message = lambda field, data: varint(field << 3 | 2) + varint(len(data)) + data
    def piece(text, score, kind):
        return message(1, message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + number(3, kind))

    def model(pieces, byte_fallback, dummy_prefix, remove_extra):
        trainer = message(2, number(3, 2) + number(35, byte_fallback) + message(44, b" ? ") + message(46, b"<s>"))
        normalizer = message(3, message(1, b"identity") + number(3, dummy_prefix) + number(4, remove_extra))
        return b"".join(piece(*p) for p in pieces) + trainer + normalizer

    put("tokenizer_model", "letters", model(PIECES + LETTERS, 0, 1, 0))
    put("tokenizer_model", "short-spaces", model(PIECES + LETTERS[:-1], 0, 0, 1))
    put("tokenizer_model", "bytes", model(PIECES + byte_pieces() + LETTERS[:-1], 1, 1, 0))


def tokenizer_json():
    texts = [text for text, _, kind in PIECES + LETTERS if kind < 4]
    added = [{"id": i, "content": texts[i], "special": True} for i in range(3)]
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
               {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    model = {"type": "BPE", "unk_token": "<unk>", "byte_fallback": False, "vocab": {t: i for i, t in enumerate(texts)},
             "merges": ["a b", "▁ ab"]}
    write = lambda name, file: put("tokenizer_json", name, json.dumps(file, ensure_ascii=False).encode())
    write("prepend", {"added_tokens": added, "normalizer": prepend, "pre_tokenizer": None, "model": model})
    extra = [{"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
             for pattern, content in (("^ +| +$", ""), (" {2,}", " "))]
    short = {"type": "Sequence", "normalizers": extra + prepend["normalizers"]}
    write("short-spaces", {"added_tokens": added, "normalizer": short, "pre_tokenizer": None, "model": model})
    model["merges"] = [["a", "b"], ["▁", "ab"]]
    added.append({"id": len(texts), "content": "<x>", "special": False, "normalized": False})
    write("metaspace", {"added_tokens": added, "normalizer": None, "pre_tokenizer": metaspace, "model": model})
    write("config", {"bos_token": "<s>", "eos_token": {"content": "</s>"},
                     "chat_template": [{"name": "default", "template": "{{ bos_token }}"}]})


def tokenizer_llama2c():
    pieces = [("<unk>", 0), ("\n<s>\n", 0), ("\n</s>\n", 0)] + [(text, 0) for text, _, _ in byte_pieces()]
    pieces += [(text.replace("▁", " "), score) for text, score, kind in LETTERS if kind == 1]
    file = b"".join(struct.pack("<fi", score, len(text.encode())) + text.encode() for text, score in pieces)
    put("tokenizer_llama2c", "letters", struct.pack("<HI", len(pieces), 6) + file)


def tokenizer_template():
    put("tokenizer_template", "turns", b"""{% for m in messages %}{% if m['role'] == 'user' %}
{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}{% elif m.role == 'system' %}
{% set ns = namespace(system=m.content | trim) %}{% else %}{{ ' ' ~ m.content ~ ' ' ~ eos_token }}{% endif %}
{% endfor %}{% if add_generation_prompt %}a{% endif %}\0 ab """)
    put("tokenizer_template", "refusal", b"{% if messages|length > 2 %}{{ raise_exception('no ' ~ bos_token) }}{% endif %}")
    put("tokenizer_template", "for-ever", b"{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('ab') }}")


def safetensors():
    def file(header, data):
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    info = lambda kind, shape, begin, end: {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    header = {
        "__metadata__": {"format": "pt"}, "a": info("F32", [2, 2], 0, 16), "b": info("BF16", [3], 16, 22),
        "c": info("I64", [], 22, 30), "d": info("F16", [0, 4], 30, 30),
    }
    put("safetensors", "sound-types", file(header, bytes(30)))
    put("safetensors", "overlap", file({"a": info("F32", [2], 0, 8), "b": info("F32", [2], 4, 12)}, bytes(12)))
    put("safetensors", "overflow", file({"a": info("F32", [2**63, 4], 0, 0)}, b""))
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "2"}}
    put("index", "sound-two-files", json.dumps(index).encode())
    put("index", "outside", json.dumps({"weight_map": {"a": "../x"}}).encode())


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def tensor(kind, key, n, shape, strides, offset=0):
    """The pickle of one tensor, as torch.save writes it but without a memo."""
    sizes = lambda items: b"(" + b"".join(b"K" + bytes([i]) for i in items) + b"t"
    persistent = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + b"K"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + bytes([n]) + b"tQK" + bytes([offset])
        + sizes(shape) + sizes(strides) + b"\x89ccollections\nOrderedDict\n)RtR")


def state(entries):
    body = b"".join(text(name) + pickled for name, pickled in entries.items())
    return b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(" + body + b"u}" + text("_metadata") + b"h\x00sb."


def torch():
    entries = {
        "a": tensor("FloatStorage", "0", 6, [2, 3], [3, 1]),
        "b": tensor("HalfStorage", "1", 4, [2], [1], 2),
        "c": b"ctorch._utils\n_rebuild_parameter\n(" + tensor("BFloat16Storage", "2", 1, [], [])
            + b"\x88ccollections\nOrderedDict\n)RtR",
    }
    storages = {"0": floats(6), "1": bytes(8), "2": bytes(2)}
    pickled = state(entries)
    put("pickle", "sound-state", pickled)
    put("pickle", "sound-protocol-4", b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.")
    put("pickle", "system", b"\x80\x02cos\nsystem\n" + text("echo") + b"\x85R.")
    put("pickle", "cycle", b"\x80\x02]q\x00h\x00ah\x00eh\x00.")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        put_entry = lambda name, data: z.writestr(zipfile.ZipInfo("archive/" + name), data)
        put_entry("data.pkl", pickled)
        put_entry("byteorder", b"little")
        for key, data in storages.items():
            put_entry("data/" + key, data)
        put_entry("version", b"3\n")
    put("torch", "sound-zip", archive.getvalue())
    magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
    facts = b"\x80\x02}(" + text("little_endian") + b"\x88u."
    keys = b"\x80\x02](" + text("0") + text("1") + text("2") + b"e."
    sizes = {"0": 6, "1": 4, "2": 1}
    data = b"".join(struct.pack("<q", sizes[key]) + storages[key] for key in storages)
    put("torch", "sound-legacy", magic + b"\x80\x02M\xe9\x03." + facts + pickled + keys + data)


def configs():
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
        "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "vocab_size": 100, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": [2, 3], "attention_bias": False, "head_dim": None,
    }
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 0.5,
        "mscale_all_dim": 0.7, "beta_fast": 16}
    scaling = {"linear": {"type": "linear", "factor": 2}, "dynamic": {"type": "dynamic", "factor": 2.0},
        "yarn": yarn, "none": None}
    for name, rope in scaling.items():
        put("hf_config", "sound-" + name, json.dumps(config | {"rope_scaling": rope}).encode())
    put("hf_config", "sound-new", json.dumps(config | {"rope_parameters": yarn | {"rope_theta": 5e5}}).encode())
    put("params", "sound-70b", json.dumps({"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3,
        "n_heads": 64, "n_kv_heads": 8, "n_layers": 80, "norm_eps": 1e-5, "vocab_size": -1}).encode())


def imatrix():
    number = lambda v: struct.pack("<i", v)
    entry = lambda name, values: number(len(name)) + name.encode() + number(2) + number(len(values)) + struct.pack(
        f"<{len(values)}f", *values)
    names = ["blk.0.attn_q.weight", "blk.0.ffn_down.weight"]
    dat = number(2) + entry(names[0], [1.0, 0.5]) + entry(names[1], [0.25])
    put("imatrix", "sound-dat", dat)
    put("imatrix", "sound-dat-with-text", dat + number(3) + number(4) + b"text")
    put("imatrix", "experts", number(1) + entry("blk.0.ffn_up_exps.weight", [1.0]))
    tensors = [(names[0] + ".in_sum2", [1.0, 0.5]), (names[0] + ".counts", [2.0])]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 2)
    out += string("general.type") + struct.pack("<I", 8) + string("imatrix")
    out += string("imatrix.chunk_count") + struct.pack("<II", 4, 3)
    for idx, (name, values) in enumerate(tensors):
        out += string(name) + struct.pack("<IQIQ", 1, len(values), 0, 32 * idx)
    out += bytes(-len(out) % 32)
    for _, values in tensors:
        out += struct.pack(f"<{len(values)}f", *values).ljust(32, b"\0")
    put("imatrix", "sound-gguf", out)


def hub():
    def large(name):
        return {"rfilename": name, "size": 5000, "blobId": "b" * 40,
            "lfs": {"sha256": "a" * 64, "size": 5000, "pointerSize": 134}}

    def small(name):
        return {"rfilename": name, "size": 12, "blobId": "c" * 40}

    def listing(name, *files, card=None):
        listing = {"id": "org/name", "sha": "d" * 40, "gated": "manual", "siblings": files, "cardData": card}
        put("hub_listing", name, json.dumps(listing).encode())

    parts = [large(f"big-Q8_0-0000{n}-of-00002.gguf") for n in (1, 2)]
    listing("sound-gguf", small("LICENSE.txt"), large("m.Q4_0.gguf"), large("m.Q4_K_M.gguf"), *parts,
        card={"license": "other", "license_name": "llama2", "license_link": "LICENSE.txt"})
    listing("sound-folder", small("config.json"), small("model.safetensors.index.json"),
        large("model-00001-of-00001.safetensors"), large("tokenizer.model"), card={"license": ["mit"]})
    listing("sound-escape", large("../../m.gguf"), large("a\\..\\b.gguf"), large("C:m.Q4_0.gguf"))
    listing("sound-twice", large("m.gguf"), small("LICENSE"), small("license"))
    listing("no-checksum", {"rfilename": "m.gguf", "size": 5000})
    listing("huge", large("m.gguf") | {"lfs": {"sha256": "a" * 64, "size": 2**64 - 1}})
    put("hub_listing", "cut", b'{"sha":"')

    files = [{"path": "m.gguf", "size": 5000, "sha256": "a" * 64}]
    manifest = {
        "version": 1, "model": {"org": "org", "name": "name", "revision": "main", "tag": "Q4_0"}, "commit": "d" * 40,
        "pulled": "2026-11-24T06:40:00Z", "form": "GGUF Q4_0",
        "licence": {"id": "llama2", "sha256": "e" * 64, "accepted": "2026-11-24T06:39:00Z"},
        "open": "m.gguf", "files": files,
    }
    put("hub_manifest", "sound", json.dumps(manifest).encode())
    escape = files + [{"path": "../x", "size": 1, "sha256": "a" * 64}]
    overflow = files + [{"path": "x", "size": 2**64 - 1, "sha256": "a" * 64}]
    twice = files + [{"path": "M.gguf", "size": 1, "sha256": "f" * 64}]
    for name, change in {"escape": {"files": escape}, "overflow": {"files": overflow}, "twice": {"files": twice},
            "open": {"open": "/etc"}, "version": {"version": 2}}.items():
        put("hub_manifest", name, json.dumps(manifest | change).encode())


def data():
    def shard(name, ids, magic=b"PUNADATA", version=1, vocab=512, first=0, n=None, documents=1, spare=0):
        width = 2 if vocab <= 1 << 16 else 4
        n = len(ids) if n is None else n
        header = magic + struct.pack("<IIIIQQQ", version, width, vocab, spare, first, n, documents) + bytes(range(32))
        put("data_shard", name, header + b"".join(i.to_bytes(width, "little") for i in ids))

    shard("sound-two", [1, 400, 2])
    shard("sound-four", [1, 70_000, 2], vocab=100_000, first=1 << 40)
    shard("sound-empty", [], documents=0)
    shard("magic", [1, 2], magic=b"PUNADATE")
    shard("version", [1, 2], version=2)
    shard("short", [1, 2], n=3)
    shard("overflow", [1, 2], n=(1 << 63) + 2)
    shard("end", [1, 2], first=2**64 - 1)
    shard("documents", [1, 2], documents=3)
    shard("vocabulary", [1, 2], vocab=0)
    shard("spare", [1, 2], spare=1)
    put("data_shard", "cut", b"PUNADATA")

    amount = {"n": 1, "bytes": 9}
    reasons = ["duplicates", "script", "words", "near_duplicates", "min_chars"]

    def split(*tokens, file="train.a.0000{}.bin"):
        shards = [{"file": file.format(i), "tokens": n, "sha256": "a" * 64} for i, n in enumerate(tokens)]
        return {"documents": 1, "bytes": 9, "tokens": sum(tokens), "longer_than_a_shard": 0, "shards": shards}

    def manifest(name, top={}, **source):
        source = {"name": "a", "origin": "o", "licence": "l", "weight": 1, "utf8_replaced": 0, "counted_words": 0,
            "files": [{"file": "a.txt", "sha256": "b" * 64}], "lists": [], "read": amount, "removed": {r: amount for r in reasons},
            "train": split(64, 3), "held_out": split(), "held_out_groups": ["Book"]} | source
        vocabulary = {"file": "tokenizer.model", "sha256": "c" * 64, "vocab_size": 512, "bos_id": 1, "eos_id": 2}
        whole = {"version": 1, "config": {"file": "config.toml", "sha256": "d" * 64}, "tokenizer": vocabulary,
            "seed": 7, "shard_tokens": 64, "held_out_fraction": 0.01, "near_duplicates": 0.2, "sources": [source]}
        put("data_manifest", name, json.dumps(whole | top).encode())

    manifest("sound")
    manifest("none", top={"sources": []})
    manifest("empty", train=split())
    manifest("escape", train=split(3, file="../{}"))
    manifest("half", train=split(60, 3))
    manifest("overfull", train=split(65))
    manifest("weight", weight=0)
    manifest("version", top={"version": 2})
    manifest("unknown", top={"more": 1})

    source = """
[[source]]
name = "books"
paths = ["books.txt.zst"]
format = "text"
marker = "<|endofdoc|>"
groups = { list = "books.tsv", name = "title", documents = "docs", only = { tier = "A" } }
weight = 30
origin = "somewhere"
licence = "public domain"
"""
    top = """seed = 1
shard_tokens = 1024
invalid_utf8 = "replace"
[held_out]
fraction = 0.02
groups = ["Book"]
near_duplicates = 0.3
[filter]
script = { name = "Latin", min_share = 0.8 }
min_chars = 100
words = { list = "words.txt", action = "count", unit = "paragraph" }
"""
    put("data_config", "sound", (top + source).encode())
    put("data_config", "sound-least", source.replace("groups", "# ").encode())
    put("data_config", "range", (top + source).replace("30", "0").encode())
    put("data_config", "unknown", (top + source).replace("seed", "sede").encode())
    put("data_config", "twice", (top + source + source).encode())
    put("data_config", "format", (top + source).replace('"text"', '"jsonl"').encode())
    put("data_config", "cut", (top + source)[:200].encode())


def records():
    def turns(*texts):
        return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]

    def lines(*objects):
        return "".join(json.dumps(each) + "\n" for each in objects).encode()

    dialogue, answer = {"messages": turns("a", "b \u00e9")}, {"instruction": "a", "input": "", "output": "b"}
    names = {"user": "human", "assistant": "gpt"}
    shared = {"conversations": [{"from": names[t["role"]], "value": t["content"]} for t in turns("a", "b", "c", "d")]}
    pair = {"prompt": turns("a", "b", "c"), "chosen": "d", "rejected": "e", "strength": 2, "safety": "both_safe"}
    start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    put("data_records", "sound-messages", lines(dialogue, dialogue | {"source": "s"}))
    put("data_records", "sound-sharegpt", lines(shared))
    put("data_records", "sound-alpaca", json.dumps([answer, answer]).encode())
    put("data_records", "sound-pair", lines(pair))
    put("data_records", "sound-transcripts", lines({"chosen": start + " d", "rejected": start + " e"}))
    put("data_records", "roles", lines({"messages": turns("a", "b", "c")}))
    put("data_records", "empty", lines({"messages": turns("a", " ")}))
    put("data_records", "equal", lines(pair | {"chosen": "e "}))
    put("data_records", "label", lines(pair | {"strength": 4}))
    put("data_records", "prompts", lines({"chosen": start + " d", "rejected": start[7:] + " e"}))
    put("data_records", "form", lines({"text": "a"}))
    put("data_records", "cut", lines(dialogue)[:-5])


gguf()
imatrix()
llama2c()
tokenizer_model()
tokenizer_json()
tokenizer_llama2c()
tokenizer_template()
safetensors()
torch()
configs()
hub()
data()
records()
