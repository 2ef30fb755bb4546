"""Training a vocabulary: Puna beside PyPI `sentencepiece`, same run, same text, same settings (Llama 2's).

    python bench/tokenizer_train.py TEXTS… [--vocab N] [--threads N] [--rounds N] [--record]

TEXTS may be .zst. Each trainer runs in a process of its own, Puna's from start to file. Told are seconds, peak memory,
how many pieces are the same at the same place, and tokens on the text. Checks that the `sentencepiece` library reads
Puna's model and gives the ids that Puna gives, line by line. Needs sentencepiece, numpy, zstandard.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import sentencepiece as spm
import zstandard

import common
import tokenizer

TRAIN = """
import sentencepiece, sys
text, out, vocab, threads = sys.argv[1:]
sentencepiece.SentencePieceTrainer.train(
    input=text, model_prefix=out, vocab_size=int(vocab), num_threads=int(threads), model_type="bpe",
    normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=True, split_digits=True,
    allow_whitespace_only_pieces=True, character_coverage=0.99995, max_sentence_length=1 << 30, minloglevel=2)
"""

# A process of its own: the peak of a child is at least what its parent had when it was started.
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def collect(texts, path):
    """All texts in one plain file, which both read. Left out are lines that `sentencepiece` skips for the character
    that stands for unknown ones there."""
    with open(path, "wb") as out:
        for text in texts:
            with zstandard.open(text, "rb") if text.suffix == ".zst" else open(text, "rb") as opened:
                lines = opened.read().split(b"\n")
            out.writelines(line + b"\n" for line in lines if "\u2585".encode() not in line)


def measured(*command):
    """Seconds and peak memory in MB of a program that is run to its end."""
    secs, kilobytes = json.loads(common.run(sys.executable, "-S", "-c", MEASURE, *command).splitlines()[-1])
    return secs, kilobytes / 1e3


def trained(args, text, folder):
    """Both models, and the (seconds, megabytes) of every round."""
    ours, theirs, rounds = folder / "ours.model", folder / "theirs.model", []
    options = ("--vocab", args.vocab, "--threads", args.threads, "--out", ours, "--force")
    for _ in range(args.rounds):
        puna = measured(common.PUNA, "tokenizer", "train", "--input", text, *options)
        peer = measured(sys.executable, "-c", TRAIN, text, folder / "theirs", args.vocab, args.threads)
        rounds.append((puna, peer))
    return ours, theirs, rounds


def pieces(model):
    sp = spm.SentencePieceProcessor(model_file=str(model))
    return [(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.vocab_size())]


def n_tokens(model, lines):
    sp = spm.SentencePieceProcessor(model_file=str(model))
    return sum(len(ids) for start in range(0, len(lines), 100_000) for ids in sp.encode(lines[start : start + 100_000]))


def main():
    args = parse_args()
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        text = folder / "text"
        collect(args.texts, text)
        ours, theirs, rounds = trained(args, text, folder)
        same = sum(a == b for a, b in zip(pieces(ours), pieces(theirs)))
        lines = [line for line in text.read_bytes().decode().split("\n") if line]
        tokens = {"puna": n_tokens(ours, lines), "sentencepiece": n_tokens(theirs, lines)}
        n_bytes = text.stat().st_size
        equal = tokenizer.compare("encoding with Puna's model", ours, tokenizer.read(text), 1)
    figures = {
        "seconds": {
            "puna": common.summary([puna[0] for puna, _ in rounds]),
            "sentencepiece": common.summary([peer[0] for _, peer in rounds]),
            "ratio": common.summary([peer[0] / puna[0] for puna, peer in rounds]),
        },
        "peak_mb": {"puna": max(puna[1] for puna, _ in rounds), "sentencepiece": max(peer[1] for _, peer in rounds)},
        "same_pieces": same / args.vocab,
        "tokens": tokens | {"ratio": tokens["puna"] / tokens["sentencepiece"]},
    }
    print(f"{n_bytes / 1e6:.1f} MB, {args.vocab} pieces, {args.threads} threads: {json.dumps(figures)}")
    if args.record:
        value = common.about(args.threads) | {
            "load_before": load, "peer": f"sentencepiece {spm.__version__}", "texts": [path.name for path in args.texts],
            "n_bytes": n_bytes, "vocab": args.vocab, "rounds": args.rounds, **figures,
        }  # fmt: skip
        path = common.record_path("tokenizer-train")
        common.write_record(path, value)
        print(f"recorded in {path.relative_to(common.ROOT)}")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
