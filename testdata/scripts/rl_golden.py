"""Writes testdata/train/rl.json: the formulas of alignment in f64, their derivatives by PyTorch's autograd.

`pair`, `dpo`, `policy`, `value` hold cases with inputs, `loss` and its derivatives `d_INPUT`; `pair` has all margins of
the paper's table 27 and the safety loss. `gae` holds advantages by their definition, a sum over all later errors, not
by the usual recursion. `whiten`, `logit`, `token_rewards`, `kl`, `entropy` are values. `subsets` holds the mean of the
largest and of the median score over every subset of each size, counted one by one.
Run: python testdata/scripts/rl_golden.py
"""

import itertools
import json
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F

TARGET = Path(__file__).resolve().parent.parent / "train" / "rl.json"
MARGINS = {"none": [0, 0, 0, 0], "small": [0, 1 / 3, 2 / 3, 1], "large": [0, 1, 2, 3]}
torch.set_default_dtype(torch.float64)


def case(inputs, loss_of, **constants):
    """A case: `loss_of(**inputs)` with the derivative by every one of `inputs`; constants are written along."""
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in inputs.items()}
    loss = loss_of(**tensors)
    loss.backward()
    grads = {f"d_{name}": tensor.grad.item() for name, tensor in tensors.items()}
    return inputs | constants | {"loss": loss.item()} | grads


def pair_cases():
    rewards = [(1.5, -0.25), (-0.25, 1.5), (0.0, 0.0), (30.0, -30.0), (-30.0, 30.0), (0.125, 0.5)]
    labels = [(None, None), (True, False), (True, True), (False, False)]
    for (name, margins), (chosen, rejected) in itertools.product(MARGINS.items(), rewards):
        for strength, margin in enumerate(margins):
            chosen_safe, rejected_safe = labels[strength]
            weight = 0.3

            def loss(chosen, rejected):
                total = -F.logsigmoid(chosen - rejected - margin)
                for reward, is_safe in ((chosen, chosen_safe), (rejected, rejected_safe)):
                    if is_safe is not None:
                        target = torch.tensor(float(is_safe))
                        total = total + weight * F.binary_cross_entropy_with_logits(reward, target)
                return total

            yield case(
                {"chosen": chosen, "rejected": rejected}, loss, margins=name, strength=strength, margin=margin,
                chosen_safe=chosen_safe, rejected_safe=rejected_safe, weight=weight,
            )  # fmt: skip


def dpo_cases():
    inputs = [(-20.0, -25.0, -21.0, -23.5), (-80.25, -40.5, -70.0, -45.0), (-5.0, -5.0, -5.0, -5.0), (-1.0, -900.0, -900.0, -1.0)]
    for (chosen, rejected, chosen_ref, rejected_ref), beta in itertools.product(inputs, (0.1, 0.5)):

        def loss(chosen, rejected):
            return -F.logsigmoid(beta * ((chosen - chosen_ref) - (rejected - rejected_ref)))

        constants = {"chosen_ref": chosen_ref, "rejected_ref": rejected_ref, "beta": beta}
        yield case({"chosen": chosen, "rejected": rejected}, loss, **constants)


def policy_cases():
    moves = [0.0, 0.05, -0.05, 0.17, 0.19, -0.2, -0.23, 1.5, -1.5]
    for move, advantage, clip in itertools.product(moves, (1.25, -0.75), (0.2, 0.1)):
        old = -2.5

        def loss(logprob):
            ratio = (logprob - old).exp()
            return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)

        yield case({"logprob": old + move}, loss, logprob_old=old, advantage=advantage, clip_range=clip)


def value_cases():
    for value, old, target in itertools.product((-1.0, 0.1, 0.25, 2.0), (0.0, 0.2), (-0.45, 0.15, 1.05)):
        clip = 0.2

        def loss(value):
            clipped = old + (value - old).clamp(-clip, clip)
            return 0.5 * torch.maximum((value - target) ** 2, (clipped - target) ** 2)

        yield case({"value": value}, loss, value_old=old, target=target, clip_range=clip)


def gae_cases(draw):
    for n, gamma, lam in [(1, 1.0, 0.95), (7, 1.0, 0.95), (7, 0.9, 0.5), (12, 1.0, 1.0), (5, 0.99, 0.0)]:
        rewards, values = draw(n), draw(n)
        after = torch.cat([values[1:], torch.zeros(1)])
        errors = rewards + gamma * after - values
        advantages = [sum((gamma * lam) ** (s - t) * errors[s] for s in range(t, n)).item() for t in range(n)]
        yield {
            "rewards": rewards.tolist(), "values": values.tolist(), "gamma": gamma, "lambda": lam,
            "advantages": advantages, "returns": (torch.tensor(advantages) + values).tolist(),
        }  # fmt: skip


def whiten_cases(draw):
    for values in (draw(2), draw(17), 1e4 + 0.01 * draw(9)):
        whitened = (values - values.mean()) / (values.var(correction=0) + 1e-8).sqrt()
        yield {"values": values.tolist(), "whitened": whitened.tolist()}


def subset_cases(draw):
    scores = draw(9).tolist()
    scores[4] = scores[1]
    for n in range(1, 10):
        subsets = list(itertools.combinations(scores, n))
        mean = lambda of: statistics.fmean(of(subset) for subset in subsets)
        yield {"scores": scores, "n": n, "max": mean(max), "median": mean(statistics.median)}


def token_rewards(draw):
    logprobs, logprobs_ref = -draw(6).abs(), -draw(6).abs()
    rewards = -0.01 * (logprobs - logprobs_ref)
    rewards[-1] += 0.75
    inputs = {"logprobs": logprobs.tolist(), "logprobs_ref": logprobs_ref.tolist(), "kl_coef": 0.01, "score": 0.75}
    return inputs | {"rewards": rewards.tolist()}


def distributions(draw):
    """Two over seven tokens: their divergence and the first one's entropy; of k3, its mean, which is the divergence."""
    logits, logits_ref = draw(7), draw(7)
    p, q = torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(logits=logits_ref)
    log_ratio = q.logits - p.logits
    return {
        "logits": logits.tolist(), "logprobs": p.logits.tolist(), "logprobs_ref": q.logits.tolist(),
        "entropy": p.entropy().item(), "kl": torch.distributions.kl_divergence(p, q).item(),
        "k3": (log_ratio.exp() - 1 - log_ratio).tolist(),
    }  # fmt: skip


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(7)
    draw = lambda n: torch.randn(n, generator=generator)
    probabilities = torch.tensor([0.001, 0.15, 0.5, 0.9, 0.9999])
    golden = {
        "pair": list(pair_cases()),
        "dpo": list(dpo_cases()),
        "policy": list(policy_cases()),
        "value": list(value_cases()),
        "gae": list(gae_cases(draw)),
        "whiten": list(whiten_cases(draw)),
        "subsets": list(subset_cases(draw)),
        "token_rewards": token_rewards(draw),
        "logit": {"probabilities": probabilities.tolist(), "logits": torch.logit(probabilities).tolist()},
        "distributions": distributions(draw),
    }
    TARGET.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")
