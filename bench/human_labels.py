"""A reward model on human labels: Anthropic's harmless pairs (test split of harmless-base, MIT), with a bag of words beside it.

    python bench/human_labels.py hh_harmless_test.jsonl.gz [--model stories7m] [--seeds 3] [--record]

A fifth of the prompts is held out. `puna reward train` learns from the rest, from the given model; the baseline is a logistic
regression on the difference of the two answers' word counts, with the best of five L2 penalties by a fifth of its training
pairs. Accuracy on the held-out pairs, with 95 % intervals (bootstrap over pairs) of each and of their difference. Pairs that
do not fit the model's context are left out on both sides.
"""

import argparse
import gzip
import json
import random
import re
import sys
import tempfile
from pathlib import Path

import common
import numpy

SETTINGS = """model = "{model}"
batch = 32
epochs = 2
seed = {seed}
unfit = "skip"
[[data]]
path = "train.jsonl"
[optimizer]
lr = 2e-4
[eval]
fraction = 0.0
[checkpoint]
every = 1000
keep = 1
"""


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="stories7m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most-characters", type=int, default=1400, help="longest dialogue that is taken (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write bench/record/DATE-CPU-human-labels.json")
    return parser.parse_args()


def turns(text):
    """Messages of one transcript; nothing if its roles are not in turn."""
    parts = re.split(r"\n\n(Human|Assistant): ?", text)[1:]
    messages = [
        {"role": {"Human": "user", "Assistant": "assistant"}[role], "content": said.strip()}
        for role, said in zip(parts[::2], parts[1::2])
    ]
    roles = ["user", "assistant"] * (len(messages) // 2)
    tags = any(tag in text for tag in ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>"))
    whole = [m["role"] for m in messages] == roles and all(m["content"] for m in messages)
    return messages if messages and whole and not tags else None


def read(path, most):
    pairs = []
    for line in gzip.open(path, "rt"):
        record = json.loads(line)
        chosen, rejected = turns(record["chosen"]), turns(record["rejected"])
        if not chosen or not rejected or chosen[:-1] != rejected[:-1] or chosen == rejected:
            continue
        if max(len(record["chosen"]), len(record["rejected"])) > most:
            continue
        pairs.append({"prompt": chosen[:-1], "chosen": chosen[-1]["content"], "rejected": rejected[-1]["content"]})
    return pairs


def words(text):
    return re.findall(r"[a-z']+", text.lower())


def bag_of_words(train, held_out):
    """Log-odds that the first answer is the chosen one, for held-out pairs."""
    known = sorted({word for pair in train for key in ("chosen", "rejected") for word in words(pair[key])})
    index = {word: i for i, word in enumerate(known)}

    def features(pairs):
        matrix = numpy.zeros((len(pairs), len(known) + 1), dtype=numpy.float32)
        for row, pair in zip(matrix, pairs):
            for key, sign in (("chosen", 1), ("rejected", -1)):
                found = words(pair[key])
                row[-1] += sign * len(found) / 50
                for word in found:
                    if word in index:
                        row[index[word]] += sign
        return matrix

    def fit(x, penalty):
        # Each pair counts both ways, so there is no bias; Newton's steps are too large, plain descent is enough.
        w, rate = numpy.zeros(x.shape[1], dtype=numpy.float32), 4.0 / (numpy.square(x).sum(1).mean() + 1)
        for _ in range(400):
            miss = 1 / (1 + numpy.exp(numpy.clip(x @ w, -30, 30)))
            w += rate * (x.T @ miss / len(x) - penalty * w)
        return w

    n = len(train) * 4 // 5
    fitted, checked = features(train[:n]), features(train[n:])
    penalties = [1e-4, 1e-3, 1e-2, 3e-2, 1e-1]
    best = max(penalties, key=lambda penalty: (checked @ fit(fitted, penalty) > 0).mean())
    return features(held_out) @ fit(features(train), best)


def reward_model(pairs, held_out, model, seed):
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        (work / "run.toml").write_text(SETTINGS.format(model=model, seed=seed))
        common.run(common.PUNA, "reward", "train", work / "run.toml", "--out", work / "run")
        checkpoint = sorted((work / "run" / "checkpoints").iterdir())[-1]
        rewards = []
        for key in ("chosen", "rejected"):
            dialogue = lambda pair: {"messages": [*pair["prompt"], {"role": "assistant", "content": pair[key]}]}
            (work / "dialogues.jsonl").write_text("".join(json.dumps(dialogue(pair)) + "\n" for pair in held_out))
            lines = common.run(common.PUNA, "reward", "score", checkpoint, work / "dialogues.jsonl", "--unfit", "skip").splitlines()
            rewards.append({found["line"]: found["reward"] for found in map(json.loads, lines)})
    fit = [line for line in rewards[0] if line in rewards[1]]
    return numpy.array([rewards[0][line] - rewards[1][line] for line in fit]), [held_out[line - 1] for line in fit]


def interval(values, seed=0):
    rng = numpy.random.default_rng(seed)
    means = numpy.sort([rng.choice(values, len(values)).mean() for _ in range(2000)])
    return {"mean": round(float(values.mean()), 4), "low": round(float(means[50]), 4), "high": round(float(means[-51]), 4)}


def main():
    args = parse_args()
    pairs = read(args.file, args.most_characters)
    ours, theirs = [], []
    for seed in range(args.seeds):
        order = pairs[:]
        random.Random(seed).shuffle(order)
        held_out, train = order[: len(order) // 5], order[len(order) // 5 :]
        margins, held_out = reward_model(train, held_out, args.model, seed)
        ours.append(margins > 0)
        theirs.append(bag_of_words(train, held_out) > 0)
        print(f"seed {seed}: reward model {ours[-1].mean():.3f}, bag of words {theirs[-1].mean():.3f}", file=sys.stderr)
    ours, theirs = (numpy.concatenate(found).astype(float) for found in (ours, theirs))
    value = {
        "pairs": len(pairs), "seeds": args.seeds, "model": args.model, "reward_model": interval(ours),
        "bag_of_words": interval(theirs), "difference": interval(ours - theirs),
    }  # fmt: skip
    print(json.dumps(value, indent=1))
    if args.record:
        path = common.record_path("human-labels")
        common.write_record(path, common.about(2) | value)
        print(f"recorded in {path.relative_to(common.ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
