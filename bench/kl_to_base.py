"""How far a tuned model has moved from its base: KL divergence on its own answers.

    python bench/kl_to_base.py BASE POLICY ANSWERS.jsonl

BASE and POLICY are folders that `transformers` opens, BASE with the tokenizer (checkpoints of puna's recipes are; `puna
convert` makes one of any model); ANSWERS is what `puna answer POLICY` wrote. Of every answered prompt in Llama 2's form both
models give a distribution at each token of the answer and at its end; KL(policy || base) is summed exactly over the
vocabulary. Printed: the mean per token and per answer in nats, with 95 % intervals by bootstrap over answers.
"""

import argparse
import json
from pathlib import Path

import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("policy")
    parser.add_argument("answers", type=Path)
    return parser.parse_args()


@torch.no_grad()
def kl_of_answer(base, policy, prompt, answer, eos):
    """KL at each token of one answer, and at its end. Shapes: [answer + 1]."""
    ids = torch.tensor([prompt + answer + [eos]])
    first = len(prompt) - 1
    of_policy, of_base = (torch.log_softmax(m(ids).logits[0, first:-1].double(), -1) for m in (policy, base))
    return (of_policy.exp() * (of_policy - of_base)).sum(-1).numpy()


def interval(per_answer, lengths, draws=2000):
    """Bootstrap over answers of the mean per token and per answer."""
    random = numpy.random.default_rng(0)
    picks = random.integers(0, len(per_answer), (draws, len(per_answer)))
    sums, tokens = per_answer[picks].sum(1), lengths[picks].sum(1)
    return numpy.percentile(sums / tokens, [2.5, 97.5]), numpy.percentile(sums / len(per_answer), [2.5, 97.5])


def main():
    args = parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    base, policy = (AutoModelForCausalLM.from_pretrained(m, dtype=torch.float32).eval() for m in (args.base, args.policy))
    sums, lengths = [], []
    for line in args.answers.read_text().splitlines():
        record = json.loads(line)
        messages = record["prompt"]
        if len(messages) != 1:
            continue
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
        prompt = [tokenizer.bos_token_id, *encode(f"[INST] {messages[0]['content'].strip()} [/INST]")]
        for answer in record["answers"]:
            kl = kl_of_answer(base, policy, prompt, encode(answer["text"].strip()), tokenizer.eos_token_id)
            sums.append(kl.sum())
            lengths.append(len(kl))
    sums, lengths = numpy.array(sums), numpy.array(lengths)
    per_token, per_answer = interval(sums, lengths)
    print(f"{len(sums)} answers of {lengths.mean():.1f} tokens")
    print(f"KL to the base  per token   {sums.sum() / lengths.sum():.3f} ({per_token[0]:.3f} to {per_token[1]:.3f}) nats")
    print(f"                per answer  {sums.mean():.1f} ({per_answer[0]:.1f} to {per_answer[1]:.1f}) nats")


if __name__ == "__main__":
    main()
