"""One side of ppo.py: an iteration of PPO in PyTorch, written plainly, on a checkpoint of Puna's.

    python ppo_worker.py POLICY REWARD_MODEL THREADS PROMPTS NEW_TOKENS ROUNDS

Answers by `transformers`' own generation with its KV cache; log-probabilities of policy and frozen reference, two reward
models, GAE, and one update, under bf16 autocast with f32 weights. Prints seconds of rollouts and of whole iterations.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

KL_COEF, CLIP, GAMMA, LAMBDA, VALUE_COEF, TEMPERATURE = 0.01, 0.2, 1.0, 0.95, 0.1, 1.0


def logprobs_and_values(model, head, ids, n_prompt):
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state[:, n_prompt - 1 : -1]
        logits = model.lm_head(hidden)
    chosen = logits.float().log_softmax(-1).gather(2, ids[:, n_prompt:, None])[..., 0]
    return chosen, (hidden.float() @ head) if head is not None else None


def iteration(policy, reference, rewards, head, optimizer, prompts, n_new):
    begun = time.perf_counter()
    n_prompt = prompts.shape[1]
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            ids = policy.generate(
                prompts, do_sample=True, temperature=TEMPERATURE, top_k=0, top_p=1.0, min_new_tokens=n_new,
                max_new_tokens=n_new, pad_token_id=0, attention_mask=torch.ones_like(prompts),
            )  # fmt: skip
        rollout = time.perf_counter() - begun
        with torch.autocast("cpu", torch.bfloat16):
            scores = torch.stack([model(ids).logits[:, 0].float() for model in rewards])
        score = torch.where(torch.sigmoid(scores[1]) < 0.15, scores[1], scores[0])
        score = (score - score.mean()) / (score.std(unbiased=False) + 1e-8)
        old, values_old = logprobs_and_values(policy, head, ids, n_prompt)
        fixed, _ = logprobs_and_values(reference, None, ids, n_prompt)
        reward = -KL_COEF * (old - fixed)
        reward[:, -1] += score
        advantages, last = torch.zeros_like(reward), torch.zeros(len(ids))
        for t in reversed(range(n_new)):
            after = values_old[:, t + 1] if t + 1 < n_new else torch.zeros(len(ids))
            last = reward[:, t] + GAMMA * after - values_old[:, t] + GAMMA * LAMBDA * last
            advantages[:, t] = last
        returns = advantages + values_old
        advantages = (advantages - advantages.mean()) / (advantages.std(unbiased=False) + 1e-8)
    logprobs, values = logprobs_and_values(policy, head, ids, n_prompt)
    ratio = (logprobs - old).exp()
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()
    loss = loss + VALUE_COEF * 0.5 * F.mse_loss(values, returns)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([*policy.parameters(), head], 1.0)
    optimizer.step()
    return rollout, time.perf_counter() - begun


if __name__ == "__main__":
    policy_path, reward_path = sys.argv[1:3]
    threads, n_prompts, n_new, rounds = map(int, sys.argv[3:7])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    policy = LlamaForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    reference = LlamaForCausalLM.from_pretrained(policy_path, dtype=torch.float32).eval()
    rewards = [LlamaForSequenceClassification.from_pretrained(reward_path, dtype=torch.float32).eval() for _ in range(2)]
    head = torch.zeros(policy.config.hidden_size, requires_grad=True)
    optimizer = torch.optim.AdamW([*policy.parameters(), head], lr=1e-6, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1)
    prompts = torch.randint(3, policy.config.vocab_size, (n_prompts, 64))
    found = [iteration(policy, reference, rewards, head, optimizer, prompts, n_new) for _ in range(rounds + 1)]
    # The first meets memory that was never touched.
    print(json.dumps({"rollout": [r for r, _ in found[1:]], "whole": [w for _, w in found[1:]]}))
