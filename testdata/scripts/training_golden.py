"""Writes testdata/tokenizer/trained-*.model: what PyPI `sentencepiece` learns from the committed hard strings.

    python testdata/scripts/training_golden.py

Made with Python 3.11, sentencepiece 0.2.3. Settings are Llama 2's. The text is the strings of strings.bin, a line
each; left out are lines with a rare character (there are 20,000, too many pieces for a small file) or a text that
`sentencepiece` reserves. Its table of scripts is that of an old Unicode; newer characters may give other pieces.
"""

import io
import tempfile
from collections import Counter
from pathlib import Path

import sentencepiece as spm

from tokenizer_golden import OUT, read_strings

N_CHARS = 800
CASES = {
    "plain": dict(vocab_size=3000, character_coverage=1.0),
    "user": dict(vocab_size=1500, character_coverage=0.98, user_defined_symbols=["<fim>", "été", "of", "12", "\u2581the"]),
}


def lines():
    """Every line that is only text, of the most frequent characters."""
    reserved = ["\0", "\x1f", "\u2585", "<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    lines = "\n".join(read_strings()).split("\n")
    lines = [line for line in lines if line and not any(text in line for text in reserved)]
    frequent = {c for c, _ in Counter("".join(lines)).most_common(N_CHARS)}
    return [line for line in lines if frequent.issuperset(line)]


def train(text, **settings):
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        input=text, model_writer=model, model_type="bpe", normalization_rule_name="identity",
        remove_extra_whitespaces=False, byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True,
        max_sentence_length=1 << 30, num_threads=2, minloglevel=2, **settings,
    )  # fmt: skip
    return model.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text")
        text.write_bytes("".join(line + "\n" for line in lines()).encode())
        for name, settings in CASES.items():
            model = train(str(text), **settings)
            (OUT / f"trained-{name}.model").write_bytes(model)
            print(name, len(model), "bytes")
