"""Tunes the smallest built-in model with Puna, and repeats it in PyTorch, written from the formulas.

    python testdata/scripts/tuned_peers.py PUNA [--golden]

One batch holds all data, so the order of sequences does not matter. Compared, in f32: losses of three steps and lengths
of their gradients, for fine-tuning (all weights, and adapters by `peft`), a reward model (each margin, the safety loss)
and DPO. Stages that draw answers are repeated on what they drew: rejection sampling, whose choice must be the answer that
`transformers` scores highest; context distillation, which must keep what it scores higher; and Ghost Attention, which
learns last answers alone. Checkpoints are then loaded by `transformers` and `peft`, which must score and predict as Puna
does.

With `--golden`, what PyTorch found is written to `testdata/train/tuned.json`, with the configurations and data of these runs;
beside it what Puna finds for PPO, whose answers change with every update, and so have no peer.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece as spm
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
CHATS = [
    ("Tell me about a fox.", "Once there was a fox. She was red."),
    ("And a dog?", "The dog was sad. He had no home, and no friend."),
    ("A boat, please!", "It was blue."),
]
PAIRS = [
    ("Tell me about a fox.", "Once there was a fox.", "No.", 0, "both_safe"),
    ("Tell me about a dog.", "A dog ran home.", "See the boat, it is big.", 1, "chosen_safe"),
    ("Who are you?", "I tell stories.", "I am a king!", 2, "both_unsafe"),
    ("Sing!", "La la la.", "I sing a song of a bird.", 3, "chosen_safe"),
]
LR, STEPS = 1e-3, 3
OPTIMIZER = f"[optimizer]\nlr = {LR}\nwarmup_ratio = 0.0\nmin_warmup_steps = 0\nmin_lr_ratio = 1.0\n"
COMMON = f"model = \"stories260K\"\nseq_len = 256\nbatch = 64\nepochs = {STEPS}\nprecision = \"f32\"\n"


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def log_of(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(record["loss"], record["grad_norm"]) for record in records]


def last_checkpoint(folder):
    return sorted((folder / "checkpoints").iterdir())[-1]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Tokens:
    """Meta's rule: `[INST] user [/INST] answer ` as one text, with BOS and EOS; the answer begins where the prompt ends."""

    def __init__(self):
        self.sp = spm.SentencePieceProcessor(model_file=str(ROOT / "models/stories260K.tokenizer.model"))

    def __call__(self, user, answer):
        prompt = self.sp.encode(f"[INST] {user} [/INST]")
        both = self.sp.encode(f"[INST] {user} [/INST] {answer} ")
        assert both[: len(prompt)] == prompt
        ids = [self.sp.bos_id(), *both, self.sp.eos_id()]
        return torch.tensor([ids]), len(prompt) + 1


def logprobs(model, ids, n_prompt):
    """Of the answer's tokens."""
    logits = model(ids).logits[0, :-1].float().log_softmax(-1)
    return logits.gather(1, ids[0, 1:, None])[n_prompt - 1 :, 0]


def descend(parameters, loss_of):
    """Losses, and lengths of gradients, of plain AdamW steps with the paper's numbers."""
    decayed = [p for p in parameters if p.dim() == 2]
    others = [p for p in parameters if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-5)
    found = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        found.append((loss.item(), norm.item()))
    return found


GOLDEN = []


def keep(name, recipe, config, records, first, by):
    """A run for the golden file: losses and lengths of gradients of its steps from `first` on."""
    GOLDEN.append({"name": name, "recipe": recipe, "config": config, "first": first, "steps": records, "by": by})


def compare(what, ours, theirs):
    errors = [abs(a - b) / max(abs(b), 1e-3) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
    assert max(errors) < TOLERANCE, f"{what}: {ours}, PyTorch {theirs}"
    print(f"{what}: losses and gradients of {len(ours)} steps within {max(errors):.1e} of PyTorch's")


def fine_tuning(puna, work, base, tokens):
    text = COMMON + OPTIMIZER + "[[data]]\npath = \"chat.jsonl\"\n[eval]\nfraction = 0.0\n"
    (work / "chat.jsonl").write_text("".join(
        json.dumps({"messages": [{"role": "user", "content": u}, {"role": "assistant", "content": a}]}) + "\n"
        for u, a in CHATS
    ))  # fmt: skip
    batch = [tokens(*chat) for chat in CHATS]
    n = sum(ids.shape[1] - n_prompt for ids, n_prompt in batch)

    def loss_of(model):
        return lambda: -sum(logprobs(model, *part).sum() for part in batch) / n

    (work / "sft.toml").write_text(text)
    run(puna, "sft", work / "sft.toml", "--out", work / "sft")
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = descend(list(model.parameters()), loss_of(model))
    compare("fine-tuning", log_of(work / "sft"), theirs)
    keep("sft", "sft", text, theirs, 0, "PyTorch")

    (work / "lora.toml").write_text(text + "[lora]\nrank = 4\nalpha = 8.0\ntargets = [\"q_proj\", \"k_proj\", \"down_proj\"]\n")
    run(puna, "sft", work / "lora.toml", "--out", work / "lora")
    checkpoint = last_checkpoint(work / "lora")
    # Its first steps from the same new adapters: B is zeros, A that of Puna's own start, which is in no file; so the
    # loss that comes after the steps is compared instead.
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(model, checkpoint)
    theirs = loss_of(tuned)().item()
    merged = work / "merged"
    run(puna, "convert", "stories260K", merged, "--lora", checkpoint, "--dtype", "f32")
    ours = loss_of(LlamaForCausalLM.from_pretrained(merged, dtype=torch.float32))().item()
    assert abs(theirs - ours) < TOLERANCE and ours < log_of(work / "lora")[0][0], f"{ours}, peft {theirs}"
    print(f"adapters: peft gives a loss of {theirs:.5f}, merged by Puna {ours:.5f}")


def reward(puna, work, base, tokens, margin, weight):
    name = f"reward-{margin}-{weight}"
    (work / f"{name}.toml").write_text(
        COMMON + f"margin = \"{margin}\"\nsafety_weight = {weight}\n" + OPTIMIZER
        + "[[data]]\npath = \"pairs.jsonl\"\n[eval]\nfraction = 0.0\n[checkpoint]\nevery = 1\nkeep = 9\n"
    )  # fmt: skip
    run(puna, "reward", "train", work / f"{name}.toml", "--out", work / name)
    ours = log_of(work / name)
    # The new head is in no file: PyTorch goes on from the first checkpoint, with AdamW's memory of that step.
    first = sorted((work / name / "checkpoints").iterdir())[0]
    model = LlamaForSequenceClassification.from_pretrained(first, dtype=torch.float32)
    margins = {"none": [0, 0, 0, 0], "small": [0, 1 / 3, 2 / 3, 1], "large": [0, 1, 2, 3]}[margin]
    safe = {"both_safe": (1.0, 1.0), "chosen_safe": (1.0, 0.0), "both_unsafe": (0.0, 0.0)}

    def loss():
        total = 0
        for user, chosen, rejected, strength, safety in PAIRS:
            r = [model(tokens(user, answer)[0]).logits[0, 0] for answer in (chosen, rejected)]
            total = total - F.logsigmoid(r[0] - r[1] - margins[strength])
            for score, label in zip(r, safe[safety], strict=True):
                total = total + weight * F.binary_cross_entropy_with_logits(score, torch.tensor(label))
        return total / len(PAIRS)

    value = loss()
    value.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    compare(f"reward model, margin {margin}, safety loss {weight}", ours[1:2], [(value.item(), norm)])
    keep(name, "reward", (work / f"{name}.toml").read_text(), [(value.item(), norm)], 1, "PyTorch")
    last = last_checkpoint(work / name)
    (work / "answers.jsonl").write_text("".join(
        json.dumps({"messages": [{"role": "user", "content": u}, {"role": "assistant", "content": a}]}) + "\n"
        for u, a, *_ in PAIRS
    ))  # fmt: skip
    scored = [json.loads(line)["reward"] for line in run(puna, "reward", "score", last, work / "answers.jsonl").splitlines()]
    model = LlamaForSequenceClassification.from_pretrained(last, dtype=torch.float32)
    theirs = [model(tokens(u, a)[0]).logits[0, 0].item() for u, a, *_ in PAIRS]
    worst = max(abs(a - b) for a, b in zip(scored, theirs, strict=True))
    # `score` multiplies in bf16 where the CPU does.
    assert worst < 0.05, f"{scored}, transformers {theirs}"
    print(f"{name}: scores within {worst:.1e} of transformers'")


def reward_adapters(puna, work, base, tokens):
    text = (work / "reward-none-0.0.toml").read_text()
    (work / "adapted.toml").write_text(text + "[lora]\nrank = 4\nalpha = 8.0\n")
    run(puna, "reward", "train", work / "adapted.toml", "--out", work / "adapted")
    last = last_checkpoint(work / "adapted")
    scored = [json.loads(line)["reward"] for line in run(puna, "reward", "score", last, work / "answers.jsonl").splitlines()]
    model = LlamaForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, last)
    theirs = [model(tokens(u, a)[0]).logits[0, 0].item() for u, a, *_ in PAIRS]
    worst = max(abs(a - b) for a, b in zip(scored, theirs, strict=True))
    assert worst < 0.05, f"{scored}, peft {theirs}"
    print(f"reward model of adapters: scores within {worst:.1e} of peft's")


def dpo(puna, work, base, tokens):
    beta = 0.1
    (work / "dpo.toml").write_text(
        COMMON + f"beta = {beta}\n" + OPTIMIZER + "[[data]]\npath = \"pairs.jsonl\"\n[eval]\nfraction = 0.0\n"
    )
    run(puna, "dpo", work / "dpo.toml", "--out", work / "dpo")
    policy = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    reference = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)

    def loss():
        total = 0
        for user, chosen, rejected, *_ in PAIRS:
            parts = [tokens(user, answer) for answer in (chosen, rejected)]
            with torch.no_grad():
                fixed = [logprobs(reference, *part).sum() for part in parts]
            free = [logprobs(policy, *part).sum() for part in parts]
            total = total - F.logsigmoid(beta * ((free[0] - fixed[0]) - (free[1] - fixed[1])))
        return total / len(PAIRS)

    theirs = descend(list(policy.parameters()), loss)
    compare("DPO", log_of(work / "dpo"), theirs)
    keep("dpo", "dpo", (work / "dpo.toml").read_text(), theirs, 0, "PyTorch")


def sampled(puna, work, tokens):
    """Stages that draw answers and learn from some of them, from a model that knows a few answers by heart."""
    text = COMMON.replace(f"epochs = {STEPS}", "epochs = 60") + OPTIMIZER.replace(str(LR), "3e-3") + "[[data]]\npath = \"chat.jsonl\"\n"
    (work / "tuned.toml").write_text(text + "[eval]\nfraction = 0.0\n")
    run(puna, "sft", work / "tuned.toml", "--out", work / "tuned")
    keep("tuned", "sft", text + "[eval]\nfraction = 0.0\n", log_of(work / "tuned")[-3:], 57, "Puna")
    policy, judge = (last_checkpoint(work / name).relative_to(work) for name in ("tuned", "reward-small-0.5"))
    head = f"model = \"{policy}\"\nmax_new_tokens = 48\nseed = 1\n"
    prompts = "[[prompts]]\npath = \"prompts.jsonl\"\n"
    sft = COMMON.split("\n", 1)[1] + "eval = { every = 0, fraction = 0.0 }\n" + OPTIMIZER.replace("[optimizer]", "[sft.optimizer]")
    rewards = LlamaForSequenceClassification.from_pretrained(work / judge, dtype=torch.float32)

    def score(user, answer):
        """Of a complete answer, as its text has it."""
        return torch.sigmoid(rewards(tokens(user, answer)[0]).logits[0, 0]).item()

    def learned(name, batch):
        n = sum(ids.shape[1] - n_prompt for ids, n_prompt in batch)
        model = LlamaForCausalLM.from_pretrained(work / policy, dtype=torch.float32)
        theirs = descend(list(model.parameters()), lambda: -sum(logprobs(model, *part).sum() for part in batch) / n)
        compare(f"{name}, {len(batch)} dialogues", log_of(work / name), theirs)
        keep(name, name, (work / f"{name}.toml").read_text(), theirs, 0, "PyTorch")

    def stage(name, text):
        (work / f"{name}.toml").write_text(text)
        run(puna, name, work / f"{name}.toml", "--out", work / name)

    stage("reject", f"{head}helpfulness = \"{judge}\"\nk = 3\ntemperature = 1.5\n{prompts}[sft]\n{sft}")
    best = [tuple(m["content"] for m in record["messages"]) for record in lines(work / "reject/best.jsonl")]
    n = 0
    for record in lines(work / "reject/samples.jsonl"):
        user = record["prompt"][0]["content"]
        complete = [a for a in record["answers"] if a["complete"] and a["text"]]
        for answer in complete:
            # Where the tokens that were drawn are those of the text.
            if abs(answer["score"] - score(user, answer["text"])) > 0.01:
                print(f"a score of its text is another: {answer}")
                n += 1
        if complete:
            found = max(complete, key=lambda a: a["score"])["text"]
            assert (user, found) in best, f"{record}, {best}"
    assert n <= 2 and len(best) >= 3, best
    learned("reject", [tokens(*pair) for pair in best])

    stage("distill", f"{head}safety = \"{judge}\"\ntemperature = 1.5\npreprompts = [\"Be kind.\"]\n{prompts}[sft]\n{sft}")
    kept = [tuple(m["content"] for m in record["messages"]) for record in lines(work / "distill/kept.jsonl")]
    better = [
        (record["prompt"][0]["content"], record["distilled"])
        for record in lines(work / "distill/distilled.jsonl")
        if record["complete"] and record["distilled"] and record["distilled_score"] > record["plain_score"]
    ]
    assert kept == better and kept, (kept, better)
    learned("distill", [tokens(*pair) for pair in kept])

    constraint = (
        "[[constraints]]\nlong = \"Tell me about a {}.\"\nshort = \"A {}.\"\nvalues = [\"fox\"]\nquestion = \"Tell me about it.\"\n"
    )
    turns = "n_dialogues = 4\nmax_turns = 3\nn_recall = 2\nturns = [\"Tell me about a fox.\", \"A boat, please!\"]\n"
    stage("gatt", f"{head}{turns}{constraint}[sft]\n{sft}")
    batch = []
    for record in lines(work / "gatt/dialogues.jsonl"):
        said = [m["content"] for m in record["messages"]]
        parts = [tokens(*turn) for turn in zip(said[::2], said[1::2], strict=True)]
        ids = torch.cat([part[0] for part in parts], 1)
        batch.append((ids, ids.shape[1] - parts[-1][0].shape[1] + parts[-1][1]))
    learned("gatt", batch)


def drawn(puna, work):
    """PPO, whose answers change with every update: what Puna finds."""
    model, judge = "model = \"stories260K\"\n", "reward-small-0.5/checkpoints/step-00000003"
    file = "[[prompts]]\npath = \"prompts.jsonl\"\n"
    text = (
        f"{model}helpfulness = \"{judge}\"\nbatch = 4\nmini_batch = 4\niterations = {STEPS}\nmax_new_tokens = 24\n"
        f"precision = \"f32\"\n{file}[optimizer]\nlr = {LR}\n[eval]\nevery = 0\n"
    )
    (work / "ppo.toml").write_text(text)
    run(puna, "ppo", work / "ppo.toml", "--out", work / "ppo")
    keep("ppo", "ppo", text, log_of(work / "ppo"), 0, "Puna")


if __name__ == "__main__":
    program, tokenize = Path(sys.argv[1]).resolve(), Tokens()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run(program, "convert", "stories260K", folder / "base", "--dtype", "f32")
        (folder / "pairs.jsonl").write_text("".join(
            json.dumps({"prompt": [{"role": "user", "content": u}], "chosen": c, "rejected": r, "strength": n, "safety": s}) + "\n"
            for u, c, r, n, s in PAIRS
        ))  # fmt: skip
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": u}) + "\n" for u, *_ in PAIRS))
        fine_tuning(program, folder, folder / "base", tokenize)
        for case in [("none", 0.0), ("small", 0.0), ("large", 0.0), ("small", 0.5)]:
            reward(program, folder, folder / "base", tokenize, *case)
        reward_adapters(program, folder, folder / "base", tokenize)
        dpo(program, folder, folder / "base", tokenize)
        sampled(program, folder, tokenize)
        if "--golden" in sys.argv[2:]:
            drawn(program, folder)
            files = {f"{name}.jsonl": (folder / f"{name}.jsonl").read_text() for name in ("chat", "pairs", "prompts")}
            path = ROOT / "testdata/train/tuned.json"
            path.write_text(json.dumps({"files": files, "runs": GOLDEN}, indent=1) + "\n")
