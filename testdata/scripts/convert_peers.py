"""Converts the golden models with `puna convert`, and asks transformers and llama.cpp what they make of it.

Every checkpoint of testdata/models goes to a Hugging Face folder and to GGUF. Both are loaded by the
peer at home in that form, whose logits on the golden prompt must be those of the source:

- transformers, f32: within 1e-4 of the largest logit (1e-6 is usual).
- llama.cpp, which rounds activations to the type of the weights: within 5e-3 for F32 and F16 weights,
  2e-2 for BF16, 5e-2 for quantised ones.

Then the built-in model with its vocabulary goes the same ways; the peers' ids of some strings and their
greedy text must be Puna's. With a folder that holds llama-2-tiny-random.gguf, so must the ids of Llama
2's own vocabulary. Run: python testdata/scripts/convert_peers.py [PUNA [FOLDER]]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
import sentencepiece
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "testdata" / "models"
PUNA = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target" / "release" / "puna"

# Checkpoint, golden file, llama.cpp's bound; None where llama.cpp cannot compute the network.
CASES = [
    ("mha/hf", "golden", 5e-3),
    ("mha/hf-bin", "golden-f16", 5e-3),
    ("mha/meta", "golden", 5e-3),
    ("mha/meta-2", "golden-f16", 5e-3),
    ("mha/gguf/f32.gguf", "golden", 5e-3),
    ("mha/gguf/q8_0.gguf", "golden-q8_0", 5e-2),
    ("mha/llama2c/legacy.bin", "golden", 5e-3),
    ("mha/llama2c/v2.bin", "golden-v2", 5e-3),
    ("gqa/hf", "golden-bf16", 2e-2),
    ("gqa/meta-2", "golden-bf16", 2e-2),
    ("gqa/gguf/f32-00001-of-00002.gguf", "golden", 5e-3),
    ("gqa/gguf/mixed.gguf", "golden-mixed", 5e-2),
    ("k-quants/gguf/k-quants.gguf", "golden", 5e-2),
    ("tied/hf", "golden", 5e-3),
    ("tied/llama2c/legacy.bin", "golden", 5e-3),
    ("odd/hf", "golden", 5e-3),
    ("head-dim/hf", "golden", 5e-3),
    ("rope-linear/hf", "golden", 5e-3),
    ("rope-linear-old/hf", "golden", 5e-3),
    ("rope-yarn/hf", "golden", 5e-3),
    ("rope-yarn/gguf/f32.gguf", "golden", 5e-3),
    # GGUF has no dynamic NTK scaling, and the golden prompt is longer than the original context.
    ("rope-dynamic/hf", "golden", None),
]
# Written in several files each.
SPLIT = {"gqa/hf", "mha/gguf/q8_0.gguf"}
STRINGS = [
    "Once upon a time, there was a little girl.",
    "two  spaces,   three, and one at the end ",
    " a space before",
    "a line\nand another\ttab",
    "Größe, naïve, 語, 🦙",
    "<s> is text",
]


def puna(*args):
    run = subprocess.run([PUNA, *map(str, args)], capture_output=True, text=True)
    assert run.returncode == 0, f"puna {args}: {run.stderr}"
    return run.stdout


def write_vocabulary(path, n):
    """A SentencePiece model of `n` pieces: special ones, bytes where they have room, single characters."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = pb.ModelProto()
    kinds = pb.ModelProto.SentencePiece
    pieces = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    byte_fallback = n > 259
    if byte_fallback:
        pieces += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    pieces += [("\u2581", kinds.NORMAL)]
    pieces += [(chr(0x61 + i), kinds.NORMAL) for i in range(n - len(pieces))]
    for rank, (text, kind) in enumerate(pieces):
        model.pieces.add(piece=text, type=kind, score=-float(rank))
    model.trainer_spec.model_type = pb.TrainerSpec.BPE
    model.trainer_spec.vocab_size = n
    model.trainer_spec.byte_fallback = byte_fallback
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    path.write_bytes(model.SerializeToString())


def transformers_logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor(ids, dtype=torch.long)[None]).logits[0].numpy()


def open_llama_cpp(path):
    return llama_cpp.Llama(
        str(path), n_ctx=128, logits_all=True, verbose=False, n_threads=1,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip


def llama_cpp_logits(path, ids):
    model = open_llama_cpp(path)
    model.eval(ids.tolist())
    return np.array(model.scores[: len(ids)])


def check(what, found, expected, bound):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{what}: {error:.1e} of the largest logit")
    assert error <= bound, f"{what}: {error} is above {bound}"


def check_logits(folder):
    for number, (checkpoint, golden_name, bound) in enumerate(CASES):
        source = MODELS / checkpoint
        golden = load_file(MODELS / checkpoint.split("/")[0] / f"{golden_name}.safetensors")
        vocabulary = []
        if ".gguf" not in checkpoint:
            path = folder / f"{number}.model"
            write_vocabulary(path, golden["logits"].shape[1])
            vocabulary = ["--tokenizer", path]
        gguf, hf = folder / f"{number}.gguf", folder / f"{number}"
        size = ["--split-size", "10KB"] if checkpoint in SPLIT else []
        puna("convert", source, gguf, *vocabulary, *size)
        puna("convert", source, hf, *vocabulary, *size)
        if size:
            [gguf] = folder.glob(f"{number}-00001-of-*.gguf")
            assert (hf / "model.safetensors.index.json").exists()
        check(f"{checkpoint} by transformers", transformers_logits(hf, golden["ids"]), golden["logits"], 1e-4)
        if bound is not None:
            check(f"{checkpoint} by llama.cpp", llama_cpp_logits(gguf, golden["ids"]), golden["logits"], bound)
        # The long way round: what came out as GGUF, as a folder.
        again = folder / f"{number}-again"
        puna("convert", gguf, again)
        if bound is not None:
            check(f"{checkpoint} by way of GGUF", transformers_logits(again, golden["ids"]), golden["logits"], 1e-4)


def check_vocabulary(name, source, folder, extra_spaces_kept):
    """Ids of the peers for a model with a real vocabulary, its BOS once in front. Returns the models and peers."""
    gguf, hf = folder / f"{name}.gguf", folder / name
    puna("convert", source, gguf)
    puna("convert", gguf, hf)
    own = sentencepiece.SentencePieceProcessor(model_file=str(hf / "tokenizer.model"))
    fast = AutoTokenizer.from_pretrained(hf)
    peer = open_llama_cpp(gguf)
    for text in STRINGS:
        expected = [int(i) for i in puna("tokenize", "--model", source, "--encode", text).split()]
        assert own.encode(text) == expected, f"{name}, sentencepiece: {text!r}"
        # Transformers takes the text of control pieces for the piece itself.
        if "<s>" not in text:
            found = fast(text)["input_ids"]
            assert found == [1, *expected], f"{name}, transformers: {text!r}: {found}, {expected}"
        if extra_spaces_kept or text == " ".join(text.split()):
            found = peer.tokenize(text.encode(), add_bos=True, special=False)
            assert found == [1, *expected], f"{name}, llama.cpp: {text!r}: {found}, {expected}"
    print(f"{name}: ids of {len(STRINGS)} strings are the same")
    return gguf, hf, fast, peer


def check_text(name, source, gguf, hf, fast, peer):
    prompt = "Once upon a time"
    expected = None
    for model in (source, gguf, hf):
        run = puna("generate", model, prompt, "-n", 40, "--temperature", 0, "--json")
        ids = json.loads(run)["ids"]
        expected = expected or ids
        assert ids == expected, f"{name}: {model} answers otherwise"
    model = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
    start = torch.tensor([fast(prompt)["input_ids"]])
    found = model.generate(start, max_new_tokens=40, do_sample=False)[0].tolist()[start.shape[1] :]
    assert found == expected, f"{name}: transformers answers otherwise"
    peer.reset()
    feed, found = start[0].tolist(), []
    while len(found) < 40:
        peer.eval(feed)
        feed = [int(np.argmax(peer.scores[peer.n_tokens - 1]))]
        found += feed
    assert found == expected, f"{name}: llama.cpp answers otherwise"
    print(f"{name}: 40 greedy tokens are the same")


def main():
    with tempfile.TemporaryDirectory() as folder:
        check_logits(Path(folder))
        made = check_vocabulary("stories260K", "stories260K", Path(folder), extra_spaces_kept=False)
        check_text("stories260K", "stories260K", *made)
        if len(sys.argv) > 2:
            source = Path(sys.argv[2]) / "llama-2-tiny-random.gguf"
            check_vocabulary("llama-2", source, Path(folder), extra_spaces_kept=True)


if __name__ == "__main__":
    main()
