"""Writes testdata/tokenizer: vocabularies, hard strings, and what PyPI `sentencepiece` and `tokenizers` say of them.

    python testdata/scripts/tokenizer_golden.py [SHARED_DATA [--train]]

Alone it answers the committed strings with the committed vocabularies; with the project's shared data also with
Llama 2's vocabulary; with --train it first trains the vocabularies (half a minute) and makes the strings anew.

Made with Python 3.11, sentencepiece 0.2.3, tokenizers 0.23.3, protobuf 7.36.2, zstandard 0.25.0. The vocabularies
are trained on public-domain novels (COST-ELTeC) with Llama 2's settings, so they may be committed; for Llama 2's own
vocabulary only hashes of ids and some ids are kept. Files (integers little-endian):

    strings.bin     u32 count; each: u32 length, UTF-8
    NAME.golden     u32 count; u64 hash of the ids of each string (FNV-1a over the ids as u32)
                    u32 count; ids of the first strings in full, each: u32 count, u16 ids
                    u32 count; decoding cases, each: u32 count, u16 ids, u32 length, UTF-8
"""

import io
import json
import random
import struct
import sys
from pathlib import Path

import sentencepiece as spm
import tokenizers
import zstandard
from sentencepiece import sentencepiece_model_pb2 as pb

from tokenizer_strings import CONTROL_LIKE, hard_strings, letters_by_script

OUT = Path(__file__).resolve().parent.parent / "tokenizer"
FULL, DECODES, SEED = 2000, 1000, 20231107
NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6


def novels(shared, n_chars):
    with zstandard.open(shared / "text/novels_eltec.txt.zst", "rt", encoding="utf-8") as f:
        return f.read(n_chars)


def train(text, n_pieces):
    """Llama 2's trainer settings; some letters of every script are mixed in, so that the vocabulary is not all Latin."""
    r = random.Random(SEED)
    lines = [line for line in text.splitlines() if line.strip()]
    for chars in letters_by_script().values():
        common = chars[:60]
        lines += [" ".join("".join(r.choices(common, k=4)) for _ in range(8)) for _ in range(n_pieces // 8000)]
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=n_pieces, model_type="bpe",
        normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=True, split_digits=True,
        allow_whitespace_only_pieces=True, character_coverage=0.9995 if n_pieces < 2000 else 0.99995,
        num_threads=2, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def edited(model):
    """`model` with piece types that trained files seldom hold: unused and user-defined pieces, one joining words."""
    m = pb.ModelProto.FromString(model)
    normal = [p for p in m.pieces if p.type == NORMAL and len(p.piece) > 1]
    for p in random.Random(SEED).sample(normal, 40):
        p.type = UNUSED
    for piece in ["<fim>", "<fim>>", "été", "🦙🦙", "of\u2581the", "\u2581\u2581\u2581\u2581", "12", "\n\n", "</"]:
        if all(p.piece != piece for p in m.pieces):
            m.pieces.add(piece=piece, score=0.0, type=USER_DEFINED)
    m.pieces.add(piece="<pad>", score=0.0, type=CONTROL)
    return m.SerializeToString()


def bare(model):
    """`model` without byte fallback and dummy prefix, and with SentencePiece's default removal of extra spaces."""
    m = pb.ModelProto.FromString(model)
    kept = [p for p in m.pieces if p.type != BYTE]
    del m.pieces[:]
    m.pieces.extend(kept)
    m.trainer_spec.byte_fallback = False
    m.normalizer_spec.add_dummy_prefix = False
    m.normalizer_spec.remove_extra_whitespaces = True
    return m.SerializeToString()


def hugging_face(model, pre_tokenizer=None):
    """`model` as a Hugging Face tokenizer.json: merges from every split of every piece, best piece first."""
    m = pb.ModelProto.FromString(model)
    vocab = {p.piece: i for i, p in enumerate(m.pieces)}
    merges = []
    for p in sorted((p for p in m.pieces if p.type == NORMAL), key=lambda p: -p.score):
        splits = [(p.piece[:i], p.piece[i:]) for i in range(1, len(p.piece))]
        merges += sorted((s for s in splits if s[0] in vocab and s[1] in vocab), key=lambda s: (vocab[s[0]], vocab[s[1]]))
    special = lambda i: dict(id=i, content=m.pieces[i].piece, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
               {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}  # fmt: skip
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [special(i) for i in range(3)],
        "normalizer": None if pre_tokenizer else prepend, "pre_tokenizer": pre_tokenizer, "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": vocab,
                  "merges": [f"{a} {b}" for a, b in merges]},
    }, ensure_ascii=False)  # fmt: skip


def fnv(ids):
    h = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}I", *ids):
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def decoding_cases(n_pieces, encoded):
    """Id lists to decode: encodings, random ids, runs of byte pieces cut anywhere, control ids in between."""
    r = random.Random(SEED)
    cases = [[], [0], [1], [2], [1, 2]] + [encoded[i][: r.randint(0, 24)] for i in range(300)]
    while len(cases) < DECODES:
        kinds = [lambda: r.randrange(n_pieces), lambda: r.randrange(min(n_pieces, 259)), lambda: r.randrange(3),
                 lambda: 3 + r.choice([0xE2, 0x96, 0x81, 0xF0, 0x9F, 0xA6, 0x99, 0xC3, 0xA9, 0xED, 0xA0, 0x80, 0x20])]  # fmt: skip
        usual = r.choice(kinds)
        cases.append([r.choice([usual, usual, r.choice(kinds)])() for _ in range(r.randint(1, 16))])
    return [[i for i in case if i < n_pieces] for case in cases]


def text_record(s):
    raw = s.encode("utf-8")
    return struct.pack("<I", len(raw)) + raw


def ids_record(ids):
    return struct.pack(f"<I{len(ids)}H", len(ids), *ids)


def write_golden(name, strings, encode, n_pieces=None, decode=None):
    encoded = [encode(s) for s in strings]
    cases = decoding_cases(n_pieces, encoded) if decode else []
    out = [struct.pack("<I", len(strings))]
    out += [struct.pack("<Q", fnv(ids)) for ids in encoded]
    out += [struct.pack("<I", FULL)] + [ids_record(ids) for ids in encoded[:FULL]]
    out += [struct.pack("<I", len(cases))] + [ids_record(ids) + text_record(decode(ids)) for ids in cases]
    (OUT / f"{name}.golden").write_bytes(b"".join(out))
    print(name, len(strings), "strings,", sum(map(len, encoded)), "ids,", len(cases), "decodings")
    return encoded


def train_all(shared):
    (OUT / "small.model").write_bytes(train(novels(shared, 3_000_000), 1000))
    large = train(novels(shared, 20_000_000), 32_000)
    (OUT / "large.model").write_bytes(large)
    pieces = [p.piece for p in pb.ModelProto.FromString(large).pieces[259:]]
    strings = hard_strings(novels(shared, 2_000_000), pieces + CONTROL_LIKE, SEED)
    (OUT / "strings.bin").write_bytes(struct.pack("<I", len(strings)) + b"".join(map(text_record, strings)))


def read_strings():
    raw, at, strings = (OUT / "strings.bin").read_bytes(), 4, []
    for _ in range(struct.unpack_from("<I", raw)[0]):
        n = struct.unpack_from("<I", raw, at)[0]
        strings.append(raw[at + 4 : at + 4 + n].decode("utf-8"))
        at += 4 + n
    return strings


def golden(shared):
    strings = read_strings()
    small = (OUT / "small.model").read_bytes()
    (OUT / "edited.model").write_bytes(edited(small))
    (OUT / "bare.model").write_bytes(bare(small))
    (OUT / "small.json").write_text(hugging_face(small))
    (OUT / "metaspace.json").write_text(
        hugging_face(small, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False})
    )
    models = {name: (OUT / f"{name}.model").read_bytes() for name in ["small", "large", "edited", "bare"]}
    json_files = [(OUT / "small.json", "small"), (OUT / "metaspace.json", "small")]
    if shared:
        models["llama2"] = (shared / "tokenizer/llama2/tokenizer.model").read_bytes()
        json_files.append((shared / "tokenizer/llama2/tokenizer.json", "llama2"))
    ids = {}
    for name, model in models.items():
        sp = spm.SentencePieceProcessor(model_proto=model)
        ids[name] = write_golden(name, strings, sp.encode, sp.vocab_size(), sp.decode)

    for file, like in json_files:
        # `tokenizers` turns the text of special tokens into these tokens, plain encoding must not: leave them out.
        hf = tokenizers.Tokenizer.from_str(json.dumps(json.loads(file.read_text()) | {"added_tokens": []}))
        encode = lambda s: hf.encode(s, add_special_tokens=False).ids
        differ = sum(encode(s) != expected for s, expected in zip(strings, ids[like]))
        print(f"{file.name} by `tokenizers`: {differ} of {len(strings)} differ from {like}.model")
        if file.stem == "metaspace":
            write_golden("metaspace", strings, encode)
        else:
            assert differ == 0


if __name__ == "__main__":
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    OUT.mkdir(exist_ok=True)
    if "--train" in sys.argv:
        train_all(shared)
    golden(shared)
