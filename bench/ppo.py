"""Speed of an iteration of PPO: Puna beside PyTorch with `transformers`, the same shape, the same run, in alternation.

    python bench/ppo.py [--rounds 3] [--threads 2] [--record]

64 prompts of about 64 tokens, 128 new tokens each, a frozen reference, two reward models, one update; a network of 7M new
weights, which hardly ever ends an answer early. Also: what the engine alone makes of the same batch (`puna answer`), since
rollouts should cost no more. Needs torch and transformers (requirements-train.txt).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import common

WORKER = Path(__file__).resolve().parent / "ppo_worker.py"
N_PROMPTS, N_NEW = 64, 128
# Ratios to PyTorch that are asked for.
TARGETS = {"rollout": 3.0, "whole": 1.7}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write bench/record/DATE-CPU-ppo.json")
    return parser.parse_args()


def last_checkpoint(folder):
    return sorted((folder / "checkpoints").iterdir())[-1]


def prepare(work):
    """New weights and a reward model on them, after a step each, and prompts."""
    words = "the little bear went home and saw a big red fox by the old tree on a warm day in may".split()
    text = lambda n, i: " ".join(words[(i * 7 + j * (1 + i % 5)) % len(words)] for j in range(n))
    marker = "\n<|end|>\n"
    (work / "tales.txt").write_text(marker.join(text(300, i) + f" {i}." for i in range(400)))
    (work / "data.toml").write_text(
        "[held_out]\nfraction = 0.05\nnear_duplicates = 1.0\n[[source]]\nname = \"tales\"\npaths = [\"tales.txt\"]\nformat = \"text\"\n"
        "marker = \"<|end|>\"\nweight = 1\norigin = \"made up\"\nlicence = \"none\"\n"
    )
    common.run(common.PUNA, "convert", "stories7m", work / "built-in", "--dtype", "f32")
    common.run(common.PUNA, "data", "build", work / "data.toml", "--texts", work, "--tokenizer",
               work / "built-in" / "tokenizer.model", "--out", work / "corpus")  # fmt: skip
    (work / "base.toml").write_text(
        "preset = \"7m\"\ndata = \"corpus\"\nseq_len = 512\nbatch_tokens = 512\ntokens = 512\n[optimizer]\nlr = 1e-6\n"
        "[eval]\nevery = 0\n"
    )
    common.run(common.PUNA, "pretrain", work / "base.toml", "--out", work / "base")
    base = last_checkpoint(work / "base")
    prompts = [text(34, i) for i in range(N_PROMPTS)]
    pair = lambda p: {"prompt": [{"role": "user", "content": p}], "chosen": "A fox ran home.", "rejected": "No."}
    (work / "pairs.jsonl").write_text("".join(json.dumps(pair(p)) + "\n" for p in prompts))
    (work / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    (work / "reward.toml").write_text(
        f"model = \"{base}\"\nbatch = 64\n[[data]]\npath = \"pairs.jsonl\"\n[eval]\nfraction = 0.0\n"
    )
    common.run(common.PUNA, "reward", "train", work / "reward.toml", "--out", work / "reward")
    return base, last_checkpoint(work / "reward")


def puna(work, base, reward, args, n):
    (work / "ppo.toml").write_text(
        f"model = \"{base}\"\nhelpfulness = \"{reward}\"\nsafety = \"{reward}\"\nbatch = {N_PROMPTS}\nmini_batch = {N_PROMPTS}\n"
        f"iterations = {args.rounds + 1}\nmax_new_tokens = {N_NEW}\n[[prompts]]\npath = \"prompts.jsonl\"\n"
        "[eval]\nevery = 0\nfraction = 0.0\n[checkpoint]\nevery = 1000\n"
    )
    out = work / f"ppo-{n}"
    common.run(common.PUNA, "ppo", work / "ppo.toml", "--out", out, "--threads", args.threads)
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()][1:]
    whole = [N_PROMPTS * r["answer_tokens"] / r["tokens_per_sec"] for r in records]
    tokens = [r["answer_tokens"] for r in records]
    return {"rollout": [r["rollout_secs"] for r in records], "whole": whole, "tokens": tokens}


def engine_alone(work, base, args):
    out = work / "answers.jsonl"
    out.unlink(missing_ok=True)
    command = [common.PUNA, "answer", base, "--prompts", work / "prompts.jsonl", "--out", out, "-n", N_NEW]
    begun = time.perf_counter()
    common.run(*command, "--temperature", 1, "--top-p", 1, "--seed", 1, "--threads", args.threads)
    return time.perf_counter() - begun


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base, reward = prepare(work)
        ours = puna(work, base, reward, args, 0)
        peer = [sys.executable, WORKER, base, reward, args.threads, N_PROMPTS, N_NEW, args.rounds]
        theirs = json.loads(common.run(*peer))
        again = puna(work, base, reward, args, 1)
        ours = {key: ours[key] + again[key] for key in ours}
        alone = min(engine_alone(work, base, args) for _ in range(args.rounds))
    value = {"prompts": N_PROMPTS, "new_tokens": N_NEW, "puna_answer_tokens": round(min(ours["tokens"]), 1)}
    for key, target in TARGETS.items():
        a, b = min(ours[key]), min(theirs[key])
        value[key] = {"puna_secs": round(a, 3), "torch_secs": round(b, 3), "ratio": round(b / a, 2), "asked": target}
        print(f"{key}: Puna {a:.2f} s, PyTorch {b:.2f} s: {b / a:.2f} times as fast, asked {target}")
    value["rollout"]["engine_alone_secs"] = round(alone, 3)
    print(f"the program that only answers: {alone:.2f} s with its start, rollouts {alone / min(ours['rollout']):.2f} of its speed")
    if args.record:
        import torch
        import transformers

        peer = f"torch {torch.__version__}, transformers {transformers.__version__}"
        path = common.record_path("ppo")
        common.write_record(path, common.about(args.threads) | {"peer": peer, "iteration": value})
        print(f"recorded in {path.relative_to(common.ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
