"""Writes testdata/llama_cpp.json: greedy tokens that llama.cpp gives for GGUF files.

For each file up to 30 tokens after a prompt, with an f32 cache. llama.cpp rounds where we do not
(activations to the weights' type), so a list ends before the first token whose lead over the second
is under 0.3 % of the largest logit: what remains is the same in any careful implementation.
With a folder that holds llama-2-tiny-random.gguf as argument, its list is made anew, else kept.
Run: python testdata/scripts/llama_cpp_golden.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from safetensors.numpy import load_file

TESTDATA = Path(__file__).resolve().parent.parent
N_TOKENS = 30
SURE = 0.003
CASES = [
    ("models/mha/gguf/f32.gguf", "golden"),
    ("models/mha/gguf/f16.gguf", "golden-f16"),
    ("models/gqa/gguf/f32-00001-of-00002.gguf", "golden"),
    ("models/tied/gguf/f32.gguf", "golden"),
    ("models/rope-linear/gguf/f32.gguf", "golden"),
    ("models/rope-yarn/gguf/f32.gguf", "golden"),
]
OUTSIDE = "llama-2-tiny-random.gguf"
PROMPT = [1, 9038, 2501, 263, 931]  # "Once upon a time" by Llama 2's vocabulary
TARGET = TESTDATA / "llama_cpp.json"


def open_model(path):
    return llama_cpp.Llama(
        str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip


def greedy(model, prompt_ids):
    tokens, feed = [], prompt_ids
    while len(tokens) < N_TOKENS:
        model.eval(feed)
        logits = np.array(model.scores[model.n_tokens - 1])
        second, best = np.sort(logits)[-2:]
        if best - second < SURE * np.abs(logits).max():
            break
        feed = [int(logits.argmax())]
        tokens += feed
    return tokens


def check_logits(model, golden, name):
    """llama.cpp and transformers agree on the prompt, as far as llama.cpp's rounding allows."""
    model.reset()
    model.eval(golden["ids"].tolist())
    logits = np.array(model.scores[: len(golden["ids"])])
    error = np.abs(logits - golden["logits"]).max() / np.abs(golden["logits"]).max()
    print(f"{name}: {error:.1e} of the largest logit apart from transformers")
    assert error < 0.005, name


def main():
    out = []
    for file, golden_name in CASES:
        golden = load_file((TESTDATA / file).parent.parent / f"{golden_name}.safetensors")
        model = open_model(TESTDATA / file)
        check_logits(model, golden, file)
        for n_prompt in (5, 12):
            prompt_ids = golden["ids"][:n_prompt].tolist()
            model.reset()
            out.append({"file": f"testdata/{file}", "prompt_ids": prompt_ids, "tokens": greedy(model, prompt_ids)})
    if len(sys.argv) > 1:
        model = open_model(Path(sys.argv[1]) / OUTSIDE)
        out.append({"file": OUTSIDE, "prompt_ids": PROMPT, "tokens": greedy(model, PROMPT)})
    else:
        out += [case for case in json.loads(TARGET.read_text()) if case["file"] == OUTSIDE]
    for case in out:
        print(f"{case['file']}: {len(case['tokens'])} tokens")
    lines = ",\n".join("  " + json.dumps(case) for case in out)
    TARGET.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
