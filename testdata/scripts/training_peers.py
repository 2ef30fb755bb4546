"""Trains vocabularies with Puna, and has PyPI `sentencepiece` read them and encode with them.

    python testdata/scripts/training_peers.py PUNA

Pieces, scores and settings must be those that `sentencepiece`'s own trainer gave (`trained-*.model`), and its ids of
the hard strings, as one text, those that Puna gives.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

from tokenizer_golden import OUT, read_strings
from training_golden import CASES, lines


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def train(puna, text, out, settings):
    options = ["--vocab", settings["vocab_size"], "--character-coverage", settings["character_coverage"]]
    user_defined = settings.get("user_defined_symbols", [])
    options += ["--user-defined", *user_defined] if user_defined else []
    run(puna, "tokenizer", "train", "--input", text, "--out", out, *options)


def pieces_of(model):
    return [(p.piece, p.score, p.type) for p in model.pieces]


def settings_of(model):
    """What a model says that changes ids, or the next training."""
    t, n = model.trainer_spec, model.normalizer_spec
    trainer = (t.model_type, t.vocab_size, t.character_coverage, t.max_sentencepiece_length, t.split_digits,
               t.allow_whitespace_only_pieces, t.byte_fallback, list(t.user_defined_symbols), t.unk_id, t.bos_id,
               t.eos_id, t.pad_id, t.unk_surface)  # fmt: skip
    return trainer, (n.name, n.precompiled_charsmap, n.add_dummy_prefix, n.remove_extra_whitespaces, n.escape_whitespaces)


def check(puna, folder, name, settings, strings):
    text, out = folder / "text", folder / f"{name}.model"
    train(puna, text, out, settings)
    ours, theirs = (pb.ModelProto.FromString(path.read_bytes()) for path in (out, OUT / f"trained-{name}.model"))
    assert pieces_of(ours) == pieces_of(theirs), f"{name}: other pieces"
    assert settings_of(ours) == settings_of(theirs), f"{name}: {settings_of(ours)}, expected {settings_of(theirs)}"
    sp = spm.SentencePieceProcessor(model_file=str(out))
    hard = folder / "hard"
    hard.write_bytes("\n".join(strings).encode())
    ids = json.loads(run(puna, "tokenize", "--model", out, "--file", hard, "--json"))["ids"]
    assert ids == sp.encode("\n".join(strings)), f"{name}: other ids"
    print(f"{name}: {len(ours.pieces)} pieces and {len(ids)} ids as sentencepiece has them")


if __name__ == "__main__":
    puna, strings = Path(sys.argv[1]).resolve(), read_strings()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "text").write_bytes("".join(line + "\n" for line in lines()).encode())
        for name, settings in CASES.items():
            check(puna, folder, name, settings, strings)
