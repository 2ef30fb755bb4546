"""Writes testdata/stories260K.json: 200 greedy tokens of models/stories260K.bin after each prompt.

The network is llama2c_reference.py; the prompts are tokenised by PyPI sentencepiece. `margin` is
the smallest lead of the best logit over the second: the tokens depend on no rounding smaller than it.
With a folder of llama2.c as argument, its run.c is compiled and must print the same text.
Run: python testdata/scripts/stories_golden.py [LLAMA2C_FOLDER]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece

from llama2c_reference import Model

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = "models/stories260K.bin"
CHECKPOINT = ROOT / FILE
TOKENIZER = ROOT / "models" / "stories260K.tokenizer.model"
N_TOKENS = 200
PROMPTS = ["", "Once upon a time", "Tim and Sue went to the zoo. They saw a"]


def greedy(prompt_ids):
    model = Model(CHECKPOINT)
    margin, tokens = np.inf, []
    for pos in range(len(prompt_ids) + N_TOKENS - 1):
        token = prompt_ids[pos] if pos < len(prompt_ids) else tokens[-1]
        logits = model.forward(token, pos)
        if pos + 1 >= len(prompt_ids):
            second, best = np.sort(logits)[-2:]
            margin = min(margin, float(best - second))
            tokens.append(int(logits.argmax()))
    return tokens, margin


def write_tokenizer_bin(sp, path):
    """llama2.c's tokenizer.bin: the longest piece's length, then score, length and text of each."""
    texts = []
    for i in range(sp.vocab_size()):
        text = sp.id_to_piece(i).replace("\u2581", " ")
        texts.append({1: "\n<s>\n", 2: "\n</s>\n"}.get(i, text).encode())
    with path.open("wb") as out:
        out.write(np.int32(max(map(len, texts))).tobytes())
        for i, text in enumerate(texts):
            out.write(np.float32(sp.get_score(i)).tobytes() + np.int32(len(text)).tobytes() + text)


def check_against_run_c(source, sp, cases):
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        subprocess.run(["cc", "-O2", "-o", tmp / "run", Path(source) / "run.c", "-lm"], check=True)
        write_tokenizer_bin(sp, tmp / "tokenizer.bin")
        for case in cases:
            steps = len(case["prompt_ids"]) - 1 + N_TOKENS
            command = [tmp / "run", CHECKPOINT, "-z", tmp / "tokenizer.bin", "-t", "0"]
            command += ["-n", str(steps), "-i", case["prompt"]]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            assert printed.rstrip("\n") == case["text"].rstrip("\n"), (printed, case["text"])
    print("run.c prints the same")


def main():
    sp = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
    cases = []
    for prompt in PROMPTS:
        prompt_ids = [sp.bos_id()] + sp.encode(prompt)
        tokens, margin = greedy(prompt_ids)
        assert sp.bos_id() not in tokens, "llama2.c would stop there"
        text = sp.decode(prompt_ids + tokens)
        case = {"file": FILE, "prompt": prompt, "prompt_ids": prompt_ids}
        cases.append(case | {"tokens": tokens, "text": text, "margin": margin})
        print(f"{prompt!r}: margin {margin:.4f}")
    if len(sys.argv) > 1:
        check_against_run_c(sys.argv[1], sp, cases)
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    (ROOT / "testdata" / "stories260K.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
